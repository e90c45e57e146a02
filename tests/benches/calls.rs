//! Calls per second and latency of a computer, and of a broker in front of it, against a bare tonic echo server and a bare
//! tonic pass-through in the same run; then latency at half the load that each bears. Rounds are interleaved, figures are
//! medians.
//!
//! `cargo bench -p nigh-tests --bench calls [-- --rounds 7 --seconds 2]`; with `--tls`, plain paths against the same over
//! mutual TLS instead.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares and counts of a bench are small")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nigh_proto::channel::{self, Door};
use nigh_proto::ingress::Ingress;
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::v1::functions_server::Functions;
use nigh_proto::{Endpoint, Remote, Role, Tls, v1};
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

/// Callers who together make half of the load that a path bears.
const CALLERS_AT_HALF: usize = 64;

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

/// So many callers, each of whom waits a random time of mean `think` before each call, nothing where that is zero.
async fn load(to: &Remote, in_flight: usize, time: Duration, think: Duration) -> Figures {
    let client = FunctionsClient::new(channel::connect_lazy(to.clone()));
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|caller| {
            let (mut client, stop, calls) = (client.clone(), stop.clone(), calls.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut dice = Dice(caller as u64 + 1);
                while !stop.load(Ordering::Relaxed) {
                    if !think.is_zero() {
                        tokio::time::sleep(think.mul_f64(dice.exponential())).await;
                    }
                    let request = v1::InvokeRequest { function: FUNCTION.into(), payload: vec![7; PAYLOAD_BYTES].into(), ..Default::default() };
                    let sent = Instant::now();
                    let response = client.invoke(request).await.expect("every call is answered").into_inner();
                    latencies.push(sent.elapsed());
                    assert!(matches!(response.outcome, Some(v1::invoke_response::Outcome::Answer(answer)) if answer.payload.len() == PAYLOAD_BYTES));
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let calls_per_s = calls.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no task panics"));
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Figures { calls_per_s, p50_us: at(0.5), p99_us: at(0.99) }
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
    let paths = [
        ("bare tonic echo", bare_echo.clone()),
        ("bare hop → bare echo", hop(&bare_echo)),
        ("computer", computer.clone()),
        ("broker → computer", broker(computer.clone(), None)),
        ("bare hop → computer", hop(&computer)),
    ];
    let to = paths.clone().map(|(_, to)| to.into());
    for (in_flight, figures) in measure(&to, rounds, time) {
        report(in_flight, &paths, &figures);
        if in_flight == CALLERS_AT_HALF {
            // Each caller comes round half as often as when it does not wait.
            let half = |rounds: &Vec<Figures>| median(rounds.iter().map(|round| round.calls_per_s)) / 2.0;
            let think = |rounds| Duration::from_secs_f64(in_flight as f64 / half(rounds));
            let thinks: Vec<_> = figures.iter().map(think).collect();
            report_half(&paths, &interleave(runtime("client"), &to, &thinks, in_flight, rounds, time));
        }
    }
}

fn report_half(paths: &[(&str, Endpoint)], figures: &[Vec<Figures>]) {
    println!("\nat half the load that each path bears, {PAYLOAD_BYTES} B, median of {} rounds", figures[0].len());
    println!("| path | calls/s | p50 µs | p99 µs | p99 / p50 |\n|---|---|---|---|---|");
    for ((name, _), rounds) in paths.iter().zip(figures) {
        let of = |pick: fn(&Figures) -> f64| median(rounds.iter().map(pick));
        let (rate, p50, p99) = (of(|f| f.calls_per_s), of(|f| f.p50_us), of(|f| f.p99_us));
        println!("| {name} | {rate:.0} | {p50:.0} | {p99:.0} | {:.1} |", p99 / p50);
    }
}

/// Interleaved rounds over all paths, for each number of calls in flight.
fn measure(to: &[Remote], rounds: usize, time: Duration) -> Vec<(usize, Vec<Vec<Figures>>)> {
    let client = runtime("client");
    let thinks = vec![Duration::ZERO; to.len()];
    IN_FLIGHT.map(|in_flight| (in_flight, interleave(client, to, &thinks, in_flight, rounds, time))).into()
}

/// Interleaved rounds over all paths, each with callers that think for so long between calls.
fn interleave(
    client: &Runtime,
    to: &[Remote],
    thinks: &[Duration],
    in_flight: usize,
    rounds: usize,
    time: Duration,
) -> Vec<Vec<Figures>> {
    let mut figures = vec![Vec::new(); to.len()];
    for round in 0..=rounds {
        for ((remote, think), figures) in to.iter().zip(thinks).zip(&mut figures) {
            let one = client.block_on(load(remote, in_flight, time, *think));
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
    let names = ["computer", "computer, TLS", "broker → computer", "broker → computer, TLS"];
    let [plain, secured] = computers;
    let [plain_broker, secured_broker] = brokers;
    let to =
        [plain.into(), Remote::new(secured, client.clone()), plain_broker.into(), Remote::new(secured_broker, client)];
    for (in_flight, figures) in measure(&to, rounds, time) {
        let medians = table(in_flight, &names, &figures);
        println!(
            "TLS / plain, calls/s: computer {:.2}, broker → computer {:.2}",
            medians[1] / medians[0],
            medians[3] / medians[2]
        );
    }
    let runtime = runtime("newcomers");
    for (name, remote) in names.iter().zip(&to).take(2) {
        let first: Vec<f64> = (0..200).map(|_| runtime.block_on(load_once(remote))).collect();
        println!("first call on a new connection, {name}: median {:.0} µs", median(first));
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
fn table(in_flight: usize, names: &[&str], figures: &[Vec<Figures>]) -> Vec<f64> {
    println!("\n{in_flight} in flight, {PAYLOAD_BYTES} B, median of {} rounds", figures[0].len());
    println!("| path | calls/s (min..max) | p50 µs | p99 µs |\n|---|---|---|---|");
    let of_path = |(name, rounds): (&&str, &Vec<Figures>)| {
        let of = |pick: fn(&Figures) -> f64| median(rounds.iter().map(pick));
        let rates = rounds.iter().map(|round| round.calls_per_s);
        let (least, most) = (rates.clone().fold(f64::MAX, f64::min), rates.fold(0.0, f64::max));
        let (rate, p50, p99) = (of(|f| f.calls_per_s), of(|f| f.p50_us), of(|f| f.p99_us));
        println!("| {name} | {rate:.0} ({least:.0}..{most:.0}) | {p50:.0} | {p99:.0} |");
        rate
    };
    names.iter().zip(figures).map(of_path).collect()
}

fn report(in_flight: usize, paths: &[(&str, Endpoint)], figures: &[Vec<Figures>]) {
    let names: Vec<&str> = paths.iter().map(|(name, _)| *name).collect();
    let cost_us: Vec<f64> = table(in_flight, &names, figures).iter().map(|rate| 1e6 / rate).collect();
    let [bare, bare_via_hop, computer, computer_via_broker, computer_via_hop] = cost_us[..] else { return };
    println!("computer / bare tonic, calls/s: {:.2}", bare / computer);
    println!(
        "broker's hop: {:.1} µs; a bare hop: {:.1} µs to the bare echo, {:.1} µs to the computer; ratios {:.2} and {:.2}",
        computer_via_broker - computer,
        bare_via_hop - bare,
        computer_via_hop - computer,
        (computer_via_broker - computer) / (bare_via_hop - bare),
        (computer_via_broker - computer) / (computer_via_hop - computer)
    );
    println!("broker → computer / computer alone, calls/s: {:.2}", computer / computer_via_broker);
}
