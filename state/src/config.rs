//! What the operator of a computer decides about states.

use std::time::Duration;

use nigh_store::Place;

/// How states are kept. [`Config::default`] keeps them for as long as the process lives.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that holds them, or the NATS servers that all computers share; without one it is a file that is gone with the
    /// process.
    pub place: Option<Place>,
    /// Bytes of all states, at most.
    pub bytes_max: u64,
    /// Calls that wait for one state, at most.
    pub waiting_max: usize,
    /// Hosts whose state servers callers of the older system may name, beside their own and this computer's; `*` is any.
    pub older_hosts: Vec<String>,
    /// How long a state that was handed over is left to whoever asked for it.
    pub offer: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            place: None,
            bytes_max: 256 << 20,
            waiting_max: 256,
            older_hosts: Vec::new(),
            offer: Duration::from_secs(2),
        }
    }
}
