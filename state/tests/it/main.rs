//! The keeping of states: moves under crashes, leases, sessions, stores that are shared.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by panicking")]

use std::time::Duration;

mod moves;
#[path = "../../../store/tests/it/nats_server.rs"]
mod nats_server;
mod sessions;
mod shared;
mod world;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
