//! What calls ask of the schedule, what it gives, and what it says to them and to workers.

use std::time::{Duration, Instant};

use super::{LONG, LaneId, Number};

/// The computer's budgets.
#[derive(Debug, Clone)]
pub(crate) struct Budgets {
    /// Calls of each class that compute at once.
    pub(crate) workers: usize,
    /// Calls that have begun and not ended.
    pub(crate) instances_max: usize,
    /// Calls that wait.
    pub(crate) queue_max: usize,
    /// Bytes of payloads of calls that wait or run.
    pub(crate) payload_bytes_max: u64,
    /// Sum of the memory limits of all instances.
    pub(crate) memory_bytes_max: u64,
}

/// What a call asks of the schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    /// Its function.
    pub(crate) lane: LaneId,
    /// Calls of the function that may run at once.
    pub(crate) concurrency: u32,
    /// Calls of the function that may wait.
    pub(crate) queue: u32,
    /// The memory limit of its instance.
    pub(crate) memory_bytes: u64,
    /// The size of its payload.
    pub(crate) payload_bytes: u64,
    /// How long it will probably take from its begin to its end.
    pub(crate) expected: Duration,
    /// How much of that it will probably compute.
    pub(crate) computing: Duration,
    /// When its answer stops being of use.
    pub(crate) deadline: Instant,
}

impl Claim {
    /// What the call will probably be.
    pub(crate) fn class(&self) -> Class {
        if self.computing >= LONG { Class::Long } else { Class::Brief }
    }
}

/// How long a call computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Up to [`LONG`].
    Brief,
    /// Longer.
    Long,
}

/// Why a call cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Its function's queue is full.
    Function,
    /// The computer's queue is full.
    Computer,
    /// Too many bytes of payload wait or run.
    Payloads,
    /// What is left of the computer's queue or payloads is kept for other functions.
    Share,
}

/// What a worker is to do.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// Run this call for a slice.
    Run(Number, T),
    /// Drop a kept instance, then ask again: a call waits for the memory.
    Evict,
    /// Wait.
    Nothing,
}

/// Who else wants to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Demand {
    /// Nobody.
    None,
    /// Long calls only.
    Long,
    /// Brief calls.
    Brief,
}

impl Demand {
    /// In order.
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Long, Self::Brief];
}
