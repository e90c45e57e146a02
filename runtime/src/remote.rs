//! A computer whose functions run elsewhere: in OpenWhisk, behind an OpenFaaS gateway, or behind any URL. It admits, counts, measures
//! and announces them like its own; what runs there is asked over HTTP.

mod api;
mod call;
mod client;
mod discovery;
mod gateway;
mod http;
mod ingress;
mod lookout;
mod metrics;
mod openwhisk;
mod settings;
mod turns;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{CallLimits, Endpoint, FunctionName, Load, NodeName};
use nigh_state::Keeper;
use nigh_telemetry::{HttpResponses, PerFunction};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::discovery::At;
use crate::error::Error;
use crate::ingress::Doors;
use crate::measure::{Mean, Measures, Summary};
use crate::metrics::Meters;
use crate::serve::Computing;
use crate::states;
use api::{Api, Listing, Target};
use client::Client;
use gateway::Gateway;
use turns::{Counts, Turns};

pub use settings::{Credentials, RemoteApi, RemoteFunction, RemoteSettings, RootUrl, UrlTemplate};

/// A computer whose functions run elsewhere.
pub(crate) struct RemoteComputer {
    name: NodeName,
    /// What its operator says of it.
    labels: nigh_proto::Labels,
    /// The states that it holds.
    states: Arc<Keeper>,
    /// Bytes of an answer, at most.
    answer_bytes_max: usize,
    api: Api,
    client: Client,
    /// How the system elsewhere fares.
    gateway: Gateway,
    /// Nobody has named functions: those that the system lists are offered.
    lists: bool,
    refresh: Duration,
    functions: RwLock<Arc<BTreeMap<FunctionName, Arc<Function>>>>,
    turns: Turns,
    /// Mean time of the calls of all functions.
    service: Mutex<Mean>,
    meters: PerFunction<Meters>,
    http: HttpResponses,
    /// What is announced: the functions, while somebody answers.
    offered: watch::Sender<Vec<FunctionName>>,
    /// Have another look soon.
    look_again: Arc<Notify>,
    ended: CancellationToken,
}

/// One function: where it runs, and what is known of its calls.
struct Function {
    target: Target,
    counts: Arc<Counts>,
    meters: Arc<Meters>,
    measures: Mutex<Measures>,
    /// The system takes no calls of it until then.
    held_until: Mutex<Option<Instant>>,
}

/// One function, as `Status` tells of it.
struct FunctionStatus {
    name: FunctionName,
    summary: Summary,
    running: u32,
    queued: u32,
}

impl RemoteComputer {
    /// Checks the settings, and begins to look which functions there are. Within a Tokio runtime.
    ///
    /// # Errors
    /// Where the settings contradict themselves.
    pub(crate) fn start(config: &Config, settings: &RemoteSettings) -> Result<Arc<Self>, Error> {
        let api = Api::new(settings)?;
        let named = api.named(settings)?;
        if let RemoteApi::Http { url, .. } = &settings.api
            && named.len() > 1
            && !url.has_place()
        {
            let message = format!("{url} is the URL of one function; put {{function}} where their names differ");
            return Err(Error::Config(message));
        }
        if settings.api.is_secured() && settings.trust.is_none() {
            return Err(Error::Config(format!("{}: nobody is believed over TLS", settings.api.url())));
        }
        if settings.credentials.is_some() && !settings.api.is_secured() && !settings.api.is_local() {
            tracing::warn!(url = settings.api.url(), "the credentials travel in the clear; use a URL of https");
        }
        let limits = turns::Limits {
            workers: config.workers,
            queue_max: config.queue_max,
            payload_bytes_max: config.payload_bytes_total_max,
        };
        let computer = Arc::new(Self {
            name: config.name.clone(),
            labels: config.labels.clone(),
            states: states::keeper(config),
            answer_bytes_max: config.limits.payload_bytes_max,
            api,
            client: Client::new(settings.trust.clone(), config.workers),
            gateway: Gateway::new(settings.api.url()),
            lists: settings.functions.is_empty(),
            refresh: settings.refresh,
            functions: RwLock::default(),
            turns: Turns::new(limits),
            service: Mutex::default(),
            meters: PerFunction::default(),
            http: HttpResponses::default(),
            offered: watch::Sender::new(Vec::new()),
            look_again: Arc::default(),
            ended: CancellationToken::new(),
        });
        computer.take_up(named);
        metrics::describe(&config.telemetry, &computer);
        tokio::spawn(lookout::keep_looking(Arc::downgrade(&computer), computer.ended.clone()));
        Ok(computer)
    }

