//! The forwarding table from outside, in virtual time and with seeded randomness.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by panicking")]

mod frequencies;
mod life_cycle;
mod membership;

use std::collections::BTreeMap;
use std::time::Duration;

use nigh_routing::{Observation, Pick, PickError, PolicyKind, Table};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

const MS: Duration = Duration::from_millis(1);
const F: &str = "function";

/// A table with its clock and its randomness.
struct World {
    table: Table<&'static str, u32>,
    now: Duration,
    rng: ChaCha8Rng,
}

impl World {
    fn new(policy: PolicyKind, destinations: &[u32], seed: u64) -> Self {
        let mut table = Table::new(policy);
        table.set_destinations(F, destinations, Duration::ZERO);
        Self { table, now: Duration::ZERO, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn pick(&mut self, exclude: Option<u32>) -> Result<Pick<u32>, PickError> {
        self.table.pick(F, exclude.as_ref(), self.now, &mut self.rng)
    }

    fn observe(&mut self, pick: &Pick<u32>, observation: Observation) {
        self.table.observe(F, pick, observation, self.now);
    }

    /// One call, answered at once as far as the clock is concerned.
    fn call(&mut self, latency: impl Fn(u32) -> Duration) -> u32 {
        let pick = self.pick(None).unwrap();
        let destination = pick.destination;
        self.observe(&pick, Observation::Answered { latency: latency(destination) });
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

fn tally(picks: &[u32]) -> BTreeMap<u32, u32> {
    let mut tally = BTreeMap::new();
    for &pick in picks {
        *tally.entry(pick).or_default() += 1;
    }
    tally
}
