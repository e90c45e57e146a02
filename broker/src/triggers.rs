//! Triggers: requests, messages and times from elsewhere that become asynchronous calls. They are kept in the store of these calls,
//! so all brokers that share it know them ([`table`]). HTTP triggers are served by each of these brokers; of every other one
//! exactly one listens at a time ([`run`], by a [`lease`]), and another takes over where it dies.
//!
//! A message is taken from its source only once the store has its call ([`deliver`]). What can be told from another delivery
//! of the same has the same call id, so that it is accepted once; how that is known, each source says ([`nats`], [`mqtt`],
//! [`cron`]).

mod check;
mod config;
mod cron;
mod deliver;
mod lease;
mod mqtt;
mod nats;
mod record;
mod run;
mod schedule;
mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use nigh_proto::ingress::http::Triggered;
use nigh_proto::time::{ms_of, time_of_ms};
use nigh_proto::trigger::Source;
use nigh_proto::{CallLimits, NodeName, PlatformError, Reason, Trigger, v1};
use nigh_store::Bucket;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::watch;

use crate::asynchronous::{Asynchronous, AsynchronousConfig};
use crate::routes::Routes;

pub use config::TriggersConfig;
use deliver::Rate;
use mqtt::Seen;
use record::Record;
pub(crate) use run::run;

/// Where triggers are kept.
#[derive(Debug)]
pub(crate) struct TriggerShelves {
    /// By name.
    pub(crate) definitions: Arc<dyn Bucket>,
    /// Under a trigger's id: who runs it, how it is, when its schedule was due last.
    pub(crate) states: Arc<dyn Bucket>,
}

/// What a broker knows of triggers.
#[derive(Debug)]
pub(crate) struct Triggers {
    asynchronous: Arc<Asynchronous>,
    routes: Arc<Routes>,
    limits: CallLimits,
    broker: NodeName,
    /// HTTP triggers, by path.
    http: ArcSwap<HashMap<String, Arc<Active>>>,
    /// The revision of the newest change of a definition that this broker follows.
    applied: watch::Sender<u64>,
    pub(crate) tally: Tally,
}

/// What is counted of all triggers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) delivered: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failures: AtomicU64,
}

/// A trigger as it is kept.
#[derive(Debug, Clone, PartialEq)]
struct Definition {
    trigger: Trigger,
    /// Random, and told to nobody; the same as long as the source is.
    id: String,
    added: SystemTime,
}

/// A trigger that this broker follows.
#[derive(Debug)]
struct Active {
    definition: Definition,
    record: Record,
    rate: Mutex<Rate>,
    /// Messages of MQTT that may come again.
    seen: Mutex<Seen>,
}

impl Triggers {
    pub(crate) fn new(
        asynchronous: Arc<Asynchronous>,
        routes: Arc<Routes>,
        limits: CallLimits,
        broker: NodeName,
    ) -> Self {
        let (applied, _) = watch::channel(0);
        Self { asynchronous, routes, limits, broker, http: ArcSwap::default(), applied, tally: Tally::default() }
    }

    /// What requests to this path become.
    pub(crate) fn triggered_by(&self, path: &str) -> Option<Triggered> {
        let active = self.http.load().get(path)?.clone();
        let trigger = &active.definition.trigger;
        Some(Triggered {
            name: trigger.name.clone(),
            function: trigger.function.clone(),
            secret: active.definition.id.clone(),
            timeout: self.limits.time(trigger.timeout),
            retry_safe: trigger.retry_safe,
            priority: trigger.priority,
            callback: trigger.callback.clone(),
            headers: trigger.headers.clone(),
        })
    }

    fn config(&self) -> Result<&AsynchronousConfig, PlatformError> {
        self.asynchronous.config()
    }

    fn shelves(&self) -> Result<&TriggerShelves, PlatformError> {
        self.asynchronous.trigger_shelves()
    }
}

impl Definition {
    fn read(stored: &Bytes) -> Result<Self, PlatformError> {
        let damaged = || {
            PlatformError::new(
                Reason::Internal,
                "what was kept of a trigger cannot be read; was it written by a later release?",
            )
        };
        let stored = v1::StoredTrigger::decode(stored.clone()).map_err(|_| damaged())?;
        let trigger = Trigger::from_wire(stored.trigger.ok_or_else(damaged)?)?;
        Ok(Self { trigger, id: stored.id, added: time_of_ms(stored.added_ms) })
    }

    fn to_stored(&self) -> Bytes {
        let stored = v1::StoredTrigger {
            trigger: Some(self.trigger.to_wire()),
            id: self.id.clone(),
            added_ms: ms_of(self.added),
        };
        stored.encode_to_vec().into()
    }
}

impl Active {
    fn new(definition: Definition, record: Record, rate_max: u32) -> Self {
        let rate = Rate::new(definition.trigger.rate_max.unwrap_or(rate_max));
        Self { definition, record, rate: Mutex::new(rate), seen: Mutex::default() }
    }

    fn source(&self) -> &Source {
        &self.definition.trigger.source
    }
}
