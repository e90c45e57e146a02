//! What is known of a function from its own calls: how many, how long, and what the next one will probably take.

use std::time::{Duration, Instant};

use nigh_proto::time::us;
use nigh_proto::{Outcome, Timing};

use crate::estimate::Estimator;

/// Weight of the newest call in a mean: after this many calls an old one hardly counts.
const MEMORY_CALLS: u32 = 32;
/// Percentiles are taken over the last one to two of these.
const HALF: Duration = Duration::from_secs(10);
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
    queue: Mean,
    init: Mean,
    run: Mean,
    reset: Mean,
    latency: Option<Box<Recent>>,
}

/// Counts and percentiles for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) calls: u64,
    pub(crate) function_errors: u64,
    pub(crate) refused: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// How many calls of the window took up to how long; none are left out but those of 0 calls.
    pub(crate) latency: Vec<(Duration, u32)>,
    /// Means of the last calls.
    pub(crate) mean: Timing,
}

impl Measures {
    /// Counts a call with such a payload that came to an outcome now, having computed for so long.
    pub(crate) fn record(
        &mut self,
        outcome: &Outcome,
        payload_bytes: u64,
        timing: &Timing,
        computed: Duration,
        now: Instant,
    ) {
        self.calls += 1;
        if matches!(outcome, Outcome::Error { .. }) {
            self.function_errors += 1;
        }
        self.estimator.record(payload_bytes, timing.init, timing.run, computed);
        self.queue.add(timing.queue);
        self.init.add(timing.init);
        self.run.add(timing.run);
        if !timing.reset.is_zero() {
            self.reset.add(timing.reset);
        }
        self.latency.get_or_insert_with(|| Box::new(Recent::new(now))).record(timing.total(), now);
    }

    /// Counts a call that was not run.
    pub(crate) fn record_refused(&mut self) {
        self.refused += 1;
    }

    /// What calls to come will probably take.
    pub(crate) fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// Counts and percentiles as of now.
    pub(crate) fn summary(&mut self, now: Instant) -> Summary {
        let latency = self.latency.as_mut().map(|recent| recent.buckets(now)).unwrap_or_default();
        Summary {
            calls: self.calls,
            function_errors: self.function_errors,
            refused: self.refused,
            p50: percentile(&latency, 50),
            p99: percentile(&latency, 99),
            latency,
            mean: Timing {
                queue: self.queue.value(),
                init: self.init.value(),
                run: self.run.value(),
                reset: self.reset.value(),
                ..Timing::default()
            },
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

    /// The same for so many that took so long on average.
    pub(crate) fn add_many(&mut self, mean: Duration, samples: u32) {
        let all = self.samples.saturating_add(samples);
        let old = if all <= MEMORY_CALLS || self.samples == 0 {
            f64::from(self.samples) / f64::from(all.max(1))
        } else {
            (1.0 - 1.0 / f64::from(MEMORY_CALLS)).powf(f64::from(samples))
        };
        self.samples = all.min(MEMORY_CALLS);
        self.seconds = old * self.seconds + (1.0 - old) * mean.as_secs_f64();
    }

    pub(crate) fn value(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}

/// A histogram of the calls of the last 10 to 20 s, its buckets growing with the time they stand for (as in HdrHistogram).
#[derive(Debug)]
struct Recent {
    older: Histogram,
    newer: Histogram,
    /// When the newer half began.
    began: Instant,
}

impl Recent {
    fn new(now: Instant) -> Self {
        Self { older: Histogram::default(), newer: Histogram::default(), began: now }
    }

    fn record(&mut self, latency: Duration, now: Instant) {
        self.turn(now);
        self.newer.0[bucket_of(latency)] += 1;
    }

    /// Begins a new half when it is time.
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age >= HALF {
            let newer = std::mem::take(&mut self.newer);
            // Nothing was counted for a whole half since: both are over.
            self.older = if age < 2 * HALF { newer } else { Histogram::default() };
            self.began = now;
        }
    }

    fn buckets(&mut self, now: Instant) -> Vec<(Duration, u32)> {
        self.turn(now);
        let counts = self.older.0.iter().zip(&self.newer.0).map(|(old, new)| old.saturating_add(*new));
        let used = counts.enumerate().filter(|(_, calls)| *calls > 0);
        used.map(|(bucket, calls)| (upper_bound(bucket), calls)).collect()
    }
}

/// The least time that so many per cent of the calls took at most; zero where there are none.
fn percentile(latency: &[(Duration, u32)], percent: u64) -> Duration {
    let total: u64 = latency.iter().map(|(_, calls)| u64::from(*calls)).sum();
    let rank = (total * percent).div_ceil(100);
    let mut seen = 0;
    let reaches = |(_, calls): &&(Duration, u32)| {
        seen += u64::from(*calls);
        seen >= rank
    };
    latency.iter().find(reaches).map_or(Duration::ZERO, |(upto, _)| *upto)
}

/// Counts by bucket.
#[derive(Debug)]
struct Histogram([u32; (STEPS * DOUBLINGS) as usize]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; (STEPS * DOUBLINGS) as usize])
    }
}

/// The bucket of a latency: below 16 µs one for each µs, then 16 for each doubling.
fn bucket_of(latency: Duration) -> usize {
    let us = us(latency);
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
    fn percentiles_are_of_the_last_seconds() {
        let began = Instant::now();
        let mut measures = Measures::default();
        for us in 1..=1000 {
            measures.record(&answer(), 0, &timing(us), Duration::ZERO, began);
        }
        let summary = measures.summary(began);
        assert!((500..=532).contains(&summary.p50.as_micros()), "{summary:?}");
        assert!((990..=1054).contains(&summary.p99.as_micros()), "{summary:?}");
        assert_eq!(summary.latency.iter().map(|(_, calls)| calls).sum::<u32>(), 1000);

        let later = began + HALF;
        measures.record(&answer(), 0, &timing(3), Duration::ZERO, later);
        assert!(measures.summary(later).p99 > Duration::from_micros(900), "the half before still counts");
        let much_later = began + 2 * HALF;
        measures.record(&answer(), 0, &timing(3), Duration::ZERO, much_later);
        assert_eq!(measures.summary(much_later).p99, Duration::from_micros(3));
        assert_eq!(measures.summary(much_later).calls, 1002);
        let idle = measures.summary(much_later + 2 * HALF);
        assert_eq!((idle.p50, idle.latency.len()), (Duration::ZERO, 0), "a function that rests has no percentiles");
    }

    #[test]
    fn the_mean_reset_is_of_calls_that_had_one() {
        let mut measures = Measures::default();
        let now = Instant::now();
        for us in [0, 40, 0, 60] {
            let timing = Timing { reset: Duration::from_micros(us), ..timing(1) };
            measures.record(&answer(), 0, &timing, Duration::ZERO, now);
        }
        assert_eq!(measures.summary(now).mean.reset, Duration::from_micros(50));
    }

    proptest! {
        #[test]
        fn a_bucket_is_never_below_and_at_most_a_sixteenth_above(us in 0u64..1 << 36) {
            let upper = u64::try_from(upper_bound(bucket_of(Duration::from_micros(us))).as_micros()).unwrap();
            prop_assert!(upper >= us && upper <= us + us / 16 + 1, "{us} {upper}");
        }
    }
}
