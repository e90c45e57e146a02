//! A computer that is modelled: processors shared by what runs on them, memory, containers with their queues.
//!
//! Pure: no I/O, no clock, no randomness, no tasks. Time is a `Duration` since an arbitrary start, handed in, so that a
//! computer in real time and a simulation in virtual time run the very same code. All arithmetic is in whole numbers:
//! the same operations at the same times give the same completions on every machine.
//!
//! ```
//! use std::time::Duration;
//! use nigh_model::{Hardware, Model};
//!
//! let mut model = Model::new(Hardware::raspberry(&Default::default()))?;
//! let now = Duration::ZERO;
//! let id = model.submit(model.operation("clambda0", 1000)?, now)?;
//! let at = model.next_event().expect("something runs");
//! let done: Vec<_> = model.advance(at).collect();
//! assert_eq!((done[0].id, done[0].finished), (id, at));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | room | what happens |
//! |---|---|
//! | `hardware` | what there is: processors, containers, what their functions require; built in or read from a file |
//! | `model` | operations come, wait, run and end; what one would take |
//! | `processor` | who may start: workers, memory, the order of arrival |
//! | `sharing` | who ends when, while all that run share the cores evenly |
//! | `utilisation` | how busy a processor has been |

mod hardware;
mod memory;
mod model;
mod processor;
mod sharing;
mod utilisation;

pub use hardware::file::FileError;
pub use hardware::preset::{IntelServer, Raspberry};
pub use hardware::{
    Container, Demand, Formulas, Hardware, HardwareError, Linear, Output, Processor, ProcessorKind, QUEUE_DEFAULT,
    Requirement,
};
pub use model::{Completion, ContainerId, Estimate, Model, OpId, Operation, Refusal};
pub use processor::OVERTAKEN_MAX;
