//! The door over real sockets, its answers read by a parser that is not ours.

// So that clippy takes all of it for tests.
#![cfg(test)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nigh_telemetry::{CONNECTIONS_MAX, Histogram, Telemetry, serve_while};
use prometheus_parse::{Sample, Scrape, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A role that only tells of itself, until it is dropped.
struct Role {
    address: SocketAddr,
    _end: oneshot::Sender<()>,
}

async fn role(telemetry: &Telemetry) -> Role {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    tokio::spawn(serve_while(Some(listener), telemetry.clone(), ended));
    Role { address, _end: end }
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let exchange = async {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an HTTP answer");
    (status, answer.split_once("\r\n\r\n").expect("a head and a body").1.to_owned())
}

fn parse(text: &str) -> Scrape {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("well-formed metrics")
}

fn value(sample: &Sample) -> f64 {
    match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn metrics_are_what_a_foreign_parser_reads() {
    let telemetry = Telemetry::new();
    let times = Arc::new(Histogram::default());
    times.record(Duration::from_micros(3));
    times.record(Duration::from_secs(3600));
    telemetry.describe("computer", "computer-1", move |out| {
        out.counter("nigh_calls_total", "Calls", 7)?;
        out.gauge("nigh_store_bytes", "Bytes", 12u64)?;
        out.histograms("nigh_run_seconds", "Time", |samples| samples.histogram(&[("function", "e\"cho\\\n")], &times))
    });
    let role = role(&telemetry).await;
    let (status, text) = get(role.address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n") && text.contains("# UNIT nigh_run_seconds seconds\n"), "{text}");
    let scrape = parse(&text);
    let named = |name: &str| scrape.samples.iter().find(|sample| sample.metric == name);
    assert_eq!(named("nigh_calls_total").map(value), Some(7.0));
    assert_eq!(named("nigh_store_bytes").map(value), Some(12.0));
    let info = named("nigh_build_info").expect("which role it is");
    assert_eq!((info.labels.get("role"), info.labels.get("name")), (Some("computer"), Some("computer-1")));
    let Value::Histogram(buckets) = &named("nigh_run_seconds").expect("a histogram").value else { panic!("{text}") };
    let count_up_to = |bound: f64| buckets.iter().find(|bucket| bucket.less_than == bound).map(|bucket| bucket.count);
    assert_eq!([1e-6, 4e-6, f64::INFINITY].map(count_up_to), [Some(0.0), Some(1.0), Some(2.0)]);
}

#[tokio::test]
async fn readiness_says_why_not() {
    let telemetry = Telemetry::new();
    let role = role(&telemetry).await;
    assert_eq!(get(role.address, "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get(role.address, "/readyz").await, (503, "not ready: it is starting\n".into()));
    telemetry.ready_when(|| Ok(()));
    assert_eq!(get(role.address, "/readyz").await, (200, "ready\n".into()));
    telemetry.not_ready("it is stopping");
    assert_eq!(get(role.address, "/readyz").await, (503, "not ready: it is stopping\n".into()));
    assert_eq!(get(role.address, "/secrets").await.0, 404);
}

#[tokio::test]
async fn those_who_only_connect_are_bounded_and_make_room_when_they_leave() {
    let role = role(&Telemetry::new()).await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut connection = TcpStream::connect(role.address).await.unwrap();
        connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // Answered, so its place is taken.
        connection.read_exact(&mut [0; 12]).await.unwrap();
        idle.push(connection);
    }
    let mut refused = TcpStream::connect(role.address).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, refused.read(&mut [0; 1])).await.expect("it is closed");
    assert!(matches!(closed, Ok(0) | Err(_)));
    drop(idle);
    let answered = async {
        loop {
            let mut connection = TcpStream::connect(role.address).await.unwrap();
            let asked = connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            let mut status = [0; 12];
            if asked.is_ok() && connection.read_exact(&mut status).await.is_ok() && status == *b"HTTP/1.1 200" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("there is room again");
}

#[tokio::test]
async fn the_door_closes_with_its_role() {
    let role = role(&Telemetry::new()).await;
    let address = role.address;
    assert_eq!(get(address, "/healthz").await.0, 200);
    drop(role);
    let closed = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("it closes");
}
