//! What goes out of a table and comes back: a choice, and what became of it.

use std::time::Duration;

use crate::health::Cause;

/// A destination chosen for one call. Give it back to [`Table::observe`](crate::Table::observe) whatever becomes of the
/// call: a destination may be waiting for just this answer.
#[derive(Debug)]
#[must_use = "every pick is to be observed"]
pub struct Pick<K> {
    /// Where the call goes.
    pub destination: K,
    pub(crate) trial: Trial,
    pub(crate) at: Duration,
    pub(crate) slot: u64,
    pub(crate) position: usize,
}

impl<K> Pick<K> {
    /// The call finds out whether a destination that was set aside is back.
    pub fn is_probe(&self) -> bool {
        self.trial == Trial::Probe
    }
}

/// Why a destination was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// By the policy.
    None,
    /// To see if it is back.
    Probe,
    /// To learn its latency, never or long not measured.
    Measurement,
}

/// What became of a call, as far as its destination is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// It was answered after this long, network included.
    Answered {
        /// From sending the call to having its answer.
        latency: Duration,
    },
    /// It was answered in a way that says nothing of how fast the destination is: with an error of the function, an
    /// estimate, or a fault of the caller.
    Unmeasured,
    /// The caller gave up, or the deadline passed, after this long.
    Unfinished {
        /// From sending the call to giving up.
        elapsed: Duration,
    },
    /// The destination is alive and did not take the call.
    Refused {
        /// For how long, if it says.
        retry_after: Option<Duration>,
    },
    /// Nobody there, or the connection broke.
    Dead,
}

/// Why there is no destination for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The table does not have the function.
    #[error("no such function")]
    UnknownFunction,
    /// Nobody serves the function.
    #[error("the function has no destination")]
    NoDestination,
    /// Nobody but the excluded destination serves the function.
    #[error("the function has no other destination")]
    NoOther,
    /// All that serve the function are set aside.
    #[error("every destination is set aside ({cause}); retry after {retry_after:?}")]
    AllSetAside {
        /// Until one of them is tried again.
        retry_after: Duration,
        /// Refusing if any of them is alive.
        cause: Cause,
    },
}

/// Whether a destination is given calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is.
    InUse,
    /// It is not, for now.
    SetAside(Cause),
    /// One call is finding out.
    Probing(Cause),
}

/// One destination of one function, as seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct View<'a, K> {
    /// Which.
    pub destination: &'a K,
    /// Its latency in milliseconds, if measured or set by hand.
    pub latency_ms: Option<f64>,
    /// Whether it is given calls.
    pub state: State,
    /// Picks not yet observed.
    pub in_flight: u32,
    /// Picks so far.
    pub calls: u64,
    /// Observations of it dead or refusing so far.
    pub failures: u64,
}
