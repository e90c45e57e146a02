//! Load and measurement: [`workload`] says which call is due when, [`drive()`] makes the calls at that time, [`report`] says
//! what came back.
//!
//! Workloads, statistics and reports are pure: the same seed gives the same calls, the same samples the same report. Latency
//! counts from when a call was due, not from when it got its turn, so that a stall is felt by every call that was due during
//! it and not by the one alone that met it ("coordinated omission").

mod dice;
pub mod drive;
pub mod pictures;
pub mod report;
mod sample;
pub mod statistics;
pub mod workload;

pub use drive::{Bounds, Brokers, Pacing, Plan, Recorder, Target, Template, Timer, drive};
pub use report::{Report, Tally};
pub use sample::{Ending, Facts, Sample};
