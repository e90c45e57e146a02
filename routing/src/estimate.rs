//! Estimators: policies of edge dispatchers of old, which choose the destination whose time is estimated least. What they
//! learn of each is a line through the samples of late.
//!
//! A destination of which nothing is known, or nothing recent, is estimated at 0: so it is found out about by itself, by one
//! call at a time.

mod destination;
mod line;
mod window;

use std::fmt;
use std::time::Duration;

use crate::conf::{Conf, ConfError};

pub(crate) use destination::Estimates;
pub use line::{Line, mean, variance};
pub use window::Window;

/// How the time of a call is estimated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Estimator {
    /// Its time on the network, by payload size.
    Rtt(Samples),
    /// That, and its time at the computer by how busy the computer is.
    Util {
        /// Of the network's time.
        rtt: Samples,
        /// Of the computer's time.
        busy: Busy,
    },
    /// All of its time, by how busy the computer is.
    Delay(Busy),
    /// What each destination itself estimates when it is asked, which it is for every call.
    Probe {
        /// How many are asked at once.
        clients: usize,
    },
}

/// Which samples count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples {
    /// The last so many.
    pub window: usize,
    /// None older than this, if there is a limit.
    pub stale: Option<Duration>,
}

/// What is known of time by load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// The last so many samples of each size of payload.
    pub window: usize,
    /// How long what a computer told of its load is believed; then it counts as idle.
    pub load_timeout: Duration,
}

impl Default for Samples {
    fn default() -> Self {
        Self { window: 50, stale: Some(Duration::from_secs(10)) }
    }
}

impl Default for Busy {
    fn default() -> Self {
        Self { window: 50, load_timeout: Duration::from_secs(10) }
    }
}

/// Samples in one window, at most.
const WINDOW_MAX: u64 = 1000;
/// Destinations asked at once by default, and at most.
const CLIENTS: usize = 10;
const CLIENTS_MAX: u64 = 256;
/// The longest period, in seconds.
const PERIOD_MAX: f64 = 86_400.0;

impl Estimator {
    /// The names.
    pub const NAMES: [&str; 4] = ["rtt", "util", "delay", "probe"];

    /// The estimator's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtt(_) => "rtt",
            Self::Util { .. } => "util",
            Self::Delay(_) => "delay",
            Self::Probe { .. } => "probe",
        }
    }

    /// The estimator of this name; none where it is no name of one.
    pub(crate) fn named(name: &str, conf: &Conf) -> Option<Result<Self, ConfError>> {
        Some(match name {
            "rtt" => rtt(conf),
            "util" => util(conf),
            "delay" => delay(conf),
            "probe" => probe(conf),
            _ => return None,
        })
    }
}

fn rtt(conf: &Conf) -> Result<Estimator, ConfError> {
    conf.only("rtt", &["window-size", "stale-period"])?;
    samples(conf, "window-size", "stale-period").map(Estimator::Rtt)
}

fn util(conf: &Conf) -> Result<Estimator, ConfError> {
    conf.only("util", &["rtt-window-size", "rtt-stale-period", "util-load-timeout", "util-window-size"])?;
    Ok(Estimator::Util { rtt: samples(conf, "rtt-window-size", "rtt-stale-period")?, busy: busy(conf)? })
}

fn delay(conf: &Conf) -> Result<Estimator, ConfError> {
    conf.only("delay", &["util-load-timeout", "util-window-size"])?;
    busy(conf).map(Estimator::Delay)
}

fn probe(conf: &Conf) -> Result<Estimator, ConfError> {
    conf.only("probe", &["max-clients"])?;
    let clients = conf.uint_or("max-clients", CLIENTS as u64)?;
    conf.check("max-clients", (1..=CLIENTS_MAX).contains(&clients), "a number from 1 to 256")?;
    Ok(Estimator::Probe { clients: usize::try_from(clients).unwrap_or(CLIENTS) })
}

fn samples(conf: &Conf, window: &'static str, stale: &'static str) -> Result<Samples, ConfError> {
    let default = Samples::default();
    let period = conf.double_or(stale, default.stale.unwrap_or_default().as_secs_f64())?;
    conf.check(stale, period <= PERIOD_MAX, "seconds, at most a day; 0 for never")?;
    Ok(Samples {
        window: window_of(conf, window, default.window)?,
        stale: (period > 0.0).then(|| Duration::from_secs_f64(period)),
    })
}

fn busy(conf: &Conf) -> Result<Busy, ConfError> {
    let default = Busy::default();
    let timeout = conf.double_or("util-load-timeout", default.load_timeout.as_secs_f64())?;
    conf.check("util-load-timeout", timeout > 0.0 && timeout <= PERIOD_MAX, "seconds above 0, at most a day")?;
    Ok(Busy {
        window: window_of(conf, "util-window-size", default.window)?,
        load_timeout: Duration::from_secs_f64(timeout),
    })
}

fn window_of(conf: &Conf, key: &'static str, default: usize) -> Result<usize, ConfError> {
    let window = conf.uint_or(key, default as u64)?;
    conf.check(key, (1..=WINDOW_MAX).contains(&window), "a number from 1 to 1000")?;
    Ok(usize::try_from(window).unwrap_or(default))
}

impl fmt::Display for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let seconds = |period: Option<Duration>| period.map_or(0.0, |period| period.as_secs_f64());
        match *self {
            Self::Rtt(samples) if samples == Samples::default() => Ok(()),
            Self::Rtt(Samples { window, stale }) => {
                write!(f, ",window-size={window},stale-period={}", seconds(stale))
            }
            Self::Util { rtt, busy } => {
                if rtt != Samples::default() {
                    write!(f, ",rtt-window-size={},rtt-stale-period={}", rtt.window, seconds(rtt.stale))?;
                }
                fmt_busy(busy, f)
            }
            Self::Delay(busy) => fmt_busy(busy, f),
            Self::Probe { clients: CLIENTS } => Ok(()),
            Self::Probe { clients } => write!(f, ",max-clients={clients}"),
        }
    }
}

fn fmt_busy(busy: Busy, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if busy == Busy::default() {
        return Ok(());
    }
    write!(f, ",util-load-timeout={},util-window-size={}", busy.load_timeout.as_secs_f64(), busy.window)
}
