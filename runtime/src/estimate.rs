//! What a call will probably take, learnt from those before it: by the size of its payload, and with how far calls stray
//! from what was expected of them. Bounded, cheap enough for every call, and forgetful, so that it follows changes. Pure.

use std::time::Duration;

use nigh_proto::{Estimate, Spread};

/// Classes of payload size: class n holds the sizes of n bits, the last one all that are larger.
const CLASSES: usize = 28;
/// Weight of the newest call in a mean: after this many calls an old one hardly counts.
const MEMORY_CALLS: u32 = 32;
/// Calls after which what older ones strayed counts half.
const STRAYS_MAX: u32 = 256;
/// Buckets of a doubling of strays, and doublings on either side of no stray at all.
const STEPS: usize = 8;
const DOUBLINGS: usize = 4;
const BUCKETS: usize = 2 * DOUBLINGS * STEPS;

/// What is known of one function's calls.
#[derive(Debug, Default, Clone)]
pub(crate) struct Estimator {
    /// Made with the first call, as most functions of a large edge are never called here.
    learnt: Option<Box<Learnt>>,
}

/// What a call will probably take.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Expectation {
    /// From begin to end.
    pub(crate) whole: Duration,
    /// Of that, in the guest.
    pub(crate) computing: Duration,
    /// Calls that this rests on.
    pub(crate) samples: u64,
}

#[derive(Debug, Clone)]
struct Learnt {
    calls: u64,
    init: Mean,
    init_strays: Strays,
    run_strays: Strays,
    /// The mean call of each class of size: points on the curve from size to time, which is taken to be straight between.
    knots: [Knot; CLASSES],
}

/// The mean call of a class of size.
#[derive(Debug, Default, Clone, Copy)]
struct Knot {
    calls: u64,
    bytes: Mean,
    run: Mean,
    computing: Mean,
}

/// A mean that forgets: exact over the first calls, then an exponentially weighted one.
#[derive(Debug, Default, Clone, Copy)]
struct Mean {
    value: f64,
    samples: u32,
}

/// How often calls took how many times as long as expected: a histogram that forgets.
#[derive(Debug, Clone)]
struct Strays {
    counts: [u16; BUCKETS],
    total: u32,
}

impl Estimator {
    /// Learns from a call that came to an outcome.
    pub(crate) fn record(&mut self, payload_bytes: u64, init: Duration, run: Duration, computing: Duration) {
        let learnt = self.learnt.get_or_insert_default();
        let (init, run) = (init.as_secs_f64(), run.as_secs_f64());
        if learnt.calls > 0 {
            // Against what was expected without knowing this call.
            learnt.init_strays.add(init, learnt.init.value);
            learnt.run_strays.add(run, learnt.at(payload_bytes, |knot| knot.run.value));
        }
        learnt.calls += 1;
        learnt.init.add(init);
        let knot = &mut learnt.knots[class_of(payload_bytes)];
        knot.calls += 1;
        knot.bytes.add(float(payload_bytes));
        knot.run.add(run);
        knot.computing.add(computing.as_secs_f64());
    }

    /// What a call with such a payload will probably take, without its wait.
    pub(crate) fn estimate(&self, payload_bytes: u64) -> Estimate {
        let Some(learnt) = &self.learnt else { return Estimate::default() };
        let run = learnt.at(payload_bytes, |knot| knot.run.value);
        Estimate {
            queue: Duration::ZERO,
            init: duration(learnt.init.value),
            run: duration(run),
            samples: learnt.calls,
            similar: learnt.knots[class_of(payload_bytes)].calls,
            init_spread: learnt.init_strays.around(learnt.init.value),
            run_spread: learnt.run_strays.around(run),
            modelled: false,
        }
    }

    /// The same in short, for each call that is admitted.
    pub(crate) fn expected(&self, payload_bytes: u64) -> Expectation {
        let Some(learnt) = &self.learnt else { return Expectation::default() };
        let whole = learnt.init.value + learnt.at(payload_bytes, |knot| knot.run.value);
        let computing = learnt.at(payload_bytes, |knot| knot.computing.value);
        Expectation { whole: duration(whole), computing: duration(computing), samples: learnt.calls }
    }
}

impl Default for Learnt {
    fn default() -> Self {
        let strays = || Strays { counts: [0; BUCKETS], total: 0 };
        Self {
            calls: 0,
            init: Mean::default(),
            init_strays: strays(),
            run_strays: strays(),
            knots: [Knot::default(); CLASSES],
        }
    }
}

