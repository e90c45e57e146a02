//! How many calls per second one client process makes, and how exactly in time: against a target in memory, so that the client
//! itself is measured, and over gRPC against a server that answers with the payload and does nothing else.
//!
//! `cargo bench -p nigh-tests --bench load [-- --seconds 2 --rounds 3]`
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::sync::Arc;
use std::time::Duration;

use nigh_client::{Caller, CallerLimits};
use nigh_load::drive::InTurn;
use nigh_load::workload::{Arrivals, Entry, Fill, Gaps, Mix, Payloads, Sizes, Timetable, Workload};
use nigh_load::{Bounds, Brokers, Pacing, Plan, Recorder, Report, Tally, Target, Template, Timer};
use nigh_proto::{Call, Endpoint, Headers, Load, NodeName, Outcome, PlatformError, Reply, Timing};
use nigh_tests::bench::{BareEcho, argument, bare};
use tokio_util::sync::CancellationToken;

/// Answers at once.
struct Memory(NodeName);

impl Target for Memory {
    async fn call(&self, call: Call) -> Result<Reply, PlatformError> {
        Ok(Reply {
            outcome: Outcome::Answer { payload: call.payload, headers: Headers::default() },
            computer: self.0.clone(),
            responder: None,
            version: None,
            call: call.id,
            hops: 0,
            load: Load::default(),
            timing: Timing::default(),
            steps: Vec::new(),
            states: Vec::new(),
        })
    }
}

fn plan(arrivals: Arrivals, clients: u32, pacing: Pacing, duration: Duration) -> Plan {
    let mix = Mix::new(&[1.0], Sizes::Constant(64)).expect("one share");
    Plan {
        workload: Workload { seed: 1, clients, arrivals, mix },
        functions: vec!["echo".parse().expect("a name")],
        payloads: Payloads::filled(Fill::Letters, 64, 0),
        pacing,
        timer: Timer::Thread,
        bounds: Bounds {
            timeout: Duration::from_secs(30),
            in_flight_max: 10_000,
            warm_up: duration / 4,
            duration: Some(duration),
            count: None,
        },
        template: Template::default(),
    }
}

async fn measure<T: Target>(plan: Plan, target: T) -> Report {
    let endpoint: Endpoint = "127.0.0.1:1".parse().expect("an endpoint");
    let brokers = Brokers::new(vec![(endpoint, target)], 0.0, plan.workload.clients).expect("one broker");
    let tally = Tally::new(&plan.functions, plan.bounds.warm_up);
    let (recorder, samples) = Recorder::start(tally, None).expect("a thread");
    let ended = nigh_load::drive(plan, brokers, samples, CancellationToken::new()).await;
    let (tally, _) = recorder.finish().await;
    tally.report(String::new(), String::new(), Vec::new(), ended.horizon, ended.stopped_early).0
}

fn steady(rate: u32) -> Arrivals {
    Arrivals::Steady { gaps: Gaps::Poisson, every: Duration::from_secs(1) / rate }
}

fn row(name: &str, report: &Report) {
    let delay = &report.start_delay;
    println!(
        "| {name} | {:.0} | {:.0} | {} | {} | {} |",
        report.offered_per_s, report.answered_per_s, delay.p50, delay.p99, delay.max
    );
    assert_eq!(report.calls.failed, 0, "{:?}", report.errors);
}

/// Invocations at random instants, a hundred per second.
fn trace(duration: Duration) -> Arrivals {
    let mix = Mix::new(&[1.0], Sizes::Constant(64)).expect("one share");
    let workload = Workload { seed: 2, clients: 1, arrivals: steady(100), mix };
    let dues = workload.merged().take_while(|due| due.at < duration * 2);
    let entries = dues.map(|due| Entry { at: due.at, function: 0, broker: None, body: None }).collect();
    Arrivals::Timetable(Arc::new(Timetable { functions: Vec::new(), brokers: Vec::new(), entries }))
}

fn main() {
    let duration = Duration::from_secs_f64(argument("--seconds", 2.0));
    let rounds = argument("--rounds", 3);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let memory = || Memory("computer-1".parse().expect("a name"));
    let endpoint = bare("bare", BareEcho);
    let grpc = |connections: usize| {
        let caller = || Caller::new(endpoint.clone(), CallerLimits::default());
        InTurn::new((0..connections).map(|_| caller()).collect()).expect("one connection")
    };
    let closed = Pacing::Closed { gaps: Gaps::Constant, think: Duration::ZERO };
    println!("| | calls/s due | calls/s answered | late by, p50 µs | p99 µs | max µs |\n|---|---|---|---|---|---|");
    for _ in 0..rounds {
        runtime.block_on(async {
            for rate in [10_000, 50_000, 100_000, 200_000] {
                let report = measure(plan(steady(rate), 1, Pacing::Open, duration), memory()).await;
                row(&format!("in memory, open loop, {rate}/s"), &report);
            }
            row("in memory, 64 in flight", &measure(plan(steady(1), 64, closed, duration), memory()).await);
            for connections in [1, 2] {
                let report = measure(plan(steady(1), 64, closed, duration), grpc(connections)).await;
                row(&format!("gRPC, 64 in flight, {connections} connections"), &report);
            }
            row("gRPC, open loop, 10000/s", &measure(plan(steady(10_000), 1, Pacing::Open, duration), grpc(1)).await);
            row(
                "in memory, trace of 100/s",
                &measure(plan(trace(duration), 1, Pacing::Open, duration), memory()).await,
            );
        });
    }
}
