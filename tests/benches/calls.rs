//! Calls per second and latency of a computer, and of a broker in front of it, against a bare tonic echo server and a bare
//! tonic pass-through in the same run; then latency at half the load that each bears. Calls are made as users make them,
//! with the client library, and as other programs do, each a request of its own. Rounds are interleaved, figures are medians.
//!
//! `cargo bench -p nigh-tests --bench calls [-- --rounds 7 --seconds 2]`; with `--tls`, plain paths against the same over
//! mutual TLS instead; with `--only PATH`, that path alone, to be profiled,
//! and with `--rate CALLS` as calls that arrive, so many in a second.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares and counts of a bench are small")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nigh_client::{Caller, CallerLimits};
use nigh_proto::channel::{self, Door};
use nigh_proto::ingress::Ingress;
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::v1::functions_server::Functions;
use nigh_proto::{Call, Endpoint, Outcome, Remote, Role, Tls, v1};
use nigh_tests::bench::{BareEcho, NoFrames, NoParts, argument, bare, median, runtime, start};
use nigh_tests::edge::certificate;
use nigh_tests::guests;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

const PAYLOAD_BYTES: usize = 64;
const IN_FLIGHT: [usize; 2] = [1, 64];
const FUNCTION: &str = "echo";
/// Time that each call has.
const PATIENCE: Duration = Duration::from_secs(30);

/// Passes a request on and its response back and does nothing else.
struct BareHop(FunctionsClient<Channel>);

#[tonic::async_trait]
impl Functions for BareHop {
    async fn invoke(&self, request: Request<v1::InvokeRequest>) -> Result<Response<v1::InvokeResponse>, Status> {
        self.0.clone().invoke(request.into_inner()).await
    }

    type InvokeStreamStream = NoFrames;

    async fn invoke_stream(&self, _: Request<Streaming<v1::InvokeFrame>>) -> Result<Response<NoFrames>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    type ExchangeStream = NoParts;

    async fn exchange(&self, _: Request<Streaming<v1::ExchangeRequest>>) -> Result<Response<NoParts>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

/// A computer with the function on it; no controller is needed.
fn computer(tls: Option<Tls>) -> Endpoint {
    start("computer", |listener| async move {
        let module = guests::built(FUNCTION);
        let deployment = nigh_proto::Deployment::new(
            FUNCTION.parse().expect("a name"),
            nigh_proto::Digest::of(&module),
            module.len() as u64,
            nigh_proto::Kind::Native,
            nigh_proto::Limits::default(),
            Vec::new(),
        );
        let config = nigh_runtime::Config::new("computer-1".parse().expect("a name"));
        let computer = nigh_runtime::Computer::new(config).expect("a computer");
        computer.deploy(deployment, module).await.expect("the shipped function deploys");
        let service = Ingress::service(computer, nigh_proto::CallLimits::default());
        let server = channel::server().add_service(service);
        server
            .serve_with_incoming(channel::incoming(Door::new(listener, tls)))
            .await
            .expect("serves until the bench ends");
    })
}

fn broker(computer: Endpoint, tls: Option<Tls>) -> Endpoint {
    start("broker", |calls| async move {
        let mut config = nigh_broker::Config::new("broker-1".parse().expect("a name"));
        config.tls = tls;
        config.routes = vec![(FUNCTION.parse().expect("a name"), computer)];
        let listeners = nigh_broker::Listeners { calls, table: None, http: None, doors: Vec::new() };
        nigh_broker::run(listeners, config, CancellationToken::new()).await.expect("serves until the bench ends");
    })
}

fn hop(to: &Endpoint) -> Endpoint {
    let _entered = runtime("hop-client").enter();
    bare("hop", BareHop(FunctionsClient::new(channel::connect_lazy(to))))
}

#[derive(Clone, Copy)]
struct Figures {
    calls_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Figures {
    fn of(mut latencies: Vec<Duration>, time: Duration) -> Self {
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        Self { calls_per_s: latencies.len() as f64 / time.as_secs_f64(), p50_us: at(0.5), p99_us: at(0.99) }
    }
}

/// How calls are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// With the client library.
    Library,
    /// Each a request of its own.
    Requests,
}

#[derive(Clone)]
struct Path {
    name: &'static str,
    way: Way,
    to: Remote,
}

impl Path {
    fn new(name: &'static str, way: Way, to: impl Into<Remote>) -> Self {
        Self { name, way, to: to.into() }
    }

