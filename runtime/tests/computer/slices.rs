//! Guests compute in slices: long ones leave room for brief ones, those that wait hold nobody, and none holds a thread
//! that serves the network.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::ingress::Handler as _;
use nigh_proto::{Limits, Outcome};
use nigh_runtime::{Computer, Config};

use crate::guests;
use crate::set_up::*;

#[tokio::test]
async fn brief_calls_go_on_while_long_ones_hold_every_worker() {
    let computer = Computer::new(Config { workers: 2, ..config() }).unwrap();
    deploy(&computer, "loops", &guests::loops(), limits()).await;
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    let occupied: Vec<_> = (0..4).map(|_| occupy(&computer, "loops", "")).collect();
    until("the workers are taken", || computer.load().running >= 2).await;
    // The first are unknown, the others known to be brief.
    for _ in 0..20 {
        assert_eq!(answer(&computer, "echo", "quick").await, b"quick");
    }
    assert!(computer.load().running >= 2, "the long ones went on");
    occupied.iter().for_each(tokio::task::JoinHandle::abort);
    until("all are cancelled", || computer.under_way() == 0).await;
}

/// Filling all that memory takes some 500 ms, most of it in the kernel. As a process of its own compiles it, too.
#[tokio::test]
async fn a_limit_of_time_holds_within_one_instruction() {
    let hasty = Limits { memory_bytes: 512 << 20, timeout: Duration::from_millis(10), ..limits() };
    for compiler in [None, Some(compiler())] {
        let computer = Computer::new(Config { compiler, ..config() }).unwrap();
        deploy(&computer, "fills", &guests::fills(), hasty.clone()).await;
        let mut shortest = Duration::MAX;
        // The machine may be busy with something else for a while, though not each time.
        for _ in 0..5 {
            let began = Instant::now();
            assert_eq!(error(&computer, "fills", "").await.0, "time-limit");
            shortest = shortest.min(began.elapsed());
        }
        assert!(shortest < Duration::from_millis(120), "the shortest took {shortest:?}");
    }
}

#[tokio::test]
async fn guests_that_wait_for_their_host_hold_no_worker() {
    let computer = Computer::new(Config { workers: 1, ..config() }).unwrap();
    deploy(&computer, "sleeps", &guests::sleeps(), limits()).await;
    let nap = 200_000_000u64.to_le_bytes();
    let naps: Vec<_> = (0..8).map(|_| occupy(&computer, "sleeps", nap)).collect();
    until("all sleep", || computer.load().running == 8 && computer.load().queued == 0).await;
    for nap in naps {
        assert!(matches!(nap.await.unwrap(), Some(Outcome::Answer { .. })));
    }
}

#[tokio::test]
async fn a_guest_that_waits_for_its_host_is_bounded_too() {
    let computer = computer();
    let hasty = Limits { timeout: Duration::from_millis(50), ..limits() };
    deploy(&computer, "sleeps", &guests::sleeps(), hasty).await;
    let (kind, message) = error(&computer, "sleeps", 3_600_000_000_000u64.to_le_bytes()).await;
    assert_eq!(kind, "time-limit", "{message}");
    let gone = occupy(&computer, "sleeps", 3_600_000_000_000u64.to_le_bytes());
    until("it sleeps", || computer.load().running == 1).await;
    gone.abort();
    until("it is woken and ended", || computer.under_way() == 0).await;
}

/// One thread serves here. Were it held by a guest, nothing would end this test but the guest's time limit.
#[tokio::test]
async fn a_call_that_was_expected_to_be_brief_leaves_the_thread_that_serves() {
    let computer = computer();
    deploy(&computer, "may-loop", &guests::may_loop(), Limits { timeout: LONG, ..limits() }).await;
    for _ in 0..20 {
        answer(&computer, "may-loop", "").await;
    }
    let began = Instant::now();
    let looping = occupy(&computer, "may-loop", "loop");
    until("it runs elsewhere", || computer.load().running == 1).await;
    for _ in 0..20 {
        answer(&computer, "may-loop", "").await;
    }
    assert!(began.elapsed() < LONG / 4, "the thread was held");
    looping.abort();
    until("it is ended", || computer.under_way() == 0).await;
}

#[tokio::test]
async fn a_computer_that_ends_ends_guests_that_compute_and_guests_that_wait() {
    let computer = computer();
    deploy(&computer, "loops", &guests::loops(), limits()).await;
    deploy(&computer, "sleeps", &guests::sleeps(), limits()).await;
    let calls = [occupy(&computer, "loops", ""), occupy(&computer, "sleeps", 3_600_000_000_000u64.to_le_bytes())];
    until("both run", || computer.load().running == 2).await;
    drop(computer);
    // They hold the computer: it ends with the last of them.
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    for call in calls {
        assert!(call.await.unwrap_err().is_cancelled());
    }
}

/// Makes a call on a task of its own; nothing where the platform refused it.
fn occupy(
    computer: &Arc<Computer>,
    name: &str,
    payload: impl Into<Vec<u8>>,
) -> tokio::task::JoinHandle<Option<Outcome>> {
    let (computer, call) = (computer.clone(), call(name, payload));
    tokio::spawn(async move { computer.handle(call, Instant::now()).await.ok().map(|reply| reply.outcome) })
}
