//! Calls one by one and on streams: payloads in parts, cancellation, deadlines, brokers that are away or break.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use nigh_client::{Caller, CallerLimits};
use nigh_proto::ingress::{Handler, Ingress};
use nigh_proto::{Call, CallLimits, Digest, Headers, Load, Outcome, PlatformError, Reason, Reply, Timing};
use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;

/// Answers by the function's name: `echo` its payload, `repeat` its payload eight times, `busy` a refusal, `fail` an
/// error of the function, `never` nothing at all.
#[derive(Default)]
struct Peer {
    waiting: AtomicUsize,
    dropped: Notify,
}

struct Dropped<'a>(&'a Peer);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.dropped.notify_one();
    }
}

impl Handler for Peer {
    async fn handle(&self, call: Call, _arrived: Instant) -> Result<Reply, PlatformError> {
        let answer = |payload| Outcome::Answer { payload, headers: call.headers.clone() };
        let outcome = match call.function.as_str() {
            "echo" => answer(call.payload.clone()),
            "repeat" => answer(call.payload.repeat(8).into()),
            "fail" => Outcome::Error { kind: "bad-input".into(), message: "no".into() },
            "busy" => {
                return Err(PlatformError::new(Reason::QueueFull, "full").retry_after(Duration::from_millis(70)));
            }
            _ => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let _dropped = Dropped(self);
                std::future::pending().await
            }
        };
        Ok(Reply {
            outcome,
            computer: "computer-1".parse().unwrap(),
            responder: None,
            version: Some(Digest::of(b"1")),
            call: call.id,
            hops: 0,
            load: Load::default(),
            timing: Timing { run: Duration::from_micros(5), ..Timing::default() },
            steps: Vec::new(),
            states: Vec::new(),
        })
    }
}

async fn broker() -> (Arc<Peer>, Endpoint) {
    let peer = Arc::new(Peer::default());
    let limits = CallLimits { payload_bytes_max: 8 << 20, ..CallLimits::default() };
    let endpoint = serve(channel::server().add_service(Ingress::service(peer.clone(), limits))).await;
    (peer, endpoint)
}

fn call(function: &str, payload: impl Into<Bytes>) -> Call {
    let headers = Headers::new(vec![("kind".into(), "test".into())]).unwrap();
    Call { headers, ..Call::new(function.parse().unwrap(), payload, PATIENCE) }
}

fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn payload(reply: Reply) -> Bytes {
    match reply.outcome {
        Outcome::Answer { payload, headers } => {
            assert_eq!(headers.get("kind"), Some("test"));
            payload
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn small_and_big_payloads_come_back_whole_with_their_time_accounted_for() {
    let (_, endpoint) = broker().await;
    let caller = Caller::new(endpoint, CallerLimits::default());
    for bytes in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 7 << 20] {
        let made = call("echo", pattern(bytes));
        let (id, started) = (made.id.clone(), Instant::now());
        let reply = soon(caller.invoke(made)).await.unwrap();
        assert_eq!(reply.call, id);
        assert_eq!(reply.timing.run, Duration::from_micros(5));
        assert!(reply.timing.network > Duration::ZERO && reply.timing.total() <= started.elapsed());
        assert_eq!(payload(reply), pattern(bytes), "{bytes} bytes");
    }
    // A small request with a big answer.
    assert_eq!(payload(caller.invoke(call("repeat", pattern(900_000))).await.unwrap()).len(), 7_200_000);
}

#[tokio::test]
async fn refusals_and_errors_of_the_function_are_told_apart_either_way() {
    let (_, endpoint) = broker().await;
    let caller = Caller::new(endpoint, CallerLimits::default());
    let stream = caller.open_stream().await.unwrap();
    for (one, other) in [("busy", "fail"), ("fail", "busy")] {
        for function in [one, other] {
            let unary = soon(caller.invoke(call(function, "x"))).await;
            let streamed = soon(stream.invoke(call(function, "x"))).await;
            match function {
                "busy" => {
                    let expected = PlatformError::new(Reason::QueueFull, "full").retry_after(Duration::from_millis(70));
                    assert_eq!((unary.unwrap_err(), streamed.unwrap_err()), (expected.clone(), expected));
                }
                _ => {
                    let failed = Outcome::Error { kind: "bad-input".into(), message: "no".into() };
                    assert_eq!((unary.unwrap().outcome, streamed.unwrap().outcome), (failed.clone(), failed));
                }
            }
        }
    }
    // Over the broker's limit, in parts.
    let error = soon(caller.invoke(call("echo", pattern(9 << 20)))).await.unwrap_err();
    assert_eq!(error.reason, Reason::TooLarge, "{error}");
}

#[tokio::test]
async fn many_calls_share_a_stream_and_each_gets_its_own_answer() {
    let (_, endpoint) = broker().await;
    let limits = CallerLimits { stream_calls_max: 16, ..CallerLimits::default() };
    let stream = Arc::new(Caller::new(endpoint, limits).open_stream().await.unwrap());
    let mut calls = tokio::task::JoinSet::new();
    for at in 0..200usize {
        let stream = stream.clone();
        calls.spawn(async move {
            // Some of one frame, some of many.
            let sent = pattern(at * at * 17 % 600_000 + at);
            assert_eq!(payload(stream.invoke(call("echo", sent.clone())).await.unwrap()), sent);
        });
    }
    soon(calls.join_all()).await;
}

#[tokio::test]
async fn an_answer_over_the_callers_limit_is_refused_and_harms_no_other_call() {
    let (_, endpoint) = broker().await;
    let limits = CallerLimits { answer_bytes_max: 1 << 20, ..CallerLimits::default() };
    let caller = Caller::new(endpoint.clone(), limits);
    let stream = caller.open_stream().await.unwrap();
    let (over, fine) =
        tokio::join!(stream.invoke(call("repeat", pattern(200_000))), stream.invoke(call("echo", pattern(900_000))));
    assert_eq!(over.unwrap_err().reason, Reason::TooLarge);
    assert_eq!(payload(fine.unwrap()), pattern(900_000));
    assert_eq!(caller.invoke(call("repeat", pattern(200_000))).await.unwrap_err().reason, Reason::TooLarge);

    let limits = CallerLimits { stream_answer_bytes_max: 300 << 10, ..CallerLimits::default() };
    let stream = Caller::new(endpoint, limits).open_stream().await.unwrap();
    let error = soon(stream.invoke(call("repeat", pattern(200_000)))).await.unwrap_err();
    assert_eq!(error.reason, Reason::OutOfBudget, "{error}");
    assert_eq!(payload(stream.invoke(call("echo", "x")).await.unwrap()), "x");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_is_cancelled_at_the_callee() {
    let (peer, endpoint) = broker().await;
    let caller = Caller::new(endpoint, CallerLimits::default());
    let stream = caller.open_stream().await.unwrap();

    let beside = stream.invoke(call("never", "beside"));
    tokio::pin!(beside);
    for big in [false, true] {
        let dropped = stream.invoke(call("never", if big { pattern(2 << 20) } else { pattern(1) }));
        tokio::select! {
            _ = dropped => panic!("an answer from nowhere"),
            _ = &mut beside => panic!("an answer from nowhere"),
            () = async { while peer.waiting.load(Ordering::SeqCst) < 2 { tokio::task::yield_now().await; } } => {}
        }
        soon(peer.dropped.notified()).await;
        assert_eq!(peer.waiting.load(Ordering::SeqCst), 1, "the call beside it goes on");
    }
    // A call by itself is cancelled with its connection's stream.
    let alone = tokio::spawn(async move { caller.invoke(call("never", "alone")).await });
    soon(async {
        while peer.waiting.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    alone.abort();
    soon(peer.dropped.notified()).await;
    assert_eq!(payload(soon(stream.invoke(call("echo", "still there"))).await.unwrap()), "still there");
}

#[tokio::test]
async fn a_deadline_ends_the_wait_on_both_sides() {
    let (peer, endpoint) = broker().await;
    let caller = Caller::new(endpoint.clone(), CallerLimits::default());
    let stream = caller.open_stream().await.unwrap();
    let short = |payload: Bytes| Call::new("never".parse().unwrap(), payload, Duration::from_millis(80));
    let started = Instant::now();
    for error in [
        caller.invoke(short(pattern(1))).await.unwrap_err(),
        caller.invoke(short(pattern(2 << 20))).await.unwrap_err(),
        stream.invoke(short(pattern(1))).await.unwrap_err(),
    ] {
        assert_eq!(error.reason, Reason::Late, "{error}");
    }
    assert!(started.elapsed() >= Duration::from_millis(240));
    soon(async {
        while peer.waiting.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let over = Call::new("echo".parse().unwrap(), "", Duration::ZERO);
    assert_eq!(caller.invoke(over).await.unwrap_err().reason, Reason::Late);
}

#[tokio::test]
async fn a_broker_that_is_away_is_named_with_what_to_do() {
    let endpoint = nobody().await;
    let caller = Caller::new(endpoint.clone(), CallerLimits::default());
    for error in [
        soon(caller.invoke(call("echo", "x"))).await.unwrap_err(),
        soon(caller.invoke(call("echo", pattern(2 << 20)))).await.unwrap_err(),
        soon(caller.open_stream()).await.unwrap_err(),
    ] {
        assert_eq!(error.reason, Reason::Unreachable, "{error}");
        assert!(error.message.contains(endpoint.as_str()) && error.message.contains("`nigh up`"), "{error}");
        assert!(error.message.contains("refused"), "{error}");
    }
    // Once it is there, the same caller reaches it.
    let listener = TcpListener::bind(endpoint.as_str()).await.unwrap();
    let service = Ingress::service(Arc::new(Peer::default()), CallLimits::default());
    tokio::spawn(channel::server().add_service(service).serve_with_incoming(channel::incoming(listener)));
    assert_eq!(payload(soon(caller.invoke(call("echo", "x"))).await.unwrap()), "x");
}

#[tokio::test]
async fn what_is_no_broker_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = listener.local_addr().unwrap().into();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // Not a word of HTTP/2.
            drop(connection);
        }
    });
    let caller = Caller::new(endpoint.clone(), CallerLimits::default());
    let error = soon(caller.invoke(call("echo", "x"))).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Unreachable | Reason::Disconnected), "{error:?}");
    assert!(error.message.contains(endpoint.as_str()), "{error}");
}

/// Sync, because the broker gets a runtime of its own that can be ended under the calls.
#[test]
fn calls_on_a_stream_that_breaks_fail_and_later_ones_say_that_it_is_over() {
    let ours = tokio::runtime::Runtime::new().unwrap();
    let theirs = tokio::runtime::Runtime::new().unwrap();
    let (peer, endpoint) = theirs.block_on(broker());
    ours.block_on(async {
        let caller = Caller::new(endpoint.clone(), CallerLimits::default());
        let stream = Arc::new(caller.open_stream().await.unwrap());
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let stream = stream.clone();
            calls.spawn(async move { stream.invoke(call("never", "x")).await });
        }
        let (alone, made) = (caller.clone(), call("never", "x"));
        calls.spawn(async move { alone.invoke(made).await });
        soon(async {
            while peer.waiting.load(Ordering::SeqCst) < 6 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        theirs.shutdown_background();
        for outcome in soon(calls.join_all()).await {
            let error = outcome.unwrap_err();
            assert_eq!(error.reason, Reason::Disconnected, "{error}");
            assert!(error.message.contains(endpoint.as_str()), "{error}");
        }
        let error = soon(stream.invoke(call("echo", "x"))).await.unwrap_err();
        assert_eq!(error.reason, Reason::Unreachable, "{error}");
        assert!(error.message.contains("open another"), "{error}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the sizes, and whichever calls are given up in between, every answer is the one to its own call.
    #[test]
    fn streams_keep_calls_apart(sizes in prop::collection::vec((0..900_000usize, any::<bool>()), 1..24)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (_, endpoint) = broker().await;
            let stream = Arc::new(Caller::new(endpoint, CallerLimits::default()).open_stream().await.unwrap());
            let mut calls = tokio::task::JoinSet::new();
            for (at, (bytes, is_given_up)) in sizes.into_iter().enumerate() {
                let stream = stream.clone();
                calls.spawn(async move {
                    let sent = Bytes::from(vec![u8::try_from(at).unwrap(); bytes]);
                    let invoked = stream.invoke(call("echo", sent.clone()));
                    if is_given_up {
                        let _ = tokio::time::timeout(Duration::from_micros(bytes as u64 / 100), invoked).await;
                    } else {
                        assert!(payload(invoked.await.unwrap()) == sent, "call {at} of {bytes} bytes");
                    }
                });
            }
            soon(calls.join_all()).await;
        });
    }
}
