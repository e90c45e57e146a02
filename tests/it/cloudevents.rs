//! CloudEvents at the HTTP door, sent and read by the SDK that others use.

use nigh_tests::edge::Edge;
use nigh_tests::guests;

use super::clients::{run_script, send};

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
