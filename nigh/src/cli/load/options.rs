//! What may be said of a load.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nigh_load::report::OlderFormat;
use nigh_load::workload::{self, Sizes};
use nigh_proto::{Endpoint, FunctionName, Priority};

use crate::units::{Size, Time};

/// The options of `nigh load`.
#[derive(Debug, Args)]
pub(super) struct LoadOptions {
    /// Functions to call; with several, each with its share of the calls
    #[arg(value_name = "FUNCTION[=SHARE]", required_unless_present_any = ["replay", "flow"], conflicts_with = "flow")]
    pub(super) functions: Vec<Share>,
    #[command(flatten)]
    pub(super) when: When,
    #[command(flatten)]
    pub(super) what: What,
    #[command(flatten)]
    pub(super) several: Several,
    #[command(flatten)]
    pub(super) whom: Whom,
    #[command(flatten)]
    pub(super) results: Results,
}

/// When calls are made.
#[derive(Debug, Args)]
#[command(next_help_heading = "When")]
pub(super) struct When {
    /// Calls due per second, of all clients together
    #[arg(long, value_name = "PER_SECOND", conflicts_with_all = ["every", "in_flight", "replay"])]
    pub(super) rate: Option<Rate>,
    /// Mean time between two calls of one client
    #[arg(long, value_name = "TIME", conflicts_with_all = ["in_flight", "replay"])]
    pub(super) every: Option<Time>,
    /// How gaps vary around their mean
    #[arg(long, value_enum, default_value_t, value_name = "GAPS")]
    pub(super) gaps: GapsOption,
    /// Clients, each with randomness of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(workload::CLIENTS_MAX)), conflicts_with = "in_flight")]
    pub(super) clients: u32,
    /// Each client waits for its answer before its next call, and makes up for what is overdue
    #[arg(long, conflicts_with = "in_flight")]
    pub(super) serial: bool,
    /// So many calls under way at any time (a closed loop), instead of calls that are due at times of their own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(workload::CLIENTS_MAX)), conflicts_with = "replay")]
    pub(super) in_flight: Option<u32>,
    /// In a closed loop: mean time between an answer and the next call, varying as --gaps says
    #[arg(long, value_name = "TIME", requires = "in_flight")]
    pub(super) think: Option<Time>,
    /// For --gaps ipp: mean length of the phases with calls
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(super) on: Time,
    /// For --gaps ipp: mean length of the phases without
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(super) off: Time,
    /// For --gaps ipp (instead of --rate) and bursts: shortest and longest time between two calls of a phase or burst
    #[arg(long, value_name = "MIN..MAX", conflicts_with_all = ["rate", "every"])]
    pub(super) sleep: Option<Span>,
    /// For --gaps bursts: mean time between bursts
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub(super) period: Time,
    /// For --gaps bursts: mean number of calls in one
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    pub(super) burst: f64,
    /// Calls of a timetable (`time lambda server size`) or of a trace of Azure Functions (by minute or single); - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "gaps")]
    pub(super) replay: Option<PathBuf>,
    /// For --replay: how many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "replay")]
    pub(super) speed: f64,
    /// For --replay: where in the trace to begin
    #[arg(long, value_name = "TIME", requires = "replay")]
    pub(super) from: Option<Time>,
    /// For --replay: how much of the trace
    #[arg(long, value_name = "TIME", requires = "replay")]
    pub(super) length: Option<Time>,
    /// For --replay: the share of calls that are made
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "replay")]
    pub(super) sample: f64,
    /// For --replay of single invocations: send how long each ran, as milliseconds in text, which the function `spin` does
    #[arg(long, requires = "replay")]
    pub(super) work: bool,
    /// What randomness starts from
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,
    /// Time before the first call
    #[arg(long, value_name = "TIME")]
    pub(super) delay: Option<Time>,
    /// Time at the beginning that is left out of the figures
    #[arg(long, value_name = "TIME")]
    pub(super) warm_up: Option<Time>,
    /// Time after the warm-up; without it and --count until Ctrl-C
    #[arg(long, value_name = "TIME")]
    pub(super) duration: Option<Time>,
    /// Calls, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
}

