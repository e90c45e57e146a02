//! Stopping.

use std::sync::Arc;

use nigh_proto::Reason;
use tokio::sync::Notify;

use super::computer::{FakeComputer, answer};
use super::controller::FakeController;
use super::*;

/// A computer that answers once told to.
async fn gated() -> (FakeComputer, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let computer = FakeComputer::start(move |call| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(answer(&call))
        }
    });
    (computer.await, go)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_end_well_new_ones_find_the_door_closed_and_the_controller_knows() {
    let (computer, go) = gated().await;
    let controller = FakeController::start(Vec::new()).await;
    let config =
        Config { controller: Some(controller.endpoint.clone().into()), ..config_with_routes(&[&computer.endpoint]) };
    let broker = TestBroker::start(config).await;
    let client = broker.client.clone();
    let over_grpc =
        tokio::spawn(async move { client.clone().invoke(call("x").to_request(Instant::now())).await.map(drop) });
    let over_http = tokio::spawn(super::http::post(broker.http.clone(), "/function/f", "", "y"));
    let arrived = &computer;
    eventually("both under way", || async move { arrived.calls() == 2 }).await;
    broker.shutdown.cancel();
    let door = broker.calls.to_string();
    let door = &door;
    eventually("no new connections", || async move { tokio::net::TcpStream::connect(door).await.is_err() }).await;
    assert_eq!(controller.withdrawn(), ["broker-1"]);
    assert!(!broker.task.is_finished());
    go.notify_waiters();
    over_grpc.await.unwrap().unwrap();
    let answer = over_http.await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"y".as_slice()));
    tokio::time::timeout(PATIENCE, broker.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_outlast_the_drain_are_cut_off_with_a_word() {
    let (computer, _go) = gated().await;
    let config = Config { drain: 200 * MS, ..config_with_routes(&[&computer.endpoint]) };
    let broker = TestBroker::start(config).await;
    let client = broker.client.clone();
    let cut_off = tokio::spawn(async move { client.clone().invoke(call("x").to_request(Instant::now())).await });
    let arrived = &computer;
    eventually("under way", || async move { arrived.calls() == 1 }).await;
    let began = Instant::now();
    broker.shutdown.cancel();
    let error = PlatformError::from(cut_off.await.unwrap().unwrap_err());
    assert_eq!(error.reason, Reason::Disconnected, "{error}");
    assert!(error.message.contains("stopped"), "{error}");
    assert!(began.elapsed() >= 200 * MS);
    tokio::time::timeout(PATIENCE, broker.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_broker_stops_at_once() {
    let broker = TestBroker::start(config()).await;
    // Connected, with nothing under way.
    broker.routes().await;
    assert!(broker.invoke(&call("x")).await.is_err());
    broker.shutdown.cancel();
    tokio::time::timeout(5 * SECOND, broker.task).await.unwrap().unwrap().unwrap();
}
