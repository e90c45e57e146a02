//! How long calls of late took, as a percentile: a histogram that forgets by halves, of a size that does not grow.

use std::time::Duration;

/// Steps within each doubling of time: a percentile is at most a quarter too high.
const STEPS: u64 = 4;
/// Buckets: up to 2^32 µs, over an hour.
const BUCKETS: usize = 124;
/// Calls after which all counts are halved.
const HALVED_AT: u32 = 4096;
/// Calls that a percentile has to rest on.
const CALLS_MIN: u32 = 32;

/// Times of calls of late.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl Latencies {
    /// Counts a call.
    pub fn record(&mut self, latency: Duration) {
        if self.total >= HALVED_AT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        self.counts[bucket_of(latency)] += 1;
        self.total += 1;
    }

    /// The time within which this percentage of calls ended; nothing where there were too few.
    pub fn percentile(&self, percent: u32) -> Option<Duration> {
        if self.total < CALLS_MIN {
            return None;
        }
        let rank = (u64::from(self.total) * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|&count| {
            seen += u64::from(count);
            seen >= rank
        });
        bucket.map(upper_bound)
    }
}

fn bucket_of(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if us < STEPS {
        return usize::try_from(us).unwrap_or(0);
    }
    let doubling = u64::from(us.ilog2() - STEPS.ilog2());
    let bucket = (doubling + 1) * STEPS + (us >> doubling) - STEPS;
    usize::try_from(bucket).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return Duration::from_micros(bucket);
    }
    let (doubling, step) = (bucket / STEPS - 1, bucket % STEPS);
    Duration::from_micros(((STEPS + step + 1) << doubling) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_calls_make_no_percentile_and_old_ones_are_forgotten() {
        let mut latencies = Latencies::default();
        (0..31).for_each(|_| latencies.record(Duration::from_millis(1)));
        assert_eq!(latencies.percentile(95), None);
        (0..100).for_each(|_| latencies.record(Duration::from_millis(1)));
        let short = latencies.percentile(95).unwrap();
        assert!(short >= Duration::from_millis(1) && short < Duration::from_micros(1300), "{short:?}");
        (0..3 * HALVED_AT).for_each(|_| latencies.record(Duration::from_millis(100)));
        assert!(latencies.percentile(50).unwrap() >= Duration::from_millis(100));
    }

    proptest! {
        #[test]
        fn a_bucket_is_never_below_and_at_most_a_quarter_above(us in 0u64..1 << 32) {
            let upper = u64::try_from(upper_bound(bucket_of(Duration::from_micros(us))).as_micros()).unwrap();
            prop_assert!(upper >= us && upper <= us + us / 4 + 1, "{us} {upper}");
        }
    }
}
