//! What one call leaves behind for the next: nothing, unless deployed with reuse; and versions do not mix.

use std::time::Instant;

use nigh_proto::Limits;
use nigh_proto::ingress::Handler as _;

use crate::guests;
use crate::set_up::*;

#[tokio::test]
async fn no_trace_of_one_call_is_visible_to_the_next() {
    let computer = computer();
    deploy(&computer, "traces", &guests::leaves_traces(), limits()).await;
    for _ in 0..50 {
        assert_eq!(answer(&computer, "traces", "").await, [0]);
    }
    deploy(&computer, "traces", &guests::leaves_traces(), Limits { reuse: 2, ..limits() }).await;
    assert_eq!(answer(&computer, "traces", "").await, [0]);
    assert_eq!(answer(&computer, "traces", "").await, [7], "the traces are real");
}

#[tokio::test]
async fn an_instance_serves_as_many_calls_as_deployed_and_none_after_a_fault() {
    let computer = computer();
    let reuse = Limits { reuse: 3, concurrency: 1, memory_bytes: 128 << 20, ..limits() };
    deploy(&computer, "counts", &guests::counts(), reuse.clone()).await;
    for expected in [1, 2, 3, 1, 2] {
        assert_eq!(answer(&computer, "counts", "").await, [expected]);
    }
    assert_eq!(error(&computer, "counts", "t").await.0, "trap");
    assert_eq!(answer(&computer, "counts", "").await, [1], "after a trap");
    assert_eq!(answer(&computer, "counts", "g").await, [2]);
    assert_eq!(answer(&computer, "counts", "").await, [1], "after it grew large");
    deploy(&computer, "counts", &guests::counts(), Limits { reuse: 4, ..reuse }).await;
    assert_eq!(answer(&computer, "counts", "").await, [1], "another version");
}

#[tokio::test]
async fn versions_switch_under_calls_and_old_calls_finish_on_the_old_one() {
    let computer = computer();
    deploy(&computer, "f", &guests::sleeps(), limits()).await;
    let old = {
        let (computer, call) = (computer.clone(), call("f", 100_000_000u64.to_le_bytes()));
        tokio::spawn(async move { computer.handle(call, Instant::now()).await.unwrap() })
    };
    until("the old version runs", || computer.load().running == 1).await;
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let computer = computer.clone();
            tokio::spawn(async move {
                for _ in 0..300 {
                    assert!(invoke(&computer, call("f", [0; 8])).await.is_ok());
                }
            })
        })
        .collect();
    for round in 0..20 {
        deploy(&computer, "f", &guests::says(&format!("version {round}")), limits()).await;
        assert_eq!(answer(&computer, "f", "").await, format!("version {round}").as_bytes());
    }
    // A version that cannot be prepared leaves the one before in use.
    try_deploy(&computer, "f", "(module)", limits()).await.unwrap_err();
    assert_eq!(answer(&computer, "f", "").await, b"version 19");
    let (sleeping, _) = deployment("f", &guests::sleeps(), limits(), Vec::new());
    assert_eq!(old.await.unwrap().version, Some(sleeping.version));
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn a_removed_function_finishes_its_calls_and_is_unknown_from_then_on() {
    let computer = computer();
    deploy(&computer, "f", &guests::sleeps(), limits()).await;
    let running = {
        let (computer, call) = (computer.clone(), call("f", 50_000_000u64.to_le_bytes()));
        tokio::spawn(async move { computer.handle(call, Instant::now()).await })
    };
    until("it runs", || computer.load().running == 1).await;
    computer.remove(&"f".parse().unwrap());
    assert_eq!(refusal(&computer, call("f", "")).await.0, nigh_proto::Reason::UnknownFunction);
    assert!(running.await.unwrap().is_ok());
}
