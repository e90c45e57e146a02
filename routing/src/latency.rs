//! Measured latency: an average over the recent past that forgets at a steady pace in time, however often it is fed.

use std::time::Duration;

/// How fast a measurement is forgotten: after this much time a new one weighs 1 − 1/e, about 63 %.
pub const LATENCY_TAU: Duration = Duration::from_secs(1);
/// What is assumed before anything has been measured or set by hand, in milliseconds.
pub(crate) const LATENCY_ASSUMED_MS: f64 = 1.0;
/// No latency counts as less, in milliseconds, so that its inverse stays bounded.
const LATENCY_MIN_MS: f64 = 1e-3;

/// The latency of one destination for one function.
///
/// A sample that comes `dt` after the one before gets the weight `1 − exp(−dt/τ)`: the exponentially weighted moving
/// average for samples at uneven intervals. The first few count at least as in a plain mean, so that an outlier at the
/// very beginning (a connection made, a cache cold) does not stand for a whole τ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    ms: f64,
    samples: u32,
    at: Duration,
    known: bool,
}

impl Latency {
    /// Nothing measured yet.
    pub(crate) fn assumed(ms: f64) -> Self {
        Self { ms: ms.max(LATENCY_MIN_MS), samples: 0, at: Duration::ZERO, known: false }
    }

    /// Set by hand: stands until measurements replace it.
    pub(crate) fn set(ms: f64) -> Self {
        Self { known: true, ..Self::assumed(ms) }
    }

    pub(crate) fn ms(&self) -> f64 {
        self.ms
    }

    /// Measured or set by hand, not just assumed.
    pub(crate) fn is_known(&self) -> bool {
        self.known
    }

    pub(crate) fn learn(&mut self, sample: Duration, now: Duration) {
        let sample = (sample.as_secs_f64() * 1e3).max(LATENCY_MIN_MS);
        let since_last = now.saturating_sub(self.at).as_secs_f64();
        let weight = (1.0 - (-since_last / LATENCY_TAU.as_secs_f64()).exp()).max(1.0 / (f64::from(self.samples) + 1.0));
        self.ms += (sample - self.ms) * weight;
        self.samples = self.samples.saturating_add(1);
        self.at = now;
        self.known = true;
    }

    /// A call took at least so long; says nothing where that is less than what is known anyway.
    pub(crate) fn learn_at_least(&mut self, elapsed: Duration, now: Duration) {
        if elapsed.as_secs_f64() * 1e3 > self.ms {
            self.learn(elapsed, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_sample_stands_for_itself_and_the_next_few_make_a_mean() {
        let mut latency = Latency::assumed(1.0);
        assert!(!latency.is_known());
        latency.learn(60 * MS, 5 * MS);
        assert!((latency.ms() - 60.0).abs() < 1e-9);
        latency.learn(30 * MS, 5 * MS);
        assert!((latency.ms() - 45.0).abs() < 1e-9);
        assert!(latency.is_known());
    }

    #[test]
    fn a_change_is_followed_within_a_few_time_constants_at_any_rate_of_samples() {
        for rate in [5u32, 50, 5000] {
            let mut latency = Latency::assumed(1.0);
            for n in 0..100 * rate {
                latency.learn(10 * MS, Duration::from_secs(1) * n / rate);
            }
            let changed = Duration::from_secs(100);
            for n in 0..3 * rate {
                latency.learn(100 * MS, changed + Duration::from_secs(1) * n / rate);
            }
            let expected = 100.0 - 90.0 * (-3.0f64).exp();
            assert!((latency.ms() - expected).abs() < 2.0, "{rate}/s: {}", latency.ms());
        }
    }

    #[test]
    fn an_unfinished_call_only_raises() {
        let mut latency = Latency::set(50.0);
        latency.learn_at_least(10 * MS, 9000 * MS);
        assert!((latency.ms() - 50.0).abs() < 1e-9);
        latency.learn_at_least(500 * MS, 9000 * MS);
        assert!(latency.ms() > 400.0);
    }
}
