//! What is tried again elsewhere, what is not, and who is set aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nigh_proto::Reason;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::computer::{FakeComputer, answer, nobody, reply};
use super::*;

/// Two computers of which the first to get a call fails it for this reason; all other calls are answered.
async fn one_of_two_fails(reason: Reason) -> (TestBroker, [FakeComputer; 2]) {
    let failed = Arc::new(AtomicBool::new(false));
    let computer = || {
        let failed = failed.clone();
        FakeComputer::start(move |call| {
            let fails = !failed.swap(true, Ordering::SeqCst);
            async move { if fails { Err(PlatformError::new(reason, "made up")) } else { Ok(answer(&call)) } }
        })
    };
    let computers = [computer().await, computer().await];
    let broker = TestBroker::with_routes(&[&computers[0].endpoint, &computers[1].endpoint]).await;
    (broker, computers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peers_refusal_is_tried_once_more_elsewhere_by_its_reason() {
    for &reason in Reason::ALL {
        for retry_safe in [false, true] {
            let (broker, computers) = one_of_two_fails(reason).await;
            let outcome = broker.invoke(&Call { retry_safe, ..call("x") }).await;
            let elsewhere = match reason {
                Reason::QueueFull
                | Reason::TooBusy
                | Reason::OutOfBudget
                | Reason::NotServing
                | Reason::NotReady
                | Reason::UnknownFunction
                | Reason::Protocol
                | Reason::Unreachable => true,
                // The broker could not prove who it is: of its caller nothing more can be asked.
                Reason::Unauthenticated => true,
                // Another computer may reach the state.
                Reason::StateUnavailable => true,
                Reason::Disconnected | Reason::StateConflict | Reason::StateUnsaved => retry_safe,
                _ => false,
            };
            let tries: usize = computers.iter().map(FakeComputer::calls).sum();
            assert_eq!(tries, 1 + usize::from(elsewhere), "{reason:?} {retry_safe}");
            match outcome {
                Ok(reply) => assert!(elsewhere && payload(&reply) == b"x", "{reason:?} {retry_safe}"),
                Err(error) => assert_eq!((elsewhere, error.reason), (false, reason)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_made_twice_at_most() {
    let refuse = || FakeComputer::start(|_| async { Err(PlatformError::new(Reason::NotReady, "made up")) });
    let computers = [refuse().await, refuse().await, refuse().await];
    let broker = TestBroker::with_routes(&computers.each_ref().map(|computer| &computer.endpoint)).await;
    let error = broker.invoke(&retry_safe("x")).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotReady);
    assert_eq!(computers.iter().map(FakeComputer::calls).sum::<usize>(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_function_is_an_outcome() {
    let fails = FakeComputer::start(|call| async move {
        Ok(reply(&call, Outcome::Error { kind: "panic".into(), message: "at the disco".into() }))
    });
    let (fails, other) = (fails.await, nobody().await);
    let broker = TestBroker::with_routes(&[&fails.endpoint]).await;
    for _ in 0..3 {
        let reply = broker.invoke(&retry_safe("x")).await.unwrap();
        assert!(matches!(reply.outcome, Outcome::Error { kind, .. } if kind == "panic"), "{other}");
    }
    assert_eq!(fails.calls(), 3);
    let destination = broker.destination(&fails.endpoint).await;
    assert_eq!((destination.state.as_str(), destination.failures), ("in-use", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_connected_to_fails_no_call_and_is_set_aside() {
    let (alive, dead) = (FakeComputer::echo().await, nobody().await);
    let broker = TestBroker::with_routes(&[&alive.endpoint, &dead]).await;
    for _ in 0..50 {
        broker.invoke(&call("x")).await.unwrap();
    }
    let destination = broker.destination(&dead).await;
    assert!(destination.state == "set-aside" && destination.failures >= 1 && destination.calls < 10, "{destination:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_be_connected_to_the_call_says_so_at_once() {
    let dead = nobody().await;
    let broker = TestBroker::with_routes(&[&dead]).await;
    let began = Instant::now();
    let error = broker.invoke(&call("x")).await.unwrap_err();
    assert_eq!(error.reason, Reason::Unreachable, "{error}");
    assert!(error.message.contains(dead.as_str()), "{error}");
    assert!(began.elapsed() < 5 * SECOND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_that_dies_under_a_call_loses_it_only_where_running_twice_would_harm() {
    for is_safe in [true, false] {
        let hang = Arc::new(AtomicBool::new(true));
        let began = Arc::new(Notify::new());
        let start = || {
            let (hang, began) = (hang.clone(), began.clone());
            FakeComputer::start(move |call| {
                let hangs = hang.swap(false, Ordering::SeqCst);
                let began = began.clone();
                async move {
                    if hangs {
                        began.notify_one();
                        std::future::pending::<()>().await;
                    }
                    Ok(answer(&call))
                }
            })
        };
        let mut computers = [start().await, start().await];
        let broker = TestBroker::with_routes(&[&computers[0].endpoint, &computers[1].endpoint]).await;
        let call = Call { retry_safe: is_safe, ..call("x") };
        let (outcome, ()) = tokio::join!(broker.invoke(&call), async {
            began.notified().await;
            computers.iter_mut().find(|computer| computer.calls() == 1).unwrap().kill();
        });
        match outcome {
            Ok(reply) => assert!(is_safe && payload(&reply) == b"x"),
            Err(error) => assert_eq!((is_safe, error.reason), (false, Reason::Disconnected), "{error}"),
        }
    }
}

/// Calls under way without end, and what went wrong with those that failed.
struct Load {
    failed: Arc<Mutex<Vec<String>>>,
    done: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Load {
    fn start(broker: &TestBroker, retry_safe: bool) -> Self {
        let (failed, done, stop) =
            (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default(), CancellationToken::new());
        let caller = |_| {
            let (failed, done, stop, client) = (failed.clone(), done.clone(), stop.clone(), broker.client.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let call = Call { retry_safe, ..call("x") };
                    if let Err(error) = client.clone().invoke(call.to_request(Instant::now())).await {
                        failed.lock().push(error.message().to_owned());
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let callers = (0..16).map(caller).collect();
        Self { failed, done, callers, stop }
    }

    /// Waits until so many more calls have ended.
    async fn more(&self, calls: usize) {
        let (done, until) = (&self.done, self.done.load(Ordering::SeqCst) + calls);
        eventually("calls go on", || async move { done.load(Ordering::SeqCst) >= until }).await;
    }

    async fn end(self) -> Vec<String> {
        self.stop.cancel();
        for caller in self.callers {
            caller.await.unwrap();
        }
        std::mem::take(&mut *self.failed.lock())
    }
}

async fn slow_echo() -> FakeComputer {
    FakeComputer::start(|call| async move {
        tokio::time::sleep(2 * MS).await;
        Ok(answer(&call))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_computer_under_load_fails_no_retry_safe_call_and_it_is_used_again_when_back() {
    let mut computers = [slow_echo().await, slow_echo().await];
    let config = Config {
        policy: "random".parse().unwrap(),
        ..config_with_routes(&[&computers[0].endpoint, &computers[1].endpoint])
    };
    let broker = TestBroker::start(config).await;
    let load = Load::start(&broker, true);
    load.more(200).await;
    computers[0].kill();
    let killed = Instant::now();
    load.more(200).await;
    // Or just being probed, as it is at times while it is gone.
    assert_ne!(broker.destination(&computers[0].endpoint).await.state, "in-use");
    let before = computers[0].calls();
    computers[0].restart().await;
    let (restarted, down) = (Instant::now(), killed.elapsed());
    let computer = &computers[0];
    eventually("it is used again", || async move { computer.calls() > before + 10 }).await;
    // Waits double, so the last one is about as long as all before it.
    assert!(restarted.elapsed() < 2 * down + 2 * SECOND, "{:?} after {down:?}", restarted.elapsed());
    assert_eq!(load.end().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_computer_gracefully_under_load_fails_no_call_at_all() {
    let mut computers = [slow_echo().await, slow_echo().await];
    let config = Config {
        policy: "random".parse().unwrap(),
        ..config_with_routes(&[&computers[0].endpoint, &computers[1].endpoint])
    };
    let broker = TestBroker::start(config).await;
    let load = Load::start(&broker, false);
    for at in [0, 1, 0] {
        load.more(200).await;
        computers[at].stop().await;
        load.more(200).await;
        computers[at].restart().await;
        let (broker, endpoint) = (&broker, &computers[at].endpoint);
        eventually("back in use", || async move { broker.destination(endpoint).await.state == "in-use" }).await;
    }
    assert_eq!(load.end().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_computer_is_left_alone_for_as_long_as_it_asks() {
    let wait = 400 * MS;
    let refuses =
        FakeComputer::start(
            move |_| async move { Err(PlatformError::new(Reason::QueueFull, "full").retry_after(wait)) },
        );
    let refuses = refuses.await;
    let broker = TestBroker::with_routes(&[&refuses.endpoint]).await;
    let began = Instant::now();
    assert_eq!(broker.invoke(&call("x")).await.unwrap_err().reason, Reason::QueueFull);
    let error = broker.invoke(&call("x")).await.unwrap_err();
    assert_eq!((error.reason, refuses.calls()), (Reason::QueueFull, 1));
    let told = error.retry_after.unwrap();
    assert!(told <= wait && told > Duration::ZERO, "{told:?}");
    tokio::time::sleep_until((began + wait + 50 * MS).into()).await;
    broker.invoke(&call("x")).await.unwrap_err();
    assert_eq!(refuses.calls(), 2);
}
