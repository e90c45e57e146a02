//! Times between one thing and the next, around a mean.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt as _};
use rand_distr::{Distribution as _, Exp1};

/// The longest gap that is drawn; beyond a year, sums could overflow.
const GAP_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// How gaps are distributed around their mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gaps {
    /// All alike.
    #[default]
    Constant,
    /// Between nothing and twice the mean.
    Uniform,
    /// Exponential, so that arrivals make a Poisson process.
    Poisson,
}

impl Gaps {
    pub(crate) fn draw(self, mean: Duration, dice: &mut ChaCha8Rng) -> Duration {
        match self {
            Self::Constant => mean,
            Self::Uniform => scaled(mean, 2.0 * dice.random::<f64>()),
            Self::Poisson => exponential(mean, dice),
        }
    }
}

/// An exponential time of this mean.
pub(crate) fn exponential(mean: Duration, dice: &mut impl Rng) -> Duration {
    let drawn: f64 = Exp1.sample(dice);
    scaled(mean, drawn)
}

/// A time between these two.
pub(crate) fn between(min: Duration, max: Duration, dice: &mut impl Rng) -> Duration {
    min + scaled(max.saturating_sub(min), dice.random::<f64>())
}

fn scaled(mean: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(mean.as_secs_f64() * factor).unwrap_or(GAP_MAX).min(GAP_MAX)
}
