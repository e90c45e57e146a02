//! What keeps an edge from harming itself: a budget for retries, hedges for the slow, room kept by priority; and dry runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nigh_proto::{Estimate, Priority, Reason};
use tokio::sync::Notify;

use super::computer::{FakeComputer, answer, reply};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_a_share_of_all_calls() {
    let internal = || FakeComputer::start(|_| async { Err(PlatformError::new(Reason::Disconnected, "made up")) });
    let computers = [internal().await, internal().await];
    let config = config_with_routes(&computers.each_ref().map(|computer| &computer.endpoint));
    let broker = TestBroker::start(Config { retry_share: 0.1, ..config }).await;
    for _ in 0..400 {
        broker.invoke(&retry_safe("x")).await.unwrap_err();
    }
    let tries: usize = computers.iter().map(FakeComputer::calls).sum();
    // A hundred saved up, a tenth of the calls, and ten each second that the test takes.
    assert!((500..750).contains(&tries), "{tries} tries of 400 calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_share_nothing_is_made_twice() {
    let refuse = || FakeComputer::start(|_| async { Err(PlatformError::new(Reason::NotReady, "made up")) });
    let computers = [refuse().await, refuse().await];
    let config = config_with_routes(&computers.each_ref().map(|computer| &computer.endpoint));
    let broker = TestBroker::start(Config { retry_share: 0.0, ..config }).await;
    broker.invoke(&retry_safe("x")).await.unwrap_err();
    assert_eq!(computers.iter().map(FakeComputer::calls).sum::<usize>(), 1);
}

/// Two computers; once told, the next call that reaches either hangs.
async fn one_hangs(hang: &Arc<AtomicBool>) -> [FakeComputer; 2] {
    let start = || {
        let hang = hang.clone();
        FakeComputer::start(move |call| {
            let hangs = hang.swap(false, Ordering::SeqCst);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(answer(&call))
            }
        })
    };
    [start().await, start().await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_that_is_safe_to_retry_is_hedged_where_that_is_asked_for() {
    let hang = Arc::new(AtomicBool::new(false));
    let computers = one_hangs(&hang).await;
    let config = config_with_routes(&computers.each_ref().map(|computer| &computer.endpoint));
    let broker = TestBroker::start(Config { hedge_percent: Some(95), ..config }).await;
    for _ in 0..64 {
        broker.invoke(&retry_safe("x")).await.unwrap();
    }
    hang.store(true, Ordering::SeqCst);
    let hedged = broker.invoke(&retry_safe("y")).await.unwrap();
    assert_eq!(payload(&hedged), b"y");
    hang.store(true, Ordering::SeqCst);
    let unsafe_to_retry = Call { deadline: Instant::now() + 300 * MS, ..call("z") };
    assert_eq!(broker.invoke(&unsafe_to_retry).await.unwrap_err().reason, Reason::Late);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_being_asked_for_no_call_is_hedged() {
    let hang = Arc::new(AtomicBool::new(false));
    let computers = one_hangs(&hang).await;
    let broker = TestBroker::with_routes(&computers.each_ref().map(|computer| &computer.endpoint)).await;
    for _ in 0..64 {
        broker.invoke(&retry_safe("x")).await.unwrap();
    }
    hang.store(true, Ordering::SeqCst);
    let slow = Call { deadline: Instant::now() + 300 * MS, ..retry_safe("y") };
    assert_eq!(broker.invoke(&slow).await.unwrap_err().reason, Reason::Late);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_low_priority_are_shed_first() {
    let go = Arc::new(Notify::new());
    let wait = go.clone();
    let computer = FakeComputer::start(move |call| {
        let wait = wait.clone();
        async move {
            wait.notified().await;
            Ok(answer(&call))
        }
    });
    let computer = computer.await;
    let broker = TestBroker::start(Config { calls_max: 20, ..config_with_routes(&[&computer.endpoint]) }).await;
    let at = |priority| Call { priority, ..call("x") };
    let mut under_way = tokio::task::JoinSet::new();
    let fill = |calls: usize, priority, under_way: &mut tokio::task::JoinSet<_>| {
        for _ in 0..calls {
            let (client, call) = (broker.client.clone(), at(priority));
            under_way.spawn(async move { client.clone().invoke(call.to_request(Instant::now())).await.is_ok() });
        }
    };
    fill(16, Priority::Low, &mut under_way);
    eventually("16 are there", || async { computer.calls() == 16 }).await;
    let low = broker.invoke(&at(Priority::Low)).await.unwrap_err();
    assert_eq!(low.reason, Reason::OutOfBudget, "{low}");
    fill(3, Priority::Normal, &mut under_way);
    eventually("19 are there", || async { computer.calls() == 19 }).await;
    let normal = broker.invoke(&at(Priority::Normal)).await.unwrap_err();
    assert!(low.retry_after.unwrap() > normal.retry_after.unwrap(), "{low:?} {normal:?}");
    fill(1, Priority::High, &mut under_way);
    eventually("20 are there", || async { computer.calls() == 20 }).await;
    assert_eq!(broker.invoke(&at(Priority::High)).await.unwrap_err().reason, Reason::OutOfBudget);
    while !under_way.is_empty() {
        go.notify_waiters();
        if let Ok(Some(ended)) = tokio::time::timeout(10 * MS, under_way.join_next()).await {
            assert!(ended.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_asks_the_one_that_would_answer_soonest_and_runs_nothing() {
    let computer = |ms: u32| {
        FakeComputer::start(move |call| async move {
            if call.dry_run {
                let estimate = Estimate { run: MS * ms, samples: 1, ..Estimate::default() };
                return Ok(reply(&call, Outcome::Estimate(estimate)));
            }
            tokio::time::sleep(MS * ms).await;
            let mut reply = answer(&call);
            reply.timing.run = MS * ms;
            Ok(reply)
        })
    };
    let (slow, fast) = (computer(60).await, computer(5).await);
    let last = TestBroker::with_routes(&[&slow.endpoint, &fast.endpoint]).await;
    for _ in 0..20 {
        last.invoke(&call("x")).await.unwrap();
    }
    let before = (slow.calls(), last.destination(&fast.endpoint).await.calls);
    let dry = Call { dry_run: true, ..call("x") };
    for _ in 0..5 {
        let reply = last.invoke(&dry).await.unwrap();
        assert!(matches!(reply.outcome, Outcome::Estimate(Estimate { run, .. }) if run == 5 * MS), "{reply:?}");
    }
    assert_eq!((slow.calls(), last.destination(&fast.endpoint).await.calls), before, "and it counts as no call");
}
