//! Proportional fairness: the largest `(1/weight)^alpha / (served/time since it last served)^beta`.

use std::time::Duration;

/// The least time since a destination last served, in seconds, so that no score is zero for all.
const SINCE_MIN: f64 = 1e-9;

#[derive(Debug)]
pub(crate) struct Fairness {
    alpha: f64,
    beta: f64,
    entries: Vec<Served>,
}

#[derive(Debug, Clone, Copy)]
struct Served {
    weight: f64,
    /// Calls served, one more than there were.
    count: f64,
    /// When it joined or last served.
    since: Duration,
    is_available: bool,
}

impl Fairness {
    pub(super) fn new(alpha: f64, beta: f64) -> Self {
        Self { alpha, beta, entries: Vec::new() }
    }

    pub(super) fn reorder(&mut self, from: &[Option<usize>], weight: f64, now: Duration) {
        // One that joins later is as if it had served as much as the least of the others: were it to start at 1, it would
        // be given all calls until it had caught up.
        let least = self.entries.iter().map(|entry| entry.count).fold(f64::INFINITY, f64::min);
        let count = if least.is_finite() { least } else { 1.0 };
        let new = Served { weight, count, since: now, is_available: true };
        let old = std::mem::take(&mut self.entries);
        self.entries = from.iter().map(|from| from.map_or(new, |at| old[at])).collect();
    }

    pub(super) fn set_weight(&mut self, at: usize, weight: f64, now: Duration) {
        let entry = &mut self.entries[at];
        *entry = Served { weight, count: entry.count + 1.0, since: now, ..*entry };
    }

    pub(super) fn set_available(&mut self, at: usize, is_available: bool, _: Duration) {
        self.entries[at].is_available = is_available;
    }

    pub(super) fn weight(&self, at: usize) -> f64 {
        self.entries[at].weight
    }

    pub(super) fn select(&self, excluded: Option<usize>, now: Duration) -> Option<usize> {
        self.largest(excluded, |entry| {
            let since = now.saturating_sub(entry.since).as_secs_f64().max(SINCE_MIN);
            // The logarithm of the score: the same order, and no overflow.
            -self.alpha * entry.weight.ln() - self.beta * (entry.count / since).ln()
        })
    }

    /// The first of those with the largest score.
    fn largest(&self, excluded: Option<usize>, score: impl Fn(&Served) -> f64) -> Option<usize> {
        let mut best: Option<(f64, usize)> = None;
        for (at, entry) in self.entries.iter().enumerate() {
            if !entry.is_available || Some(at) == excluded {
                continue;
            }
            let score = score(entry);
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, at));
            }
        }
        best.map(|(_, at)| at)
    }
}
