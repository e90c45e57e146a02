//! What the tests and benches of the whole edge share: guests, an edge in one process, an edge of real processes, servers to
//! measure against, and what fuzzers and the replay of their corpora check.

pub mod bench;
pub mod bombs;
pub mod edge;
pub mod fuzzed;
pub mod guests;
pub mod hostile;
pub mod processes;