/// What calls send.
#[derive(Debug, Args)]
#[command(next_help_heading = "What")]
pub(super) struct What {
    /// Bytes sent: a number, a range as 100..500, or a choice as 100,1000,10000
    #[arg(long, value_name = "SIZES", default_value = "100", value_parser = Sizes::from_str)]
    pub(super) size: Sizes,
    /// What payloads of a size are made of
    #[arg(long, value_enum, default_value_t, value_name = "FILL")]
    pub(super) fill: FillOption,
    /// Send this text
    #[arg(long, short, value_name = "TEXT", conflicts_with_all = ["size", "file", "pictures", "video"])]
    pub(super) data: Option<String>,
    /// Send this file; of several, one at random
    #[arg(long, short, value_name = "PATH", value_delimiter = ',', conflicts_with_all = ["size", "pictures", "video"])]
    pub(super) file: Vec<PathBuf>,
    /// Send the pictures of this folder, one at random
    #[arg(long, value_name = "DIR", conflicts_with_all = ["size", "video"])]
    pub(super) pictures: Option<PathBuf>,
    /// Send the frames of this video or camera (/dev/video0), in order; ffmpeg reads them
    #[arg(long, value_name = "PATH", conflicts_with = "size")]
    pub(super) video: Option<PathBuf>,
    /// For --video: frames to read, which are sent over and over
    #[arg(long, value_name = "N", default_value_t = 300, requires = "video")]
    pub(super) frames: u32,
    /// Send files or pictures one after another instead of at random
    #[arg(long)]
    pub(super) in_order: bool,
    /// A header of each call; may be given several times
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = super::super::call::parse_header)]
    pub(super) header: Vec<(String, String)>,
    /// Estimates only: nothing runs
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Running a call twice does no harm: brokers may try another computer
    #[arg(long)]
    pub(super) retry_safe: bool,
    /// Which calls give way where there is no room for all: low, normal or high
    #[arg(long, default_value_t, value_name = "PRIORITY")]
    pub(super) priority: Priority,
    /// Time that each call has
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(super) timeout: Time,
}

/// Calls that are more than one function, or run later.
#[derive(Debug, Args)]
#[command(next_help_heading = "Flows")]
pub(super) struct Several {
    /// Run this flow for each call: a chain or graph, as `nigh flow` reads it, files of ServerlessOnEdge too
    #[arg(long, value_name = "FILE", conflicts_with_all = ["replay", "http"])]
    pub(super) flow: Option<PathBuf>,
    /// Who calls the flow's functions
    #[arg(long, value_enum, default_value_t, value_name = "WHO", requires = "flow")]
    pub(super) driven_by: Driver,
    /// Have each call run later, and wait for what comes of it
    #[arg(long = "async", conflicts_with_all = ["replay", "http", "dry_run"])]
    pub(super) is_asynchronous: bool,
    /// Send the states that the flow's file tells of along, as they came back from the call before; calls are then one after
    /// the other
    #[arg(long, requires = "flow")]
    pub(super) states: bool,
    /// The same, but have them kept at this state server (any computer), from where they go to where functions run
    #[arg(long, value_name = "HOST:PORT", requires = "flow", conflicts_with = "states")]
    pub(super) states_at: Option<Endpoint>,
}

/// Who calls a flow's functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Driver {
    /// The broker: one call, of all that it takes
    #[default]
    Broker,
    /// This command: a call for each step
    Client,
}

/// Whom calls go to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Whom")]
pub(super) struct Whom {
    /// Brokers or computers to call instead of --broker; with several see --persistence
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub(super) to: Vec<Endpoint>,
    /// The HTTP doors of brokers to call
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', conflicts_with = "to")]
    pub(super) http: Vec<Endpoint>,
    /// Be a device of the MEC system here (`nigh mec`, or one of ServerlessOnEdge's): each function is called where that says
    #[arg(long, value_name = "URL", conflicts_with_all = ["to", "http", "replay", "flow", "is_asynchronous"])]
    pub(super) mec: Option<http::Uri>,
    /// For --mec: where to hear that calls are to go elsewhere
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0", requires = "mec")]
    pub(super) mec_listen: String,
    /// For --mec: the same as the MEC system reaches it
    #[arg(long, value_name = "HOST:PORT", requires = "mec")]
    pub(super) mec_reached: Option<Endpoint>,
    /// With several: how probably a call goes to each other one beside the one that answered last; the first answer counts
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    pub(super) persistence: f64,
    /// gRPC connections to each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) connections: u16,
    /// Calls under way at once, at most; further ones are counted and not made
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(super) in_flight_max: usize,
    /// Bytes of an answer, at most
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub(super) answer_max: Size,
}