impl Learnt {
    /// The curve at a size: on the straight line between the knots around it, or beyond them with the slope at that end.
    fn at(&self, payload_bytes: u64, time: impl Fn(&Knot) -> f64) -> f64 {
        let bytes = float(payload_bytes);
        let known = |knot: &&Knot| knot.calls > 0;
        // Within its class, a size may lie on either side of the mean.
        let class = class_of(payload_bytes);
        let below = self.knots[..=class].iter().rev().filter(known).find(|knot| knot.bytes.value <= bytes);
        let above = self.knots[class..].iter().filter(known).find(|knot| knot.bytes.value > bytes);
        let value = match (below, above) {
            (Some(below), Some(above)) => {
                let share = (bytes - below.bytes.value) / (above.bytes.value - below.bytes.value);
                time(below) + share * (time(above) - time(below))
            }
            (Some(last), None) => {
                // Half of nothing is nothing: the knot of calls without payload has none before it.
                let has_before = last.bytes.value > 0.0;
                let is_before = |knot: &&Knot| has_before && knot.bytes.value <= last.bytes.value / 2.0;
                let before = self.knots.iter().rev().filter(known).find(is_before);
                let slope = before.map_or(0.0, |before| slope(before, last, &time));
                // Not steeper than in proportion to size, so that noise between neighbours is not carried far.
                let steepest = if last.bytes.value > 0.0 { time(last) / last.bytes.value } else { f64::MAX };
                time(last) + slope.clamp(0.0, steepest.max(0.0)) * (bytes - last.bytes.value)
            }
            (None, Some(first)) => {
                let after = self.knots.iter().filter(known).find(|knot| knot.bytes.value >= first.bytes.value * 2.0);
                let slope = after.map_or(0.0, |after| slope(first, after, &time));
                time(first) - slope.max(0.0) * (first.bytes.value - bytes)
            }
            (None, None) => 0.0,
        };
        value.max(0.0)
    }
}

fn slope(from: &Knot, to: &Knot, time: impl Fn(&Knot) -> f64) -> f64 {
    (time(to) - time(from)) / (to.bytes.value - from.bytes.value)
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.samples = (self.samples + 1).min(MEMORY_CALLS);
        self.value += (value - self.value) / f64::from(self.samples);
    }
}

impl Strays {
    fn add(&mut self, took: f64, expected: f64) {
        if self.total >= STRAYS_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|&count| u32::from(count)).sum();
        }
        // What takes no time at all, or was expected to, strays as far as is counted.
        let doublings = ((took + 1e-9) / (expected + 1e-9)).log2();
        self.counts[bucket_of(doublings)] += 1;
        self.total += 1;
    }

    /// What one call in ten stays below, and one in ten is above.
    fn around(&self, expected: f64) -> Spread {
        if self.total == 0 {
            return Spread { p10: duration(expected), p90: duration(expected) };
        }
        Spread { p10: duration(expected * self.quantile(0.1)), p90: duration(expected * self.quantile(0.9)) }
    }

    fn quantile(&self, share: f64) -> f64 {
        let rank = share * f64::from(self.total);
        let mut before = 0.0;
        for (bucket, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let within = (rank - before) / f64::from(count);
            if within <= 1.0 {
                return ratio_at(float(bucket as u64) + within.max(0.0));
            }
            before += f64::from(count);
        }
        1.0
    }
}

/// The bucket of a stray in doublings.
fn bucket_of(doublings: f64) -> usize {
    let step = (doublings + DOUBLINGS as f64) * STEPS as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the buckets just here")]
    let bucket = step.clamp(0.0, (BUCKETS - 1) as f64) as usize;
    bucket
}

/// How many times as long as expected, at a place among the buckets.
fn ratio_at(place: f64) -> f64 {
    (place / STEPS as f64 - DOUBLINGS as f64).exp2()
}

