//! A computer whose hardware is modelled: it answers a call when that hardware would have. What runs when is decided by
//! `nigh-model` alone; here are its clock, its callers, and what is told of it.

mod call;
mod discovery;
mod ingress;
mod metrics;
mod pace;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_model::{ContainerId, Hardware, Model, Output, Requirement};
use nigh_proto::{CallLimits, Endpoint, FunctionName, Load, NodeName};
use nigh_state::Keeper;
use nigh_telemetry::{HttpResponses, PerFunction};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::discovery::At;
use crate::error::Error;
use crate::ingress::Doors;
use crate::measure::{Mean, Measures, Summary};
use crate::metrics::Meters;
use crate::serve::Computing;
use crate::states;
use pace::{Limits, Pace};

/// A modelled computer. Dropping it ends all its calls.
pub(crate) struct Modelled {
    name: NodeName,
    functions: BTreeMap<FunctionName, Function>,
    /// Calls that run at once, in all containers.
    workers: u32,
    pace: Pace,
    meters: PerFunction<Meters>,
    http: HttpResponses,
    /// What its operator says of it.
    labels: nigh_proto::Labels,
    /// The states that it holds.
    states: Arc<Keeper>,
}

/// One function: its container, and what is known of its calls.
struct Function {
    container: ContainerId,
    workers: u32,
    requirement: Requirement,
    output: Output,
    meters: Arc<Meters>,
    measures: Mutex<Measures>,
    service: Mutex<Mean>,
}

/// One function, as `Status` tells of it.
struct FunctionStatus<'a> {
    name: &'a FunctionName,
    summary: Summary,
    running: u32,
    queued: u32,
}

impl Modelled {
    /// Sets the hardware up and starts its clock.
    ///
    /// # Errors
    /// Where the hardware makes no sense, or a thread cannot be started.
    pub(crate) fn start(config: &Config, hardware: Hardware) -> Result<Arc<Self>, Error> {
        let model = Model::new(hardware).map_err(|error| Error::Config(format!("hardware: {error}")))?;
        let meters: PerFunction<Meters> = PerFunction::default();
        let mut functions = BTreeMap::new();
        for (container, described) in model.containers() {
            let name: FunctionName = described.function.parse().map_err(|error| {
                Error::Config(format!("hardware: container {} runs what is no function: {error}", described.name))
            })?;
            let function = Function {
                container,
                workers: described.workers,
                requirement: described.requirement,
                output: described.output.clone(),
                meters: meters.of(name.as_str()),
                measures: Mutex::default(),
                service: Mutex::default(),
            };
            functions.insert(name, function);
        }
        let workers = functions.values().fold(0u32, |sum, function| sum.saturating_add(function.workers));
        let limits = Limits { queue_max: config.queue_max, payload_bytes_max: config.payload_bytes_total_max };
        let pace = Pace::start(model, limits)?;
        let computer = Arc::new(Self {
            name: config.name.clone(),
            functions,
            workers,
            pace,
            meters,
            http: HttpResponses::default(),
            labels: config.labels.clone(),
            states: states::keeper(config),
        });
        metrics::describe(&config.telemetry, &computer);
        Ok(computer)
    }

    /// How busy all of it is: its processors together, each by its cores.
    fn load(&self) -> Load {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (running, queued) = self.pace.totals();
        let (running, queued) = (count(running), count(queued));
        let samples = self.pace.utilisation();
        let mean = |window: usize| {
            let busy: f64 = samples.iter().map(|one| f64::from(one.cores) * f64::from(one.shares[window])).sum();
            let cores: f64 = samples.iter().map(|one| f64::from(one.cores)).sum();
            #[expect(clippy::cast_possible_truncation, reason = "a share for people and policies")]
            let share = (busy / cores) as f32;
            share
        };
        let services: Vec<Duration> = self
            .functions
            .values()
            .map(|function| function.service.lock().value())
            .filter(|mean| !mean.is_zero())
            .collect();
        let service = services.iter().sum::<Duration>() / count(services.len()).max(1);
        Load { running, queued, workers: self.workers, utilisation: [mean(0), mean(1), mean(2)], service }
    }

    /// How busy what serves one function is: its container, and the processor that this is on.
    fn load_of(&self, function: &Function) -> Load {
        let (running, queued, utilisation) = self.pace.look(function.container);
        Load { running, queued, workers: function.workers, utilisation, service: function.service.lock().value() }
    }

    /// By name, the share of each processor's cores that was busy in the last second.
    fn processors(&self) -> Vec<(String, f32)> {
        self.pace.utilisation().into_iter().map(|sample| (sample.processor, sample.shares[0])).collect()
    }

    fn function_statuses(&self) -> impl Iterator<Item = FunctionStatus<'_>> {
        self.functions.iter().map(|(name, function)| {
            let (running, queued, _) = self.pace.look(function.container);
            FunctionStatus { name, summary: function.measures.lock().summary(Instant::now()), running, queued }
        })
    }
}

impl Computing for Modelled {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn set_endpoint(&self, endpoint: &Endpoint) {
        self.states.set_endpoint(endpoint.clone());
    }

    fn readiness(&self) -> Result<(), String> {
        if self.pace.is_closed() { Err("the computer is stopping".to_owned()) } else { Ok(()) }
    }

    fn close(&self) {
        self.pace.close();
    }

    fn under_way(&self) -> usize {
        self.pace.under_way()
    }

    fn end(&self) {
        self.pace.end();
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

impl Drop for Modelled {
    fn drop(&mut self) {
        self.pace.end();
    }
}

impl fmt::Debug for Modelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Modelled").field("name", &self.name).finish_non_exhaustive()
    }
}