    fn caller(&self) -> Client {
        match self.way {
            Way::Library => Client::Library(Caller::new(self.to.clone(), CallerLimits::default())),
            Way::Requests => Client::Requests(FunctionsClient::new(channel::connect_lazy(self.to.clone()))),
        }
    }
}

#[derive(Clone)]
enum Client {
    Library(Caller),
    Requests(FunctionsClient<Channel>),
}

impl Client {
    /// The time that one call takes.
    async fn call(&self) -> Duration {
        let payload = vec![7; PAYLOAD_BYTES];
        let (began, answered) = match self {
            Self::Library(caller) => {
                let call = Call::new(FUNCTION.parse().expect("a name"), payload, PATIENCE);
                let began = Instant::now();
                let Outcome::Answer { payload, .. } =
                    caller.invoke(call).await.expect("every call is answered").outcome
                else {
                    panic!("the function answers")
                };
                (began, payload)
            }
            Self::Requests(client) => {
                let request =
                    v1::InvokeRequest { function: FUNCTION.into(), payload: payload.into(), ..Default::default() };
                let began = Instant::now();
                let response = client.clone().invoke(request).await.expect("every call is answered").into_inner();
                let Some(v1::invoke_response::Outcome::Answer(answer)) = response.outcome else {
                    panic!("the function answers")
                };
                (began, answer.payload)
            }
        };
        let took = began.elapsed();
        assert_eq!(answered.len(), PAYLOAD_BYTES);
        took
    }
}

/// So many callers, each of whom calls again once it is answered.
async fn load(path: &Path, in_flight: usize, time: Duration) -> Figures {
    let client = path.caller();
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    latencies.push(client.call().await);
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no task panics"));
    }
    Figures::of(latencies, began.elapsed())
}

/// Calls that arrive at this rate, whenever those before them are answered. A thread of its own waits for each: timers of the
/// runtime are due by the millisecond, and calls would come in bursts.
fn arrive(client: &Runtime, path: &Path, per_s: f64, time: Duration) -> Figures {
    let _entered = client.enter();
    let caller = path.caller();
    // The connection is there, and the stream.
    for _ in 0..3 {
        client.block_on(caller.call());
    }
    let (mut dice, mut calls) = (Dice(1), Vec::new());
    let began = Instant::now();
    let mut next = Duration::ZERO;
    while next < time {
        std::thread::sleep(next.saturating_sub(began.elapsed()));
        let caller = caller.clone();
        calls.push(client.spawn(async move { caller.call().await }));
        next += Duration::from_secs_f64(dice.exponential() / per_s);
    }
    let answered = async {
        let mut latencies = Vec::new();
        for call in calls {
            latencies.push(call.await.expect("no task panics"));
        }
        latencies
    };
    Figures::of(client.block_on(answered), time)
}

/// Times between arrivals that know nothing of each other: exponentially distributed, of mean 1.
struct Dice(u64);

impl Dice {
    fn exponential(&mut self) -> f64 {
        // Xorshift: good enough to keep callers out of step.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let uniform = ((self.0 >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        -uniform.ln()
    }
}

