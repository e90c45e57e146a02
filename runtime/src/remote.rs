//! A computer whose functions run elsewhere: in OpenWhisk, behind an OpenFaaS gateway, or behind any URL. It admits, counts, measures
//! and announces them like its own; what runs there is asked over HTTP.

mod api;
mod call;
mod client;
mod gateway;
mod http;
mod lookout;
mod openwhisk;
mod settings;
mod turns;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{Call, Estimate, FunctionName, Load, Outcome, PlatformError, Timing};
use nigh_telemetry::{Exposition, PerFunction};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;
use crate::front::{Backend, Tally};
use crate::measure::Mean;
use crate::metrics::Meters;
use api::{Api, Listing, Target};
use client::Client;
use gateway::Gateway;
use turns::{Counts, Place, Turns};

pub use settings::{Credentials, RemoteApi, RemoteFunction, RemoteSettings, RootUrl, UrlTemplate};

/// A system elsewhere, and the calls that are made there.
pub(crate) struct RemoteSystem {
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
    /// Counts what may have changed of which functions there are, and whether somebody answers.
    changes: watch::Sender<u64>,
    /// Have another look soon.
    look_again: Arc<Notify>,
    ended: CancellationToken,
}

/// One function: where it runs, and what is known of its calls.
pub(crate) struct Function {
    target: Target,
    counts: Arc<Counts>,
    tally: Tally,
    /// The system takes no calls of it until then.
    held_until: Mutex<Option<Instant>>,
}

impl RemoteSystem {
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
        let remote = Arc::new(Self {
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
            changes: watch::Sender::new(0),
            look_again: Arc::default(),
            ended: CancellationToken::new(),
        });
        remote.take_up(named);
        tokio::spawn(lookout::keep_looking(Arc::downgrade(&remote), remote.ended.clone()));
        Ok(remote)
    }

    /// From now on there are these functions; what is known of those that stay is kept.
    fn take_up(&self, listing: Listing) {
        let before = self.listed();
        let mut functions = BTreeMap::new();
        for (name, target) in listing {
            let function = match before.get(&name) {
                Some(known) if known.target == target => known.clone(),
                _ => Arc::new(Function {
                    target,
                    counts: Arc::default(),
                    tally: Tally::new(self.meters.of(name.as_str())),
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

    /// Says that what is offered may be something else now.
    fn has_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn listed(&self) -> Arc<BTreeMap<FunctionName, Arc<Function>>> {
        self.functions.read().clone()
    }
}

impl AsRef<Tally> for Function {
    fn as_ref(&self) -> &Tally {
        &self.tally
    }
}

impl Backend for RemoteSystem {
    type Function = Function;
    type Place<'a> = Place<'a>;

    fn function(&self, name: &FunctionName) -> Option<Arc<Function>> {
        self.functions.read().get(name).cloned()
    }

    fn functions(&self) -> Vec<(FunctionName, Arc<Function>)> {
        self.listed().iter().map(|(name, function)| (name.clone(), function.clone())).collect()
    }

    fn meters(&self) -> &PerFunction<Meters> {
        &self.meters
    }

    fn estimate(&self, function: &Function, call: &Call) -> Result<Estimate, PlatformError> {
        self.foresee(function, call)
    }

    fn admit(&self, function: &Function, call: &Call, left: Duration) -> Result<Place<'_>, PlatformError> {
        self.enter(function, call, left)
    }

    async fn run<'a>(
        &'a self,
        function: &'a Function,
        call: &'a Call,
        place: Place<'a>,
        arrived: Instant,
    ) -> Result<(Outcome, Timing), PlatformError> {
        self.complete(function, call, place, arrived).await
    }

    /// Nothing computes here, so the shares are of the calls that may be under way.
    fn load(&self) -> Load {
        let (running, queued, utilisation) = self.turns.look();
        Load { running, queued, workers: self.turns.workers(), utilisation, service: self.service.lock().value() }
    }

    fn counts(&self, function: &Function) -> (u32, u32) {
        function.counts.read()
    }

    /// There is none here; what it would be is the share of the calls that may be under way.
    fn processors(&self) -> Vec<(String, f32)> {
        vec![("remote".to_owned(), self.load().utilisation[0])]
    }

    fn readiness(&self) -> Result<(), String> {
        if self.turns.is_closed() {
            return Err("the computer is stopping".to_owned());
        }
        self.gateway.readiness()?;
        if self.listed().is_empty() { Err(format!("{} has no functions", self.gateway.url())) } else { Ok(()) }
    }

    fn offered(&self) -> Vec<FunctionName> {
        if self.gateway.is_up() { self.listed().keys().cloned().collect() } else { Vec::new() }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn write_metrics(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let help = "Whether the system elsewhere answered when it was last looked at";
        out.gauge("nigh_computer_remote_up", help, u32::from(self.gateway.is_up()))?;
        self.client.responses.write("nigh_computer_remote_responses_total", out)
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
}

impl Drop for RemoteSystem {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}
