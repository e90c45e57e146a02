//! What an operator sets of calls that run later.

use std::time::Duration;

use nigh_proto::AllowedHost;
use nigh_proto::http_client::{IpNet, Reach};
use nigh_proto::tls::https::{HttpsConnector, Trust};
use nigh_store::Place;

use crate::triggers::TriggersConfig;

/// Settings of calls that run later.
#[derive(Debug, Clone)]
pub struct AsynchronousConfig {
    /// Where they are kept. Brokers that say the same place in NATS share the calls.
    pub place: Place,
    /// Calls tried at once, at most.
    pub calls_max: usize,
    /// Calls that wait, are tried or are dead letters, at most.
    pub entries_max: u64,
    /// Bytes of these; and as many again of results.
    pub bytes_max: u64,
    /// Bytes of payloads and answers that are kept apart because they are large.
    pub payloads_bytes_max: u64,
    /// For how long a result is kept.
    pub keep_results: Duration,
    /// How often a call that is safe to retry is tried where a try may have run.
    pub tries_max: u32,
    /// For how long a call that did not start is tried again.
    pub give_up_after: Duration,
    /// Hosts to which outcomes may be posted, beside a caller of the older system itself.
    pub callback_hosts: Vec<AllowedHost>,
    /// Networks to which names among these hosts may lead, beside the public internet.
    pub callback_networks: Vec<IpNet>,
    /// Whom outcomes are posted to over https.
    pub callback_trust: Trust,
    /// What brings calls by itself.
    pub triggers: TriggersConfig,
}

impl AsynchronousConfig {
    /// The default of `calls_max`.
    pub const CALLS_MAX: usize = 256;
    /// The default of `entries_max`.
    pub const ENTRIES_MAX: u64 = 100_000;
    /// The default of `bytes_max`.
    pub const BYTES_MAX: u64 = 1 << 30;
    /// The default of `payloads_bytes_max`.
    pub const PAYLOADS_BYTES_MAX: u64 = 4 << 30;
    /// The default of `keep_results`.
    pub const KEEP_RESULTS: Duration = Duration::from_secs(24 * 3600);
    /// The default of `tries_max`.
    pub const TRIES_MAX: u32 = 8;
    /// The default of `give_up_after`.
    pub const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

    /// Settings with this place and defaults for the rest.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            calls_max: Self::CALLS_MAX,
            entries_max: Self::ENTRIES_MAX,
            bytes_max: Self::BYTES_MAX,
            payloads_bytes_max: Self::PAYLOADS_BYTES_MAX,
            keep_results: Self::KEEP_RESULTS,
            tries_max: Self::TRIES_MAX,
            give_up_after: Self::GIVE_UP_AFTER,
            callback_hosts: Vec::new(),
            callback_networks: Vec::new(),
            callback_trust: Trust::public(),
            triggers: TriggersConfig::default(),
        }
    }

    /// How callbacks over HTTP are connected to.
    pub(super) fn callback_connector(&self) -> HttpsConnector {
        let reach = Reach::Listed { networks: self.callback_networks.clone() };
        HttpsConnector::new(Some(self.callback_trust.clone())).reaching(reach)
    }

    /// The place, in words.
    pub(super) fn told_place(&self) -> String {
        match &self.place {
            Place::Embedded { file } => file.display().to_string(),
            Place::Nats { servers, .. } => format!("NATS at {}", servers.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn names_of_callbacks_are_followed_only_to_where_they_may_lead() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut config = AsynchronousConfig::new(Place::Embedded { file: "calls.redb".into() });
        // The system takes the last for an address, though it is none by its form: a name that leads to this very machine.
        for (host, networks, is_reached) in
            [("127.0.0.1", "", true), ("localhost", "", true), ("127.1", "", false), ("127.1", "127.0.0.0/8", true)]
        {
            config.callback_networks = networks.parse().into_iter().collect();
            let url = format!("http://{host}:{port}/").parse().unwrap();
            assert_eq!(config.callback_connector().connect(url).await.is_ok(), is_reached, "{host} {networks}");
        }
    }
}
