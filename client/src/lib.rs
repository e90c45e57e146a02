//! The client's side of every wire: [`Caller`] has functions run, [`CallQueue`] has them run later, [`Triggers`] says what has them called by itself, [`Admin`] deploys them and lists what there is,
//! [`Inspect`] looks into one computer or broker.
//!
//! Everything public is a plain checked value; messages and channels stay inside. All of it has to be used within a tokio
//! runtime.

mod admin;
mod asynchronous;
mod call;
mod computer;
mod documents;
mod inspect;
mod peer;
mod ready;
mod routes;
mod state;
mod stream;
mod triggers;

pub use admin::{Admin, DeployRequest, Deployed, Listing};
pub use asynchronous::{CallQueue, DeadLetter, QueueCounts};
pub use call::{Caller, CallerLimits};
pub use computer::{ComputerStatus, FunctionStatus, LogLevel, LogLine, LogQuery, ProcessorShare, Utilisation};
pub use documents::Documents;
pub use inspect::Inspect;
pub use ready::{Misplaced, Readiness, ReadyError};
pub use routes::{Destination, DestinationState, Route, Routes, Table};
pub use state::{StateContent, StateInfo, keep_at};
pub use stream::CallStream;
pub use triggers::Triggers;
