//! What an operator sets of triggers.

use std::time::Duration;

use nigh_store::TlsFiles;

/// Settings of triggers.
#[derive(Debug, Clone)]
pub struct TriggersConfig {
    /// Triggers in one store, at most.
    pub triggers_max: usize,
    /// Messages per second of one trigger that says nothing else, and at most.
    pub rate_max: u32,
    /// For how long a trigger is a broker's that is not heard of: so long after its death another takes over.
    pub lease: Duration,
    /// Sources on other machines may be spoken to in the clear.
    pub insecure_plaintext: bool,
    /// What this side proves itself with to servers of NATS over TLS.
    pub tls: Option<TlsFiles>,
}

impl TriggersConfig {
    /// The default of `triggers_max`.
    pub const TRIGGERS_MAX: usize = 256;
    /// The default of `rate_max`.
    pub const RATE_MAX: u32 = 1000;
    /// The default of `lease`.
    pub const LEASE: Duration = Duration::from_secs(10);
}

impl Default for TriggersConfig {
    fn default() -> Self {
        Self {
            triggers_max: Self::TRIGGERS_MAX,
            rate_max: Self::RATE_MAX,
            lease: Self::LEASE,
            insecure_plaintext: false,
            tls: None,
        }
    }
}
