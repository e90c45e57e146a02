//! The client's side of every wire: [`Caller`] has functions run, [`Admin`] deploys them and lists what there is,
//! [`Inspect`] looks into one computer or broker.
//!
//! Everything public is a plain checked value; messages and channels stay inside. All of it needs a tokio runtime around.

mod admin;
mod call;
mod inspect;

pub use admin::{Admin, DeployRequest, Deployed, Listing, Readiness, ReadyError};
pub use call::{CallStream, Caller, CallerLimits};
pub use inspect::{
    ComputerStatus, Destination, DestinationState, FunctionStatus, Inspect, LogLevel, LogLine, LogQuery, Route, Routes,
};
