//! Requests per second and latency of an http function in fresh instances: of a computer at its own door, and
//! through a broker, against `wasmtime serve` of the same release with the same component and the same load tool (wrk). Rounds
//! are interleaved, figures are medians. `scripts/bench` installs both tools.
//!
//! `cargo bench -p nigh-tests --bench http [-- --rounds 5 --seconds 2 --path /hello]`; `NIGH_BENCH_WASMTIME` names the
//! wasmtime program.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use nigh_proto::channel::Door;
use nigh_proto::{CallLimits, Deployment, Digest, Kind, Limits};
use nigh_runtime::Computer;
use nigh_tests::bench::{argument, median, runtime};
use nigh_tests::edge::Edge;
use nigh_tests::guests;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const IN_FLIGHT: [u32; 2] = [1, 64];
const FUNCTION: &str = "web";
const REUSING: &str = "web-reused";
/// Calls that one instance of `wasmtime serve` serves where it reuses them.
const REUSE: u32 = 1000;

/// `wasmtime serve`, ended with the bench.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wasmtime_serve(component: &std::path::Path, reuse: u32) -> (Served, String) {
    let program = std::env::var("NIGH_BENCH_WASMTIME").unwrap_or_else(|_| "wasmtime".to_owned());
    // Free a moment ago; whoever takes it in between makes the bench fail, and no figure wrong.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut command = Command::new(&program);
    command.args(["serve", "-S", "cli", "--addr", &free.to_string()]);
    command.args(["--max-instance-reuse-count", &reuse.to_string()]).arg(component);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; run scripts/bench"));
    (Served(child), free.to_string())
}

/// A computer with its own door for HTTP.
fn computer(module: &Bytes) -> String {
    let runtime = runtime("computer");
    let _entered = runtime.enter();
    let config = nigh_runtime::Config::new("computer-1".parse().expect("a name"));
    let computer = Computer::new(config).expect("a computer");
    for (name, reuse) in [(FUNCTION, 1), (REUSING, REUSE)] {
        let (digest, bytes) = (Digest::of(module), module.len() as u64);
        // As many at once as the load tool asks for, as `wasmtime serve` takes them.
        let limits = Limits { concurrency: 64, reuse, ..Limits::default() };
        let name = name.parse().expect("a name");
        let deployment = Deployment::new(name, digest, bytes, Kind::Http, limits, Vec::new());
        runtime.block_on(computer.deploy(deployment, module.clone())).expect("the component deploys");
    }
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (limits, never) = (CallLimits::default(), CancellationToken::new());
    runtime.spawn(nigh_runtime::serve_http_for_benches(computer, Door::new(listener, None), limits, never));
    address
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

fn main() {
    let rounds = argument("--rounds", 5);
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
    let (_fresh, fresh) = wasmtime_serve(&component, 1);
    let (_reusing, reusing) = wasmtime_serve(&component, REUSE);
    let own = computer(&module);
    let paths = [
        ("wasmtime serve, fresh", format!("http://{fresh}{path}")),
        ("wasmtime serve, reuse 1000", format!("http://{reusing}{path}")),
        ("computer, fresh", format!("http://{own}/function/{FUNCTION}{path}")),
        ("computer, reuse 1000", format!("http://{own}/function/{REUSING}{path}")),
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
    let per_s: Vec<f64> = figures.iter().map(|rounds| median(rounds.iter().map(|f| f.per_s))).collect();
    for ((name, _), (rounds, own)) in paths.iter().zip(figures.iter().zip(&per_s)) {
        let p50 = median(rounds.iter().map(|f| f.p50_us));
        let p99 = median(rounds.iter().map(|f| f.p99_us));
        println!("| {name} | {own:.0} | {p50:.0} | {p99:.0} | {:.2} | {:.2} |", own / per_s[0], own / per_s[1]);
    }
}
