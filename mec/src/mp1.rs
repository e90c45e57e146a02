//! Being a service of a MEC platform (GS MEC 011, Mp1): says that it is ready, registers where device applications come and
//! where functions are called, keeps that up to date, and goes in order when the platform wants it to.

mod platform;
mod service;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use nigh_proto::Endpoint;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::config::PlatformConfig;
use crate::mec::Mec;
use crate::mp1::platform::{Failure, Platform};

pub(crate) use service::Calls;

/// Waits between tries to reach a platform that is away.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Where the platform's notifications come, before what only the platform is told.
pub(crate) const PATH: &str = "/mp1/";

/// What a platform wants to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Operation {
    Stopping,
    Terminating,
}

/// The end, as the platform announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Termination {
    pub(crate) operation_action: Operation,
    /// Seconds.
    max_graceful_timeout: u32,
}

impl Termination {
    /// Time for requests under way.
    pub(crate) fn grace(self) -> Duration {
        Duration::from_secs(self.max_graceful_timeout.into())
    }
}

/// Where the platform announces the end: a path that is told to nobody else.
#[derive(Debug)]
pub(crate) struct Announcements {
    secret: String,
    tell: mpsc::Sender<Termination>,
}

impl Announcements {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Termination>) {
        let (tell, heard) = mpsc::channel(1);
        (Self { secret: format!("{:032x}", rand::random::<u128>()), tell }, heard)
    }

    /// Whether somebody knows the path.
    pub(crate) fn is_at(&self, given: &str) -> bool {
        // One that guesses learns nothing from how long it takes.
        let differing = given.bytes().zip(self.secret.bytes()).fold(0, |all, (one, other)| all | (one ^ other));
        given.len() == self.secret.len() && differing == 0
    }

    /// Passes the end on; of several the first counts.
    pub(crate) fn announce(&self, termination: Termination) {
        let _ = self.tell.try_send(termination);
    }
}

/// What a registration needs to know.
#[derive(Debug)]
pub(crate) struct Registration {
    config: PlatformConfig,
    platform: Platform,
    /// Where devices reach this role.
    own: Endpoint,
    is_secured: bool,
    secret: String,
    /// The services there, by name, as they are known to be.
    services: BTreeMap<&'static str, (String, Value)>,
    subscription: Option<String>,
}

impl Registration {
    pub(crate) fn new(config: PlatformConfig, own: Endpoint, is_secured: bool, announcements: &Announcements) -> Self {
        let platform = Platform::new(&config);
        let secret = announcements.secret.clone();
        Self { config, platform, own, is_secured, secret, services: BTreeMap::new(), subscription: None }
    }

    /// Keeps it registered for as long as it is polled.
    pub(crate) async fn keep(&mut self, mec: &Arc<Mec>, mut calls: watch::Receiver<Calls>) -> Infallible {
        let mut wait = RETRY_MIN;
        loop {
            let now = calls.borrow_and_update().clone();
            let next = match self.bring_up_to_date(&now).await {
                Ok(()) => {
                    wait = RETRY_MIN;
                    self.config.check_every
                }
                Err(error) => {
                    tracing::warn!(platform = %self.config.platform, %error, "not registered with the MEC platform, will try again");
                    let next = wait;
                    wait = (wait * 2).min(RETRY_MAX);
                    next
                }
            };
            mec.tally.set_registered(wait == RETRY_MIN);
            tokio::select! {
                () = tokio::time::sleep(next) => self.check().await,
                // The one who tells is held here too.
                _ = calls.changed() => {}
            }
        }
    }

    /// Says that it is ready, subscribes and registers, as far as that is not done.
    async fn bring_up_to_date(&mut self, calls: &Calls) -> Result<(), Failure> {
        if self.subscription.is_none() {
            self.platform.confirm_ready().await?;
            let scheme = if self.is_secured { "https" } else { "http" };
            let callback = format!("{scheme}://{}{PATH}{}", self.own, self.secret);
            self.subscription = Some(self.platform.subscribe(&callback).await?);
        }
        let devices = service::devices(&self.config, &self.own, self.is_secured);
        for (kind, wanted) in [("devices", devices), ("calls", service::calls(&self.config, calls))] {
            match self.services.get(kind) {
                Some((_, known)) if *known == wanted => {}
                Some((id, _)) => {
                    let id = id.clone();
                    self.platform.update(&id, &wanted).await?;
                    self.services.insert(kind, (id, wanted));
                }
                None => {
                    let id = self.platform.register(&wanted).await?;
                    tracing::info!(platform = %self.config.platform, service = %wanted["serName"], id, "registered with the MEC platform");
                    self.services.insert(kind, (id, wanted));
                }
            }
        }
        Ok(())
    }

    /// Forgets what the platform has forgotten, so that it is registered again.
    async fn check(&mut self) {
        for (id, _) in self.services.values() {
            if matches!(self.platform.knows(id).await, Ok(false)) {
                tracing::warn!(platform = %self.config.platform, "the MEC platform has forgotten this service");
                self.services.clear();
                self.subscription = None;
                return;
            }
        }
    }

    /// Takes everything back. What the platform does not answer to is left there.
    pub(crate) async fn end(&mut self) {
        for (id, _) in std::mem::take(&mut self.services).into_values() {
            if let Err(error) = self.platform.deregister(&id).await {
                tracing::warn!(%error, "a service is left with the MEC platform");
            }
        }
        if let Some(id) = self.subscription.take()
            && let Err(error) = self.platform.unsubscribe(&id).await
        {
            tracing::warn!(%error, "a subscription is left with the MEC platform");
        }
    }

    /// Tells the platform that all is done.
    pub(crate) async fn confirm(&self, operation: Operation) {
        if let Err(error) = self.platform.confirm_termination(operation).await {
            tracing::warn!(%error, "the MEC platform was not told that it has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_told_the_path_announces_the_end_and_the_first_counts() {
        let (announcements, mut heard) = Announcements::new();
        let secret = announcements.secret.clone();
        assert!(announcements.is_at(&secret) && !announcements.is_at("") && !announcements.is_at(&secret[1..]));
        assert!(!announcements.is_at(&"0".repeat(32)));
        let read = |text: &str| serde_json::from_str::<Termination>(text).ok();
        let first = read(r#"{"operationAction": "STOPPING", "maxGracefulTimeout": 10, "_links": {}}"#).unwrap();
        announcements.announce(first);
        announcements.announce(Termination { operation_action: Operation::Terminating, ..first });
        assert_eq!((heard.try_recv().ok(), heard.try_recv().ok()), (Some(first), None));
        assert_eq!(first.grace(), Duration::from_secs(10));
        for odd in [
            "{}",
            r#"{"operationAction": "STOP", "maxGracefulTimeout": 1}"#,
            r#"{"operationAction": "STOPPING", "maxGracefulTimeout": -1}"#,
        ] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
