//! What goes out of a table and comes back: a choice, and what became of it.

use std::time::Duration;

use crate::health::Cause;
use crate::peer::Place;

/// Which of a function's destinations a call may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of them: for calls straight from a caller.
    Overall,
    /// Those that run calls themselves: for calls that have passed a broker already, so that brokers pass a call to each
    /// other once at most.
    Final,
}

impl Scope {
    /// Both, in the order in which tables are numbered.
    pub const ALL: [Self; 2] = [Self::Overall, Self::Final];

    /// Whether it has such destinations.
    pub(crate) fn admits(self, is_final: bool) -> bool {
        self == Self::Overall || is_final
    }
}

/// What a call asks of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Demand<'a, K> {
    /// Where it may go.
    pub scope: Scope,
    /// Where it has failed already.
    pub exclude: Option<&'a K>,
    /// Bytes of its payload.
    pub payload_bytes: u64,
}

// Whatever a destination is, a demand only borrows it.
impl<K> Clone for Demand<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Demand<'_, K> {}

/// A destination chosen for one call. Give it back to [`Table::observe`](crate::Table::observe) whatever becomes of the
/// call: a destination may be waiting for just this answer.
#[derive(Debug)]
#[must_use = "every pick is to be observed"]
pub struct Pick<K> {
    /// Where the call goes.
    pub destination: K,
    pub(crate) scope: Scope,
    pub(crate) trial: Trial,
    /// Of the call's payload.
    pub(crate) bytes: f64,
    pub(crate) at: Duration,
    pub(crate) slot: u64,
    /// The destination among those of all functions.
    pub(crate) peer: Place,
    pub(crate) position: usize,
}

impl Observation {
    /// An answer of a destination that tells nothing of itself.
    pub fn answered(latency: Duration) -> Self {
        Self::Answered { latency, report: Report::default() }
    }
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
        /// What the computer told with its answer.
        report: Report,
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

/// What a computer tells with an answer. Zero stands for what it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// How long the call waited there.
    pub queue: Duration,
    /// How long it ran, making the instance included.
    pub run: Duration,
    /// Calls that run there, without this one.
    pub running: u32,
    /// Calls that wait there.
    pub queued: u32,
    /// Calls that can run there at once.
    pub workers: u32,
    /// How long a call of late kept a worker.
    pub service: Duration,
    /// How busy its cores were in the last second, in per cent.
    pub load_percent: u32,
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
    /// The weight that it is chosen by, where the policy has weights; or else its latency in milliseconds, if measured or
    /// set by hand.
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
