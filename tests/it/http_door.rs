//! A computer's own door for HTTP: what a broker's does, without the broker.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nigh_proto::{Endpoint, Limits};
use nigh_tests::guests;
use nigh_tests::processes::Processes;
use tokio::net::TcpStream;

const DOOR: &str = "listen_http = \"127.0.0.1:0\"\nlimits.payload_bytes_max = \"1KiB\"";

async fn edge() -> Processes {
    let edge = Processes::start_with(1, DOOR).await;
    edge.deploy("echo", guests::echo()).await;
    edge.deploy("web", guests::built("rust")).await;
    edge
}

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).header("host", "camera").body(Full::new(body.into())).unwrap()
}

async fn send(door: &Endpoint, request: Request<Full<Bytes>>) -> (u16, HeaderMap, String) {
    let connection = TcpStream::connect(door.as_str()).await.unwrap();
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await.unwrap();
    tokio::spawn(driver);
    let response = sender.send_request(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8_lossy(&body).into_owned())
}

/// A problem document's reason.
fn reason(document: &str) -> String {
    let document: serde_json::Value = serde_json::from_str(document).unwrap_or_else(|_| panic!("{document}"));
    document["reason"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_is_called_over_http_without_a_broker() {
    let mut edge = edge().await;
    let door = edge.computers[0].at["http"].clone();
    let (status, headers, body) = send(&door, request("POST", "/function/echo?x=1", "said")).await;
    assert_eq!((status, body.as_str(), &headers["nigh-computer"]), (200, "said", &"computer-0".parse().unwrap()));
    assert!(headers.contains_key("nigh-version") && headers.contains_key("server-timing"));
    let (status, headers, body) = send(&door, request("PUT", "/function/web/about?color=red", "")).await;
    assert_eq!((status, &headers["nigh-computer"]), (201, &"computer-0".parse().unwrap()));
    assert!(body.starts_with("Method::Put /about color=red camera "), "{body}");
    for (method, path, body, expected) in [
        ("POST", "/function/nobody", "", (404, "unknown-function")),
        ("GET", "/function/nobody/at/all", "", (404, "unknown-path")),
        ("GET", "/function/echo", "", (405, "wrong-method")),
        ("POST", "/function/echo/further", "", (404, "unknown-path")),
        ("POST", "/function/echo", &*"x".repeat(1025), (413, "too-large")),
        ("POST", "/function/No-Name", "", (400, "malformed")),
        ("GET", "/elsewhere", "", (404, "unknown-path")),
    ] {
        let (status, _, document) = send(&door, request(method, path, body.to_owned())).await;
        assert_eq!((status, reason(&document).as_str()), expected, "{method} {path}");
    }
    assert_eq!(send(&door, request("GET", "/healthz", "")).await.0, 200);
    let (_, _, metrics) = send(&edge.computers[0].at["metrics"], request("GET", "/metrics", "")).await;
    assert!(metrics.contains("nigh_computer_http_responses_total{code=\"405\"} 1"), "{metrics}");

    // It drains as every door does.
    let slow = tokio::spawn(async move { send(&door, request("GET", "/function/web/sleep?500", "")).await });
    edge.until("it runs", async || {
        let status = nigh_client::Inspect::new(edge.computers[0].endpoint.clone()).status().await;
        status.unwrap().load.running > 0
    })
    .await;
    assert!(edge.computers[0].terminate().await.success());
    let (status, _, said) = slow.await.unwrap();
    assert_eq!((status, said.as_str()), (200, "rested"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_speaks_http_2_and_is_closed_unless_asked_for() {
    let edge = Processes::start_with(2, DOOR).await;
    edge.try_deploy("web", guests::built("rust"), Limits::default()).await.unwrap();
    let connection = TcpStream::connect(edge.computers[1].at["http"].as_str()).await.unwrap();
    let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(connection)).await.unwrap();
    tokio::spawn(driver);
    let ask = |n: usize| {
        let mut sender = sender.clone();
        async move {
            let request = request("POST", "http://camera/function/web/echo", format!("said {n}"));
            let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
            assert_eq!(answer, format!("said {n}"));
        }
    };
    futures_util::future::join_all((0..20).map(ask)).await;
    assert!(!Processes::start(1).await.computers[0].at.contains_key("http"));
}
