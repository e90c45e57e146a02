//! How calls ended, as labels: a bounded set of words, whatever functions say.

use std::sync::atomic::{AtomicU64, Ordering};

use nigh_proto::reply::KINDS_OF_PLATFORM as KINDS;
use nigh_proto::{Outcome, PlatformError, Reason};

/// The function answered.
const ANSWER: &str = "answer";
/// The function failed with an error of its own.
const ERROR: &str = "error";
/// A dry run was answered.
const ESTIMATE: &str = "estimate";
/// Words for calls that came to an outcome; reasons of the platform follow.
const OUTCOMES: usize = 3 + KINDS.len();
/// Reasons that there may be.
const REASONS: usize = Reason::ALL.len();

/// Calls by how they ended.
#[derive(Debug, Default)]
pub struct Outcomes(Counts<{ OUTCOMES + REASONS }>);

/// So many counters.
#[derive(Debug)]
pub struct Counts<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Counts<N> {
    /// Adds to one of them; an index that is too large counts as the last.
    pub fn add(&self, at: usize, count: u64) {
        self.0[at.min(N - 1)].fetch_add(count, Ordering::Relaxed);
    }

    /// Those that are not 0, with their index.
    pub fn read(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).enumerate().filter(|(_, count)| *count > 0)
    }
}

impl Outcomes {
    /// Counts a call.
    pub fn record(&self, outcome: Result<&Outcome, &PlatformError>) {
        let at = match outcome {
            Ok(outcome) => word_at(outcome),
            Err(error) => OUTCOMES + reason_at(error.reason),
        };
        self.0.add(at, 1);
    }

    /// Counts a call that the platform did not bring to an outcome.
    pub fn record_reason(&self, reason: Reason) {
        self.0.add(OUTCOMES + reason_at(reason), 1);
    }

    /// The words with how many calls ended like that, if any.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.read().map(|(at, count)| (word(at), count))
    }
}

/// The word for an outcome.
pub fn outcome_word(outcome: Result<&Outcome, &PlatformError>) -> &'static str {
    outcome.map_or_else(|error| error.reason.word(), |outcome| word(word_at(outcome)))
}

fn word_at(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Answer { .. } => 0,
        Outcome::Estimate(_) => 2,
        Outcome::Error { kind, .. } => KINDS.iter().position(|known| known == kind).map_or(1, |at| 3 + at),
    }
}

fn reason_at(reason: Reason) -> usize {
    // Declared in the order of the list.
    reason as usize
}

fn word(at: usize) -> &'static str {
    match at {
        0 => ANSWER,
        1 => ERROR,
        2 => ESTIMATE,
        at if at < OUTCOMES => KINDS[at - 3],
        at => Reason::ALL.get(at - OUTCOMES).map_or("unknown", |reason| reason.word()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: &str) -> Outcome {
        Outcome::Error { kind: kind.to_owned(), message: String::new() }
    }

    #[test]
    fn every_reason_has_its_own_word() {
        for &reason in Reason::ALL {
            let outcomes = Outcomes::default();
            outcomes.record_reason(reason);
            assert_eq!(outcomes.read().collect::<Vec<_>>(), [(reason.word(), 1)]);
        }
    }

    #[test]
    fn a_functions_own_words_are_one_label() {
        let outcomes = Outcomes::default();
        for kind in ["bad-input", "made-up-1", "made-up-2", "panic", "time-limit"] {
            outcomes.record(Ok(&error(kind)));
        }
        outcomes.record(Ok(&Outcome::Estimate(nigh_proto::Estimate::default())));
        let told: Vec<_> = outcomes.read().collect();
        assert_eq!(told, [("error", 3), ("estimate", 1), ("panic", 1), ("time-limit", 1)]);
    }
}
