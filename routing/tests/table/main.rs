//! The forwarding table from outside, in virtual time and with seeded randomness.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by panicking")]

mod frequencies;
mod life_cycle;
mod membership;
mod newcomers;

use std::collections::BTreeMap;
use std::time::Duration;

use nigh_routing::estimate::{Busy, Estimator, Samples};
use nigh_routing::forwarding::Selection;
use nigh_routing::{Demand, Member, Observation, Pick, PickError, Policy, Scope, Strategy, Table};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

const MS: Duration = Duration::from_millis(1);
const F: &str = "function";

const ROUND_ROBIN: Policy = Policy::Weighted(Selection::RoundRobin);
const RANDOM: Policy = Policy::Weighted(Selection::Random);
const POLICIES: [Policy; 12] = [
    Policy::Predict { choices: Policy::CHOICES },
    Policy::P2cEwma { decay: Policy::DECAY },
    Policy::LeastOutstanding,
    Policy::LeastLatency,
    RANDOM,
    Policy::Weighted(Selection::LeastImpedance),
    ROUND_ROBIN,
    Policy::Weighted(Selection::ProportionalFairness { alpha: 1.0, beta: 1.0 }),
    Policy::Estimated(Estimator::Rtt(RECENT)),
    Policy::Estimated(Estimator::Util { rtt: RECENT, busy: BUSY }),
    Policy::Estimated(Estimator::Delay(BUSY)),
    Policy::Estimated(Estimator::Probe { clients: 10 }),
];

const RECENT: Samples = Samples { window: 50, stale: Some(Duration::from_secs(10)) };
const BUSY: Busy = Busy { window: 50, load_timeout: Duration::from_secs(10) };

/// Those that choose among destinations without asking them first.
fn by_themselves() -> impl Iterator<Item = Policy> {
    POLICIES.into_iter().filter(|policy| !matches!(policy, Policy::Estimated(Estimator::Probe { .. })))
}

/// Those that choose by how fast destinations are.
fn by_speed() -> impl Iterator<Item = Policy> {
    by_themselves().filter(|policy| *policy != Policy::LeastOutstanding)
}

/// A table with its clock and its randomness.
struct World {
    table: Table<&'static str, u32>,
    now: Duration,
    rng: ChaCha8Rng,
}

impl World {
    fn new(policy: Policy, destinations: &[u32], seed: u64) -> Self {
        Self::with(Strategy { slow_start: Duration::ZERO, ..policy.into() }, destinations, seed)
    }

    fn with(strategy: Strategy, destinations: &[u32], seed: u64) -> Self {
        let mut table = Table::new(strategy);
        table.set_destinations(F, &computers(destinations), Duration::ZERO);
        Self { table, now: Duration::ZERO, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Puts these in place of a function's destinations.
    fn set(&mut self, function: &'static str, destinations: &[u32]) {
        self.table.set_destinations(function, &computers(destinations), self.now);
    }

    fn pick(&mut self, exclude: Option<u32>) -> Result<Pick<u32>, PickError> {
        let demand = Demand { scope: Scope::Overall, exclude: exclude.as_ref(), payload_bytes: 100 };
        self.table.pick(F, demand, self.now, &mut self.rng)
    }

    fn observe(&mut self, pick: &Pick<u32>, observation: Observation) {
        self.table.observe(F, pick, observation, self.now);
    }

    /// One call, answered at once as far as the clock is concerned.
    fn call(&mut self, latency: impl Fn(u32) -> Duration) -> u32 {
        let pick = self.pick(None).unwrap();
        let destination = pick.destination;
        self.observe(&pick, Observation::answered(latency(destination)));
        destination
    }

    /// Picks of so many calls, each `step` after the one before.
    fn calls(&mut self, count: u32, step: Duration, latency: impl Fn(u32) -> Duration) -> Vec<u32> {
        (0..count)
            .map(|_| {
                self.now += step;
                self.call(&latency)
            })
            .collect()
    }
}

fn computers(destinations: &[u32]) -> Vec<Member<u32>> {
    destinations.iter().map(|&destination| Member { destination, is_final: true }).collect()
}

fn tally(picks: &[u32]) -> BTreeMap<u32, u32> {
    let mut tally = BTreeMap::new();
    for &pick in picks {
        *tally.entry(pick).or_default() += 1;
    }
    tally
}
