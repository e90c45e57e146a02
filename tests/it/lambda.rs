//! The door for clients of AWS Lambda: its own SDK and command line against it, and by hand what these do not send.

use std::sync::Arc;

use nigh_doors::{Callers, System};
use nigh_proto::Endpoint;
use nigh_proto::tls::HttpClients;
use nigh_tests::edge::Edge;
use nigh_tests::{guests, processes};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::clients::{installed, run, run_script, run_script_over_tls, send};

const INVOKE: &str = "/2015-03-31/functions/echo/invocations";

async fn edge(callers: Callers) -> (Edge, Endpoint) {
    let edge = Edge::start_with(1, |config| {
        config.doors = vec![(System::Lambda, 0)];
        config.broker.callers = callers;
    })
    .await;
    deploy(&edge).await;
    let door = edge.local().doors()[0].1.clone();
    (edge, door)
}

async fn deploy(edge: &Edge) {
    edge.deploy("echo", guests::echo()).await;
    edge.deploy("math.echo", guests::echo()).await;
    edge.deploy("trap", guests::native("", "unreachable")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_of_aws_works_unchanged() {
    let credentials = "ada:1234+/= guest\nbob:1234 acme\n";
    let (edge, door) = edge(Callers::from_text(credentials).unwrap()).await;
    run_script("lambda.py", &[&format!("http://{door}"), "ada", "1234+/="]).await;

    // The same in a process of its own in front of the broker.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    std::fs::write(&path, credentials).unwrap();
    let (controller, broker) = (edge.controller().to_string(), edge.broker().to_string());
    let arguments =
        ["lambda", "--credentials", path.to_str().unwrap(), "--controller", &controller, "--broker", &broker];
    let proxy = processes::Role::start("proxy", "endpoint", &arguments);
    run_script("lambda.py", &[&format!("http://{}", proxy.endpoint), "ada", "1234+/="]).await;
    let metrics = send(&proxy.at["metrics"], "GET", "/metrics", &[], "").await.body;
    assert!(metrics.contains("nigh_proxy_http_responses_total{code=\"204\"}"), "{metrics}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_of_aws_works_unchanged_over_tls() {
    let edge = Edge::start_with(1, |config| {
        config.authority = Some(Arc::new(nigh::ca::Authority::new().unwrap()));
        config.doors = vec![(System::Lambda, 0)];
        config.broker.callers = Callers::from_text("ada:1234+/= guest\nbob:1234 acme\n").unwrap();
        config.broker.http_clients = HttpClients::Anybody;
    })
    .await;
    deploy(&edge).await;
    let door = format!("https://{}", edge.local().doors()[0].1);
    let authority = edge.authority().certificate();
    run_script_over_tls("lambda.py", &[&door, "ada", "1234+/="], Some(authority)).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_of_aws_works_unchanged() {
    let (edge, door) = edge(Callers::everybody()).await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.json");
    let mut command = tokio::process::Command::new(installed().join("python/bin/aws"));
    command.args(["lambda", "invoke", "--endpoint-url", &format!("http://{door}"), "--function-name", "echo"]);
    command.args(["--payload", "{\"name\":\"Ada\"}"]).arg(&out).env("HOME", folder.path());
    command
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "thing")
        .env("AWS_DEFAULT_REGION", "eu-west-1");
    let said: Value = serde_json::from_str(&run(&mut command).await).unwrap();
    assert_eq!(said, json!({ "StatusCode": 200, "ExecutedVersion": "$LATEST" }));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "{\"name\":\"Ada\"}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_sdk_tries_again_runs_once() {
    let (edge, door) = edge(Callers::everybody()).await;
    let headers =
        [("x-amz-invocation-type", "Event"), ("amz-sdk-invocation-id", "2f4d1c1e-6f0f-4a54-9d0b-0a9b8c7d6e5f")];
    for _ in 0..3 {
        assert_eq!(send(&door, "POST", INVOKE, &headers, "{}").await.status, 202);
    }
    edge.until("it has run", async || {
        let broker = edge.metrics().iter().find(|(name, _)| name.starts_with("broker")).unwrap().1.clone();
        let metrics = send(&broker, "GET", "/metrics", &[], "").await.body;
        metrics.contains("nigh_broker_asynchronous_accepted_total 1")
            && metrics.contains("nigh_broker_asynchronous_settled_total 1")
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_as_aws_tells_it() {
    let (edge, door) = edge(Callers::from_text("ada:1234 guest").unwrap()).await;
    let unsigned = send(&door, "POST", INVOKE, &[], "{}").await;
    assert_eq!(
        (unsigned.status, &unsigned.headers["x-amzn-errortype"]),
        (403, &"MissingAuthenticationTokenException".parse().unwrap())
    );
    assert_eq!(unsigned.json()["Type"], "User");
    edge.stop().await;

    let (edge, door) = self::edge(Callers::everybody()).await;
    for (method, path, headers, status) in [
        ("POST", INVOKE, &[("x-amz-invocation-type", "Soon")][..], 400),
        ("POST", INVOKE, &[("origin", "https://page.example")], 403),
        ("POST", "/2015-03-31/functions/No%2FName/invocations", &[], 404),
        ("GET", "/2015-03-31/functions?MaxItems=0", &[], 400),
        ("PUT", "/2015-03-31/functions/echo/code", &[], 404),
        ("GET", "/elsewhere", &[], 404),
    ] {
        let told = send(&door, method, path, headers, "").await;
        assert_eq!(told.status, status, "{method} {path}: {}", told.body);
        assert!(told.json()["Message"].is_string() && told.headers.contains_key("x-amzn-requestid"), "{}", told.body);
    }
    let mut connection = TcpStream::connect(door.as_str()).await.unwrap();
    let head = format!("POST {INVOKE} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", (6 << 20) + 1);
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut told = String::new();
    // It is closed, as nobody reads what would come.
    let _ = connection.read_to_string(&mut told).await;
    assert!(told.starts_with("HTTP/1.1 413 ") && told.contains("RequestTooLargeException"), "{told}");
    edge.stop().await;
}
