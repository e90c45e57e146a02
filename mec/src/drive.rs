//! Driving a proxy of somebody else (`UeAppLcmProxy`), as the balanced controller of the older system does: it is told of each
//! application that somebody here serves, to whom devices without a server of their own go, and how the contexts that it has are
//! spread. What it has is read each period and compared with what it should have, so that whichever of both restarts, they agree
//! again; what others have associated there stays while its server is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nigh_proto::membership::Knowledge;
use nigh_proto::older::{Association, LcmProxy};
use nigh_proto::{Endpoint, PlatformError};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::CHANGES_WAITING_MAX;
use crate::config::{Config, DeciderConfig, LcmProxyConfig};
use crate::decide::balanced::{Balance, Group};
use crate::known::Known;
use crate::mec::Mec;
use crate::server::Server;

/// How often a proxy is looked at where nothing else says so.
const PERIOD: Duration = Duration::from_secs(5);
/// Contexts of a proxy that are looked after, at most.
const CONTEXTS_MAX: usize = 100_000;

/// Whose association it is: a client, or nobody for all others; and for which application.
type Whose = (String, String);

/// A proxy, and what it was told.
struct Driver {
    proxy: LcmProxy,
    endpoint: Endpoint,
    known: Known,
    /// Applications that it was told of.
    listed: BTreeSet<String>,
    /// Associations that were made there.
    made: BTreeSet<Whose>,
    /// As it was when there was nothing to do.
    agreed: Option<(Vec<Association>, Vec<Association>)>,
    is_reached: bool,
}

/// Drives for as long as it is polled.
pub(crate) async fn drive(mec: Arc<Mec>, config: LcmProxyConfig, mut learnt: mpsc::Receiver<Knowledge>) {
    let period = period_of(&mec.config);
    let mut driver = Driver::new(&mec.config, &config);
    let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut news = Vec::new();
    loop {
        tokio::select! {
            count = learnt.recv_many(&mut news, CHANGES_WAITING_MAX) => {
                if count == 0 {
                    return;
                }
                driver.known.learn(news.drain(..));
                driver.agreed = None;
            }
            _ = ticks.tick() => {}
        }
        if driver.known.is_in_step() {
            let agreed = driver.agree().await;
            driver.tell(agreed);
            mec.tally.set_proxy_reached(driver.is_reached);
        }
    }
}

fn period_of(config: &Config) -> Duration {
    match config.decider {
        DeciderConfig::Balanced { period } => period,
        DeciderConfig::File { .. } | DeciderConfig::Associations => PERIOD,
    }
}

impl Driver {
    fn new(config: &Config, proxy: &LcmProxyConfig) -> Self {
        Self {
            proxy: LcmProxy::new(proxy.remote(config.tls.clone()), proxy.timeout),
            endpoint: proxy.endpoint.clone(),
            known: Known::new(config.give),
            listed: BTreeSet::new(),
            made: BTreeSet::new(),
            agreed: None,
            is_reached: false,
        }
    }

    /// Has the proxy have what it should.
    async fn agree(&mut self) -> Result<(), PlatformError> {
        let (contexts, table) = (self.proxy.contexts().await?, self.proxy.associations().await?);
        if self.agreed.as_ref().is_some_and(|(before, rows)| *before == contexts && *rows == table) {
            return Ok(());
        }
        let rows: BTreeMap<Whose, &str> =
            table.iter().map(|row| ((row.client.clone(), row.application.clone()), row.server.as_str())).collect();
        if !self.is_reached || self.made.iter().any(|whose| !rows.contains_key(whose)) {
            // It may have been started anew, and know of nothing.
            self.listed.clear();
            self.made.clear();
        }
        let applications = self.applications();
        let wanted = wanted(&applications, &contexts, &rows);
        for (whose, server) in &wanted {
            if rows.get(whose) != Some(&server.as_str()) {
                let (client, application) = whose.clone();
                self.proxy.associate(Association { client, application, server: server.to_string() }).await?;
            }
            self.made.insert(whose.clone());
        }
        // Listed only now, and no longer before its associations go, so that whoever finds it is sent somewhere.
        for name in applications.keys() {
            if !self.listed.contains(name) {
                self.proxy.add_application(name).await?;
                self.listed.insert(name.clone());
            }
        }
        let unserved: Vec<_> = self.listed.iter().filter(|name| !applications.contains_key(*name)).cloned().collect();
        for name in unserved {
            self.proxy.remove_application(&name).await?;
            self.listed.remove(&name);
        }
        for (whose, server) in rows.iter().filter(|(whose, _)| !wanted.contains_key(*whose)) {
            let (client, application) = whose;
            let servers = applications.get(application);
            let is_gone = servers.is_some_and(|servers| servers.iter().all(|one| one.as_str() != *server));
            // What others have made stays, but where it leads to nobody.
            if self.made.contains(whose) || is_gone {
                self.proxy.dissociate(client, application).await?;
                self.made.remove(whose);
            }
        }
        self.agreed = Some((contexts, table));
        Ok(())
    }

