//! A computer whose hardware is modelled: it answers a call when that hardware would have. What runs when is decided by
//! `nigh-model` alone; here are its clock, its callers, and what is told of it.

mod call;
mod pace;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_model::{ContainerId, Hardware, Model, Output, Requirement};
use nigh_proto::{Call, Estimate, FunctionName, Load, Outcome, PlatformError, Timing};
use nigh_telemetry::{Exposition, PerFunction};
use tokio::sync::watch;

use crate::config::Config;
use crate::error::Error;
use crate::front::{Backend, Tally};
use crate::metrics::Meters;
use pace::{Limits, Pace, Place};

/// Modelled hardware that runs.
pub(crate) struct Modelled {
    functions: BTreeMap<FunctionName, Arc<Function>>,
    /// Calls that run at once, in all containers.
    workers: u32,
    pace: Pace,
    meters: PerFunction<Meters>,
}

/// One function: its container, and what is known of its calls.
pub(crate) struct Function {
    container: ContainerId,
    workers: u32,
    requirement: Requirement,
    output: Output,
    tally: Tally,
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
                tally: Tally::new(meters.of(name.as_str())),
            };
            functions.insert(name, Arc::new(function));
        }
        let workers = functions.values().fold(0u32, |sum, function| sum.saturating_add(function.workers));
        let limits = Limits { queue_max: config.queue_max, payload_bytes_max: config.payload_bytes_total_max };
        let pace = Pace::start(model, limits)?;
        Ok(Arc::new(Self { functions, workers, pace, meters }))
    }
}

impl AsRef<Tally> for Function {
    fn as_ref(&self) -> &Tally {
        &self.tally
    }
}

impl Backend for Modelled {
    const IS_MODELLED: bool = true;

    type Function = Function;
    type Place<'a> = Place;

    fn function(&self, name: &FunctionName) -> Option<Arc<Function>> {
        self.functions.get(name).cloned()
    }

    fn functions(&self) -> Vec<(FunctionName, Arc<Function>)> {
        self.functions.iter().map(|(name, function)| (name.clone(), function.clone())).collect()
    }

    fn meters(&self) -> &PerFunction<Meters> {
        &self.meters
    }

    fn estimate(&self, function: &Function, call: &Call) -> Result<Estimate, PlatformError> {
        self.foresee(function, call)
    }

    fn admit(&self, function: &Function, call: &Call, left: Duration) -> Result<Place, PlatformError> {
        self.submit(function, call, left)
    }

    async fn run<'a>(
        &'a self,
        function: &'a Function,
        call: &'a Call,
        place: Place,
        arrived: Instant,
    ) -> Result<(Outcome, Timing), PlatformError> {
        call::await_end(function, call, place, arrived).await
    }

    /// Its processors together, each by its cores.
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
            .map(|function| function.tally.service.lock().value())
            .filter(|mean| !mean.is_zero())
            .collect();
        let service = services.iter().sum::<Duration>() / count(services.len()).max(1);
        Load { running, queued, workers: self.workers, utilisation: [mean(0), mean(1), mean(2)], service }
    }

    /// Its container, and the processor that this is on.
    fn load_of(&self, function: &Function) -> Load {
        let (running, queued, utilisation) = self.pace.look(function.container);
        let service = function.tally.service.lock().value();
        Load { running, queued, workers: function.workers, utilisation, service }
    }

    fn counts(&self, function: &Function) -> (u32, u32) {
        let (running, queued, _) = self.pace.look(function.container);
        (running, queued)
    }

    fn processors(&self) -> Vec<(String, f32)> {
        self.pace.utilisation().into_iter().map(|sample| (sample.processor, sample.shares[0])).collect()
    }

    fn readiness(&self) -> Result<(), String> {
        if self.pace.is_closed() { Err("the computer is stopping".to_owned()) } else { Ok(()) }
    }

    fn offered(&self) -> Vec<FunctionName> {
        self.functions.keys().cloned().collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        // Nothing of it ever changes.
        watch::channel(0).1
    }

    fn write_metrics(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let help = "Share of a modelled processor's cores that was busy in the last second";
        out.gauges("nigh_computer_processor_utilisation_ratio", help, |samples| {
            let processors = self.processors();
            processors.iter().try_for_each(|(processor, share)| samples.gauge(&[("processor", processor)], *share))
        })
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
}
