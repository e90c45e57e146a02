//! Proportional fairness: the largest `(1/weight)^alpha / (served/time since it last served)^beta`.
//!
//! Raised to the power of `1/beta`, a score is a line over time: `rate · time since it last served`, with `rate =
//! weight^(-alpha/beta) / served`. A tournament over these lines, each match with the time at which its winner changes, finds
//! the largest in logarithmic time, and only matches whose time has come are played again.

use std::time::Duration;

/// Added to the time since a destination last served, in seconds, so that no score is zero for all.
const SINCE_MIN: f64 = 1e-9;

#[derive(Debug)]
pub(crate) struct Fairness {
    alpha: f64,
    beta: f64,
    entries: Vec<Served>,
    /// The root at 1, the children of `n` at `2n` and `2n + 1`, the entries' leaves last.
    matches: Vec<Match>,
    first_leaf: usize,
    /// The latest time seen, in seconds; it never goes back.
    now: f64,
}

#[derive(Debug, Clone, Copy)]
struct Served {
    weight: f64,
    /// Calls served, one more than there were.
    count: f64,
    /// When it joined or last served, in seconds.
    since: f64,
    is_available: bool,
    /// The logarithm of the rate; of the score itself where time does not count.
    log_rate: f64,
}

/// Who has the larger score of all entries below, if anybody is available, and when that, or a match below, may change.
#[derive(Debug, Clone, Copy)]
struct Match {
    winner: Option<usize>,
    until: f64,
}

impl Match {
    const OPEN: Self = Self { winner: None, until: f64::INFINITY };
}

impl Fairness {
    pub(super) fn new(alpha: f64, beta: f64) -> Self {
        Self { alpha, beta, entries: Vec::new(), matches: vec![Match::OPEN; 2], first_leaf: 1, now: 0.0 }
    }

    pub(super) fn reorder(&mut self, from: &[Option<usize>], weight: f64, now: Duration) {
        self.advance(now);
        // One that joins later is as if it had served as much as the least of the others: were it to start at 1, it would
        // be given all calls until it had caught up.
        let least = self.entries.iter().map(|entry| entry.count).fold(f64::INFINITY, f64::min);
        let count = if least.is_finite() { least } else { 1.0 };
        let log_rate = self.log_rate(weight, count);
        let new = Served { weight, count, since: self.now, is_available: true, log_rate };
        let old = std::mem::take(&mut self.entries);
        self.entries = from.iter().map(|from| from.map_or(new, |at| old[at])).collect();
        self.first_leaf = from.len().next_power_of_two();
        self.matches = vec![Match::OPEN; 2 * self.first_leaf];
        (0..self.entries.len()).for_each(|at| self.refresh(at));
    }

    pub(super) fn set_weight(&mut self, at: usize, weight: f64, now: Duration) {
        self.advance(now);
        let count = self.entries[at].count + 1.0;
        let log_rate = self.log_rate(weight, count);
        self.entries[at] = Served { weight, count, since: self.now, log_rate, ..self.entries[at] };
        self.refresh(at);
    }

    pub(super) fn set_available(&mut self, at: usize, is_available: bool, now: Duration) {
        self.advance(now);
        if self.entries[at].is_available != is_available {
            self.entries[at].is_available = is_available;
            self.refresh(at);
        }
    }

    pub(super) fn weight(&self, at: usize) -> f64 {
        self.entries[at].weight
    }

