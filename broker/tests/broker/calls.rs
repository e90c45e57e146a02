//! Calls that go well, and what travels with them.

use std::sync::Arc;

use nigh_proto::{Estimate, Headers, Reason};
use tokio::sync::Notify;

use super::computer::{FakeComputer, answer, nobody, reply};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_arrives_whole_and_its_reply_too() {
    let computer = FakeComputer::echo().await;
    let broker = TestBroker::with_routes(&[&computer.endpoint]).await;
    let headers = Headers::new(vec![("a".into(), "1".into())]).unwrap();
    let call = Call { headers: headers.clone(), ..call("hello") };
    let reply = broker.invoke(&call).await.unwrap();
    assert_eq!(reply.outcome, Outcome::Answer { payload: "hello".into(), headers });
    assert_eq!((reply.call, reply.hops, reply.computer.as_str()), (call.id, 1, "computer-1"));
    assert_eq!(reply.load.workers, 4);
    assert_eq!(reply.timing.run, Duration::from_micros(100));
    assert!(reply.timing.network > Duration::ZERO && reply.timing.broker > Duration::ZERO, "{:?}", reply.timing);
}

#[tokio::test(flavor = "multi_thread")]
async fn big_payloads_pass() {
    let computer = FakeComputer::echo().await;
    let broker = TestBroker::with_routes(&[&computer.endpoint]).await;
    let sent = vec![7; 16 << 20];
    let deadline = Instant::now() + 6 * PATIENCE;
    let call = Call { payload: sent.clone().into(), deadline, ..call("") };
    let mut client = broker.client.clone().max_decoding_message_size(usize::MAX);
    let reply = Reply::from_wire(client.invoke(call.to_request(Instant::now())).await.unwrap().into_inner()).unwrap();
    assert!(payload(&reply) == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_travels_as_one() {
    let computer = FakeComputer::start(|call| async move {
        assert!(call.dry_run);
        Ok(reply(&call, Outcome::Estimate(Estimate { samples: 3, ..Estimate::default() })))
    });
    let computer = computer.await;
    let broker = TestBroker::with_routes(&[&computer.endpoint]).await;
    let reply = broker.invoke(&Call { dry_run: true, ..call("") }).await.unwrap();
    assert_eq!(reply.outcome, Outcome::Estimate(Estimate { samples: 3, ..Estimate::default() }));
    assert_eq!(broker.destination(&computer.endpoint).await.weight, 0.0, "an estimate says nothing of latency");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_chain() {
    let computer = FakeComputer::echo().await;
    let near = TestBroker::with_routes(&[&computer.endpoint]).await;
    let far = TestBroker::with_routes(&[&near.calls]).await;
    let reply = far.invoke(&call("x")).await.unwrap();
    assert_eq!((payload(&reply), reply.hops), (b"x".as_slice(), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_in_a_circle_refuse_a_call_that_comes_round_again() {
    let one = TestBroker::start(config()).await;
    let two = TestBroker::with_routes(&[&one.calls]).await;
    let route =
        v1::SetRouteRequest { function: "f".into(), endpoint: two.calls.to_string(), weight: 1.0, is_final: None };
    one.table_client().set_route(route).await.unwrap();
    let error = one.invoke(&retry_safe("x")).await.unwrap_err();
    assert_eq!(error.reason, Reason::LoopDetected, "{error}");
    let back = two.table_of(v1::Table::Final).await;
    let passed_on = [one.destination(&two.calls).await.calls, back[0].destinations[0].calls];
    assert_eq!(passed_on, [1, 1], "and nobody has tried another way round");
    assert_eq!(error.message.matches('→').count(), 2, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_left_travels_and_ends_the_call_everywhere() {
    let ended = Arc::new(Notify::new());
    let tell = ended.clone();
    let computer = FakeComputer::start(move |call| {
        let tell = tell.clone();
        async move {
            assert!(call.time_left(Instant::now()) <= 600 * MS);
            let _guard = OnDrop(tell);
            std::future::pending().await
        }
    });
    let computer = computer.await;
    let broker = TestBroker::with_routes(&[&computer.endpoint]).await;
    let began = Instant::now();
    let call = Call { deadline: began + 600 * MS, ..retry_safe("x") };
    let error = broker.invoke(&call).await.unwrap_err();
    assert_eq!(error.reason, Reason::Late, "{error}");
    // A bit of it is left for the answer to come back.
    assert!(began.elapsed() >= 570 * MS && began.elapsed() < 600 * MS + PATIENCE);
    tokio::time::timeout(PATIENCE, ended.notified()).await.expect("the computer is told");
    let destination = broker.destination(&computer.endpoint).await;
    assert_eq!(destination.state, "in-use", "a late call is no death");
    assert!(destination.weight >= 200.0, "but a lesson: {destination:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_cancels_the_call_at_the_computer() {
    let (began, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_began, tell_ended) = (began.clone(), ended.clone());
    let computer = FakeComputer::start(move |_| {
        let (began, ended) = (tell_began.clone(), tell_ended.clone());
        async move {
            let _guard = OnDrop(ended);
            began.notify_one();
            std::future::pending().await
        }
    });
    let computer = computer.await;
    let broker = TestBroker::with_routes(&[&computer.endpoint]).await;
    let call = call("x");
    let cancelled = tokio::select! {
        _ = broker.invoke(&call) => false,
        () = began.notified() => true,
    };
    assert!(cancelled);
    tokio::time::timeout(PATIENCE, ended.notified()).await.expect("the computer is told");
    let broker = &broker;
    let endpoint = &computer.endpoint;
    eventually("no call in flight", || async move { broker.destination(endpoint).await.in_flight == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_at_once_than_the_broker_takes_are_told_to_come_again() {
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let computer = FakeComputer::start(move |call| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(answer(&call))
        }
    });
    let computer = computer.await;
    let broker =
        Arc::new(TestBroker::start(Config { calls_max: 2, ..config_with_routes(&[&computer.endpoint]) }).await);
    let held: Vec<_> = (0..2)
        .map(|_| {
            let broker = broker.clone();
            tokio::spawn(async move { broker.invoke(&call("x")).await })
        })
        .collect();
    let (seen, computer) = (&broker, &computer);
    eventually("both under way", || async move { computer.calls() == 2 }).await;
    let error = seen.invoke(&call("x")).await.unwrap_err();
    assert_eq!(error.reason, Reason::OutOfBudget, "{error}");
    assert!(error.retry_after.is_some());
    go.notify_waiters();
    for call in held {
        call.await.unwrap().unwrap();
    }
    go.notify_one();
    seen.invoke(&call("x")).await.expect("places are given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_before_anything_is_known_are_spread() {
    let computers = [FakeComputer::echo().await, FakeComputer::echo().await];
    let config = Config {
        policy: "round-robin".parse().unwrap(),
        ..config_with_routes(&computers.each_ref().map(|computer| &computer.endpoint))
    };
    let broker = TestBroker::start(config).await;
    for _ in 0..20 {
        broker.invoke(&call("x")).await.unwrap();
    }
    assert!(computers.iter().all(|computer| computer.calls() > 0));
}

/// One that estimates its calls at so many milliseconds, or leaves those who ask without an answer.
async fn estimating(ms: Option<u32>) -> FakeComputer {
    let computer = FakeComputer::start(move |call| async move {
        if !call.dry_run {
            return Ok(answer(&call));
        }
        match ms {
            Some(ms) => Ok(reply(&call, Outcome::Estimate(Estimate { run: MS * ms, ..Estimate::default() }))),
            None => std::future::pending().await,
        }
    });
    computer.await
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_asks_everyone_and_goes_where_the_least_is_estimated() {
    let (slow, fast) = (estimating(Some(50)).await, estimating(Some(5)).await);
    let (silent, gone) = (estimating(None).await, nobody().await);
    let endpoints = [&slow.endpoint, &fast.endpoint, &silent.endpoint, &gone];
    let config = Config { policy: "probe".parse().unwrap(), ..config_with_routes(&endpoints) };
    let broker = TestBroker::start(config).await;
    for _ in 0..5 {
        assert_eq!(broker.invoke(&call("x")).await.unwrap().responder, Some(fast.endpoint.clone()));
    }
    assert_eq!(slow.calls(), 5, "it was asked for each call");
    assert_eq!(broker.destination(&gone).await.state, "set-aside");
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_lets_calls_go_on_where_nobody_estimates() {
    let computers = [estimating(None).await, estimating(None).await];
    let config = Config {
        policy: "probe".parse().unwrap(),
        ..config_with_routes(&computers.each_ref().map(|computer| &computer.endpoint))
    };
    let broker = TestBroker::start(config).await;
    assert_eq!(payload(&broker.invoke(&call("x")).await.unwrap()), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn estimators_learn_from_what_computers_report() {
    for policy in ["rtt", "util", "delay"] {
        let late = || {
            FakeComputer::start(|call| async move {
                tokio::time::sleep(MS * 30).await;
                Ok(answer(&call))
            })
        };
        let (late, quick) = (late().await, FakeComputer::echo().await);
        let config =
            Config { policy: policy.parse().unwrap(), ..config_with_routes(&[&late.endpoint, &quick.endpoint]) };
        let broker = TestBroker::start(config).await;
        for _ in 0..12 {
            broker.invoke(&call("x")).await.unwrap();
        }
        assert!(late.calls() >= 1 && quick.calls() > late.calls(), "{policy}: {} {}", late.calls(), quick.calls());
    }
}

/// Tells when it is dropped.
struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
