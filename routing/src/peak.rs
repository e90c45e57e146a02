//! Peak EWMA: a mean of latency that rises at once and falls slowly, times the calls under way.

use std::time::Duration;

/// One destination's cost.
#[derive(Debug, Clone)]
pub(crate) struct Peak {
    seconds: f64,
    at: f64,
}

/// Before anything is measured, in seconds: behind all that are known.
const ASSUMED: f64 = 1.0;

impl Peak {
    pub(crate) fn new() -> Self {
        Self { seconds: 0.0, at: 0.0 }
    }

    pub(crate) fn learn(&mut self, latency: Duration, decay: Duration, now: Duration) {
        let (latency, now) = (latency.as_secs_f64(), now.as_secs_f64());
        if latency > self.seconds {
            self.seconds = latency;
        } else {
            let keep = (-(now - self.at).max(0.0) / decay.as_secs_f64()).exp();
            self.seconds = self.seconds * keep + latency * (1.0 - keep);
        }
        self.at = now;
    }

    /// A call took at least so long; says nothing where that is less than what is known.
    pub(crate) fn learn_at_least(&mut self, elapsed: Duration, decay: Duration, now: Duration) {
        if elapsed.as_secs_f64() > self.seconds {
            self.learn(elapsed, decay, now);
        }
    }

    /// Without measurements too a peak fades.
    pub(crate) fn cost(&self, in_flight: u32, decay: Duration, now: Duration) -> f64 {
        let idle = (now.as_secs_f64() - self.at).max(0.0);
        let seconds = if self.seconds > 0.0 { self.seconds * (-idle / decay.as_secs_f64()).exp() } else { ASSUMED };
        seconds * (f64::from(in_flight) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let (ms, decay) = (Duration::from_millis(1), Duration::from_secs(10));
        let mut peak = Peak::new();
        peak.learn(5 * ms, decay, ms);
        peak.learn(100 * ms, decay, 2 * ms);
        let cost = |peak: &Peak, in_flight, at: Duration| peak.cost(in_flight, decay, at);
        assert!((cost(&peak, 0, 2 * ms) - 0.1).abs() < 1e-9 && (cost(&peak, 3, 2 * ms) - 0.4).abs() < 1e-9);
        peak.learn(5 * ms, decay, 3 * ms);
        assert!(cost(&peak, 0, 3 * ms) > 0.099);
        assert!(cost(&peak, 0, Duration::from_secs(60)) < 0.001);
        (0..100u32).for_each(|n| peak.learn(5 * ms, decay, Duration::from_secs(1) * n));
        assert!(cost(&peak, 0, Duration::from_secs(99)) < 0.006);
    }
}
