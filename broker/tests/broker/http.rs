//! The HTTP door, spoken to in plain bytes.

use std::collections::HashMap;

use nigh_proto::{CallLimits, Estimate, Headers, Reason, Spread};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::computer::{FakeComputer, answer, nobody, reply};
use super::*;

pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl HttpAnswer {
    fn problem(&self) -> serde_json::Value {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{:?}", self.headers);
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["type"], format!("urn:nigh:problem:{}", problem["reason"].as_str().unwrap()));
        assert!(problem["title"].is_string() && problem["detail"].is_string() && problem["retry"].is_boolean());
        problem
    }
}

/// Sends these bytes and reads until the server closes.
async fn raw(door: &Endpoint, request: &[u8]) -> HttpAnswer {
    let mut stream = TcpStream::connect(door.as_str()).await.unwrap();
    // A server that has heard enough may close before it has heard all.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it answers and closes");
    let _ = read;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    HttpAnswer { status, headers, body: answer[end + 4..].to_vec() }
}

/// `headers` are lines, each with its line end.
pub(crate) async fn post(door: Endpoint, path: &str, headers: &str, body: &str) -> HttpAnswer {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    raw(&door, request.as_bytes()).await
}

pub(crate) async fn get(door: Endpoint, path: &str, headers: &str) -> HttpAnswer {
    raw(&door, format!("GET {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n{headers}\r\n").as_bytes()).await
}

