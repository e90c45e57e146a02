//! The whole system: in one process, as real processes, with hostile guests, and the invariants of its code.

mod edge;
mod hostile;
mod processes;
mod tidy;
