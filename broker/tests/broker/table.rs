//! Reading and editing the forwarding table.

use nigh_proto::Reason;

use super::computer::FakeComputer;
use super::controller::{FakeController, alive, deployed};
use super::*;

fn set(endpoint: &str, weight: f64) -> v1::SetRouteRequest {
    v1::SetRouteRequest { function: "f".into(), endpoint: endpoint.into(), weight, is_final: None }
}

fn remove(endpoint: &str) -> v1::RemoveRouteRequest {
    v1::RemoveRouteRequest { function: "f".into(), endpoint: endpoint.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_set_by_hand_is_listed_used_and_removed() {
    let computer = FakeComputer::echo().await;
    let broker = TestBroker::start(config()).await;
    let mut table = broker.table_client();
    assert_eq!(broker.invoke(&call("x")).await.unwrap_err().reason, Reason::UnknownFunction);
    table.set_route(set(computer.endpoint.as_str(), 7.5)).await.unwrap();
    let destination = broker.destination(&computer.endpoint).await;
    assert_eq!((destination.weight, destination.by_hand, destination.calls), (7.5, true, 0));
    broker.invoke(&call("x")).await.unwrap();
    let destination = broker.destination(&computer.endpoint).await;
    assert_eq!((destination.state.as_str(), destination.calls, destination.in_flight), ("in-use", 1, 0));
    assert_ne!(destination.weight, 7.5, "measured now");
    table.remove_route(remove(computer.endpoint.as_str())).await.unwrap();
    assert_eq!(broker.invoke(&call("x")).await.unwrap_err().reason, Reason::UnknownFunction);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_tells_the_policy_and_one_function_alone() {
    let broker = TestBroker::start(config()).await;
    let mut table = broker.table_client();
    table.set_route(set("127.0.0.1:2", 1.0)).await.unwrap();
    table.set_route(set("127.0.0.1:1", 1.0)).await.unwrap();
    table.set_route(v1::SetRouteRequest { function: "a".into(), ..set("127.0.0.1:3", 1.0) }).await.unwrap();
    let listed = table.routes(v1::RoutesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.policy, "predict");
    let names: Vec<_> = listed
        .routes
        .iter()
        .flat_map(|route| route.destinations.iter().map(|to| format!("{} {}", route.function, to.endpoint)))
        .collect();
    assert_eq!(names, ["a 127.0.0.1:3", "f 127.0.0.1:1", "f 127.0.0.1:2"]);
    let one =
        table.routes(v1::RoutesRequest { function: "a".into(), ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(one.routes.len(), 1);
    let unknown = table.routes(v1::RoutesRequest { function: "b".into(), ..Default::default() }).await.unwrap_err();
    assert_eq!(PlatformError::from(unknown).reason, Reason::UnknownFunction);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_edits_are_refused_and_change_nothing() {
    let broker = TestBroker::start(config()).await;
    let mut table = broker.table_client();
    table.set_route(set("127.0.0.1:1", 1.0)).await.unwrap();
    let before = broker.routes().await;
    for bad in [
        set("127.0.0.1:2", 0.0),
        set("127.0.0.1:2", -99.0),
        set("127.0.0.1:2", f64::NAN),
        set("127.0.0.1:2", f64::INFINITY),
        set("", 1.0),
        set("nowhere", 1.0),
        v1::SetRouteRequest { function: "No/Such".into(), ..set("127.0.0.1:2", 1.0) },
    ] {
        let status = table.set_route(bad.clone()).await.unwrap_err();
        assert_eq!(PlatformError::from(status).reason, Reason::Malformed, "{bad:?}");
    }
    let status = table.remove_route(remove("127.0.0.1:2")).await.unwrap_err();
    assert_eq!(PlatformError::from(status).reason, Reason::Malformed);
    let unknown = v1::RemoveRouteRequest { function: "g".into(), ..remove("127.0.0.1:1") };
    let status = table.remove_route(unknown).await.unwrap_err();
    assert_eq!(PlatformError::from(status).reason, Reason::UnknownFunction);
    assert_eq!(broker.routes().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_route_that_is_removed_comes_back_with_the_next_news() {
    let computer = FakeComputer::echo().await;
    let told = vec![deployed("f"), alive("computer-1", &computer.endpoint, &["f"])];
    let controller = FakeController::start(told).await;
    let broker = TestBroker::start(Config { controller: Some(controller.endpoint.clone().into()), ..config() }).await;
    eventually("it works", || async { broker.invoke(&call("x")).await.is_ok() }).await;
    broker.table_client().remove_route(remove(computer.endpoint.as_str())).await.unwrap();
    assert_eq!(broker.invoke(&call("x")).await.unwrap_err().reason, Reason::NotReady);
    controller.change(deployed("g"));
    eventually("it is back", || async { broker.invoke(&call("x")).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_from_another_broker_goes_by_the_final_table() {
    let (near, far) = (FakeComputer::echo().await, FakeComputer::echo().await);
    let last = TestBroker::with_routes(&[&near.endpoint]).await;
    // The middle one knows the last one, but would not pass on to it what has passed a broker already.
    let middle = TestBroker::start(config()).await;
    let mut table = middle.table_client();
    table.set_route(v1::SetRouteRequest { is_final: Some(false), ..set(last.calls.as_str(), 1.0) }).await.unwrap();
    let first = TestBroker::start(config()).await;
    let to_middle = v1::SetRouteRequest { is_final: Some(false), ..set(middle.calls.as_str(), 1.0) };
    first.table_client().set_route(to_middle).await.unwrap();

    assert_eq!(middle.invoke(&call("x")).await.unwrap().hops, 2);
    let error = first.invoke(&call("x")).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotReady, "{error}");

    table.set_route(set(far.endpoint.as_str(), 1.0)).await.unwrap();
    eventually("the far computer answers", || async { first.invoke(&call("x")).await.is_ok() }).await;
    assert!(far.calls() > 0);
    let tables = [middle.table_of(v1::Table::Overall).await, middle.table_of(v1::Table::Final).await];
    let lengths = tables.map(|table| table[0].destinations.len());
    assert_eq!(lengths, [2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn flushing_empties_both_tables() {
    let broker = TestBroker::start(config()).await;
    let mut table = broker.table_client();
    table.set_route(set("127.0.0.1:1", 1.0)).await.unwrap();
    table.set_route(v1::SetRouteRequest { function: "g".into(), ..set("127.0.0.1:2", 1.0) }).await.unwrap();
    table.flush_routes(v1::FlushRoutesRequest {}).await.unwrap();
    assert_eq!(broker.routes().await, Vec::new());
    assert_eq!(broker.table_of(v1::Table::Final).await, Vec::new());
    assert_eq!(broker.invoke(&call("x")).await.unwrap_err().reason, Reason::UnknownFunction);
}
