//! What a computer tells of itself: its load, its functions, their logs.

use std::fmt;
use std::time::{Duration, SystemTime};

use nigh_proto::older::rpc;
use nigh_proto::time::us;
use nigh_proto::{Digest, FunctionName, Load, NodeName, PlatformError, Timing, v1};

use crate::peer::foreign;

/// How busy a computer is at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Utilisation {
    /// All of it; with the older system's computers, nothing is known of that.
    pub load: Option<Load>,
    /// Its processors, by name.
    pub processors: Vec<ProcessorShare>,
}

/// How busy a processor is.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessorShare {
    /// Its name.
    pub processor: String,
    /// Share of its cores that was busy in the last second, from 0 to 1.
    pub share: f32,
}

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
    /// Instances that there are, those kept for reuse included.
    pub instances: u32,
    /// Its processors.
    pub processors: Vec<ProcessorShare>,
    /// Its hardware is modelled: it has no instances.
    pub modelled: bool,
}

/// How one function fares on one computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionStatus {
    /// Its name.
    pub function: FunctionName,
    /// The version that new calls run; none where none is ready, or the computer brings the function itself.
    pub version: Option<Digest>,
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
    /// Median of the time from arrival to outcome, over the last 10 to 20 s; zero where no call ended in them.
    pub p50: Duration,
    /// 99th percentile of the same.
    pub p99: Duration,
    /// How many calls of the same time took up to how long, by time; those that took longer are in a later one.
    pub latency: Vec<(Duration, u64)>,
    /// Means over the last calls: queue, init, run, and the reset of those that had one.
    pub mean: Timing,
    /// It has broken its limits in call after call, so its calls run one at a time, and rest in between.
    pub held_back: bool,
}

/// Which log lines to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Of this function; without one, of all.
    pub function: Option<FunctionName>,
    /// Go on with new lines instead of ending after those kept.
    pub follow: bool,
    /// Of calls whose ids begin like this; without it, of all.
    pub call: Option<String>,
    /// From this time on, by the computer's clock.
    pub since: Option<SystemTime>,
    /// As serious as this or more so.
    pub level: Option<LogLevel>,
}

impl LogQuery {
    pub(crate) fn to_wire(&self) -> v1::LogsRequest {
        let since = self.since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
        v1::LogsRequest {
            function: self.function.as_ref().map(ToString::to_string).unwrap_or_default(),
            follow: self.follow,
            call_id: self.call.clone().unwrap_or_default(),
            since_us: since.map_or(0, us),
            level_max: self.level.map(|level| level as u32),
        }
    }
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

impl LogLevel {
    /// Every level, the most serious first, as they stand for numbers on the wire.
    pub const ALL: [Self; 5] = [Self::Panic, Self::Error, Self::Warn, Self::Info, Self::Debug];
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
    /// Counts the function's lines on its computer since that started, from 0.
    pub number: u64,
}

fn processors(wire: Vec<v1::ProcessorUtilisation>) -> Vec<ProcessorShare> {
    wire.into_iter().map(|one| ProcessorShare { processor: one.name, share: one.share }).collect()
}

impl Utilisation {
    pub(crate) fn from_wire(wire: v1::UtilisationSample) -> Self {
        Self { load: wire.load.as_ref().map(Load::from_wire), processors: processors(wire.processors) }
    }

    pub(crate) fn from_older(wire: rpc::Utilization) -> Self {
        let share = |(processor, share)| ProcessorShare { processor, share };
        let mut processors: Vec<_> = wire.values.into_iter().map(share).collect();
        processors.sort_by(|one, other| one.processor.cmp(&other.processor));
        Self { load: None, processors }
    }
}

impl ComputerStatus {
    pub(crate) fn from_wire(wire: v1::StatusResponse) -> Result<Self, PlatformError> {
        let functions = wire.functions.into_iter().map(FunctionStatus::from_wire);
        Ok(Self {
            name: wire.name.parse().map_err(|_| foreign("computer", "name"))?,
            load: wire.load.as_ref().map(Load::from_wire).unwrap_or_default(),
            functions: functions.collect::<Result<_, _>>()?,
            resident_bytes: wire.resident_bytes,
            instances_max: wire.instances_max,
            instances: wire.instances,
            processors: processors(wire.processors),
            modelled: wire.modelled,
        })
    }
}

impl FunctionStatus {
    fn from_wire(wire: v1::FunctionStatus) -> Result<Self, PlatformError> {
        Ok(Self {
            function: wire.function.parse().map_err(|_| foreign("computer", "function"))?,
            version: match wire.version.as_str() {
                "" => None,
                version => Some(version.parse().map_err(|_| foreign("computer", "version"))?),
            },
            calls: wire.calls,
            function_errors: wire.function_errors,
            refused: wire.refused,
            running: wire.running,
            queued: wire.queued,
            p50: Duration::from_micros(wire.p50_us),
            p99: Duration::from_micros(wire.p99_us),
            latency: wire
                .latency
                .into_iter()
                .map(|bucket| (Duration::from_micros(bucket.upto_us), bucket.calls))
                .collect(),
            mean: Timing {
                queue: Duration::from_micros(wire.queue_us),
                init: Duration::from_micros(wire.init_us),
                run: Duration::from_micros(wire.run_us),
                reset: Duration::from_micros(wire.reset_us),
                ..Timing::default()
            },
            held_back: wire.held_back,
        })
    }
}

impl LogLine {
    pub(crate) fn from_wire(wire: v1::LogLine) -> Result<Self, PlatformError> {
        let level = usize::try_from(wire.level).ok().and_then(|level| LogLevel::ALL.get(level));
        let level = *level.ok_or_else(|| foreign("computer", "log level"))?;
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(wire.time_us));
        Ok(Self {
            function: wire.function.parse().map_err(|_| foreign("computer", "function"))?,
            call: wire.call_id,
            time: time.ok_or_else(|| foreign("computer", "time"))?,
            level,
            text: wire.text,
            lost: wire.lost,
            number: wire.number,
        })
    }
}
