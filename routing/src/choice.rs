//! What a policy keeps of one function's destinations, and how it chooses among those in use.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::forwarding::{Selector, Tuner};
use crate::policy::{Policy, Strategy};
use crate::slot::Slot;
use crate::tree::{Least, Node as _, Share, Tree};

/// Draws of the same destination again before fewer are compared.
const REDRAWS_MAX: u32 = 8;
/// The weight that a destination has before anything is known of it.
const WEIGHT_ASSUMED: f64 = 1.0;

/// How many times slower than the fastest one counts that answers and is never measured.
const UNMEASURED_FACTOR: f64 = 2.0;

/// What one policy keeps up to date with every change of a destination.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Latencies, which the route keeps anyway.
    LeastLatency,
    /// The fewest calls under way; among equals, whoever had none for longest.
    LeastOutstanding { least: Tree<Least>, turns: u32 },
    /// Draws so many by their shares, and takes the one with the least cost.
    Draw { shares: Tree<Share>, in_use: usize, choices: u32, by: Cost },
    /// Chooses by weight, which is made of latencies.
    Weighted { selector: Selector, tuner: Tuner },
}

/// By what destinations that were drawn are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cost {
    /// When they are expected to answer.
    Predicted,
    /// Peak latency times calls under way.
    Peak { decay: Duration },
}

impl Choice {
    pub(crate) fn new(strategy: &Strategy) -> Self {
        let draw = |choices, by| Self::Draw { shares: Tree::new(0), in_use: 0, choices, by };
        match strategy.policy {
            Policy::Predict { choices } => draw(choices, Cost::Predicted),
            Policy::P2cEwma { decay } => draw(2, Cost::Peak { decay }),
            Policy::LeastOutstanding => Self::LeastOutstanding { least: Tree::new(0), turns: 0 },
            Policy::LeastLatency => Self::LeastLatency,
            Policy::Weighted(selection) => {
                Self::Weighted { selector: Selector::new(selection), tuner: Tuner::new(strategy.optimizer) }
            }
        }
    }

    /// Makes room for these destinations, each from where it was or new; each is to be refreshed then.
    pub(crate) fn reorder(&mut self, from: &[Option<usize>], now: Duration) {
        match self {
            Self::LeastLatency => {}
            Self::LeastOutstanding { least, .. } => *least = Tree::new(from.len()),
            Self::Draw { shares, in_use, .. } => (*shares, *in_use) = (Tree::new(from.len()), 0),
            Self::Weighted { selector, tuner } => {
                selector.reorder(from, WEIGHT_ASSUMED, now);
                tuner.reorder(from);
            }
        }
    }

    /// Brings what is kept of one destination up to date.
    pub(crate) fn refresh<K: Clone>(&mut self, at: usize, slot: &Slot<K>, now: Duration) {
        let is_in_use = slot.health.is_in_use();
        match self {
            Self::LeastLatency => {}
            Self::LeastOutstanding { least, .. } => {
                let key = is_in_use.then(|| f64::from(slot.in_flight + 1) / slot.ramp(now));
                least.set(at, Least::leaf(at, key, slot.turn));
            }
            Self::Draw { shares, in_use, by, .. } => {
                let share = match by {
                    _ if !is_in_use => Share::ABSENT,
                    Cost::Predicted => Share(slot.model.speed()),
                    Cost::Peak { .. } => Share(1.0),
                };
                let was_in_use = shares.leaf(at) != Share::ABSENT;
                *in_use = *in_use + usize::from(is_in_use) - usize::from(was_in_use);
                shares.set(at, share);
            }
            Self::Weighted { selector, .. } => selector.set_available(at, is_in_use, now),
        }
    }

    /// Whether a pick changes what is kept, so that a refresh has to follow.
    pub(crate) fn counts_picks(&self) -> bool {
        matches!(self, Self::LeastOutstanding { .. } | Self::LeastLatency)
    }

    /// Chooses among those in use but the excluded one.
    pub(crate) fn choose<K: Clone>(
        &mut self,
        slots: &mut [Slot<K>],
        latencies: &Tree<Least>,
        excluded: Option<usize>,
        bytes: f64,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        match self {
            Self::LeastLatency => latencies.least_but(excluded),
            Self::LeastOutstanding { least, turns } => {
                let at = least.least_but(excluded)?;
                *turns = turns.wrapping_add(1);
                slots[at].turn = *turns;
                Some(at)
            }
            Self::Draw { shares, in_use, choices, by } => {
                let cost = |at: usize| cost(*by, &slots[at], bytes, now);
                if *in_use <= *choices as usize {
                    let present = (0..slots.len()).filter(|&at| shares.leaf(at) != Share::ABSENT);
                    return least_by(present.filter(|&at| Some(at) != excluded), cost);
                }
                drawn(shares, *choices, excluded, rng, cost)
            }
            Self::Weighted { selector, .. } => selector.select(excluded, now, rng),
        }
    }

