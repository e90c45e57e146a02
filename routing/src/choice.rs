//! What a policy keeps of one function's destinations, and how it chooses among those in use.

use std::hash::Hash;
use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::estimate::{Estimates, Estimator};
use crate::forwarding::{Selector, Tuner};
use crate::outcome::Report;
use crate::peer::Peers;
use crate::policy::{Policy, Strategy};
use crate::predict::Assumed;
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
    LeastOutstanding { least: Tree<Least>, turns: Vec<u32>, last_turn: u32 },
    /// Draws so many by their shares, and takes the one with the least cost.
    Draw { shares: Tree<Share>, in_use: usize, choices: u32, by: Cost, assumed: Assumed },
    /// Chooses by weight, which is made of latencies.
    Weighted { selector: Selector, tuner: Tuner },
    /// The least estimate.
    Estimated { estimator: Estimator, estimates: Vec<Estimates> },
}

/// What is known when a call asks for a destination.
pub(crate) struct Situation<'a, K> {
    pub(crate) slots: &'a [Slot<K>],
    pub(crate) peers: &'a Peers<K>,
    pub(crate) latencies: &'a Tree<Least>,
    /// Where the call has failed already.
    pub(crate) excluded: Option<usize>,
    /// Of its payload.
    pub(crate) bytes: f64,
    pub(crate) now: Duration,
}