async fn echo_at_http() -> (TestBroker, FakeComputer) {
    let computer = FakeComputer::echo().await;
    let limits = CallLimits { payload_bytes_max: 1000, ..CallLimits::default() };
    let broker = TestBroker::start(Config { limits, ..config_with_routes(&[&computer.endpoint]) }).await;
    (broker, computer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_run_by_post() {
    let (broker, _computer) = echo_at_http().await;
    let headers = "content-type: text/plain\r\nnigh-call-id: mine\r\nx-count: 3\r\n";
    let answer = post(broker.http.clone(), "/function/f?scale=1.5&scale=2", headers, "hello").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
    for (name, value) in [
        ("content-type", "text/plain"),
        ("x-count", "3"),
        ("nigh-call-id", "mine"),
        ("nigh-computer", "computer-1"),
        ("content-length", "5"),
    ] {
        assert_eq!(answer.headers[name], value);
    }
    assert_eq!(answer.headers["nigh-version"].len(), 64);
    assert!(answer.headers["server-timing"].contains("run;dur=0.100"), "{}", answer.headers["server-timing"]);
    assert!(answer.headers.contains_key("scale"), "echoed back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_may_be_percent_encoded_but_must_be_a_name() {
    let (broker, computer) = echo_at_http().await;
    assert_eq!(post(broker.http.clone(), "/function/%66", "", "x").await.status, 200);
    for odd in
        ["/function/F", "/function/a%2Fb", "/function/..%2f..", "/function/%00", "/function/%FF", "/function/a%20b"]
    {
        let answer = post(broker.http.clone(), odd, "", "x").await;
        assert_eq!((answer.status, answer.problem()["reason"].as_str()), (400, Some("malformed")), "{odd}");
    }
    let long = format!("/function/{}", "a".repeat(64));
    assert_eq!(post(broker.http.clone(), &long, "", "x").await.status, 400);
    assert_eq!(computer.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_are_problems_too() {
    let (broker, _computer) = echo_at_http().await;
    for path in ["/", "/function", "/function/", "/function/f/more", "/../etc/passwd", "//function/f"] {
        let answer = post(broker.http.clone(), path, "", "").await;
        assert_eq!((answer.status, answer.problem()["reason"].as_str()), (404, Some("unknown-path")), "{path}");
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let request = format!("{method} /function/f HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n");
        let answer = raw(&broker.http, request.as_bytes()).await;
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "POST"), "{method}");
        answer.problem();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_whether_or_not_it_says_its_length() {
    let (broker, computer) = echo_at_http().await;
    let huge = b"POST /function/f HTTP/1.1\r\nhost: e\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n";
    let answer = raw(&broker.http, huge).await;
    assert_eq!((answer.status, answer.problem()["reason"].as_str()), (413, Some("too-large")));

    let head = "POST /function/f HTTP/1.1\r\nhost: e\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let over = format!("{head}3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    assert_eq!(raw(&broker.http, over.as_bytes()).await.status, 413);
    assert_eq!(computer.calls(), 0);

    let under = format!("{head}3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000));
    let answer = raw(&broker.http, under.as_bytes()).await;
    assert_eq!((answer.status, answer.body.len()), (200, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_or_never_is_no_call() {
    let (broker, computer) = echo_at_http().await;
    let slow = b"POST /function/f HTTP/1.1\r\nhost: e\r\nnigh-timeout: 200ms\r\ncontent-length: 10\r\n\r\nhalf";
    let answer = raw(&broker.http, slow).await;
    assert_eq!((answer.status, answer.problem()["reason"].as_str()), (504, Some("late")));
    let broken =
        b"POST /function/f HTTP/1.1\r\nhost: e\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(raw(&broker.http, broken).await.status, 400);
    assert_eq!(computer.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_bounded_and_wishes_checked() {
    let (broker, computer) = echo_at_http().await;
    let many: String = (0..65).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(post(broker.http.clone(), "/function/f", &many, "x").await.status, 413);
    let long = format!("x: {}\r\n", "y".repeat(17 << 10));
    assert_eq!(post(broker.http.clone(), "/function/f", &long, "x").await.status, 413);
    for wish in ["nigh-timeout: soon", "nigh-timeuot: 5s", "nigh-retry-safe: maybe", "nigh-call-id: two words"] {
        let answer = post(broker.http.clone(), "/function/f", &format!("{wish}\r\n"), "x").await;
        assert_eq!((answer.status, answer.problem()["fault"].as_str()), (400, Some("caller")), "{wish}");
    }
    assert_eq!(computer.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn platform_errors_have_their_status_and_say_when_to_retry() {
    let (broker, _computer) = echo_at_http().await;
    let unknown = post(broker.http.clone(), "/function/never-deployed", "", "x").await;
    assert_eq!((unknown.status, unknown.problem()["retry"].as_bool()), (404, Some(false)));
    assert!(unknown.headers.contains_key("nigh-call-id"));

    let refuses =
        FakeComputer::start(|_| async { Err(PlatformError::new(Reason::QueueFull, "full").retry_after(1200 * MS)) });
    let refuses = refuses.await;
    let broker = TestBroker::with_routes(&[&refuses.endpoint]).await;
    let full = post(broker.http.clone(), "/function/f", "", "x").await;
    assert_eq!((full.status, full.headers["retry-after"].as_str()), (503, "2"));
    assert_eq!((full.problem()["fault"].as_str(), full.problem()["retry"].as_bool()), (Some("load"), Some(true)));

    let broker = TestBroker::with_routes(&[&nobody().await]).await;
    let dead = post(broker.http.clone(), "/function/f", "", "x").await;
    assert_eq!((dead.status, dead.problem()["reason"].as_str()), (503, Some("unreachable")));
}

#[tokio::test(flavor = "multi_thread")]
async fn function_errors_tell_whose_fault_they_are() {
    let fails = FakeComputer::start(|call| async move {
        let kind = String::from_utf8(call.payload.to_vec()).unwrap();
        Ok(reply(&call, Outcome::Error { kind, message: "no picture in <that>".into() }))
    });
    let fails = fails.await;
    let broker = TestBroker::with_routes(&[&fails.endpoint]).await;
    for (kind, status, fault) in [("bad-input", 400, "caller"), ("panic", 500, "function")] {
        let answer = post(broker.http.clone(), "/function/f", "", kind).await;
        let problem = answer.problem();
        assert_eq!(
            (answer.status, problem["fault"].as_str(), problem["kind"].as_str()),
            (status, Some(fault), Some(kind))
        );
        assert_eq!(problem["detail"], "no picture in <that>");
        assert_eq!(answer.headers["nigh-computer"], "computer-1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_reach_the_computer() {
    let computer = FakeComputer::start(|call| async move {
        assert!(call.retry_safe && call.hops == 1 && call.id.as_str() == "7");
        assert!(call.time_left(Instant::now()) <= 900 * MS);
        if call.dry_run {
            let run_spread = Spread { p10: 40 * MS, p90: 50 * MS };
            let estimate = Estimate { run: 42 * MS, samples: 9, similar: 2, run_spread, ..Estimate::default() };
            return Ok(reply(&call, Outcome::Estimate(estimate)));
        }
        let headers = Headers::new(vec![("connection".into(), "upgrade".into()), ("nigh-computer".into(), "x".into())]);
        Ok(reply(&call, Outcome::Answer { payload: answer(&call).call.to_string().into(), headers: headers.unwrap() }))
    });
    let computer = computer.await;
    let broker = TestBroker::with_routes(&[&computer.endpoint]).await;
    let wishes = "nigh-timeout: 900ms\r\nnigh-retry-safe: true\r\nnigh-call-id: 7\r\n";
    let run = post(broker.http.clone(), "/function/f", wishes, "").await;
    assert_eq!((run.status, run.body.as_slice()), (200, b"7".as_slice()));
    assert_eq!(run.headers["nigh-computer"], "computer-1", "no function speaks for the platform");
    assert_eq!(run.headers["content-type"], "application/octet-stream");
    let dry = post(broker.http.clone(), "/function/f", &format!("{wishes}nigh-dry-run: true\r\n"), "").await;
    let estimate: serde_json::Value = serde_json::from_slice(&dry.body).unwrap();
    let expected = serde_json::json!({
        "queue_us": 0, "init_us": 0, "run_us": 42000, "samples": 9, "similar": 2,
        "init_p10_us": 0, "init_p90_us": 0, "run_p10_us": 40000, "run_p90_us": 50000,
        "modelled": false,
    });
    assert_eq!(estimate, expected);
    assert_eq!(dry.headers["nigh-computer"], "computer-1", "whose forecast it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told() {
    let (broker, _computer) = echo_at_http().await;
    let ask = b"GET /healthz HTTP/1.1\r\nhost: e\r\nconnection: close\r\n\r\n";
    let healthy = raw(&broker.http, ask).await;
    assert_eq!((healthy.status, healthy.body.as_slice()), (200, b"ok\n".as_slice()));
    let waiting = TestBroker::start(Config { controller: Some(nobody().await.into()), ..config() }).await;
    let answer = raw(&waiting.http, ask).await;
    assert_eq!((answer.status, answer.problem()["reason"].as_str()), (503, Some("not-serving")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_harms_nobody() {
    let (broker, _computer) = echo_at_http().await;
    for noise in [&b"\x16\x03\x01\x02\x00\x01"[..], b"\r\n\r\n\r\n", b"POST", &[0xff; 4096]] {
        let mut stream = TcpStream::connect(broker.http.as_str()).await.unwrap();
        stream.write_all(noise).await.unwrap();
        drop(stream);
    }
    assert_eq!(post(broker.http.clone(), "/function/f", "", "x").await.status, 200);
}