    pub(super) fn select(&mut self, excluded: Option<usize>, now: Duration) -> Option<usize> {
        self.advance(now);
        self.catch_up(1);
        let Some(excluded) = excluded else { return self.matches[1].winner };
        // Everything else hangs off the way from the excluded leaf to the root.
        let mut at = self.first_leaf + excluded;
        let mut best = Match::OPEN;
        while at > 1 {
            let beside = self.matches[at ^ 1];
            best = if at & 1 == 1 { self.play(beside, best) } else { self.play(best, beside) };
            at /= 2;
        }
        best.winner
    }

    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now.as_secs_f64());
    }

    fn log_rate(&self, weight: f64, count: f64) -> f64 {
        if self.beta > 0.0 { -self.alpha / self.beta * weight.ln() - count.ln() } else { -self.alpha * weight.ln() }
    }

    /// Has an entry's matches played again, up to the root.
    fn refresh(&mut self, entry: usize) {
        let mut at = self.first_leaf + entry;
        self.matches[at] = Match { winner: self.entries[entry].is_available.then_some(entry), until: f64::INFINITY };
        while at > 1 {
            at /= 2;
            self.matches[at] = self.play(self.matches[2 * at], self.matches[2 * at + 1]);
        }
    }

    /// Has those matches played again whose time has come.
    fn catch_up(&mut self, at: usize) {
        if self.matches[at].until <= self.now {
            self.catch_up(2 * at);
            self.catch_up(2 * at + 1);
            self.matches[at] = self.play(self.matches[2 * at], self.matches[2 * at + 1]);
        }
    }

    /// Of equal scores the left one wins.
    fn play(&self, left: Match, right: Match) -> Match {
        let until = left.until.min(right.until);
        let (Some(one), Some(other)) = (left.winner, right.winner) else {
            return Match { winner: left.winner.or(right.winner), until };
        };
        let (first, second) = (&self.entries[one], &self.entries[other]);
        if self.beta <= 0.0 {
            let winner = if second.log_rate > first.log_rate { other } else { one };
            return Match { winner: Some(winner), until };
        }
        let ratio = (second.log_rate - first.log_rate).exp();
        let since = |entry: &Served| self.now - entry.since + SINCE_MIN;
        let second_wins = ratio * since(second) > since(first);
        // Who gains on the other passes it where their lines cross, unless it is ahead already.
        let changes = if second_wins == (ratio < 1.0) && (ratio - 1.0).abs() > 0.0 {
            (ratio * second.since - first.since) / (ratio - 1.0) - SINCE_MIN
        } else {
            f64::INFINITY
        };
        let changes = if changes.is_nan() { f64::INFINITY } else { changes };
        Match { winner: Some(if second_wins { other } else { one }), until: until.min(changes) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The score's logarithm, by its definition.
    fn score(fairness: &Fairness, at: usize) -> f64 {
        let entry = &fairness.entries[at];
        let since = fairness.now - entry.since + SINCE_MIN;
        -fairness.alpha * entry.weight.ln() - fairness.beta * (entry.count / since).ln()
    }

    proptest! {
        #[test]
        fn whoever_is_chosen_has_the_largest_score(
            alpha in 0.0f64..4.0,
            beta in prop_oneof![Just(0.0), 0.1f64..4.0],
            count in 1usize..20,
            steps in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, 0.01f64..1000.0, 0u64..5000), 1..200),
        ) {
            let mut fairness = Fairness::new(alpha, beta);
            let mut now = Duration::ZERO;
            fairness.reorder(&vec![None; count], 1.0, now);
            for (at, step, weight, wait_ms) in steps {
                now += Duration::from_millis(wait_ms);
                let at = at.index(count);
                match step {
                    0 => fairness.set_available(at, !fairness.entries[at].is_available, now),
                    1 => {
                        if let Some(chosen) = fairness.select(None, now) {
                            fairness.set_weight(chosen, weight, now);
                        }
                    }
                    _ => fairness.set_weight(at, weight, now),
                }
                let excluded = (step == 3).then_some(at);
                let chosen = fairness.select(excluded, now);
                let candidates = (0..count).filter(|&at| fairness.entries[at].is_available && Some(at) != excluded);
                let largest = candidates.map(|at| score(&fairness, at)).fold(f64::NEG_INFINITY, f64::max);
                match chosen {
                    None => prop_assert!(largest == f64::NEG_INFINITY),
                    Some(chosen) => {
                        prop_assert!(fairness.entries[chosen].is_available && Some(chosen) != excluded);
                        let have = score(&fairness, chosen);
                        prop_assert!(have >= largest - 1e-6 * largest.abs().max(1.0), "{have} < {largest}");
                    }
                }
            }
        }
    }
}
