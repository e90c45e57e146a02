//! Requests per second and latency of an http function in fresh instances: of a computer behind a bare HTTP server, and
//! through a broker, against `wasmtime serve` of the same release with the same component and the same load tool (wrk). Rounds
//! are interleaved, figures are medians. `scripts/bench` installs both tools.
//!
//! `cargo bench -p nigh-tests --bench http [-- --rounds 5 --seconds 2 --path /hello]`; `NIGH_BENCH_WASMTIME` names the
//! wasmtime program.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a bench are small")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nigh_proto::exchange::{Part, RequestHead};
use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Deployment, Digest, Exchange, Exchanged, Kind, Limits, PlatformError};
use nigh_runtime::Computer;
use nigh_tests::edge::Edge;
use nigh_tests::guests;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Threads of each server's runtime.
const THREADS: usize = 2;
const IN_FLIGHT: [u32; 2] = [1, 64];
const FUNCTION: &str = "web";
/// Calls that one instance of `wasmtime serve` serves where it reuses them.
const REUSE: &str = "1000";

fn runtime(name: &str) -> &'static Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Box::leak(Box::new(builder.worker_threads(THREADS).thread_name(name).enable_all().build().expect("a runtime")))
}

/// `wasmtime serve`, ended with the bench.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wasmtime_serve(component: &std::path::Path, options: &[&str]) -> (Served, String) {
    let program = std::env::var("NIGH_BENCH_WASMTIME").unwrap_or_else(|_| "wasmtime".to_owned());
    // Free a moment ago; whoever takes it in between makes the bench fail, and no figure wrong.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut command = Command::new(&program);
    command.args(["serve", "-S", "cli", "--addr", &free.to_string()]).args(options).arg(component);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; run scripts/bench"));
    (Served(child), free.to_string())
}

/// A computer behind nothing but an HTTP server, as `wasmtime serve` is.
fn computer(module: Bytes) -> String {
    let runtime = runtime("computer");
    let _entered = runtime.enter();
    let config = nigh_runtime::Config::new("computer-1".parse().expect("a name"));
    let computer = Computer::new(config).expect("a computer");
    let name = FUNCTION.parse().expect("a name");
    let (digest, bytes) = (Digest::of(&module), module.len() as u64);
    // As many at once as the load tool asks for, as `wasmtime serve` takes them.
    let limits = Limits { concurrency: 64, ..Limits::default() };
    let deployment = Deployment::new(name, digest, bytes, Kind::Http, limits, Vec::new());
    runtime.block_on(computer.deploy(deployment, module)).expect("the component deploys");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    runtime.spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.expect("accepts until the bench ends");
            connection.set_nodelay(true).expect("a socket takes options");
            let computer = computer.clone();
            let answer = hyper::service::service_fn(move |request| answer(computer.clone(), request));
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(connection), answer));
        }
    });
    address
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, PlatformError>>;

