//! What figures of few runs say about those that were not measured: confidence intervals by Student's t.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// How sure an interval is.
pub const CONFIDENCE: f64 = 0.95;

/// A mean, and where the true one lies with [`CONFIDENCE`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean of what was measured.
    pub mean: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Figures that it rests on.
    pub count: usize,
}

impl Interval {
    /// Of these figures, which must know nothing of each other; `None` with fewer than two.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let Moments { mean, variance, count } = Moments::of(figures)?;
        let half = quantile(count - 1.0)? * (variance / count).sqrt();
        Some(Self { mean, low: mean - half, high: mean + half, count: figures.len() })
    }
}

/// How much larger the second mean is than the first, and where the true difference lies with [`CONFIDENCE`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Second by first, minus 1; or second minus first where a figure is zero.
    pub change: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Whether it is a share of the first, and not a difference in the figures' own unit.
    pub is_relative: bool,
}

impl Change {
    /// By Welch's t, which lets the two vary differently: of the logarithm of the ratio of the means, whose variance is that of
    /// the means relative to their squares, where both are over zero; of their difference otherwise. `None` with fewer than
    /// two figures on either side.
    pub fn between(before: &[f64], after: &[f64]) -> Option<Self> {
        let (before, after) = (Moments::of(before)?, Moments::of(after)?);
        let is_relative = before.mean > 0.0 && after.mean > 0.0;
        let scaled = |moments: &Moments| {
            let scale = if is_relative { moments.mean.powi(2) } else { 1.0 };
            moments.variance / moments.count / scale
        };
        let (first, second) = (scaled(&before), scaled(&after));
        let variance = first + second;
        let half = if variance > 0.0 {
            let freedom =
                variance.powi(2) / (first.powi(2) / (before.count - 1.0) + second.powi(2) / (after.count - 1.0));
            quantile(freedom)? * variance.sqrt()
        } else {
            0.0
        };
        let difference = if is_relative { (after.mean / before.mean).ln() } else { after.mean - before.mean };
        let told = |difference: f64| if is_relative { difference.exp_m1() } else { difference };
        Some(Self {
            change: told(difference),
            low: told(difference - half),
            high: told(difference + half),
            is_relative,
        })
    }

    /// Whether the interval leaves "no change" out.
    pub fn is_significant(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Where [`CONFIDENCE`] of the values lies, as many of the rest beneath as above.
pub(crate) fn middle(values: &mut [f64]) -> Option<(f64, f64)> {
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (values.len().checked_sub(1)? as f64);
        values.get(rounded(place)).copied()
    };
    Some((at((1.0 - CONFIDENCE) / 2.0)?, at(f64::midpoint(1.0, CONFIDENCE))?))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place within a slice")]
fn rounded(place: f64) -> usize {
    place.round() as usize
}

struct Moments {
    mean: f64,
    variance: f64,
    count: f64,
}

impl Moments {
    fn of(figures: &[f64]) -> Option<Self> {
        if figures.len() < 2 {
            return None;
        }
        let count = figures.len() as f64;
        let mean = figures.iter().sum::<f64>() / count;
        let variance = figures.iter().map(|figure| (figure - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Some(Self { mean, variance, count })
    }
}

/// How many standard errors to either side an interval reaches.
fn quantile(freedom: f64) -> Option<f64> {
    let students_t = StudentsT::new(0.0, 1.0, freedom.max(1.0)).ok()?;
    Some(students_t.inverse_cdf(0.5 + CONFIDENCE / 2.0))
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;
    use crate::dice::{self, Purpose};

    #[test]
    fn an_interval_is_that_of_the_textbook() {
        // Student's t for 95 % and 4 degrees of freedom is 2.776, the standard error here 0.7071.
        let interval = Interval::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(interval.mean, 3.0);
        assert!((interval.high - 3.0 - 2.776 * 0.5_f64.sqrt()).abs() < 0.001, "{interval:?}");
        assert_eq!(Interval::of(&[1.0]), None);
    }

    #[test]
    fn a_change_is_relative_where_it_can_be() {
        let change = Change::between(&[10.0, 10.0], &[15.0, 15.0]).unwrap();
        assert!(change.is_relative && (change.change - 0.5).abs() < 1e-9);
        let change = Change::between(&[0.0, 0.0], &[0.25, 0.25]).unwrap();
        assert!(!change.is_relative && change.change == 0.25 && change.is_significant());
        let change = Change::between(&[10.0, 11.0, 9.0], &[10.2, 9.1, 11.1]).unwrap();
        assert!(!change.is_significant(), "{change:?}");
    }

    #[test]
    fn intervals_hold_the_true_mean_as_often_as_they_say() {
        let mut dice = dice::stream(5, 0, Purpose::Choice);
        let holds = (0..2000).filter(|_| {
            // Twelve uniform numbers minus six are close to normal.
            let figures: Vec<f64> = (0..8).map(|_| (0..12).map(|_| dice.random::<f64>()).sum::<f64>() - 6.0).collect();
            let interval = Interval::of(&figures).unwrap();
            interval.low <= 0.0 && 0.0 <= interval.high
        });
        let share = holds.count() as f64 / 2000.0;
        assert!((share - CONFIDENCE).abs() < 0.02, "{share}");
    }
}