fn class_of(bytes: u64) -> usize {
    usize::try_from(u64::BITS - bytes.leading_zeros()).unwrap_or(CLASSES).min(CLASSES - 1)
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52, and nothing here is exact")]
fn float(number: u64) -> f64 {
    number as f64
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_near(have: Duration, want: f64, share: f64) -> bool {
        // Durations are whole nanoseconds.
        (have.as_secs_f64() - want).abs() <= want * share + 2e-9
    }

    fn record(estimator: &mut Estimator, bytes: u64, run: f64) {
        let run = Duration::from_secs_f64(run);
        estimator.record(bytes, Duration::from_micros(20), run, run / 2);
    }

    #[test]
    fn without_calls_it_says_so() {
        assert_eq!(Estimator::default().estimate(1000), Estimate::default());
        assert_eq!(Estimator::default().expected(1000).samples, 0);
    }

    #[test]
    fn it_tells_which_calls_were_alike() {
        let mut estimator = Estimator::default();
        (0..10).for_each(|_| record(&mut estimator, 1000, 0.001));
        record(&mut estimator, 100_000, 0.1);
        let near = estimator.estimate(900);
        assert_eq!((near.samples, near.similar), (11, 10));
        assert_eq!(estimator.estimate(10_000).similar, 0);
        assert!(is_near(estimator.estimate(50_500).run, 0.0505, 1e-6), "on the line between");
    }

    #[test]
    fn calls_without_payload_are_learnt_of_as_any() {
        let mut estimator = Estimator::default();
        (0..10).for_each(|_| record(&mut estimator, 0, 0.005));
        for bytes in [0, 1, 1000] {
            assert!(is_near(estimator.estimate(bytes).run, 0.005, 0.01), "{:?}", estimator.estimate(bytes));
        }
        assert!(is_near(estimator.expected(0).computing, 0.0025, 0.01));
        // With others, too.
        (0..10).for_each(|_| record(&mut estimator, 1 << 20, 0.105));
        assert!(is_near(estimator.estimate(0).run, 0.005, 0.01));
        assert!(is_near(estimator.estimate(1 << 19).run, 0.055, 0.01));
        assert!(is_near(estimator.estimate(1 << 21).run, 0.205, 0.01));
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Estimator>() == size_of::<usize>() && size_of::<Learnt>() <= 2048, "{}", size_of::<Learnt>());
    }

    /// Sizes spread evenly over doublings, up to 16 MiB.
    fn sizes(count: usize) -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec((0u32..25, 0u64..1 << 24).prop_map(|(bits, random)| random & ((1 << bits) - 1)), count)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_linear_law_is_found(sizes in sizes(500), base in 1e-6..1e-2, per_byte in 0.0..1e-7, asked in any::<prop::sample::Index>()) {
            let law = |bytes: u64| base + per_byte * float(bytes);
            let mut estimator = Estimator::default();
            sizes.iter().for_each(|&bytes| record(&mut estimator, bytes, law(bytes)));
            let asked = sizes[asked.index(sizes.len())];
            let found = estimator.estimate(asked);
            prop_assert!(is_near(found.run, law(asked), 0.01), "{found:?} at {asked}, not {}", law(asked));
            // Also far beyond anything seen.
            let beyond = estimator.estimate(1 << 26);
            prop_assert!(is_near(beyond.run, law(1 << 26), 0.05), "{beyond:?}, not {}", law(1 << 26));
        }

        #[test]
        fn a_shift_is_followed(before in sizes(200), after in sizes(28 * 150), factor in 0.1f64..10.0) {
            let law = |bytes: u64| 1e-4 + 1e-8 * float(bytes);
            let mut estimator = Estimator::default();
            before.iter().for_each(|&bytes| record(&mut estimator, bytes, law(bytes)));
            after.iter().for_each(|&bytes| record(&mut estimator, bytes, factor * law(bytes)));
            for asked in [0, 1000, 100_000, 10_000_000] {
                let found = estimator.estimate(asked);
                prop_assert!(is_near(found.run, factor * law(asked), 0.25), "{found:?} at {asked}");
            }
        }

        #[test]
        fn eight_of_ten_calls_lie_within_the_spread(noise in prop::collection::vec(0.5f64..2.0, 8 * 600)) {
            // What one estimator has learnt of last says little of others: as many calls may by chance lie elsewhere.
            let within = noise.chunks(600).map(|noise| {
                let mut estimator = Estimator::default();
                let (learnt, later) = noise.split_at(400);
                learnt.iter().for_each(|noise| record(&mut estimator, 1000, 0.001 * noise));
                let Spread { p10, p90 } = estimator.estimate(1000).run_spread;
                let is_within = |noise: &&f64| (p10..=p90).contains(&Duration::from_secs_f64(0.001 * **noise));
                later.iter().filter(is_within).count()
            });
            let within: Vec<_> = within.collect();
            let share = within.iter().sum::<usize>() * 100 / (8 * 200);
            prop_assert!((60..=95).contains(&share), "{within:?} of 200 each");
        }

        #[test]
        fn whatever_it_learns_it_stays_sane(calls in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..200), asked: u64) {
            let mut estimator = Estimator::default();
            for (bytes, run_ns, init_us) in calls {
                let (init, run) = (Duration::from_micros(init_us.into()), Duration::from_nanos(run_ns));
                estimator.record(bytes, init, run, run);
            }
            let Estimate { run, init, run_spread, init_spread, samples, similar, .. } = estimator.estimate(asked);
            let year = Duration::from_secs(1 << 40);
            prop_assert!(init < year && init_spread.p10 <= init_spread.p90 && run_spread.p10 <= run_spread.p90);
            prop_assert!(run >= Duration::ZERO && similar <= samples);
            prop_assert!(estimator.learnt.is_none_or(|learnt| learnt.knots.iter().all(|knot| knot.run.value.is_finite())));
        }
    }
}
