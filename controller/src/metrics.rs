//! What there is to watch of a controller, and how it is written.

use std::fmt;
use std::sync::{Arc, Weak};

use nigh_store::Place;
use nigh_telemetry::{Counts, Exposition};

use crate::config::Config;
use crate::registry::Registry;

/// What became of a request to deploy or to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeployOutcome {
    /// A version was deployed.
    Changed,
    /// The very same version was there already.
    Unchanged,
    /// A deployment was refused, or broke off.
    Refused,
    /// A function was removed.
    Removed,
}

impl DeployOutcome {
    const ALL: [Self; 4] = [Self::Changed, Self::Unchanged, Self::Refused, Self::Removed];

    fn word(self) -> &'static str {
        match self {
            Self::Changed => "deployed",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Removed => "removed",
        }
    }
}

/// Requests by what became of them.
#[derive(Debug, Default)]
pub(crate) struct DeployCounts(Counts<4>);

impl DeployCounts {
    /// Counts a request.
    pub(crate) fn record(&self, outcome: DeployOutcome) {
        self.0.add(outcome as usize, 1);
    }
}

/// Has everything that there is to watch of a controller written when somebody asks.
pub(crate) fn describe(config: &Config, registry: &Arc<Registry>, deploys: Arc<DeployCounts>) {
    let registry: Weak<Registry> = Arc::downgrade(registry);
    let file = match &config.store {
        Place::Embedded { file } => Some(file.clone()),
        Place::Nats { .. } => None,
    };
    config.telemetry.describe("controller", "controller", move |out| match registry.upgrade() {
        Some(registry) => {
            let store_bytes = file.as_ref().map(|file| std::fs::metadata(file).map_or(0, |file| file.len()));
            write(&registry, &deploys, store_bytes, out)
        }
        None => Ok(()),
    });
}

fn write(
    registry: &Registry,
    deploys: &DeployCounts,
    store_bytes: Option<u64>,
    out: &mut Exposition<'_>,
) -> fmt::Result {
    let census = registry.census();
    out.gauge("nigh_controller_functions", "Functions deployed", census.functions)?;
    out.gauges("nigh_controller_nodes", "Computers and brokers alive", |samples| {
        samples.gauge(&[("role", "computer")], census.computers)?;
        samples.gauge(&[("role", "broker")], census.brokers)
    })?;
    let help = "Leases that ran out: nodes that died, or could not be heard";
    out.counter("nigh_controller_leases_lost_total", help, census.leases_lost)?;
    out.gauge("nigh_controller_watch_streams", "Watch streams open", census.watchers)?;
    out.counters("nigh_controller_deploys_total", "Requests to deploy or remove, by what became of them", |samples| {
        let told = deploys.0.read().filter_map(|(at, count)| Some((DeployOutcome::ALL.get(at)?.word(), count)));
        told.into_iter().try_for_each(|(outcome, count)| samples.counter(&[("outcome", outcome)], count))
    })?;
    match store_bytes {
        Some(bytes) => out.gauge("nigh_controller_store_bytes", "Size of the file that holds what is deployed", bytes),
        None => Ok(()),
    }
}
