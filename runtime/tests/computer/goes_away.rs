//! Clients that go away, over real sockets: whatever a call is at just then, it ends, and what it held is free.

use std::sync::Arc;
use std::time::Duration;

use nigh_proto::ingress::Ingress;
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::{Call, CallLimits, Endpoint, Limits, channel};
use nigh_runtime::{Computer, Config};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::guests;
use crate::set_up::*;

/// A computer behind a socket.
async fn serve(config: Config) -> (Arc<Computer>, Endpoint) {
    let computer = Computer::new(config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    let service = Ingress::service(computer.clone(), CallLimits::default());
    tokio::spawn(channel::server().add_service(service).serve_with_incoming(channel::incoming(listener)));
    (computer, endpoint)
}

/// A client with a connection of its own that makes one call.
fn client(endpoint: &Endpoint, call: Call) -> JoinHandle<()> {
    let mut client = FunctionsClient::new(channel::connect_lazy(endpoint));
    tokio::spawn(async move { drop(client.invoke(call.to_request(std::time::Instant::now())).await) })
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_call_waits_for_its_turn() {
    let (computer, endpoint) = serve(Config { workers: 1, ..config() }).await;
    deploy(&computer, "loops", &guests::loops(), Limits { concurrency: 1, ..limits() }).await;
    let running = client(&endpoint, call("loops", ""));
    until("one runs", || computer.load().running == 1).await;
    let waiting = client(&endpoint, call("loops", ""));
    until("one waits", || computer.load().queued == 1).await;
    waiting.abort();
    until("its place is free", || computer.load().queued == 0).await;
    assert_eq!(computer.load().running, 1, "the other goes on");
    running.abort();
    until("all is free", || computer.under_way() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_function_computes() {
    let (computer, endpoint) = serve(config()).await;
    deploy(&computer, "loops", &guests::loops(), limits()).await;
    let running = client(&endpoint, call("loops", ""));
    until("it runs", || computer.load().running == 1).await;
    running.abort();
    until("its function is stopped", || computer.under_way() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_function_sleeps() {
    let (computer, endpoint) = serve(config()).await;
    deploy(&computer, "sleeps", &guests::sleeps(), limits()).await;
    let asleep = client(&endpoint, call("sleeps", 5_000_000_000u64.to_le_bytes()));
    until("it sleeps", || computer.load().running == 1).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    asleep.abort();
    until("its instance is gone", || computer.under_way() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_crowds_at_any_moment() {
    let few = Config { workers: 2, resident_functions_max: 1, ..config() };
    let (computer, endpoint) = serve(few).await;
    // Two functions that take each other's place in memory, so that some calls wait for code to be loaded.
    for name in ["loops", "loops-too"] {
        deploy(&computer, name, &guests::loops(), Limits { concurrency: 2, ..limits() }).await;
    }
    for round in 0..10u64 {
        let calls: Vec<_> = (0..10u32)
            .map(|n| client(&endpoint, call(if n.is_multiple_of(2) { "loops" } else { "loops-too" }, "")))
            .collect();
        tokio::time::sleep(Duration::from_millis(round)).await;
        calls.iter().for_each(JoinHandle::abort);
    }
    until("all is free", || computer.under_way() == 0).await;
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    assert_eq!(answer(&computer, "echo", "and well").await, b"and well");
}
