//! The policies by which a destination is chosen, by name and parameters.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::conf::{Conf, ConfError, listed, shortened};
use crate::estimate::Estimator;
use crate::forwarding::{Optimizer, Selection};

/// How one of a function's destinations is chosen for a call. All policies leave out the same destinations that are set
/// aside, and none forgets one that is slow or was never measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    /// Of a few drawn at random, fast ones more often, the one expected to answer soonest.
    Predict {
        /// How many are drawn.
        choices: u32,
    },
    /// Of two drawn at random the one with the smaller product of peak latency and calls under way.
    P2cEwma {
        /// How fast a peak fades.
        decay: Duration,
    },
    /// The one with the fewest calls under way from here.
    LeastOutstanding,
    /// The smallest measured latency.
    LeastLatency,
    /// By weight alone; an [`Optimizer`] makes weights of measured latencies.
    Weighted(Selection),
    /// The one whose time is estimated least.
    Estimated(Estimator),
}

impl Policy {
    /// The names.
    pub const NAMES: [&str; 12] = [
        "predict",
        "p2c-ewma",
        "least-outstanding",
        "least-latency",
        "random",
        "least-impedance",
        "round-robin",
        "proportional-fairness",
        "rtt",
        "util",
        "delay",
        "probe",
    ];
    /// What [`Policy::Predict`] draws by default.
    pub const CHOICES: u32 = 3;
    /// What [`Policy::Predict`] draws at most.
    pub const CHOICES_MAX: u32 = 64;
    /// How fast a peak of [`Policy::P2cEwma`] fades by default.
    pub const DECAY: Duration = Duration::from_secs(10);

    /// The policy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Predict { .. } => "predict",
            Self::P2cEwma { .. } => "p2c-ewma",
            Self::LeastOutstanding => "least-outstanding",
            Self::LeastLatency => "least-latency",
            Self::Weighted(selection) => selection.name(),
            Self::Estimated(estimator) => estimator.name(),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::Predict { choices: Self::CHOICES }
    }
}

impl FromStr for Policy {
    type Err = ConfError;

    fn from_str(given: &str) -> Result<Self, ConfError> {
        let (name, conf) = Conf::parse_named(given, "random")?;
        match name.as_str() {
            "predict" => {
                conf.only("predict", &["choices"])?;
                let choices = conf.uint_or("choices", Self::CHOICES.into())?;
                let fits = u32::try_from(choices).ok().filter(|choices| (1..=Self::CHOICES_MAX).contains(choices));
                let choices =
                    fits.ok_or_else(|| conf.wrong("choices", conf.text("choices"), "a number from 1 to 64"))?;
                Ok(Self::Predict { choices })
            }
            "p2c-ewma" => {
                conf.only("p2c-ewma", &["decay"])?;
                let decay = conf.double_or("decay", Self::DECAY.as_secs_f64())?;
                conf.check("decay", (1e-3..=3600.0).contains(&decay), "seconds, from 0.001 to 3600")?;
                Ok(Self::P2cEwma { decay: Duration::from_secs_f64(decay) })
            }
            "least-outstanding" => conf.only("least-outstanding", &[]).map(|()| Self::LeastOutstanding),
            "least-latency" => conf.only("least-latency", &[]).map(|()| Self::LeastLatency),
            _ => {
                let selection = Selection::named(&name, &conf).map(|selection| selection.map(Self::Weighted));
                let estimator = || Estimator::named(&name, &conf).map(|estimator| estimator.map(Self::Estimated));
                selection.or_else(estimator).unwrap_or_else(|| {
                    let (given, known) = (shortened(&name), listed(&Self::NAMES));
                    Err(ConfError::UnknownName { what: "policy", given, known })
                })
            }
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Predict { choices } if *choices != Self::CHOICES => write!(f, "predict,choices={choices}"),
            Self::P2cEwma { decay } if *decay != Self::DECAY => write!(f, "p2c-ewma,decay={}", decay.as_secs_f64()),
            Self::Weighted(selection) => selection.fmt(f),
            Self::Estimated(estimator) => estimator.fmt(f),
            other => f.write_str(other.name()),
        }
    }
}

/// A policy and what goes with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strategy {
    /// How a destination is chosen.
    pub policy: Policy,
    /// How measured latency becomes weight, where the policy is by weight alone.
    pub optimizer: Optimizer,
    /// For how long a newcomer, or one that is back, gets fewer calls than its share. For policies by weight alone, least
    /// latency and estimators it means nothing.
    pub slow_start: Duration,
}

impl Strategy {
    /// The default of `slow_start`.
    pub const SLOW_START: Duration = Duration::from_secs(2);

    /// Whether calls are sent to destinations of which nothing is known, or nothing new for long, to find out. Round robin,
    /// proportional fairness and estimators come back to everyone by themselves; where weights never change there is nothing
    /// to learn.
    pub(crate) fn explores(&self) -> bool {
        match self.policy {
            Policy::Predict { .. } | Policy::P2cEwma { .. } | Policy::LeastLatency => true,
            Policy::LeastOutstanding | Policy::Estimated(_) => false,
            Policy::Weighted(Selection::Random | Selection::LeastImpedance) => self.optimizer != Optimizer::None,
            Policy::Weighted(Selection::RoundRobin | Selection::ProportionalFairness { .. }) => false,
        }
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self::from(Policy::default())
    }
}

impl From<Policy> for Strategy {
    fn from(policy: Policy) -> Self {
        Self { policy, optimizer: Optimizer::default(), slow_start: Self::SLOW_START }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNED: [&str; 6] = [
        "predict,choices=2",
        "p2c-ewma,decay=0.5",
        "rtt,window-size=10,stale-period=0",
        "util,rtt-window-size=5,rtt-stale-period=2.5,util-load-timeout=1,util-window-size=7",
        "delay,util-load-timeout=1,util-window-size=7",
        "probe,max-clients=3",
    ];

    #[test]
    fn policies_parse_as_they_print() {
        for name in Policy::NAMES.into_iter().chain(TUNED) {
            let text = if name == "proportional-fairness" { "proportional-fairness,alpha=2,beta=1" } else { name };
            let policy: Policy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
            assert_eq!(format!("type={text}").parse(), Ok(policy));
        }
    }

    #[test]
    fn an_unknown_policy_is_told_the_known_ones() {
        let error = "fastest".parse::<Policy>().unwrap_err().to_string();
        assert!(Policy::NAMES.iter().all(|name| error.contains(name)), "{error}");
    }

    #[test]
    fn parameters_are_checked() {
        let bad = [
            "predict,choices=0",
            "predict,choice=2",
            "p2c-ewma,decay=0",
            "random,alpha=1",
            "proportional-fairness",
            "rtt,window-size=0",
            "rtt,stale-period=1e9",
            "util,window-size=5",
            "delay,util-load-timeout=0",
            "probe,max-clients=0",
        ];
        for bad in bad {
            assert!(bad.parse::<Policy>().is_err(), "{bad}");
        }
    }
}
