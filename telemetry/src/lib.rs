//! What a role tells of itself to those who watch it: metrics as Prometheus reads them, whether it lives, whether it is
//! ready.
//!
//! A role is handed a [`Telemetry`] with its configuration and says there what there is to know: how to write its metrics
//! ([`Telemetry::describe`]), and when it is ready ([`Telemetry::ready_when`]). Whoever started the role serves that over
//! HTTP with [`serve_while`]. Nothing is global, so that several roles in one process each tell of themselves.
//!
//! Calls count into [`Histogram`]s and [`Outcomes`], which are atomic and reached by handles that a call holds anyway;
//! all else is read off the role when somebody asks. Labels are bounded: see [`PerFunction`].

mod door;
mod exposition;
mod histogram;
mod http_responses;
mod outcomes;
mod per_function;

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

pub use door::{CONNECTIONS_MAX, serve_while};
pub use exposition::{Exposition, Samples};
pub use histogram::Histogram;
pub use http_responses::HttpResponses;
pub use outcomes::{Counts, Outcomes, outcome_word};
pub use per_function::{FUNCTIONS_MAX, OTHER, PerFunction};

/// What one role tells of itself. Clones tell of the same role.
#[derive(Clone)]
pub struct Telemetry(Arc<Shared>);

struct Shared {
    registry: Mutex<Registry>,
    readiness: RwLock<Box<Readiness>>,
}

type Readiness = dyn Fn() -> Result<(), String> + Send + Sync;
type Write = dyn Fn(&mut Exposition<'_>) -> fmt::Result + Send + Sync;

struct Collected(Box<Write>);

impl Telemetry {
    /// Of a role that has not started yet.
    pub fn new() -> Self {
        let readiness: Box<Readiness> = Box::new(|| Err("it is starting".to_owned()));
        Self(Arc::new(Shared { registry: Mutex::default(), readiness: RwLock::new(readiness) }))
    }

    /// Says which role this is and what it is called, and has its metrics written whenever somebody asks for them, in
    /// place of what was said before. What the function holds lives as long as the telemetry, so it should hold the role
    /// weakly.
    pub fn describe(
        &self,
        role: &'static str,
        name: impl fmt::Display,
        write: impl Fn(&mut Exposition<'_>) -> fmt::Result + Send + Sync + 'static,
    ) {
        let name = name.to_string();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Collected(Box::new(move |out| {
            out.gauges("nigh_build_info", "Which role this is, and of which release; always 1", |samples| {
                let labels = [("role", role), ("name", name.as_str()), ("version", env!("CARGO_PKG_VERSION"))];
                samples.gauge(&labels, 1.0)
            })?;
            write(out)
        }))));
        *self.0.registry.lock() = registry;
    }

    /// From now on the role is ready when this says so; if not, it says why not.
    pub fn ready_when(&self, is_ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        *self.0.readiness.write() = Box::new(is_ready);
    }

    /// From now on the role is not ready, for this reason.
    pub fn not_ready(&self, reason: &'static str) {
        self.ready_when(move || Err(reason.to_owned()));
    }

    /// Whether the role is ready.
    ///
    /// # Errors
    /// Why it is not.
    pub fn readiness(&self) -> Result<(), String> {
        (self.0.readiness.read())()
    }

    /// All metrics as they are now, in the text format of OpenMetrics.
    ///
    /// # Errors
    /// Where a role's metrics cannot be written: a defect.
    pub fn metrics(&self) -> Result<String, fmt::Error> {
        let mut told = String::new();
        text::encode(&mut told, &self.0.registry.lock())?;
        Ok(told)
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Exposition::new(encoder))
    }
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected").finish_non_exhaustive()
    }
}