fn main() {
    let rounds = argument("--rounds", 7);
    let time = Duration::from_secs_f64(argument("--seconds", 2.0));
    if std::env::args().any(|argument| argument == "--tls") {
        return compare_tls(rounds, time);
    }
    let bare_echo = bare("bare", BareEcho);
    let computer = computer(None);
    let broker = broker(computer.clone(), None);
    let paths = [
        Path::new("bare tonic echo", Way::Requests, &bare_echo),
        Path::new("bare hop → bare echo", Way::Requests, hop(&bare_echo)),
        Path::new("computer", Way::Library, &computer),
        Path::new("broker → computer", Way::Library, &broker),
        Path::new("bare hop → computer", Way::Requests, hop(&computer)),
        Path::new("bare tonic echo, on a stream", Way::Library, &bare_echo),
        Path::new("computer, by requests", Way::Requests, &computer),
        Path::new("broker → computer, by requests", Way::Requests, &broker),
    ];
    let only: String = argument("--only", String::new());
    if let Some(path) = paths.iter().find(|path| path.name == only) {
        return profile(path.clone(), rounds, time);
    }
    for in_flight in IN_FLIGHT {
        let figures = interleave(&paths, rounds, |client, path| client.block_on(load(path, in_flight, time)));
        report(in_flight, &paths, &figures);
        if in_flight == IN_FLIGHT[1] {
            report_half(&paths, &figures, rounds, time);
        }
    }
}

/// One path alone.
fn profile(path: Path, rounds: usize, time: Duration) {
    let (rate, paths) = (argument("--rate", 0.0), [path]);
    if rate > 0.0 {
        let figures = interleave(&paths, rounds, |client, path| arrive(client, path, rate, time));
        table(0, &paths, &figures);
        return;
    }
    for in_flight in IN_FLIGHT {
        let figures = interleave(&paths, rounds, |client, path| client.block_on(load(path, in_flight, time)));
        table(in_flight, &paths, &figures);
    }
}

/// Latency at half of the load that each path bears; and what a broker adds to it, at half of the load that a bare hop before
/// the computer bears and at half of its own.
fn report_half(paths: &[Path], figures: &[Vec<Figures>], rounds: usize, time: Duration) {
    let half = |rounds: &Vec<Figures>| median(rounds.iter().map(|round| round.calls_per_s)) / 2.0;
    let halves: Vec<_> = figures.iter().map(half).collect();
    let [_, _, direct, through, ..] = paths else { return };
    let at = |path: &Path, name, per_s| (Path { name, ..path.clone() }, per_s);
    let loaded: Vec<_> = [
        at(direct, "computer, at a bare hop's half", halves[4]),
        at(through, "broker → computer, at a bare hop's half", halves[4]),
        at(direct, "computer, at the broker's half", halves[3]),
    ]
    .into_iter()
    // A bare stream bears more than one thread can have arrive.
    .chain(paths.iter().take(5).cloned().zip(halves.iter().copied()))
    .collect();
    let figures = interleave(&loaded, rounds, |client, (path, per_s)| arrive(client, path, *per_s, time));
    println!("\nat half the load that each path bears, {PAYLOAD_BYTES} B, median of {rounds} rounds");
    println!("| path | calls/s | p50 µs | p99 µs | p99 / p50 |\n|---|---|---|---|---|");
    let mut p99s = Vec::new();
    for ((path, _), rounds) in loaded.iter().zip(&figures) {
        let of = |pick: fn(&Figures) -> f64| median(rounds.iter().map(pick));
        let (rate, p50, p99) = (of(|f| f.calls_per_s), of(|f| f.p50_us), of(|f| f.p99_us));
        println!("| {} | {rate:.0} | {p50:.0} | {p99:.0} | {:.1} |", path.name, p99 / p50);
        p99s.push(p99);
    }
    println!(
        "p99 that a broker adds: {:.0} µs at a bare hop's half load, {:.0} µs at its own",
        p99s[1] - p99s[0],
        p99s[6] - p99s[2]
    );
}

/// Interleaved rounds over all paths.
fn interleave<P>(paths: &[P], rounds: usize, run: impl Fn(&Runtime, &P) -> Figures) -> Vec<Vec<Figures>> {
    let client = runtime("client");
    let mut figures = vec![Vec::new(); paths.len()];
    for round in 0..=rounds {
        for (path, figures) in paths.iter().zip(&mut figures) {
            let one = run(client, path);
            if round > 0 {
                // The first round warms up.
                figures.push(one);
            }
        }
    }
    figures
}

