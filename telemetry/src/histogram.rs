//! How times are distributed: counts by powers of two of a microsecond, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets with an upper bound: 1 µs, 2 µs, … 2^26 µs, which is 67 s. What takes longer is in one more.
const BOUNDED: usize = 27;

/// Counts of times. Recording is two additions; readers may see a time counted whose sum is still to come.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDED + 1],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a time.
    pub fn record(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Whether nothing has been counted.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    /// Each bucket's upper bound in seconds with the times in it alone; how many in all; and their sum in seconds.
    pub(crate) fn read(&self) -> ([(f64, u64); BOUNDED + 1], u64, f64) {
        let buckets = std::array::from_fn(|at| (upper_bound(at), self.counts[at].load(Ordering::Relaxed)));
        let sum = Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64();
        (buckets, buckets.iter().map(|(_, count)| count).sum(), sum)
    }
}

/// The first bucket whose upper bound is no less.
fn bucket_of(ns: u64) -> usize {
    let us = ns.div_ceil(1000).max(1);
    let doublings = u64::BITS - (us - 1).leading_zeros();
    usize::try_from(doublings).unwrap_or(BOUNDED).min(BOUNDED)
}

fn upper_bound(bucket: usize) -> f64 {
    if bucket == BOUNDED {
        return f64::INFINITY;
    }
    // Divided rather than multiplied, so that 1 µs is written as 1e-6.
    f64::from(1u32 << bucket) / 1e6
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_powers_of_two_of_a_microsecond() {
        assert_eq!(upper_bound(0), 1e-6);
        assert_eq!(upper_bound(10), 0.001_024);
        assert_eq!(upper_bound(BOUNDED - 1), 67.108_864);
        assert_eq!(upper_bound(BOUNDED), f64::INFINITY);
    }

    #[test]
    fn the_sum_is_exact() {
        let times = Histogram::default();
        [1500, 2500, 0].into_iter().for_each(|ns| times.record(Duration::from_nanos(ns)));
        let (buckets, count, sum) = times.read();
        assert_eq!((count, sum), (3, 4e-6));
        assert_eq!((buckets[0].1, buckets[1].1, buckets[2].1), (1, 1, 1));
    }

    proptest! {
        #[test]
        fn a_time_is_in_the_first_bucket_that_it_fits_in(ns in any::<u64>()) {
            let seconds = Duration::from_nanos(ns).as_secs_f64();
            let bucket = bucket_of(ns);
            prop_assert!(seconds <= upper_bound(bucket));
            prop_assert!(bucket == 0 || seconds > upper_bound(bucket - 1));
        }
    }
}
