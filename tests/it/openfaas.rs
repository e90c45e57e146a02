//! The door for clients of a gateway of OpenFaaS: its command line is in no registry, so what it sends is sent by hand.

use std::time::Duration;

use nigh_doors::{Callers, System};
use nigh_proto::Endpoint;
use nigh_tests::edge::Edge;
use nigh_tests::guests;
use nigh_tests::processes::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::clients::send;

const ADA: (&str, &str) = ("authorization", "Basic YWRhOjEyMzQ=");

async fn edge(hosts: &[String]) -> (Edge, Endpoint) {
    let hosts: Vec<_> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let edge = Edge::start_with(1, |config| {
        config.doors = vec![(System::OpenFaas, 0)];
        config.broker.callers = Callers::from_text("ada:1234 guest deploy\neve:1234 guest").unwrap();
        // The edge puts in where they are kept.
        let place = nigh_broker::AsynchronousConfig::new(nigh_store::Place::Embedded { file: "unused".into() });
        config.broker.asynchronous = Some(nigh_broker::AsynchronousConfig { callback_hosts: hosts, ..place });
    })
    .await;
    edge.deploy("echo", guests::echo()).await;
    let door = edge.local().doors()[0].1.clone();
    (edge, door)
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_run_as_behind_a_gateway() {
    let (edge, door) = edge(&[]).await;
    edge.deploy("web", guests::built("rust")).await;
    for (method, path) in [
        ("POST", "/function/echo"),
        ("POST", "/function/echo.openfaas-fn"),
        ("PUT", "/function/echo.openfaas-fn/some/path?x=1"),
    ] {
        let told = send(&door, method, path, &[("content-type", "text/plain")], "said").await;
        assert_eq!((told.status, told.body.as_str()), (200, "said"), "{method} {path}");
        for name in ["x-call-id", "x-start-time", "x-duration-seconds"] {
            assert!(told.headers.contains_key(name), "{name}");
        }
    }
    assert_eq!(send(&door, "GET", "/function/web.openfaas-fn/hello", &[], "").await.body, "Hello, WASI!");
    assert_eq!(send(&door, "POST", "/function/nobody.openfaas-fn", &[], "").await.status, 404);
    assert_eq!(send(&door, "GET", "/healthz", &[], "").await.status, 200);

    let echo = send(&door, "GET", "/system/function/echo", &[ADA], "").await.json();
    assert_eq!(
        (&echo["invocationCount"], &echo["availableReplicas"], &echo["namespace"]),
        (&3.into(), &1.into(), &"openfaas-fn".into())
    );
    let all = send(&door, "GET", "/system/functions", &[ADA], "").await.json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(send(&door, "GET", "/system/info", &[ADA], "").await.json()["provider"]["provider"], "nigh");
    edge.stop().await;
}

/// Behind a door in a broker, and behind one in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn http_functions_get_every_request_as_it_is() {
    let (edge, door) = edge(&[]).await;
    edge.deploy("web", guests::built("rust")).await;
    let (controller, broker) = (edge.controller().to_string(), edge.broker().to_string());
    let arguments = ["openfaas", "--everybody", "--controller", &controller, "--broker", &broker];
    let proxy = Role::start("proxy", "endpoint", &arguments);
    for door in [&door, &proxy.endpoint] {
        let about = send(door, "PATCH", "/function/web.openfaas-fn/about?a=1&b=%2F", &[("x-mine", "7")], "").await;
        assert!(about.status == 201 && about.body.contains("Patch /about a=1&b=%2F "), "{}", about.body);
        assert!(about.body.contains(" 7 [") && about.headers["x-made-by"] == "Rust", "{}", about.body);
        assert!(about.headers.contains_key("x-call-id") && about.headers.contains_key("x-duration-seconds"));
        let deep = send(door, "GET", "/function/web/no/such%20path/", &[], "").await;
        assert_eq!(deep.status, 404, "the function's own answer: {}", deep.body);
        assert!(!deep.body.contains("unknown-path"), "{}", deep.body);
        assert_eq!(send(door, "DELETE", "/function/web/status?418", &[], "").await.status, 418);
        let large = send(door, "GET", "/function/web/large?3000000", &[], "").await;
        assert_eq!((large.status, large.body.len()), (200, 3_000_000));
        let body = "x".repeat(2_000_000);
        let echoed = send(door, "PUT", "/function/web/echo", &[("content-type", "text/plain")], body.clone()).await;
        assert!(echoed.status == 200 && echoed.body == body);
        // Others are told of the rest by headers, and are called as ever.
        assert_eq!(send(door, "PUT", "/function/echo/some/path?x=1", &[], "said").await.body, "said");
        assert_eq!(send(door, "GET", "/function/nobody/x", &[], "").await.status, 404);
        let trapped = send(door, "GET", "/function/web/trap", &[], "").await;
        assert!(trapped.status == 500 && trapped.body.contains("trap"), "{}: {}", trapped.status, trapped.body);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_all_functions_asks_for_credentials() {
    let (edge, door) = edge(&[]).await;
    let eve = ("authorization", "Basic ZXZlOjEyMzQ=");
    for (method, path, credentials, body, status) in [
        ("GET", "/system/functions", None, "", 401),
        ("GET", "/system/functions", Some(("authorization", "Basic eDp5")), "", 401),
        ("GET", "/system/function/nobody", Some(ADA), "", 404),
        ("GET", "/system/elsewhere", Some(ADA), "", 404),
        ("POST", "/system/functions", Some(ADA), "{}", 501),
        ("PUT", "/system/functions", Some(ADA), "{}", 501),
        ("DELETE", "/system/functions", Some(ADA), "{", 400),
        ("DELETE", "/system/functions", Some(ADA), "{\"functionName\":\"nobody\"}", 404),
        ("DELETE", "/system/functions", Some(eve), "{\"functionName\":\"echo\"}", 403),
        ("DELETE", "/system/functions", Some(ADA), "{\"functionName\":\"echo\"}", 200),
        ("GET", "/async-function/echo", None, "", 405),
    ] {
        let headers: Vec<_> = credentials.into_iter().collect();
        let told = send(&door, method, path, &headers, body).await;
        assert_eq!(told.status, status, "{method} {path} {body}: {}", told.body);
    }
    assert!(edge.listing().await.functions.is_empty());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_later_is_told_to_whoever_was_named() {
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = receiver.local_addr().unwrap().to_string();
    let (edge, door) = edge(std::slice::from_ref(&at)).await;
    let callback = format!("http://{at}/done");
    let accepted =
        send(&door, "POST", "/async-function/echo.openfaas-fn", &[("x-callback-url", &callback)], "later").await;
    assert_eq!((accepted.status, accepted.body.as_str()), (202, ""));
    let id = accepted.headers["x-call-id"].to_str().unwrap().to_owned();
    let told = async {
        let (mut connection, _) = receiver.accept().await.unwrap();
        let mut told = String::new();
        while !told.ends_with("later") {
            let mut part = [0; 4096];
            let read = connection.read(&mut part).await.unwrap();
            assert!(read > 0, "{told}");
            told.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        told
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().to_lowercase();
    assert!(told.starts_with("post /done http/1.1\r\n"), "{told}");
    for line in [format!("x-call-id: {id}"), "x-function-name: echo".into(), "x-function-status: 200".into()] {
        assert!(told.contains(&format!("\r\n{line}\r\n")), "{line}: {told}");
    }
    // Elsewhere nobody is told.
    let refused = send(&door, "POST", "/async-function/echo", &[("x-callback-url", "http://127.0.0.1:1/")], "x").await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    edge.stop().await;
}
