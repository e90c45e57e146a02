//! What every store does, and what is left of it after its process was killed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod crash;
mod nats_server;

use std::time::{Duration, Instant};

use nigh_store::StoreError;

/// Time for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tries until it succeeds.
async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let began = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(error.retry_helps() && began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
