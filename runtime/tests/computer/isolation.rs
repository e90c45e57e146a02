//! What one call leaves behind for the next: nothing, unless deployed with reuse; and versions do not mix.

use std::time::{Duration, Instant};

use nigh_proto::ingress::Handler as _;
use nigh_proto::{Limits, Outcome};
use nigh_runtime::{Computer, Config};

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

/// A call's answer, and whether its instance was one made as new.
async fn answer_and_reset(computer: &Computer, name: &str, payload: &str) -> (Vec<u8>, bool) {
    let reply = invoke(computer, call(name, payload)).await.unwrap();
    let Outcome::Answer { payload, .. } = reply.outcome else { panic!("no answer: {:?}", reply.outcome) };
    (payload.to_vec(), !reply.timing.reset.is_zero())
}

#[tokio::test]
async fn an_instance_made_as_new_shows_nothing_of_the_calls_before() {
    let computer = computer();
    let limits = Limits { timeout: Duration::from_millis(60), ..limits() };
    deploy(&computer, "plants", &guests::plants_canaries(), limits).await;
    let mut resets = 0;
    for round in 0..4 {
        for payload in ["", "s", "s", "", "g", "s", "t", "s", "l", "g", "t"] {
            match payload {
                "t" => assert_eq!(error(&computer, "plants", payload).await.0, "trap"),
                "l" => assert_eq!(error(&computer, "plants", payload).await.0, "time-limit"),
                _ => {
                    let (found, is_reset) = answer_and_reset(&computer, "plants", payload).await;
                    assert_eq!(found, [0], "{payload:?} in round {round}");
                    resets += u32::from(is_reset);
                }
            }
        }
    }
    // Wherever the kernel tells what was written, instances are made as new; that this was tested at all must show.
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version: Vec<u32> = kernel.split('.').map_while(|part| part.parse().ok()).collect();
    assert!(resets > 4 || version < vec![6, 7], "{resets} of the instances were made as new");
}

#[tokio::test]
async fn canaries_planted_by_calls_at_once_are_not_found() {
    let computer = computer();
    deploy(&computer, "plants", &guests::plants_canaries(), limits()).await;
    let callers = (0..8).map(|caller| {
        let computer = computer.clone();
        tokio::spawn(async move {
            for round in 0..40 {
                let payload = ["s", "", "g", "s"][(caller + round) % 4];
                assert_eq!(answer(&computer, "plants", payload).await, [0]);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn an_instance_is_kept_no_longer_than_its_function_was_deployed_for() {
    let computer = computer();
    let reuse = Limits { reuse: 1000, concurrency: 1, ..limits() };
    deploy(&computer, "long", &guests::counts(), reuse.clone()).await;
    deploy(&computer, "short", &guests::counts(), Limits { idle: Duration::from_millis(50), ..reuse }).await;
    assert_eq!(answer(&computer, "long", "").await, [1]);
    assert_eq!(answer(&computer, "short", "").await, [1]);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(answer(&computer, "short", "").await, [1], "another instance");
    assert_eq!(answer(&computer, "long", "").await, [2], "the same instance");
}

#[tokio::test]
async fn kept_instances_give_their_places_to_calls() {
    // As many places as instances; every one is kept before the other function wants them all at once.
    let computer = Computer::new(Config { workers: 2, instances_max: 4, ..config() }).unwrap();
    for name in ["a", "b"] {
        deploy(&computer, name, &guests::sleeps(), limits()).await;
    }
    for round in 0..6 {
        let name = ["a", "b"][round % 2];
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let computer = computer.clone();
                tokio::spawn(async move { answer(&computer, name, 2_000_000u64.to_le_bytes()).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), b"");
        }
    }
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
