//! The policies that choose by weight alone: by which name, and how each chooses. Destinations are numbered in the order in
//! which they came; less weight is better.

mod fairness;
mod impedance;
mod random;
mod turns;
mod weights;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::Rng;

use crate::conf::{Conf, ConfError, listed, shortened};
use fairness::Fairness;
use impedance::Impedance;
use random::Shares;
use turns::Turns;

/// A policy that chooses by weight alone.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Selection {
    /// With a probability in inverse proportion to weight.
    #[default]
    Random,
    /// The smallest weight; among equals the one that came first.
    LeastImpedance,
    /// Weighted deficit round robin over those at most twice as heavy as the lightest; the others are tried again after a
    /// while that doubles with each vain try.
    RoundRobin,
    /// The largest `(1/weight)^alpha / (served/time since it last served)^beta`.
    ProportionalFairness {
        /// How much weight counts.
        alpha: f64,
        /// How much having been served counts.
        beta: f64,
    },
}

impl Selection {
    /// The names, as in `type=NAME`.
    pub const NAMES: [&str; 4] = ["random", "least-impedance", "round-robin", "proportional-fairness"];

    /// The policy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::LeastImpedance => "least-impedance",
            Self::RoundRobin => "round-robin",
            Self::ProportionalFairness { .. } => "proportional-fairness",
        }
    }

    /// The policy of this name; none where it is no name of one.
    pub(crate) fn named(name: &str, conf: &Conf) -> Option<Result<Self, ConfError>> {
        let plain = |selection, of| conf.only(of, &[]).map(|()| selection);
        Some(match name {
            "random" => plain(Self::Random, "random"),
            "least-impedance" => plain(Self::LeastImpedance, "least-impedance"),
            "round-robin" => plain(Self::RoundRobin, "round-robin"),
            "proportional-fairness" => fairness_of(conf),
            _ => return None,
        })
    }
}

fn fairness_of(conf: &Conf) -> Result<Selection, ConfError> {
    conf.only("proportional-fairness", &["alpha", "beta"])?;
    let (alpha, beta) = (conf.double("alpha")?, conf.double("beta")?);
    for (key, value) in [("alpha", alpha), ("beta", beta)] {
        conf.check(key, (0.0..=EXPONENT_MAX).contains(&value), "a number from 0 to 16")?;
    }
    Ok(Selection::ProportionalFairness { alpha, beta })
}

/// Beyond it, one destination's score would drown all others in rounding.
const EXPONENT_MAX: f64 = 16.0;

impl FromStr for Selection {
    type Err = ConfError;

    fn from_str(given: &str) -> Result<Self, ConfError> {
        let (name, conf) = Conf::parse_named(given, "random")?;
        let unknown =
            || ConfError::UnknownName { what: "policy", given: shortened(&name), known: listed(&Self::NAMES) };
        Self::named(&name, &conf).unwrap_or_else(|| Err(unknown()))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::ProportionalFairness { alpha, beta } => write!(f, ",alpha={alpha},beta={beta}"),
            Self::Random | Self::LeastImpedance | Self::RoundRobin => Ok(()),
        }
    }
}

/// One function's weights and what its policy keeps of each. Choosing and learning do not allocate; membership does.
#[derive(Debug)]
pub(crate) enum Selector {
    Random(Shares),
    LeastImpedance(Impedance),
    RoundRobin(Turns),
    ProportionalFairness(Fairness),
}

macro_rules! each {
    ($self:expr, $of:ident => $do:expr) => {
        match $self {
            Self::Random($of) => $do,
            Self::LeastImpedance($of) => $do,
            Self::RoundRobin($of) => $do,
            Self::ProportionalFairness($of) => $do,
        }
    };
}

impl Selector {
    pub(crate) fn new(selection: Selection) -> Self {
        match selection {
            Selection::Random => Self::Random(Shares::new()),
            Selection::LeastImpedance => Self::LeastImpedance(Impedance::new()),
            Selection::RoundRobin => Self::RoundRobin(Turns::new()),
            Selection::ProportionalFairness { alpha, beta } => Self::ProportionalFairness(Fairness::new(alpha, beta)),
        }
    }

    /// Puts destinations in another order: each from where it was, or new, with this weight. Those not named are gone.
    pub(crate) fn reorder(&mut self, from: &[Option<usize>], weight: f64, now: Duration) {
        each!(self, of => of.reorder(from, weight, now));
    }

    /// Changes a weight, which for some policies says that a call was served.
    pub(crate) fn set_weight(&mut self, at: usize, weight: f64, now: Duration) {
        each!(self, of => of.set_weight(at, weight, now));
    }

    /// Whether a destination may be chosen at all.
    pub(crate) fn set_available(&mut self, at: usize, is_available: bool, now: Duration) {
        each!(self, of => of.set_available(at, is_available, now));
    }

    pub(crate) fn weight(&self, at: usize) -> f64 {
        each!(self, of => of.weight(at))
    }

    /// Chooses among the available destinations but the excluded one.
    pub(crate) fn select(&mut self, excluded: Option<usize>, now: Duration, rng: &mut impl Rng) -> Option<usize> {
        match self {
            Self::Random(of) => of.select(excluded, rng),
            Self::LeastImpedance(of) => of.select(excluded),
            Self::RoundRobin(of) => of.select(excluded, now),
            Self::ProportionalFairness(of) => of.select(excluded, now),
        }
    }
}
