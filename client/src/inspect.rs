//! Looking into one computer or broker: its load, its functions, their logs, its forwarding table.

use std::fmt;
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use nigh_proto::{Digest, Endpoint, FunctionName, Load, NodeName, PlatformError};

/// How a computer is.
#[derive(Debug, Clone, PartialEq)]
pub struct ComputerStatus {
    /// Its name.
    pub name: NodeName,
    /// How busy it is.
    pub load: Load,
    /// The functions that it can run, by name.
    pub functions: Vec<FunctionStatus>,
    /// Bytes of memory that its process holds.
    pub resident_bytes: u64,
    /// Instances that its pool can hold at once.
    pub instances_max: u32,
}

/// How one function fares on one computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionStatus {
    /// Its name.
    pub function: FunctionName,
    /// The version that new calls run.
    pub version: Digest,
    /// Calls brought to an outcome since the computer started.
    pub calls: u64,
    /// Those among them that the function failed.
    pub function_errors: u64,
    /// Calls refused: queue full, too late, over a limit.
    pub refused: u64,
    /// Calls running.
    pub running: u32,
    /// Calls waiting.
    pub queued: u32,
    /// Median of the time from arrival to outcome, over the last calls.
    pub p50: Duration,
    /// 99th percentile of the same.
    pub p99: Duration,
}

/// Which log lines to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Of this function; without one, of all.
    pub function: Option<FunctionName>,
    /// Go on with new lines instead of ending after those kept.
    pub follow: bool,
}

/// How serious a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The function panicked.
    Panic,
    /// An error.
    Error,
    /// A warning.
    Warn,
    /// For information.
    Info,
    /// For the author of the function.
    Debug,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}

/// One line that a function logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Which function.
    pub function: FunctionName,
    /// In which call; empty where it was outside any.
    pub call: String,
    /// When, by the computer's clock.
    pub time: SystemTime,
    /// How serious.
    pub level: LogLevel,
    /// What.
    pub text: String,
    /// Lines lost just before this one, because this reader was slow.
    pub lost: u64,
}

/// A broker's forwarding table.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// The policy that picks among destinations.
    pub policy: String,
    /// One route for each function, by name.
    pub routes: Vec<Route>,
}

/// Where a broker sends the calls of one function.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The function.
    pub function: FunctionName,
    /// Its destinations.
    pub destinations: Vec<Destination>,
}

/// One destination of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Measured latency in milliseconds, or the weight set by hand; `None` where nothing has been measured yet.
    pub weight_ms: Option<f64>,
    /// Whether it gets calls.
    pub state: DestinationState,
    /// Calls under way to it.
    pub in_flight: u32,
    /// Calls sent to it.
    pub calls: u64,
    /// Those among them that it did not bring to an outcome.
    pub failures: u64,
    /// Set by hand, so that it stays whatever the controller says.
    pub by_hand: bool,
}

/// Whether a destination gets calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationState {
    /// It gets calls.
    InUse,
    /// It failed of late and gets none.
    SetAside,
    /// It failed and is being tried again with single calls.
    Probing,
}

impl fmt::Display for DestinationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::InUse => "in-use",
            Self::SetAside => "set-aside",
            Self::Probing => "probing",
        })
    }
}

/// Looks into one node: the first three requests are a computer's to answer, the last three a broker's. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inspect {}

impl Inspect {
    /// For this node: a computer's endpoint, or a broker's table endpoint.
    pub fn new(_node: Endpoint) -> Self {
        unimplemented!()
    }

    /// How the computer is.
    ///
    /// # Errors
    /// [`PlatformError`] where the node cannot be reached or is no computer.
    pub async fn status(&self) -> Result<ComputerStatus, PlatformError> {
        unimplemented!()
    }

    /// What functions on the computer logged of late and, with `follow`, log from now on.
    ///
    /// # Errors
    /// As [`Inspect::status`], also as an item of the stream.
    pub async fn logs(
        &self,
        _query: LogQuery,
    ) -> Result<impl Stream<Item = Result<LogLine, PlatformError>> + Send + Unpin + use<>, PlatformError> {
        Ok(futures_util::stream::empty())
    }

    /// How busy the computer is, once a second.
    ///
    /// # Errors
    /// As [`Inspect::status`], also as an item of the stream.
    pub async fn utilisation(
        &self,
    ) -> Result<impl Stream<Item = Result<Load, PlatformError>> + Send + Unpin + use<>, PlatformError> {
        Ok(futures_util::stream::empty())
    }

    /// The broker's forwarding table, of one function or of all.
    ///
    /// # Errors
    /// [`PlatformError`] where the node cannot be reached or is no broker's table.
    pub async fn routes(&self, _function: Option<&FunctionName>) -> Result<Routes, PlatformError> {
        unimplemented!()
    }

    /// Adds a destination by hand, or changes its weight (milliseconds, over 0).
    ///
    /// # Errors
    /// As [`Inspect::routes`]; `Malformed` for a weight that is not a positive number.
    pub async fn set_route(
        &self,
        _function: &FunctionName,
        _destination: &Endpoint,
        _weight_ms: f64,
    ) -> Result<(), PlatformError> {
        unimplemented!()
    }

    /// Removes a destination that was added by hand.
    ///
    /// # Errors
    /// As [`Inspect::routes`].
    pub async fn remove_route(&self, _function: &FunctionName, _destination: &Endpoint) -> Result<(), PlatformError> {
        unimplemented!()
    }
}
