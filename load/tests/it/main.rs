//! Workloads against theory, and driving against targets that misbehave.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small")]

mod drive;
mod folder;
mod streams;
mod stub;
