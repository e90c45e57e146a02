//! Optimizers: how measured latency becomes weight.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::conf::{Conf, ConfError, listed, shortened};
use crate::latency::Latency;

/// How measured latency becomes weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Optimizer {
    /// Weights never change.
    None,
    /// Every so often each weight becomes a statistic of what was measured since.
    Trivial {
        /// How often.
        period: Duration,
        /// Which.
        statistic: Statistic,
    },
    /// Each measurement moves the weight: `(1 − alpha) · latency + alpha · weight`. The first one, and one after 5 s
    /// without, stand for themselves. So a high alpha is slow.
    Async {
        /// How much of the weight stays.
        alpha: f64,
    },
    /// The weight is the last measurement. What proportional fairness needs.
    AsyncPf,
    /// The weight is a mean that forgets at a steady pace in time, however often it is fed.
    #[default]
    Ewma,
}

/// What a [trivial](Optimizer::Trivial) optimizer makes of measurements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Statistic {
    /// Their mean.
    #[default]
    Mean,
    /// The least.
    Min,
    /// The most.
    Max,
}

/// What an asynchronous optimizer forgets entirely when nothing was measured for so long.
const FORGET_AFTER: Duration = Duration::from_secs(5);
/// The default of a trivial optimizer's period, in seconds.
const PERIOD_DEFAULT: f64 = 10.0;
/// The longest period, in seconds.
const PERIOD_MAX: f64 = 86_400.0;

impl Optimizer {
    /// The names, as in `type=NAME`.
    pub const NAMES: [&str; 5] = ["none", "trivial", "async", "asyncPF", "ewma"];
}

impl FromStr for Optimizer {
    type Err = ConfError;

    fn from_str(given: &str) -> Result<Self, ConfError> {
        let (name, conf) = Conf::parse_named(given, "trivial")?;
        match name.as_str() {
            "none" => conf.only("none", &[]).map(|()| Self::None),
            "trivial" => {
                conf.only("trivial", &["period", "stat"])?;
                let period = conf.double_or("period", PERIOD_DEFAULT)?;
                conf.check("period", period > 0.0 && period <= PERIOD_MAX, "seconds, above 0 and up to 86400")?;
                let statistic = match conf.text("stat") {
                    "mean" | "" => Statistic::Mean,
                    "min" => Statistic::Min,
                    "max" => Statistic::Max,
                    _ => return Err(conf.wrong("stat", conf.text("stat"), "mean, min or max")),
                };
                Ok(Self::Trivial { period: Duration::from_secs_f64(period), statistic })
            }
            "async" => {
                conf.only("async", &["alpha"])?;
                let alpha = conf.double("alpha")?;
                conf.check("alpha", (0.0..=1.0).contains(&alpha), "a number from 0 to 1")?;
                Ok(Self::Async { alpha })
            }
            "asyncPF" => conf.only("asyncPF", &[]).map(|()| Self::AsyncPf),
            "ewma" => conf.only("ewma", &[]).map(|()| Self::Ewma),
            _ => {
                let (given, known) = (shortened(&name), listed(&Self::NAMES));
                Err(ConfError::UnknownName { what: "optimizer", given, known })
            }
        }
    }
}

impl fmt::Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Trivial { period, statistic } => {
                let statistic = match statistic {
                    Statistic::Mean => "mean",
                    Statistic::Min => "min",
                    Statistic::Max => "max",
                };
                write!(f, "trivial,period={},stat={statistic}", period.as_secs_f64())
            }
            Self::Async { alpha } => write!(f, "async,alpha={alpha}"),
            Self::AsyncPf => f.write_str("asyncPF"),
            Self::Ewma => f.write_str("ewma"),
        }
    }
}

/// What is kept of one destination's measurements until they are its weight.
#[derive(Debug, Clone)]
enum Tuning {
    Fixed,
    Collecting { count: u32, sum: f64, least: f64, most: f64 },
    Moving { weight: f64, at: Option<Duration> },
    Mean(Latency),
}

/// An optimizer at work on one function's destinations, numbered as their weights are.
#[derive(Debug)]
pub struct Tuner {
    optimizer: Optimizer,
    tunings: Vec<Tuning>,
    /// The end of the period under way, for an optimizer that has periods.
    period_ends: Duration,
}

impl Tuner {
    /// An optimizer that has measured nothing yet. Its periods begin at multiples of their length.
    pub fn new(optimizer: Optimizer) -> Self {
        Self { optimizer, tunings: Vec::new(), period_ends: Duration::ZERO }
    }

    /// Whether weights change at all.
    pub(crate) fn changes_weights(&self) -> bool {
        self.optimizer != Optimizer::None
    }

    /// Puts destinations in another order: each from where it was, or new. Those not named are gone.
    pub fn reorder(&mut self, from: &[Option<usize>]) {
        let old = std::mem::take(&mut self.tunings);
        self.tunings = from.iter().map(|from| from.map_or_else(|| self.fresh(), |at| old[at].clone())).collect();
    }

    /// Forgets what was measured of a destination: its weight was set by hand.
    pub fn forget(&mut self, at: usize) {
        self.tunings[at] = self.fresh();
    }

    fn fresh(&self) -> Tuning {
        match self.optimizer {
            Optimizer::None | Optimizer::AsyncPf => Tuning::Fixed,
            Optimizer::Trivial { .. } => NOTHING_COLLECTED,
            Optimizer::Async { .. } => Tuning::Moving { weight: 0.0, at: None },
            Optimizer::Ewma => Tuning::Mean(Latency::assumed(1.0)),
        }
    }

