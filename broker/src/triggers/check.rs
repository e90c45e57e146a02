//! What is asked of a trigger before it is kept, beyond its form.

use std::net::IpAddr;

use nigh_proto::trigger::Source;
use nigh_proto::{PlatformError, Reason, Trigger};
use nigh_store::Given;

use super::TriggersConfig;
use super::schedule::Schedule;

/// Checks that a source can be listened to, and may be.
///
/// # Errors
/// [`Reason::Malformed`] or [`Reason::NotAllowed`].
pub(super) fn check(trigger: &Trigger, config: &TriggersConfig) -> Result<(), PlatformError> {
    if let Some(rate) = trigger.rate_max.filter(|rate| *rate > config.rate_max) {
        let message = format!(
            "{rate} messages per second are more than this broker allows, {}; the operator may raise `rate_max`",
            config.rate_max
        );
        return Err(PlatformError::new(Reason::NotAllowed, message));
    }
    match &trigger.source {
        Source::Http { .. } => Ok(()),
        Source::Cron { schedule, zone, .. } => {
            Schedule::new(schedule, zone).map(drop).map_err(PlatformError::malformed)
        }
        Source::Mqtt { server, .. } => check_plain(server.as_str(), server.host(), config),
        Source::Nats { servers, .. } => match nats_servers(servers)? {
            (_, true) if config.tls.is_none() => {
                let message = "tls:// needs the broker's own certificate; start it with --tls-dir DIR or [tls]";
                Err(PlatformError::new(Reason::NotAllowed, message))
            }
            (_, true) => Ok(()),
            (servers, false) => servers.iter().try_for_each(|server| {
                let host = server.rsplit_once(':').map_or(server.as_str(), |(host, _)| host);
                check_plain(server, host.trim_matches(['[', ']']), config)
            }),
        },
    }
}

/// `host:port` of each server of NATS, and whether they are spoken to over TLS.
pub(super) fn nats_servers(given: &str) -> Result<(Vec<String>, bool), PlatformError> {
    match given.parse() {
        Ok(Given::Nats { servers, over_tls }) => Ok((servers, over_tls)),
        Ok(Given::Embedded) | Err(_) => Err(PlatformError::malformed(format!(
            "{given:?} is no server of NATS: write nats://HOST:PORT[,HOST:PORT…] or tls://HOST:PORT[,…]"
        ))),
    }
}

fn check_plain(server: &str, host: &str, config: &TriggersConfig) -> Result<(), PlatformError> {
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_here || config.insecure_plaintext {
        return Ok(());
    }
    let message = format!(
        "{server} is another machine, and in the clear whoever is on that network can read and send messages; use tls:// where it is NATS, or have the broker started with --insecure-plaintext"
    );
    Err(PlatformError::new(Reason::NotAllowed, message))
}

#[cfg(test)]
mod tests {
    use nigh_proto::trigger::MissedTicks;

    use super::*;

    fn checked(source: Source, config: &TriggersConfig) -> Result<(), Reason> {
        let trigger = Trigger {
            name: "t".parse().unwrap(),
            function: "f".parse().unwrap(),
            source,
            timeout: None,
            retry_safe: false,
            priority: nigh_proto::Priority::Normal,
            rate_max: None,
            callback: None,
            headers: nigh_proto::Headers::default(),
        };
        check(&trigger, config).map_err(|error| error.reason)
    }

    #[test]
    fn other_machines_are_listened_to_in_the_clear_only_where_that_was_asked_for() {
        let (strict, lax) =
            (TriggersConfig::default(), TriggersConfig { insecure_plaintext: true, ..Default::default() });
        let nats =
            |servers: &str| Source::Nats { servers: servers.into(), subject: "a".into(), stream: None, login: None };
        let mqtt = |server: &str| Source::Mqtt {
            server: server.parse().unwrap(),
            topic: "a".into(),
            acknowledged: true,
            login: None,
        };
        for here in ["nats://127.0.0.1:4222", "nats://localhost,[::1]:5"] {
            assert_eq!(checked(nats(here), &strict), Ok(()), "{here}");
        }
        assert_eq!(checked(nats("nats://127.0.0.1,10.0.0.1"), &strict), Err(Reason::NotAllowed));
        assert_eq!(checked(nats("nats://10.0.0.1"), &lax), Ok(()));
        assert_eq!(checked(nats("tls://127.0.0.1"), &lax), Err(Reason::NotAllowed));
        assert_eq!(checked(nats("embedded"), &lax), Err(Reason::Malformed));
        assert_eq!(checked(mqtt("127.0.0.1:1883"), &strict), Ok(()));
        assert_eq!(checked(mqtt("hub.example:1883"), &strict), Err(Reason::NotAllowed));
        assert_eq!(checked(mqtt("hub.example:1883"), &lax), Ok(()));
    }

    #[test]
    fn schedules_that_are_none_are_refused() {
        let cron = |schedule: &str, zone: &str| {
            let (schedule, zone) = (schedule.to_owned(), zone.to_owned());
            checked(
                Source::Cron { schedule, zone, missed: MissedTicks::Once, payload: "".into() },
                &TriggersConfig::default(),
            )
        };
        assert_eq!(cron("*/5 * * * *", "UTC"), Ok(()));
        assert_eq!(cron("* * *", "UTC"), Err(Reason::Malformed));
        assert_eq!(cron("* * * * *", "Middle/Earth"), Err(Reason::Malformed));
        assert_eq!(cron("0 0 31 2 *", "UTC"), Err(Reason::Malformed));
    }
}
