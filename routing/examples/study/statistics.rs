//! What a run tells, and how sure many runs make it.

use std::fmt;

/// Latencies of one run in milliseconds, and calls that failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) failed: u64,
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
    pub(crate) fn of(mut seconds: Vec<f64>, failed: u64) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |percent: usize| seconds.get(seconds.len() * percent / 100).copied().unwrap_or(f64::NAN) * 1e3;
        let mean = seconds.iter().sum::<f64>() / seconds.len().max(1) as f64 * 1e3;
        Self { mean, p50: at(50), p99: at(99), failed }
    }
}

/// A mean and half the width of its 95 % confidence interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interval {
    pub(crate) mean: f64,
    pub(crate) half: f64,
}

impl Interval {
    #[expect(clippy::cast_precision_loss, reason = "counts of runs")]
    pub(crate) fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        Self { mean, half: 1.96 * (variance / count).sqrt() }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} ± {:.1}", self.mean, self.half))
    }
}