/// Where results go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub(super) struct Results {
    /// Write every call, the figures, the histogram and a page to look at into a folder
    #[arg(long, short, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Replace the run in that folder
    #[arg(long, requires = "out", conflicts_with = "append")]
    pub(super) overwrite: bool,
    /// The same, but go on with the lines in its calls.txt
    #[arg(long, requires = "out")]
    pub(super) append: bool,
    /// Print a line for each answer, as a client of ServerlessOnEdge would; also the form of calls.txt
    #[arg(long, value_enum, value_name = "CLIENT", conflicts_with = "json")]
    pub(super) lines: Option<LinesOption>,
    /// Seconds added to the times of these lines
    #[arg(long, value_name = "TIME")]
    pub(super) time_offset: Option<Time>,
    /// Keep the first answers as files in a folder
    #[arg(long, value_name = "DIR")]
    pub(super) save: Option<PathBuf>,
    /// What the run is called where runs are compared [default: the name of the folder, or the functions]
    #[arg(long, value_name = "TEXT")]
    pub(super) label: Option<String>,
}

/// How gaps vary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum GapsOption {
    /// All alike
    #[default]
    Constant,
    /// Between nothing and twice the mean
    Uniform,
    /// At random (exponential)
    Poisson,
    /// At random in phases with calls, with phases without in between
    Ipp,
    /// Bursts at random times, each of a Poisson number of calls
    Bursts,
}

/// What payloads are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum FillOption {
    /// The letter A
    #[default]
    Letters,
    /// {"input":"AAA…"}
    Json,
    /// Random bytes
    Random,
}

impl From<FillOption> for workload::Fill {
    fn from(fill: FillOption) -> Self {
        match fill {
            FillOption::Letters => Self::Letters,
            FillOption::Json => Self::Json,
            FillOption::Random => Self::Random,
        }
    }
}

/// Whose lines are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LinesOption {
    /// t latency load1 responder name hops
    Edgeclient,
    /// t latency load1 responder 0
    Edgemulticlient,
    /// t latency load1
    Facerecclient,
}

impl From<LinesOption> for OlderFormat {
    fn from(lines: LinesOption) -> Self {
        match lines {
            LinesOption::Edgeclient => Self::Client,
            LinesOption::Edgemulticlient => Self::MultiClient,
            LinesOption::Facerecclient => Self::Faces,
        }
    }
}

/// A function and its share of the calls.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    pub(super) function: FunctionName,
    pub(super) share: f64,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let (name, share) = given.split_once('=').unwrap_or((given, "1"));
        let function = name.parse().map_err(|error: nigh_proto::name::NameError| error.to_string())?;
        match share.parse::<f64>() {
            Ok(share) if share.is_finite() && share > 0.0 => Ok(Self { function, share }),
            _ => Err("a share is a number over 0, as in echo=3".to_owned()),
        }
    }
}

/// Calls per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate(pub(super) f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let number = given.strip_suffix("/s").unwrap_or(given).trim();
        match number.parse::<f64>() {
            Ok(rate) if (1e-6..=1e7).contains(&rate) => Ok(Self(rate)),
            _ => Err("write calls per second, as in 200 or 0.5, up to 10000000".to_owned()),
        }
    }
}

/// A shortest and a longest time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let time = |text: &str| match text.trim() {
            "0" => Some(Duration::ZERO),
            text => humantime::parse_duration(text).ok().filter(|time| *time <= Time::MAX),
        };
        let (min, max) = given.split_once("..").unwrap_or((given, given));
        match (time(min), time(max)) {
            (Some(min), Some(max)) if min <= max => Ok(Self { min, max }),
            _ => Err("write two times with units, as in 0s..100ms".to_owned()),
        }
    }
}