    /// The destination in use that a call would be answered by soonest, as far as the policy knows; changes nothing.
    pub(crate) fn cheapest<K: Clone>(
        &self,
        slots: &[Slot<K>],
        latencies: &Tree<Least>,
        excluded: Option<usize>,
        bytes: f64,
        now: Duration,
    ) -> Option<usize> {
        let in_use = (0..slots.len()).filter(|&at| slots[at].health.is_in_use() && Some(at) != excluded);
        match self {
            Self::LeastLatency | Self::LeastOutstanding { .. } => latencies.least_but(excluded),
            Self::Draw { by, .. } => least_by(in_use, |at| cost(*by, &slots[at], bytes, now)),
            Self::Weighted { selector, .. } => least_by(in_use, |at| selector.weight(at)),
        }
    }

    /// How fast peaks fade, where they count.
    pub(crate) fn peak_decay(&self) -> Option<Duration> {
        match self {
            Self::Draw { by: Cost::Peak { decay }, .. } => Some(*decay),
            _ => None,
        }
    }

    /// Learns from an answer.
    pub(crate) fn learn(&mut self, at: usize, latency: Duration, now: Duration) {
        if let Self::Weighted { selector, tuner } = self
            && let Some(weight) = tuner.learn(at, latency.as_secs_f64() * 1e3, now)
        {
            selector.set_weight(at, weight, now);
        }
    }

    /// A call was answered in a way that says nothing of how fast the destination is. It has served all the same; and one
    /// of which nothing is known yet must not look better than those that are, whose fastest has this latency in
    /// milliseconds.
    pub(crate) fn learn_nothing(&mut self, at: usize, fastest_ms: Option<f64>, now: Duration) {
        if let Self::Weighted { selector, tuner } = self
            && tuner.changes_weights()
        {
            let weight = fastest_ms.map_or_else(|| selector.weight(at), |ms| UNMEASURED_FACTOR * ms);
            selector.set_weight(at, weight, now);
        }
    }

    /// Takes over weights whose time has come.
    pub(crate) fn advance(&mut self, now: Duration) {
        if let Self::Weighted { selector, tuner } = self {
            tuner.end_period(now, |at, weight| selector.set_weight(at, weight, now));
        }
    }

    /// Takes over a weight set by hand, in milliseconds.
    pub(crate) fn set_weight(&mut self, at: usize, weight: f64, now: Duration) {
        if let Self::Weighted { selector, tuner } = self {
            tuner.forget(at);
            selector.set_weight(at, weight, now);
        }
    }

    /// The weight that it chooses by, where it chooses by weight.
    pub(crate) fn weight(&self, at: usize) -> Option<f64> {
        match self {
            Self::Weighted { selector, .. } => Some(selector.weight(at)),
            Self::LeastLatency | Self::LeastOutstanding { .. } | Self::Draw { .. } => None,
        }
    }
}

fn cost<K: Clone>(by: Cost, slot: &Slot<K>, bytes: f64, now: Duration) -> f64 {
    let cost = match by {
        Cost::Predicted => slot.model.predict(bytes, slot.in_flight, now.as_secs_f64()),
        Cost::Peak { decay } => slot.peak.cost(slot.in_flight, decay, now),
    };
    cost / slot.ramp(now)
}

fn least_by(candidates: impl Iterator<Item = usize>, cost: impl Fn(usize) -> f64) -> Option<usize> {
    let costs = candidates.map(|at| (cost(at), at));
    costs.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, at)| at)
}

/// Draws so many different ones and takes the cheapest.
fn drawn(
    shares: &Tree<Share>,
    choices: u32,
    excluded: Option<usize>,
    rng: &mut impl Rng,
    cost: impl Fn(usize) -> f64,
) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    let (mut compared, mut redraws) = (0, 0);
    while compared < choices {
        let at = shares.draw(rng.random())?;
        if Some(at) == excluded || best.is_some_and(|(_, have)| have == at) {
            redraws += 1;
            if redraws <= REDRAWS_MAX {
                continue;
            }
            if Some(at) == excluded && best.is_none() {
                // One destination has nearly all the shares; any other will do.
                let others = (0..shares.leaves()).filter(|&at| shares.leaf(at) != Share::ABSENT);
                return least_by(others.filter(|&at| Some(at) != excluded), cost);
            }
            break;
        }
        compared += 1;
        let cost = cost(at);
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, at));
        }
    }
    best.map(|(_, at)| at)
}