impl<K: Clone + Eq + Hash> Situation<'_, K> {
    /// The destinations that may be chosen.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let is_candidate = |(at, slot): &(usize, &Slot<K>)| slot.health.is_in_use() && Some(*at) != self.excluded;
        self.slots.iter().enumerate().filter(is_candidate).map(|(at, _)| at)
    }

    fn cost(&self, by: Cost, assumed: &Assumed, at: usize) -> f64 {
        let slot = &self.slots[at];
        let cost = match by {
            Cost::Predicted => {
                slot.model.predict(self.bytes, assumed, self.peers.at(slot.peer), self.now.as_secs_f64())
            }
            Cost::Peak { decay } => slot.peak.cost(slot.in_flight, decay, self.now),
        };
        cost / slot.ramp(self.now)
    }

    /// By estimate, then by calls under way, then by order.
    fn least_estimated(&self, estimates: &[Estimates]) -> Option<usize> {
        let estimated = self.candidates().map(|at| {
            let slot = &self.slots[at];
            let seconds = estimates[at].estimate(self.bytes, self.peers.at(slot.peer), slot.in_flight, self.now);
            (seconds, slot.in_flight, at)
        });
        let least = estimated.min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        least.map(|(_, _, at)| at)
    }
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
        let draw =
            |choices, by| Self::Draw { shares: Tree::new(0), in_use: 0, choices, by, assumed: Assumed::default() };
        match strategy.policy {
            Policy::Predict { choices } => draw(choices, Cost::Predicted),
            Policy::P2cEwma { decay } => draw(2, Cost::Peak { decay }),
            Policy::LeastOutstanding => Self::LeastOutstanding { least: Tree::new(0), turns: Vec::new(), last_turn: 0 },
            Policy::LeastLatency => Self::LeastLatency,
            Policy::Weighted(selection) => {
                Self::Weighted { selector: Selector::new(selection), tuner: Tuner::new(strategy.optimizer) }
            }
            Policy::Estimated(estimator) => Self::Estimated { estimator, estimates: Vec::new() },
        }
    }

    /// Makes room for these destinations, each from where it was or new; each is to be refreshed then.
    pub(crate) fn reorder(&mut self, from: &[Option<usize>], now: Duration) {
        match self {
            Self::LeastLatency => {}
            Self::LeastOutstanding { least, turns, .. } => {
                *least = Tree::new(from.len());
                let old = std::mem::take(turns);
                *turns = from.iter().map(|from| from.map_or(0, |at| old[at])).collect();
            }
            Self::Draw { shares, in_use, .. } => (*shares, *in_use) = (Tree::new(from.len()), 0),
            Self::Weighted { selector, tuner } => {
                selector.reorder(from, WEIGHT_ASSUMED, now);
                tuner.reorder(from);
            }
            Self::Estimated { estimator, estimates } => {
                let mut old: Vec<_> = std::mem::take(estimates).into_iter().map(Some).collect();
                let mut kept = |from: Option<usize>| old[from?].take();
                let new = || Estimates::new(*estimator);
                *estimates = from.iter().map(|from| kept(*from).unwrap_or_else(new)).collect();
            }
        }
    }

    /// Brings what is kept of one destination up to date.
    pub(crate) fn refresh<K: Clone>(&mut self, at: usize, slot: &Slot<K>, now: Duration) {
        let is_in_use = slot.health.is_in_use();
        match self {
            Self::LeastLatency | Self::Estimated { .. } => {}
            Self::LeastOutstanding { least, turns, .. } => {
                let key = is_in_use.then(|| f64::from(slot.in_flight + 1) / slot.ramp(now));
                least.set(at, Least::leaf(at, key, turns[at]));
            }
            Self::Draw { shares, in_use, by, assumed, .. } => {
                let share = match by {
                    _ if !is_in_use => Share::ABSENT,
                    Cost::Predicted => Share(slot.model.speed(assumed)),
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
    pub(crate) fn choose<K: Clone + Eq + Hash>(&mut self, of: &Situation<'_, K>, rng: &mut impl Rng) -> Option<usize> {
        match self {
            Self::LeastLatency => of.latencies.least_but(of.excluded),
            Self::LeastOutstanding { least, turns, last_turn } => {
                let at = least.least_but(of.excluded)?;
                *last_turn = last_turn.wrapping_add(1);
                turns[at] = *last_turn;
                Some(at)
            }
            Self::Draw { shares, in_use, choices, by, assumed } => {
                let cost = |at| of.cost(*by, assumed, at);
                if *in_use <= *choices as usize {
                    return least_by(of.candidates(), cost);
                }
                match *choices {
                    2 => drawn::<2>(shares, *choices, of.excluded, rng, cost),
                    3 => drawn::<3>(shares, *choices, of.excluded, rng, cost),
                    _ => drawn::<4>(shares, *choices, of.excluded, rng, cost),
                }
            }
            Self::Weighted { selector, .. } => selector.select(of.excluded, of.now, rng),
            Self::Estimated { estimates, .. } => of.least_estimated(estimates),
        }
    }

    /// The destination in use that a call would be answered by soonest, as far as the policy knows; changes nothing.
    pub(crate) fn cheapest<K: Clone + Eq + Hash>(&self, of: &Situation<'_, K>) -> Option<usize> {
        match self {
            Self::LeastLatency | Self::LeastOutstanding { .. } => of.latencies.least_but(of.excluded),
            Self::Draw { by, assumed, .. } => least_by(of.candidates(), |at| of.cost(*by, assumed, at)),
            Self::Weighted { selector, .. } => least_by(of.candidates(), |at| selector.weight(at)),
            Self::Estimated { estimates, .. } => of.least_estimated(estimates),
        }
    }

    /// How fast peaks fade, where they count.
    pub(crate) fn peak_decay(&self) -> Option<Duration> {
        match self {
            Self::Draw { by: Cost::Peak { decay }, .. } => Some(*decay),
            _ => None,
        }
    }

    /// Learns from an answer to a call with so many bytes.
    pub(crate) fn learn(&mut self, at: usize, bytes: f64, latency: Duration, report: &Report, now: Duration) {
        match self {
            Self::Weighted { selector, tuner } => {
                if let Some(weight) = tuner.learn(at, latency.as_secs_f64() * 1e3, now) {
                    selector.set_weight(at, weight, now);
                }
            }
            Self::Estimated { estimates, .. } => estimates[at].learn(bytes, latency, report, now),
            Self::Draw { assumed, .. } => assumed.learn(latency, report, now),
            Self::LeastLatency | Self::LeastOutstanding { .. } => {}
        }
    }

    /// A call was answered in a way that says nothing of how fast the destination is. It has served all the same; and one
    /// of which nothing is known yet must not look better than those that are, whose fastest has this latency in
    /// milliseconds.
    pub(crate) fn learn_nothing(&mut self, at: usize, fastest_ms: Option<f64>, now: Duration) {
        match self {
            Self::Weighted { selector, tuner } if tuner.changes_weights() => {
                let weight = fastest_ms.map_or_else(|| selector.weight(at), |ms| UNMEASURED_FACTOR * ms);
                selector.set_weight(at, weight, now);
            }
            Self::Estimated { estimates, .. } => estimates[at].learn_nothing(now),
            Self::Weighted { .. } | Self::LeastLatency | Self::LeastOutstanding { .. } | Self::Draw { .. } => {}
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
            Self::Estimated { .. } => Some(WEIGHT_ASSUMED),
            Self::LeastLatency | Self::LeastOutstanding { .. } | Self::Draw { .. } => None,
        }
    }
}

fn least_by(candidates: impl Iterator<Item = usize>, cost: impl Fn(usize) -> f64) -> Option<usize> {
    let costs = candidates.map(|at| (cost(at), at));
    costs.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, at)| at)
}

/// Draws so many different ones, the first of them side by side, and takes the cheapest.
fn drawn<const AT_ONCE: usize>(
    shares: &Tree<Share>,
    choices: u32,
    excluded: Option<usize>,
    rng: &mut impl Rng,
    cost: impl Fn(usize) -> f64,
) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    let (mut compared, mut redraws) = (0, 0);
    let mut at_once = shares.draw_each(rng.random::<[f64; AT_ONCE]>())?.into_iter();
    while compared < choices {
        let at = match at_once.next() {
            Some(at) => at,
            None => shares.draw(rng.random())?,
        };
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
