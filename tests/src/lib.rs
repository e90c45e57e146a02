//! What the tests of the whole edge share: guests, an edge in one process, an edge of real processes.

pub mod edge;
pub mod guests;
pub mod processes;
