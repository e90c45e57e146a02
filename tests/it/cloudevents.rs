//! CloudEvents at the HTTP door, sent and read by the SDK that others use.

use std::sync::Arc;

use nigh_proto::tls::HttpClients;
use nigh_tests::edge::Edge;
use nigh_tests::guests;

use super::clients::{run_script, run_script_over_tls, send};

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_sdk_are_calls_and_answers_are_events() {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    edge.deploy("nothing", guests::constant("")).await;
    run_script("cloudevents.mjs", &[&format!("http://{}", edge.http())]).await;
    // What is no event is answered as ever.
    let plain = send(&edge.http(), "POST", "/function/echo", &[("content-type", "application/json")], "{}").await;
    assert_eq!((plain.status, plain.body.as_str(), plain.headers.contains_key("ce-id")), (200, "{}", false));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_sdk_come_over_tls_too() {
    let edge = Edge::start_with(1, |config| {
        config.authority = Some(Arc::new(nigh::ca::Authority::new().unwrap()));
        config.broker.http_clients = HttpClients::Anybody;
    })
    .await;
    edge.deploy("echo", guests::echo()).await;
    edge.deploy("nothing", guests::constant("")).await;
    let authority = edge.authority().certificate();
    run_script_over_tls("cloudevents.mjs", &[&format!("https://{}", edge.http())], Some(authority)).await;
    edge.stop().await;
}