    /// The applications that somebody serves, and who does.
    fn applications(&self) -> BTreeMap<String, Vec<Server>> {
        let servers = |name: &str| self.known.offers(name).iter().map(|offer| offer.server.clone()).collect();
        self.known.applications().map(|(name, _)| (name.to_string(), servers(name.as_str()))).collect()
    }

    fn tell(&mut self, agreed: Result<(), PlatformError>) {
        let endpoint = &self.endpoint;
        match (&agreed, self.is_reached) {
            (Ok(()), false) => tracing::info!(%endpoint, "driving a proxy of device applications"),
            (Ok(()), true) => {}
            (Err(error), true) => tracing::warn!(%endpoint, %error, "the proxy is not driven for now"),
            (Err(error), false) => tracing::debug!(%endpoint, %error, "the proxy is not driven yet"),
        }
        self.is_reached = agreed.is_ok();
        if agreed.is_err() {
            self.agreed = None;
        }
    }
}

/// What a proxy with these contexts should have: for each application the server of all that have none of their own, and for each
/// client the one that it gets.
fn wanted(
    applications: &BTreeMap<String, Vec<Server>>,
    contexts: &[Association],
    rows: &BTreeMap<Whose, &str>,
) -> BTreeMap<Whose, Server> {
    let mut wanted = BTreeMap::new();
    for (name, servers) in applications {
        let whose = (String::new(), name.clone());
        let has = rows.get(&whose).and_then(|has| servers.iter().find(|server| server.as_str() == *has));
        // They are in order.
        if let Some(server) = has.or(servers.first()) {
            wanted.insert(whose, server.clone());
        }
    }
    let (mut balance, mut clients) = (Balance::default(), BTreeMap::new());
    for Association { client, application, server } in contexts.iter().take(CONTEXTS_MAX) {
        let Some(servers) = applications.get(application) else { continue };
        let Ok(address) = client.parse::<IpAddr>() else { continue };
        let whose = (client.clone(), application.clone());
        let has = rows.get(&whose).copied().unwrap_or(server);
        let has = servers.iter().find(|server| server.as_str() == has).cloned();
        balance.restore(Group::new(application, address, None), has);
        clients.insert((address, application.clone()), whose);
    }
    balance.assign_anew(|group| applications.get(&group.application).cloned().unwrap_or_default());
    for (address, application, server) in balance.rows() {
        if let Some(whose) = clients.get(&(address, application.to_owned())) {
            wanted.insert(whose.clone(), server.clone());
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applications(all: &[(&str, &[&str])]) -> BTreeMap<String, Vec<Server>> {
        let servers = |names: &[&str]| names.iter().map(|name| format!("{name}:1").parse().unwrap()).collect();
        all.iter().map(|(name, names)| ((*name).to_owned(), servers(names))).collect()
    }

    fn context(client: &str, application: &str) -> Association {
        Association { client: client.into(), application: application.into(), server: String::new() }
    }

    fn told(wanted: &BTreeMap<Whose, Server>) -> Vec<String> {
        wanted.iter().map(|((client, application), server)| format!("{client} {application} {server}")).collect()
    }

    #[test]
    fn each_application_has_a_default_and_contexts_are_spread() {
        let all = applications(&[("echo", &["a", "b"]), ("other", &["c"])]);
        let contexts = [
            context("10.0.0.1", "echo"),
            context("10.0.0.2", "echo"),
            context("10.0.0.2", "none"),
            context("nobody", "echo"),
        ];
        let first = wanted(&all, &contexts, &BTreeMap::new());
        assert_eq!(told(&first), [" echo a:1", " other c:1", "10.0.0.1 echo a:1", "10.0.0.2 echo b:1"]);
        // What is so stays so.
        let rows: BTreeMap<Whose, &str> =
            first.iter().map(|(whose, server)| (whose.clone(), server.as_str())).collect();
        assert_eq!(wanted(&all, &contexts, &rows), first);
        // The default that is gone is the next in order; nobody else moves.
        let all = applications(&[("echo", &["b"]), ("other", &["c"])]);
        let then = wanted(&all, &contexts, &rows);
        assert_eq!(told(&then), [" echo b:1", " other c:1", "10.0.0.1 echo b:1", "10.0.0.2 echo b:1"]);
    }
}
