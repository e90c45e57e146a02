//! Watching an edge: metrics and health of every role over real sockets, why a call was slow, logs by call.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use nigh_proto::{Call, Endpoint, Limits, Outcome};
use nigh_tests::edge::Edge;
use nigh_tests::{guests, processes};
use prometheus_parse::{Scrape, Value};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn get(endpoint: &Endpoint, path: &str) -> (u16, String) {
    let mut connection = tokio::net::TcpStream::connect(endpoint.as_str()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn post(endpoint: &Endpoint, path: &str, body: &str) -> u16 {
    let mut connection = tokio::net::TcpStream::connect(endpoint.as_str()).await.unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    connection.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Everything that all roles tell.
async fn told(edge: &Edge) -> Vec<prometheus_parse::Sample> {
    let mut samples = Vec::new();
    for (role, endpoint) in edge.metrics() {
        let (status, text) = get(endpoint, "/metrics").await;
        assert_eq!(status, 200, "{role}");
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        let names: BTreeSet<_> = scrape.samples.iter().map(|sample| sample.metric.as_str()).collect();
        assert!(names.iter().all(|name| name.starts_with("nigh_")), "{names:?}");
        samples.extend(scrape.samples);
    }
    samples
}

fn number(samples: &[prometheus_parse::Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &&prometheus_parse::Sample| {
        sample.metric == name && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(*value))
    };
    let value = |sample: &prometheus_parse::Sample| match &sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
        Value::Histogram(buckets) => buckets.last().map_or(0.0, |bucket| bucket.count),
        Value::Summary(_) => f64::NAN,
    };
    samples.iter().filter(has).map(value).sum()
}

/// The metrics that a file asks for.
fn asked_for(file: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(guests::root().join("docs/monitoring").join(file)).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("nigh_")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_tells_of_itself_and_dashboard_and_alerts_ask_for_what_is_told() {
    let edge = Edge::start(2).await;
    for (role, endpoint) in edge.metrics() {
        assert_eq!(get(endpoint, "/healthz").await.0, 200, "{role}");
        edge.until("it is ready", async || get(endpoint, "/readyz").await.0 == 200).await;
    }
    assert_eq!(edge.metrics().len(), 4);
    let reuse = Limits { reuse: 100, ..Limits::default() };
    edge.try_deploy("misbehaving", guests::built("misbehaving"), reuse).await.unwrap();
    for command in ["count", "count", "count", "fail on-purpose", "panic on-purpose"] {
        edge.call("misbehaving", command).await.unwrap();
    }
    edge.call("nobody-deployed-this", "").await.unwrap_err();
    assert_eq!(post(&edge.http(), "/function/misbehaving", "count").await, 200);

    let samples = told(&edge).await;
    let of = |outcome| [("function", "misbehaving"), ("outcome", outcome)];
    for metric in ["nigh_broker_calls_total", "nigh_computer_calls_total"] {
        let counts = ["answer", "error", "panic"].map(|outcome| number(&samples, metric, &of(outcome)));
        assert_eq!(counts, [4.0, 1.0, 1.0], "{metric}");
    }
    assert_eq!(number(&samples, "nigh_broker_calls_total", &[("outcome", "unknown-function")]), 1.0);
    assert!(number(&samples, "nigh_broker_call_seconds", &[("function", "misbehaving")]) >= 6.0);
    assert_eq!(number(&samples, "nigh_broker_http_responses_total", &[("code", "200")]), 1.0);
    assert_eq!(number(&samples, "nigh_broker_destinations", &[("state", "in-use")]), 2.0);
    assert_eq!(number(&samples, "nigh_controller_nodes", &[("role", "computer")]), 2.0);
    assert_eq!(number(&samples, "nigh_controller_deploys_total", &[("outcome", "deployed")]), 1.0);
    assert!(number(&samples, "nigh_controller_store_bytes", &[]) > 0.0);

    // Counters that have not counted yet have no sample, so families are taken from their descriptions.
    let mut families = BTreeSet::new();
    for (_, endpoint) in edge.metrics() {
        let text = get(endpoint, "/metrics").await.1;
        for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = family.split_once(' ').unwrap();
            let endings: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            families.extend(endings.iter().map(|ending| format!("{name}{ending}")));
        }
    }
    for file in ["alerts.yml", "dashboard.json"] {
        let unknown: Vec<_> = asked_for(file).difference(&families).cloned().collect();
        assert!(unknown.is_empty(), "{file} asks for what nobody tells: {unknown:?}");
    }
    edge.stop().await;
}

/// A command of the program, on this edge, with its standard output and standard error.
async fn nigh(edge: &Edge, arguments: &[&str]) -> (String, String) {
    let mut command: Command = processes::nigh();
    command
        .args(arguments)
        .env("NIGH_BROKER", edge.broker().as_str())
        .env("NIGH_CONTROLLER", edge.controller().as_str());
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(ran.stdout), text(ran.stderr));
    assert!(ran.status.success(), "{arguments:?}: {err}");
    (out, err)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_is_explained_by_its_parts() {
    let edge = Edge::start(1).await;
    let one_at_a_time = Limits { concurrency: 1, ..Limits::default() };
    edge.try_deploy("misbehaving", guests::built("misbehaving"), one_at_a_time).await.unwrap();

    // In the function.
    let (_, told) = nigh(&edge, &["invoke", "misbehaving", "--data", "spin 300", "-v"]).await;
    assert!(told.contains("mostly     run: the function itself"), "{told}");

    // Behind another call.
    let ahead = Call::new("misbehaving".parse().unwrap(), "spin 1000", Duration::from_secs(30));
    let caller = edge.caller.clone();
    let ahead = tokio::spawn(async move { caller.invoke(ahead).await });
    edge.until("the other runs", async || {
        number(&told_by_computer(&edge).await, "nigh_computer_running", &[("function", "misbehaving")]) == 1.0
    })
    .await;
    let began = Instant::now();
    let reply = edge.call("misbehaving", "count").await.unwrap();
    let elapsed = began.elapsed();
    ahead.await.unwrap().unwrap();
    let timing = reply.timing;
    assert!(timing.queue > timing.run && timing.queue > timing.network, "{timing:?}");
    assert!(timing.total() <= elapsed, "{timing:?} of {elapsed:?}");
    assert!(elapsed - timing.total() < elapsed / 10 + Duration::from_millis(20), "{timing:?} of {elapsed:?}");

    // The first call of a version: making an instance counts, and the parts add up.
    edge.deploy("cold", guests::built("misbehaving")).await;
    let (out, _) = nigh(&edge, &["invoke", "cold", "--data", "count", "-v", "--json"]).await;
    let json: Json = serde_json::from_str(&out).unwrap();
    let us = |part: &str| json["timing_us"][part].as_u64().unwrap();
    assert!(us("init") > 0, "{json}");
    assert_eq!(["network", "broker", "queue", "init", "run"].map(us).iter().sum::<u64>(), us("total"), "{json}");
    edge.stop().await;
}

async fn told_by_computer(edge: &Edge) -> Vec<prometheus_parse::Sample> {
    let (_, endpoint) = edge.metrics().iter().find(|(name, _)| name.starts_with("computer")).unwrap();
    let text = get(endpoint, "/metrics").await.1;
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap().samples
}

#[tokio::test(flavor = "multi_thread")]
async fn one_calls_lines_are_found_by_its_id_wherever_it_ran() {
    let edge = Edge::start(2).await;
    edge.deploy("misbehaving", guests::built("misbehaving")).await;
    let mut calls = Vec::new();
    for command in ["log 3", "log 2", "panic on-purpose", "log 4"] {
        calls.push(edge.call("misbehaving", command).await.unwrap().call);
    }
    let lines = async |arguments: &[&str]| -> Vec<Json> {
        let arguments = [&["logs", "--json"], arguments].concat();
        let (out, _) = nigh(&edge, &arguments).await;
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let of_one = lines(&["--call", calls[1].as_str()]).await;
    assert_eq!(of_one.iter().map(|line| line["text"].as_str().unwrap()).collect::<Vec<_>>(), ["line 0", "line 1"]);
    assert_eq!(lines(&["misbehaving", "--call", &calls[3].as_str()[..12]]).await.len(), 4, "a part of an id suffices");
    let panics = lines(&["--level", "panic"]).await;
    assert!(!panics.is_empty() && panics.iter().all(|line| line["call"] == calls[2].as_str()), "{panics:?}");
    assert_eq!(lines(&["--tail", "2"]).await.len(), 2);
    assert!(lines(&["--since", "1h"]).await.len() >= 9);

    // A program's standard error, and what nigh top makes of all that.
    edge.deploy("shout", guests::built("shout")).await;
    let reply = edge.call("shout", "hello").await.unwrap();
    assert!(matches!(reply.outcome, Outcome::Answer { .. }), "{reply:?}");
    let (out, _) = nigh(&edge, &["top", "--once", "--json", "--interval", "200ms", "--sort", "name"]).await;
    let top: Json = serde_json::from_str(&out).unwrap();
    assert_eq!((&top["functions"][0]["function"], &top["functions"][0]["calls"]), (&"misbehaving".into(), &4.into()));
    assert!(top["functions"][0]["p99_us"].as_u64().unwrap() > 0 && top["functions"][0]["calls_per_s"].is_number());
    assert_eq!((top["computers"].as_array().unwrap().len(), top["brokers"].as_array().unwrap().len()), (2, 1));
    edge.stop().await;
}
