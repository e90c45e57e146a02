//! Flows: functions that run one after the other or side by side, each with what those before it answered.
//!
//! A [`Definition`] is what people write, [`run()`] brings a flow to its end with whatever runs a single step, and
//! [`draw`] shows it. Whoever drives a flow (a broker, or a client that wants to see every step) hands in how a step is
//! called; nothing here waits for a clock or opens a connection.
//!
//! ```
//! use nigh_flow::Definition;
//!
//! let flow = Definition::from_toml(r#"
//!     name = "faces"
//!     [[steps]]
//!     name = "detect"
//!     function = "face-detect"
//!     [[steps]]
//!     name = "small"
//!     function = "thumbnail"
//!     after = []
//!     [[steps]]
//!     name = "report"
//!     after = ["detect", "small"]
//! "#)?;
//! assert_eq!(flow.flow.steps().len(), 3);
//! # Ok::<(), nigh_flow::DefinitionError>(())
//! ```

mod definition;
pub mod draw;
mod forecast;
mod layers;
mod older;
mod parts;
mod run;

pub use definition::{Definition, DefinitionError, State};
pub use forecast::forecast;
pub use parts::PART_HEADER;
pub use run::{Failure, Finished, Input, Segment, run};
