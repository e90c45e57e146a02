//! What a call costs at each door for other systems' clients: processor time of the whole edge (a broker and a computer; the
//! client's left out) for each call, against `POST /function/{name}` in the same run. One client that waits for each answer,
//! on one connection, with requests that are put together before; rounds are interleaved, figures are medians of rounds.
//!
//! `cargo bench -p nigh-tests --bench doors [-- --rounds 9 --calls 2000]`
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::cast_precision_loss, reason = "counts of a bench are small")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nigh_doors::System;
use nigh_proto::Endpoint;
use nigh_tests::bench::{argument, median, runtime};
use nigh_tests::edge::Edge;
use nigh_tests::guests;

const BODY: &str = r#"{"name":"Ada","of":["one","two","three"],"count":3,"rest":"....."}"#;

/// A request that is sent over and over on one connection.
struct Caller {
    name: &'static str,
    connection: TcpStream,
    request: Vec<u8>,
    /// Of each round: processor time of the edge, and time waited, for each call in µs.
    figures: Vec<(f64, f64)>,
}

impl Caller {
    fn new(name: &'static str, door: &Endpoint, path: &str, headers: &str, body: &str) -> Self {
        let connection = TcpStream::connect(door.as_str()).expect("the edge listens");
        connection.set_nodelay(true).expect("a connection");
        connection.set_read_timeout(Some(Duration::from_secs(10))).expect("a connection");
        let length = body.len();
        let request = format!("POST {path} HTTP/1.1\r\nhost: edge\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        Self { name, connection, request: request.into_bytes(), figures: Vec::new() }
    }

    fn call(&mut self) {
        self.connection.write_all(&self.request).expect("the edge reads");
        let mut answer = Vec::with_capacity(4096);
        let mut part = [0; 4096];
        loop {
            let read = self.connection.read(&mut part).expect("the edge answers");
            assert!(read > 0, "{}: the connection was closed", self.name);
            answer.extend_from_slice(&part[..read]);
            let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            assert!(text.starts_with("http/1.1 200 "), "{}: {}", self.name, String::from_utf8_lossy(&answer));
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let length: usize = length.expect("a length");
            if answer.len() >= head + 4 + length {
                return;
            }
        }
    }

    fn round(&mut self, calls: usize) {
        let (began, before) = (Instant::now(), edge_time());
        for _ in 0..calls {
            self.call();
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / calls as f64;
        self.figures.push((each(edge_time().saturating_sub(before)), each(began.elapsed())));
    }
}

/// Processor time of all threads of this process but the one that asks, which is the client.
fn edge_time() -> Duration {
    let own = std::fs::read_link("/proc/thread-self").expect("Linux");
    let own = own.file_name().expect("a thread").to_owned();
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux").filter_map(Result::ok);
    let spent = threads.filter(|thread| thread.file_name() != own).filter_map(|thread| {
        let told = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        told.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

fn main() {
    let (rounds, calls) = (argument("--rounds", 9_usize), argument("--calls", 2000_usize));
    let runtime = runtime("edge");
    let edge = runtime.block_on(async {
        let edge = Edge::start_with(1, |config| config.doors = System::ALL.map(|system| (system, 0)).to_vec()).await;
        edge.deploy("echo", guests::echo()).await;
        edge
    });
    let door = |wanted| {
        let found = edge.local().doors().iter().find(|(system, _)| *system == wanted);
        found.expect("a door for each system").1.clone()
    };
    let json = "content-type: application/json\r\n";
    let event = format!("{json}ce-specversion: 1.0\r\nce-id: 7\r\nce-source: /bench\r\nce-type: bench\r\n");
    let structured = format!(r#"{{"specversion":"1.0","id":"7","source":"/bench","type":"bench","data":{BODY}}}"#);
    let (basic, whisk) = (format!("{json}authorization: Basic YTpi\r\n"), door(System::OpenWhisk));
    let invoke = "/api/v1/namespaces/_/actions/echo?blocking=true";
    let only_result = format!("{invoke}&result=true");
    let as_event = "content-type: application/cloudevents+json\r\n";
    let aws = "/2015-03-31/functions/echo/invocations";
    let mut callers = [
        Caller::new("`POST /function/echo`", &edge.http(), "/function/echo", json, BODY),
        Caller::new("the same again", &edge.http(), "/function/echo", json, BODY),
        Caller::new("CloudEvent, binary", &edge.http(), "/function/echo", &event, BODY),
        Caller::new("CloudEvent, structured", &edge.http(), "/function/echo", as_event, &structured),
        Caller::new("OpenWhisk, blocking", &whisk, invoke, &basic, BODY),
        Caller::new("OpenWhisk, result only", &whisk, &only_result, &basic, BODY),
        Caller::new("AWS Lambda, not signed", &door(System::Lambda), aws, "", BODY),
        Caller::new("OpenFaaS", &door(System::OpenFaas), "/function/echo.openfaas-fn", json, BODY),
    ];
    for caller in &mut callers {
        (0..calls / 2).for_each(|_| caller.call());
    }
    for _ in 0..rounds {
        callers.iter_mut().for_each(|caller| caller.round(calls));
    }
    println!("| door | CPU of the edge for each call | of the HTTP door's | waited |\n|---|---|---|---|");
    let figures = |caller: &Caller, pick: fn(&(f64, f64)) -> f64| median(caller.figures.iter().map(pick));
    let base = figures(&callers[0], |(spent, _)| *spent);
    for caller in &callers {
        let (spent, waited) = (figures(caller, |(spent, _)| *spent), figures(caller, |(_, waited)| *waited));
        println!("| {} | {spent:.1} µs | {:.2} | {waited:.0} µs |", caller.name, spent / base);
    }
    drop(callers);
    runtime.block_on(edge.stop());
}
