//! The doors of an edge at their limits: how many may connect, how long they may be silent, and clients that go away.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nigh_client::{Caller, CallerLimits, Inspect};
use nigh_proto::v1::computer_client::ComputerClient;
use nigh_proto::{Call, Limits, Reason, channel, v1};
use nigh_tests::edge::{Edge, answer};
use nigh_tests::guests;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);

/// A function that never ends by itself.
fn endless() -> bytes::Bytes {
    guests::native("", "(loop $again (br $again)) unreachable")
}

async fn connect(edge: &Edge) -> TcpStream {
    TcpStream::connect(edge.http().as_str()).await.unwrap()
}

/// All that comes until the other side closes.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A connection that is reset has ended too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it is closed");
    String::from_utf8_lossy(&all).into_owned()
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("POST {path} HTTP/1.1\r\nhost: edge\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_told_so() {
    let edge = Edge::start_with(1, |config| config.broker.server.connections_max = 2).await;
    edge.deploy("echo", guests::echo()).await;
    // One is the test's own caller.
    let idle = TcpStream::connect(edge.broker().as_str()).await.unwrap();
    let caller = || Caller::new(edge.broker(), CallerLimits::default());
    let call = || Call::new("echo".parse().unwrap(), "hello", PATIENCE);
    let refused = caller().invoke(call()).await.unwrap_err();
    assert!(refused.reason == Reason::OutOfBudget && refused.retry_after.is_some(), "{refused:?}");
    assert!(refused.message.contains("2 connections"), "{refused}");
    assert_eq!(edge.answer("echo", "those connected go on").await, "those connected go on");
    drop(idle);
    edge.until("its place is free", async || caller().invoke(call()).await.is_ok()).await;

    let mut silent = vec![connect(&edge).await, connect(&edge).await];
    edge.until("no place is left for HTTP", async || {
        let mut third = connect(&edge).await;
        ask(&mut third, "/function/echo").await;
        let told = read_all(&mut third).await;
        told.starts_with("HTTP/1.1 503") && told.contains("retry-after: 1") && told.contains("2 connections")
    })
    .await;
    silent.pop();
    edge.until("there is a place again", async || {
        let mut third = connect(&edge).await;
        ask(&mut third, "/function/echo").await;
        read_all(&mut third).await.starts_with("HTTP/1.1 200")
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_connection_but_not_a_call() {
    let edge = Edge::start_with(1, |config| config.broker.server.idle_max = Duration::from_millis(200)).await;
    let text = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (func (export "nigh_alloc_v1") (param i32) (result i32) i32.const 1024)
        (func (export "nigh_handle_v1") (param i32 i32) (result i32)
            (i32.store (i32.const 528) (i32.const 1))
            (i64.store (i32.const 536) (i64.const 700000000))
            (drop (call $poll (i32.const 512) (i32.const 640) (i32.const 1) (i32.const 768)))
            (i32.store (i32.const 68) (i32.const 128))
            (i32.store (i32.const 72) (i32.const 4))
            (i32.store (i32.const 76) (i32.const 1024))
            i32.const 64))"#;
    edge.deploy("sleeps", guests::from_text(text)).await;
    let (began, mut silent) = (Instant::now(), connect(&edge).await);
    assert_eq!(read_all(&mut silent).await, "");
    assert!(began.elapsed() >= Duration::from_millis(200));
    // It says nothing for longer than that, but waits for its answer.
    let mut patient = connect(&edge).await;
    ask(&mut patient, "/function/sleeps").await;
    assert!(read_all(&mut patient).await.starts_with("HTTP/1.1 200"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_ends_its_call_at_the_computer() {
    let edge = Edge::start(1).await;
    edge.deploy("endless", endless()).await;
    edge.deploy("echo", guests::echo()).await;
    let computer = edge.listing().await.computers[0].endpoint.clone();
    let running = async || {
        let mut computer = ComputerClient::new(channel::connect_lazy(&computer));
        computer.status(v1::StatusRequest {}).await.unwrap().into_inner().load.unwrap().running
    };
    let mut hung_up = connect(&edge).await;
    ask(&mut hung_up, "/function/endless").await;
    edge.until("it runs", async || running().await == 1).await;
    drop(hung_up);
    edge.until("it is stopped", async || running().await == 0).await;

    let caller = Caller::new(edge.broker(), CallerLimits::default());
    let call = Call::new("endless".parse().unwrap(), "", PATIENCE);
    let task = tokio::spawn(async move { drop(caller.invoke(call).await) });
    edge.until("it runs", async || running().await == 1).await;
    task.abort();
    edge.until("it is stopped", async || running().await == 0).await;
    assert_eq!(answer(edge.call("echo", "all is well").await.unwrap()), "all is well");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_an_answer_holds_nobodys_place() {
    let edge = Edge::start_with(1, |config| {
        config.broker.server.stall_max = Duration::from_millis(300);
        config.broker.calls_max = 1;
    })
    .await;
    let limits = Limits { timeout: Duration::from_secs(600), ..Limits::default() };
    edge.try_deploy("web", guests::built("rust"), limits).await.unwrap();
    let (mut sender, driver) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(Some(1 << 16))
        .handshake(TokioIo::new(connect(&edge).await))
        .await
        .unwrap();
    // It reads whatever comes on the connection, and gives no answer more room.
    tokio::spawn(driver);
    let request = |path: &str| Request::get(format!("http://edge/function/web/{path}")).body(Empty::<Bytes>::new());
    let unread = sender.send_request(request("large?16000000").unwrap()).await.unwrap();
    assert_eq!(unread.status(), 200);
    edge.until("its place is free", async || {
        let other = sender.send_request(request("hello").unwrap()).await.unwrap();
        other.status() == 200 && other.into_body().collect().await.is_ok()
    })
    .await;
    let computer = Inspect::new(edge.listing().await.computers[0].endpoint.clone());
    edge.until("nothing runs", async || computer.status().await.unwrap().load.running == 0).await;
    assert!(unread.into_body().collect().await.is_err(), "what is left of it is cut off");
    edge.stop().await;
}
