//! The whole edge in one process: functions of both kinds deployed, called over gRPC and HTTP, updated, removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nigh_proto::{Call, Headers, Limits, Outcome, Reason};
use nigh_tests::edge::{Edge, answer};
use nigh_tests::guests;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn photograph() -> Vec<u8> {
    std::fs::read(guests::root().join("guest-functions/face-detect/tests/data/grace_hopper.jpg")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn shipped_functions_run_through_the_broker() {
    let edge = Edge::start(2).await;
    for function in ["echo", "sha256", "thumbnail", "face-detect"] {
        edge.deploy(function, guests::built(function)).await;
    }
    assert_eq!(edge.answer("echo", "hello").await, "hello");
    assert_eq!(
        edge.answer("sha256", "abc").await.trim(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    let faces: serde_json::Value = serde_json::from_str(&edge.answer("face-detect", photograph()).await).unwrap();
    assert_eq!(faces["objects"].as_array().unwrap().len(), 1, "one face in the portrait: {faces}");

    let mut call = Call::new("thumbnail".parse().unwrap(), photograph(), Duration::from_secs(20));
    call.headers = Headers::new(vec![("max-width".into(), "64".into()), ("max-height".into(), "64".into())]).unwrap();
    let reply = edge.caller.invoke(call).await.unwrap();
    let Outcome::Answer { payload, .. } = reply.outcome else { panic!("{:?}", reply.outcome) };
    assert!(payload.starts_with(&[0xff, 0xd8]) && payload.len() < photograph().len(), "a small JPEG");

    let reply = edge.call("face-detect", "not a picture").await.unwrap();
    assert!(matches!(reply.outcome, Outcome::Error { .. }), "{reply:?}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_tells_who_ran_it_and_where_the_time_went() {
    let edge = Edge::start(1).await;
    let deployment = edge.deploy("misbehaving", guests::built("misbehaving")).await;
    let began = std::time::Instant::now();
    let reply = edge.call("misbehaving", "spin 50").await.unwrap();
    let (elapsed, timing) = (began.elapsed(), reply.timing);
    assert_eq!(reply.version, Some(deployment.version));
    assert!(reply.responder.is_some(), "the broker says where the computer is");
    assert!(timing.run >= Duration::from_millis(50), "{timing:?}");
    assert!(timing.init > Duration::ZERO && timing.network > Duration::ZERO, "{timing:?}");
    assert!(timing.total() <= elapsed, "no part is counted twice: {timing:?} of {elapsed:?}");
    assert!(
        elapsed - timing.total() < Duration::from_millis(20),
        "and hardly anything is left out: {timing:?} of {elapsed:?}"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_a_plain_program() {
    let edge = Edge::start(1).await;
    edge.deploy("shout", guests::built("shout")).await;
    assert_eq!(edge.answer("shout", "hello, edge").await, "HELLO, EDGE");
    let reply = edge.call("shout", "123").await.unwrap();
    assert!(
        matches!(&reply.outcome, Outcome::Error { kind, message } if kind == "exit" && message.contains('3') && message.contains("nothing to shout")),
        "{reply:?}"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_estimates_and_runs_nothing() {
    let edge = Edge::start(1).await;
    edge.try_deploy(
        "misbehaving",
        guests::built("misbehaving"),
        Limits { reuse: 100, concurrency: 1, ..Default::default() },
    )
    .await
    .unwrap();
    for _ in 0..3 {
        edge.answer("misbehaving", "spin 20").await;
    }
    let mut call = Call::new("misbehaving".parse().unwrap(), "count", Duration::from_secs(5));
    call.dry_run = true;
    let Outcome::Estimate(estimate) = edge.caller.invoke(call).await.unwrap().outcome else { panic!("an estimate") };
    assert_eq!(estimate.samples, 3);
    assert!(estimate.run >= Duration::from_millis(10), "{estimate:?}");
    assert_eq!(edge.answer("misbehaving", "count").await, "1", "the dry run has not counted");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_fails_no_call() {
    let edge = Arc::new(Edge::start(2).await);
    edge.deploy("versioned", guests::constant("one")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (edge, stop) = (edge.clone(), stop.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut call = Call::new("versioned".parse().unwrap(), "", Duration::from_secs(10));
                    call.retry_safe = false;
                    answers.push(answer(edge.caller.invoke(call).await.unwrap()));
                }
                answers
            })
        })
        .collect();
    for version in ["two", "three", "four"] {
        edge.deploy("versioned", guests::constant(version)).await;
        assert_eq!(
            edge.answer("versioned", "").await,
            version,
            "once an update is ready everywhere, nobody answers with the old version"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let answers = caller.await.unwrap();
        assert!(answers.iter().all(|answer| ["one", "two", "three", "four"].contains(&answer.as_str())));
    }
    Arc::into_inner(edge).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_finish_on_the_version_they_began_with() {
    let edge = Arc::new(Edge::start(1).await);
    edge.deploy("misbehaving", guests::built("misbehaving")).await;
    let slow = tokio::spawn({
        let edge = edge.clone();
        async move { edge.answer("misbehaving", "spin 1500").await }
    });
    edge.until("the slow call runs", async || edge.call("misbehaving", "count").await.unwrap().load.running >= 1).await;
    edge.deploy("misbehaving", guests::constant("new")).await;
    assert_eq!(edge.answer("misbehaving", "").await, "new");
    assert_eq!(slow.await.unwrap(), "done");
    Arc::into_inner(edge).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_function_is_unknown() {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    edge.admin.remove(&"echo".parse().unwrap()).await.unwrap();
    edge.until("nobody knows it", async || {
        edge.call("echo", "").await.is_err_and(|error| error.reason == Reason::UnknownFunction)
    })
    .await;
    assert_eq!(edge.admin.remove(&"echo".parse().unwrap()).await.unwrap_err().reason, Reason::UnknownFunction);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_queue_holds_is_refused_with_a_delay() {
    let edge = Arc::new(Edge::start(1).await);
    let limits = Limits { concurrency: 1, queue: 2, ..Default::default() };
    edge.try_deploy("misbehaving", guests::built("misbehaving"), limits).await.unwrap();
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let edge = edge.clone();
            tokio::spawn(async move { edge.call("misbehaving", "spin 300").await })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(reply) => assert_eq!(answer(reply), "done"),
            Err(error) => {
                assert_eq!(error.reason, Reason::QueueFull);
                assert!(error.retry_after.is_some(), "{error:?}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 5, "one runs, two wait, the others are told so; {refused} were");
    Arc::into_inner(edge).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn big_payloads_come_through_whole() {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::built("echo")).await;
    let payload: Vec<u8> = (0..12u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let reply = edge.call("echo", payload.clone()).await.unwrap();
    assert!(matches!(reply.outcome, Outcome::Answer { payload: back, .. } if back == payload));
    edge.stop().await;
}

/// One HTTP/1.1 request by hand: status line and headers, and body.
async fn http(edge: &Edge, request: &str) -> (String, String) {
    let mut socket = tokio::net::TcpStream::connect(edge.http().as_str()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    socket.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8_lossy(&response).into_owned();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_answer_over_http_and_errors_are_problem_documents() {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::built("echo")).await;
    let (head, body) =
        http(&edge, "POST /function/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello")
            .await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(body.contains("hello"), "{body}");
    let (head, body) =
        http(&edge, "POST /function/nobody HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
    assert!(head.starts_with("http/1.1 404") && head.contains("application/problem+json"), "{head}");
    assert!(body.contains("unknown-function"), "{body}");
    let (head, _) =
        http(&edge, "POST /function/No%20Such HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
    assert!(head.starts_with("http/1.1 400") && head.contains("application/problem+json"), "{head}");
    edge.stop().await;
}
