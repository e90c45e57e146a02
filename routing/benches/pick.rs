//! One decision and one lesson: choosing a destination for a call, and learning from its answer.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use nigh_routing::{Demand, Member, Observation, Policy, Report, Scope, Table};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

const DEMAND: Demand<'_, u32> = Demand { scope: Scope::Overall, exclude: None, payload_bytes: 1000 };
const STEP: Duration = Duration::from_micros(10);

const NAMES: [&str; 8] = [
    "predict",
    "p2c-ewma",
    "least-outstanding",
    "least-latency",
    "random",
    "least-impedance",
    "round-robin",
    "proportional-fairness,alpha=1,beta=1",
];

/// What a computer tells with its answer.
fn report(latency: Duration) -> Report {
    let run = latency / 2;
    Report { run, running: 1, queued: 0, workers: 4, service: run, ..Report::default() }
}

/// A table where each of so many destinations has been measured at 1 to 2 ms.
fn measured(policy: Policy, count: u32, now: &mut Duration, rng: &mut ChaCha8Rng) -> Table<&'static str, u32> {
    let mut table = Table::new(policy);
    let computer = |destination| Member { destination, is_final: true };
    table.set_destinations("function", &(0..count).map(computer).collect::<Vec<_>>(), *now);
    for _ in 0..count {
        *now += STEP;
        let pick = table.pick("function", DEMAND, *now, rng).expect("a fresh destination is in use");
        let latency = Duration::from_micros(1000 + u64::from(1000 * pick.destination / count));
        table.observe("function", &pick, Observation::Answered { latency, report: report(latency) }, *now);
    }
    table
}

fn pick(criterion: &mut Criterion) {
    for name in NAMES {
        let policy: Policy = name.parse().expect("a policy");
        let mut group = criterion.benchmark_group(policy.name());
        for count in [1, 10, 1000] {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let mut now = Duration::ZERO;
            let mut table = measured(policy, count, &mut now, &mut rng);
            group.bench_function(BenchmarkId::new("pick", count), |bencher| {
                bencher.iter(|| black_box(table.pick("function", DEMAND, now, &mut rng)));
            });
            group.bench_function(BenchmarkId::new("pick+observe", count), |bencher| {
                bencher.iter(|| {
                    now += STEP;
                    let pick = table.pick("function", DEMAND, now, &mut rng).expect("nobody is ever set aside");
                    let latency = Duration::from_micros(1500);
                    table.observe("function", &pick, Observation::Answered { latency, report: report(latency) }, now);
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, pick);
criterion_main!(benches);
