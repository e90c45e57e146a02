//! What is known of a function from its own calls: how many, how long, and what the next one will probably take.

use std::time::Duration;

use nigh_proto::{Outcome, Timing};

use crate::estimate::Estimator;

/// Weight of the newest call in a mean: after this many calls an old one hardly counts.
const MEMORY_CALLS: u32 = 32;
/// Calls in one of the two halves that percentiles are taken over.
const HALF_CALLS: u32 = 2048;
/// Steps within each doubling of time: a percentile is at most 1/16 too high.
const STEPS: u32 = 16;
/// Doublings counted: up to 2^36 µs, 19 hours.
const DOUBLINGS: u32 = 33;

/// One function's measurements on this computer.
#[derive(Debug, Default)]
pub(crate) struct Measures {
    calls: u64,
    function_errors: u64,
    refused: u64,
    estimator: Estimator,
    latency: Option<Box<Recent>>,
}

/// Counts and percentiles for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) calls: u64,
    pub(crate) function_errors: u64,
    pub(crate) refused: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Measures {
    /// Counts a call with such a payload that came to an outcome, having computed for so long.
    pub(crate) fn record(&mut self, outcome: &Outcome, payload_bytes: u64, timing: &Timing, computed: Duration) {
        self.calls += 1;
        if matches!(outcome, Outcome::Error { .. }) {
            self.function_errors += 1;
        }
        self.estimator.record(payload_bytes, timing.init, timing.run, computed);
        self.latency.get_or_insert_default().record(timing.total());
    }

    /// Counts a call that was not run.
    pub(crate) fn record_refused(&mut self) {
        self.refused += 1;
    }

    /// What calls to come will probably take.
    pub(crate) fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// Counts and percentiles.
    pub(crate) fn summary(&self) -> Summary {
        let percentile = |share| self.latency.as_ref().map_or(Duration::ZERO, |recent| recent.percentile(share));
        Summary {
            calls: self.calls,
            function_errors: self.function_errors,
            refused: self.refused,
            p50: percentile(50),
            p99: percentile(99),
        }
    }
}

/// A mean that forgets: exact over the first calls, then an exponentially weighted one.
#[derive(Debug, Default)]
pub(crate) struct Mean {
    seconds: f64,
    samples: u32,
}

impl Mean {
    pub(crate) fn add(&mut self, duration: Duration) {
        self.samples = (self.samples + 1).min(MEMORY_CALLS);
        self.seconds += (duration.as_secs_f64() - self.seconds) / f64::from(self.samples);
    }

    pub(crate) fn value(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}

/// A histogram of the last 2048 to 4096 calls, its buckets growing with the time they stand for (as in HdrHistogram).
#[derive(Debug, Default)]
struct Recent {
    older: Histogram,
    newer: Histogram,
}

impl Recent {
    fn record(&mut self, latency: Duration) {
        if self.newer.total == HALF_CALLS {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.counts[bucket_of(latency)] += 1;
        self.newer.total += 1;
    }

    fn percentile(&self, percent: u64) -> Duration {
        let total = u64::from(self.older.total) + u64::from(self.newer.total);
        let rank = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, (old, new)) in self.older.counts.iter().zip(&self.newer.counts).enumerate() {
            seen += u64::from(*old) + u64::from(*new);
            if seen >= rank {
                return upper_bound(bucket);
            }
        }
        Duration::ZERO
    }
}

#[derive(Debug)]
struct Histogram {
    // A call is counted once in a half of at most 2048.
    counts: [u16; (STEPS * DOUBLINGS) as usize],
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; (STEPS * DOUBLINGS) as usize], total: 0 }
    }
}

/// The bucket of a latency: below 16 µs one for each µs, then 16 for each doubling.
fn bucket_of(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if us < u64::from(STEPS) {
        return usize::try_from(us).unwrap_or(0);
    }
    let doubling = us.ilog2() - STEPS.ilog2();
    let step = (us >> doubling) - u64::from(STEPS);
    let bucket = u64::from((doubling + 1) * STEPS) + step;
    usize::try_from(bucket.min(u64::from(STEPS * DOUBLINGS - 1))).unwrap_or(0)
}

/// The longest latency in a bucket.
fn upper_bound(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    let steps = u64::from(STEPS);
    if bucket < steps {
        return Duration::from_micros(bucket);
    }
    let (doubling, step) = (bucket / steps - 1, bucket % steps);
    Duration::from_micros(((steps + step + 1) << doubling) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timing(run_us: u64) -> Timing {
        Timing { run: Duration::from_micros(run_us), ..Timing::default() }
    }

    fn answer() -> Outcome {
        Outcome::Answer { payload: bytes::Bytes::new(), headers: nigh_proto::Headers::default() }
    }

    #[test]
    fn percentiles_are_of_the_last_calls() {
        let mut measures = Measures::default();
        for us in 1..=1000 {
            measures.record(&answer(), 0, &timing(us), Duration::ZERO);
        }
        let summary = measures.summary();
        assert!((500..=532).contains(&summary.p50.as_micros()), "{summary:?}");
        assert!((990..=1054).contains(&summary.p99.as_micros()), "{summary:?}");
        for _ in 0..2 * HALF_CALLS {
            measures.record(&answer(), 0, &timing(3), Duration::ZERO);
        }
        assert_eq!(measures.summary().p99, Duration::from_micros(3));
        assert_eq!(measures.summary().calls, 1000 + 2 * u64::from(HALF_CALLS));
    }

    proptest! {
        #[test]
        fn a_bucket_is_never_below_and_at_most_a_sixteenth_above(us in 0u64..1 << 36) {
            let upper = u64::try_from(upper_bound(bucket_of(Duration::from_micros(us))).as_micros()).unwrap();
            prop_assert!(upper >= us && upper <= us + us / 16 + 1, "{us} {upper}");
        }
    }
}