/// Plain paths against the same over mutual TLS.
fn compare_tls(rounds: usize, time: Duration) {
    let authority = nigh::ca::Authority::new().expect("an authority");
    let tls = |role, name| Some(certificate(&authority, role, name));
    let computers = [computer(None), computer(tls(Role::Computer, "computer-1"))];
    let brokers = [broker(computers[0].clone(), None), broker(computers[1].clone(), tls(Role::Broker, "broker-1"))];
    let client = tls(Role::Client, "client");
    let [plain, secured] = computers;
    let [plain_broker, secured_broker] = brokers;
    let paths = [
        Path::new("computer", Way::Library, plain),
        Path::new("computer, TLS", Way::Library, Remote::new(secured, client.clone())),
        Path::new("broker → computer", Way::Library, plain_broker),
        Path::new("broker → computer, TLS", Way::Library, Remote::new(secured_broker, client)),
    ];
    for in_flight in IN_FLIGHT {
        let figures = interleave(&paths, rounds, |client, path| client.block_on(load(path, in_flight, time)));
        let medians = table(in_flight, &paths, &figures);
        println!(
            "TLS / plain, calls/s: computer {:.2}, broker → computer {:.2}",
            medians[1] / medians[0],
            medians[3] / medians[2]
        );
    }
    let runtime = runtime("newcomers");
    for path in paths.iter().take(2) {
        let first: Vec<f64> = (0..200).map(|_| runtime.block_on(load_once(&path.to))).collect();
        println!("first call on a new connection, {}: median {:.0} µs", path.name, median(first));
    }
}

/// Microseconds that one call takes with its connection yet to be made.
async fn load_once(to: &Remote) -> f64 {
    let began = Instant::now();
    let mut client = FunctionsClient::new(channel::connect_lazy(to.clone()));
    let request = v1::InvokeRequest { function: FUNCTION.into(), ..Default::default() };
    client.invoke(request).await.expect("every call is answered");
    began.elapsed().as_secs_f64() * 1e6
}

/// Prints what was measured, and gives the medians of calls per second.
fn table(in_flight: usize, paths: &[Path], figures: &[Vec<Figures>]) -> Vec<f64> {
    println!("\n{in_flight} in flight, {PAYLOAD_BYTES} B, median of {} rounds", figures[0].len());
    println!("| path | calls/s (min..max) | p50 µs | p99 µs |\n|---|---|---|---|");
    let of_path = |(Path { name, .. }, rounds): (&Path, &Vec<Figures>)| {
        let of = |pick: fn(&Figures) -> f64| median(rounds.iter().map(pick));
        let rates = rounds.iter().map(|round| round.calls_per_s);
        let (least, most) = (rates.clone().fold(f64::MAX, f64::min), rates.fold(0.0, f64::max));
        let (rate, p50, p99) = (of(|f| f.calls_per_s), of(|f| f.p50_us), of(|f| f.p99_us));
        println!("| {name} | {rate:.0} ({least:.0}..{most:.0}) | {p50:.0} | {p99:.0} |");
        rate
    };
    paths.iter().zip(figures).map(of_path).collect()
}

fn report(in_flight: usize, paths: &[Path], figures: &[Vec<Figures>]) {
    let cost_us: Vec<f64> = table(in_flight, paths, figures).iter().map(|rate| 1e6 / rate).collect();
    let [bare, bare_via_hop, computer, via_broker, computer_via_hop, bare_stream, by_requests, broker_by_requests] =
        cost_us[..]
    else {
        return;
    };
    println!(
        "computer / bare tonic, calls/s: {:.2}; both by requests: {:.2}; both on a stream: {:.2}",
        bare / computer,
        bare / by_requests,
        bare_stream / computer
    );
    for (how, computer, via_broker) in [("", computer, via_broker), (", by requests", by_requests, broker_by_requests)]
    {
        println!(
            "broker's hop{how}: {:.1} µs; a bare hop: {:.1} µs to the bare echo, {:.1} µs to the computer; ratios {:.2} and {:.2}",
            via_broker - computer,
            bare_via_hop - bare,
            computer_via_hop - by_requests,
            (via_broker - computer) / (bare_via_hop - bare),
            (via_broker - computer) / (computer_via_hop - by_requests)
        );
    }
    println!("broker → computer / computer alone, calls/s: {:.2}", computer / via_broker);
}