    /// Takes in a latency, in the unit of weights, and gives the new weight if it is to change now.
    pub fn learn(&mut self, at: usize, latency: f64, now: Duration) -> Option<f64> {
        let latency = latency.max(WEIGHT_MIN);
        match (self.optimizer, &mut self.tunings[at]) {
            (Optimizer::AsyncPf, _) => Some(latency),
            (Optimizer::Async { alpha }, Tuning::Moving { weight, at }) => {
                let is_recent = at.is_some_and(|at| now.saturating_sub(at) < FORGET_AFTER);
                *weight = if is_recent { (1.0 - alpha) * latency + alpha * *weight } else { latency };
                *at = Some(now);
                Some(*weight)
            }
            (_, Tuning::Collecting { count, sum, least, most }) => {
                (*count, *sum) = (*count + 1, *sum + latency);
                (*least, *most) = (least.min(latency), most.max(latency));
                None
            }
            (_, Tuning::Mean(mean)) => {
                mean.learn(Duration::try_from_secs_f64(latency / 1e3).unwrap_or(Duration::MAX), now);
                Some(mean.ms())
            }
            (_, Tuning::Fixed | Tuning::Moving { .. }) => None,
        }
    }

    /// Ends a period, if its time has come: `set` is given each destination measured in it with its new weight.
    pub fn end_period(&mut self, now: Duration, mut set: impl FnMut(usize, f64)) {
        let Optimizer::Trivial { period, statistic } = self.optimizer else { return };
        if now < self.period_ends {
            return;
        }
        let into_period = now.as_nanos() % period.as_nanos().max(1);
        let into_period = Duration::from_nanos(u64::try_from(into_period).unwrap_or(0));
        self.period_ends = now.saturating_sub(into_period) + period;
        for (at, tuning) in self.tunings.iter_mut().enumerate() {
            if let Tuning::Collecting { count: count @ 1.., sum, least, most } = *tuning {
                let weight = match statistic {
                    Statistic::Mean => sum / f64::from(count),
                    Statistic::Min => least,
                    Statistic::Max => most,
                };
                *tuning = NOTHING_COLLECTED;
                set(at, weight);
            }
        }
    }
}

const NOTHING_COLLECTED: Tuning = Tuning::Collecting { count: 0, sum: 0.0, least: f64::INFINITY, most: 0.0 };
/// No latency makes a weight below this, which would be none.
const WEIGHT_MIN: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tuner(optimizer: &str) -> Tuner {
        let mut tuner = Tuner::new(optimizer.parse().unwrap());
        tuner.reorder(&[None, None]);
        tuner
    }

    fn period_end(tuner: &mut Tuner, now: Duration) -> Vec<(usize, f64)> {
        let mut set = Vec::new();
        tuner.end_period(now, |at, weight| set.push((at, weight)));
        set
    }

    #[test]
    fn optimizers_parse_as_they_print() {
        for text in
            ["none", "trivial,period=10,stat=mean", "trivial,period=0.5,stat=max", "async,alpha=0.9", "asyncPF", "ewma"]
        {
            assert_eq!(text.parse::<Optimizer>().unwrap().to_string(), text);
        }
        assert_eq!("type=trivial,period=10,stat=mean".parse::<Optimizer>(), "trivial".parse());
        for bad in ["fastest", "async", "async,alpha=2", "trivial,period=0", "trivial,stat=median", "none,alpha=1"] {
            assert!(bad.parse::<Optimizer>().is_err(), "{bad}");
        }
        let error = "fastest".parse::<Optimizer>().unwrap_err().to_string();
        assert!(Optimizer::NAMES.iter().all(|name| error.contains(name)), "{error}");
    }

    #[test]
    fn trivial_sets_at_the_end_of_a_period_what_was_measured_in_it() {
        for (statistic, expected) in [("mean", 20.0), ("min", 10.0), ("max", 30.0)] {
            let mut tuner = tuner(&format!("trivial,period=10,stat={statistic}"));
            assert_eq!(period_end(&mut tuner, SECOND), []);
            for latency in [10.0, 20.0, 30.0] {
                assert_eq!(tuner.learn(0, latency, 2 * SECOND), None);
            }
            assert_eq!(period_end(&mut tuner, 9 * SECOND), []);
            assert_eq!(period_end(&mut tuner, 10 * SECOND), [(0, expected)], "{statistic}");
            assert_eq!(period_end(&mut tuner, 20 * SECOND), [], "one without a sample keeps its weight");
        }
    }

    #[test]
    fn async_moves_and_forgets_after_five_seconds() {
        let mut tuner = tuner("async,alpha=0.75");
        assert_eq!(tuner.learn(0, 100.0, SECOND), Some(100.0));
        assert_eq!(tuner.learn(0, 200.0, 2 * SECOND), Some(125.0));
        assert_eq!(tuner.learn(0, 200.0, 7 * SECOND), Some(200.0));
        assert_eq!(tuner.learn(1, 7.0, 7 * SECOND), Some(7.0));
    }

    #[test]
    fn the_others_do_nothing_or_take_the_last() {
        assert_eq!(tuner("none").learn(0, 5.0, SECOND), None);
        let mut last = tuner("asyncPF");
        assert_eq!((last.learn(0, 5.0, SECOND), last.learn(0, 9.0, SECOND)), (Some(5.0), Some(9.0)));
    }
}