async fn answer(computer: Arc<Computer>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let arrived = Instant::now();
    let (mut parts, body) = request.into_parts();
    let authority = parts.headers.remove(hyper::header::HOST).expect("wrk names its host");
    let head = RequestHead {
        method: parts.method,
        path: parts.uri.path_and_query().expect("a path").clone(),
        authority: authority.to_str().expect("a host").to_owned(),
        headers: parts.headers,
    };
    let call = Call::new(FUNCTION.parse().expect("a name"), Bytes::new(), Duration::from_secs(30));
    let body = body.into_data_stream().map_err(PlatformError::malformed);
    let exchange = Exchange { call, head, body: Box::pin(body) };
    let exchanged = computer.exchange(exchange, arrived).await.expect("every call is taken");
    let Exchanged::Answer(head, parts) = exchanged else { panic!("every call is answered: {exchanged:?}") };
    let frames = parts.filter_map(|part| {
        std::future::ready(match part {
            Ok(Part::Body(bytes)) => Some(Ok(Frame::data(bytes))),
            Ok(Part::End(_)) => None,
            Err(error) => Some(Err(error)),
        })
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(response)
}

#[derive(Clone, Copy)]
struct Figures {
    per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

/// What wrk says of one server.
fn load(url: &str, in_flight: u32, time: Duration) -> Figures {
    let seconds = format!("{}s", time.as_secs().max(1));
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", &in_flight.to_string(), "-d", &seconds, "--latency", url])
        .output()
        .unwrap_or_else(|error| panic!("wrk: {error}; run scripts/bench"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("Non-2xx"), "{url}: {text}");
    let after = |word: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(word)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().last().expect("a figure").to_owned()
    };
    Figures {
        per_s: after("Requests/sec:").parse().expect("a number"),
        p50_us: microseconds(&after("50%")),
        p99_us: microseconds(&after("99%")),
    }
}

fn microseconds(text: &str) -> f64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().unwrap_or_else(|_| panic!("{text} is no time"));
    match &text[digits.len()..] {
        "us" => number,
        "ms" => number * 1e3,
        "s" => number * 1e6,
        unit => panic!("{unit} is no unit of time"),
    }
}

async fn until_answers(address: &str) {
    let address: SocketAddr = address.parse().expect("an address");
    for _ in 0..600 {
        if TcpStream::connect(address).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody listens at {address}");
}

fn argument<T: std::str::FromStr>(name: &str, default: T) -> T {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let rounds = argument("--rounds", 5.0_f64) as usize;
    let time = Duration::from_secs_f64(argument("--seconds", 2.0));
    let path = argument("--path", "/hello".to_owned());
    let module = guests::built("rust");
    let folder = tempfile::tempdir().expect("a folder");
    let component = folder.path().join("component.wasm");
    std::fs::write(&component, &module).expect("a file");

    let edge = runtime("edge");
    let nigh = edge.block_on(Edge::start(1));
    let limits = Limits { concurrency: 64, ..Limits::default() };
    edge.block_on(nigh.try_deploy(FUNCTION, module.clone(), limits)).expect("the component deploys");
    let (_fresh, fresh) = wasmtime_serve(&component, &["--max-instance-reuse-count", "1"]);
    let (_reusing, reusing) = wasmtime_serve(&component, &["--max-instance-reuse-count", REUSE]);
    let own = computer(module);
    let paths = [
        ("wasmtime serve, fresh", format!("http://{fresh}{path}")),
        ("wasmtime serve, reuse 1000", format!("http://{reusing}{path}")),
        ("computer, fresh", format!("http://{own}{path}")),
        ("broker → computer, fresh", format!("http://{}/function/{FUNCTION}{path}", nigh.http())),
    ];
    for address in [&fresh, &reusing, &own] {
        edge.block_on(until_answers(address));
    }
    for in_flight in IN_FLIGHT {
        let mut figures = vec![Vec::new(); paths.len()];
        for round in 0..=rounds {
            for ((_, url), figures) in paths.iter().zip(&mut figures) {
                let one = load(url, in_flight, time);
                if round > 0 {
                    // The first round warms up.
                    figures.push(one);
                }
            }
        }
        report(in_flight, &paths, &figures);
    }
}

fn report(in_flight: u32, paths: &[(&str, String)], figures: &[Vec<Figures>]) {
    println!("\n{in_flight} in flight, median of {} rounds", figures[0].len());
    println!(
        "| server | requests/s | p50 µs | p99 µs | of wasmtime serve, fresh | of reuse 1000 |\n|---|---|---|---|---|---|"
    );
    let per_s: Vec<f64> = figures.iter().map(|rounds| median(rounds.iter().map(|f| f.per_s).collect())).collect();
    for ((name, _), (rounds, own)) in paths.iter().zip(figures.iter().zip(&per_s)) {
        let p50 = median(rounds.iter().map(|f| f.p50_us).collect());
        let p99 = median(rounds.iter().map(|f| f.p99_us).collect());
        println!("| {name} | {own:.0} | {p50:.0} | {p99:.0} | {:.2} | {:.2} |", own / per_s[0], own / per_s[1]);
    }
}