    /// From now on there are these functions; what is known of those that stay is kept.
    fn take_up(&self, listing: Listing) {
        let before = self.functions();
        let mut functions = BTreeMap::new();
        for (name, target) in listing {
            let function = match before.get(&name) {
                Some(known) if known.target == target => known.clone(),
                _ => Arc::new(Function {
                    target,
                    counts: Arc::default(),
                    meters: self.meters.of(name.as_str()),
                    measures: Mutex::default(),
                    held_until: Mutex::default(),
                }),
            };
            // Of two of the same name, the first stays.
            functions.entry(name).or_insert(function);
        }
        for name in before.keys().filter(|name| !functions.contains_key(*name)) {
            tracing::info!(function = %name, "it is not there any more");
            self.meters.forget(name.as_str());
        }
        for name in functions.keys().filter(|name| !before.contains_key(*name)) {
            tracing::info!(function = %name, "offered");
        }
        *self.functions.write() = Arc::new(functions);
    }

    /// Tells who announces it what is to be announced now.
    fn offer(&self) {
        let functions = self.functions();
        let now: Vec<_> = if self.gateway.is_up() { functions.keys().cloned().collect() } else { Vec::new() };
        self.offered.send_if_modified(|offered| {
            let is_news = *offered != now;
            *offered = now;
            is_news
        });
    }

    fn functions(&self) -> Arc<BTreeMap<FunctionName, Arc<Function>>> {
        self.functions.read().clone()
    }

    /// How busy it is. Nothing computes here, so the shares are of the calls that may be under way.
    fn load(&self) -> Load {
        let (running, queued, utilisation) = self.turns.look();
        Load { running, queued, workers: self.turns.workers(), utilisation, service: self.service.lock().value() }
    }

    fn function_statuses(&self) -> Vec<FunctionStatus> {
        let now = Instant::now();
        let status = |(name, function): (&FunctionName, &Arc<Function>)| {
            let (running, queued) = function.counts.read();
            FunctionStatus { name: name.clone(), summary: function.measures.lock().summary(now), running, queued }
        };
        self.functions().iter().map(status).collect()
    }
}

impl Computing for RemoteComputer {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn readiness(&self) -> Result<(), String> {
        if self.turns.is_closed() {
            return Err("the computer is stopping".to_owned());
        }
        self.gateway.readiness()?;
        if self.functions().is_empty() { Err(format!("{} has no functions", self.gateway.url())) } else { Ok(()) }
    }

    fn close(&self) {
        self.turns.close();
    }

    fn under_way(&self) -> usize {
        self.turns.under_way()
    }

    fn end(&self) {
        self.turns.close();
        self.ended.cancel();
    }

    fn set_endpoint(&self, endpoint: &Endpoint) {
        self.states.set_endpoint(endpoint.clone());
    }

    async fn serve(
        self: Arc<Self>,
        doors: Doors,
        limits: CallLimits,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        ingress::serve(self, doors, limits, shutdown).await
    }

    async fn announce(self: Arc<Self>, endpoint: Endpoint, at: At, shutdown: CancellationToken) {
        discovery::announce(self, endpoint, at, shutdown).await;
    }
}

impl Drop for RemoteComputer {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl fmt::Debug for RemoteComputer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteComputer").field("name", &self.name).finish_non_exhaustive()
    }
}
