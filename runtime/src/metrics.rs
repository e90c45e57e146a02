//! What is counted of calls for those who watch this computer, and how all that there is to watch is written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nigh_proto::{FunctionName, Load, Outcome, PlatformError, Reason, Timing};
use nigh_telemetry::{Exposition, Histogram, OTHER, Outcomes, PerFunction, Telemetry};

use crate::computer::Computer;
use crate::computing::Computing;
use crate::function::{Callee, Function};
use crate::logs::Lost;
use crate::probe;

/// What is counted of one function's calls. Calls hold it by their function, so counting looks nothing up.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    ended: Outcomes,
    refused: Outcomes,
    queue: Histogram,
    init: Histogram,
    run: Histogram,
    reset: Histogram,
}

impl Meters {
    /// Counts a call that ran, or was to.
    pub(crate) fn record(&self, outcome: Result<&Outcome, &PlatformError>, timing: &Timing) {
        self.ended.record(outcome);
        self.queue.record(timing.queue);
        self.init.record(timing.init);
        self.run.record(timing.run);
        if !timing.reset.is_zero() {
            self.reset.record(timing.reset);
        }
    }

    /// Counts a call that was let in but never ran.
    pub(crate) fn record_ended(&self, reason: Reason) {
        self.ended.record_reason(reason);
    }

    /// Counts a call that was not let in.
    pub(crate) fn record_refused(&self, reason: Reason) {
        self.refused.record_reason(reason);
    }
}

/// Instances, as far as the engine and the pool know.
pub(crate) struct Instances {
    pub(crate) live: u64,
    /// Those among them that wait for another call.
    kept: u64,
    unused_resident_bytes: u64,
}

impl Instances {
    /// Of the engine of modules, and of that of components.
    pub(crate) fn new(engines: [&wasmtime::Engine; 2], kept: usize) -> Self {
        let [modules, components] = engines.map(wasmtime::Engine::pooling_allocator_metrics);
        let warm = |pool: &wasmtime::PoolingAllocatorMetrics| {
            (pool.unused_memory_bytes_resident() + pool.unused_table_bytes_resident()) as u64
        };
        let live_modules = modules.as_ref().map_or(0, wasmtime::PoolingAllocatorMetrics::core_instances);
        let live_components = components.as_ref().map_or(0, wasmtime::PoolingAllocatorMetrics::component_instances);
        Self {
            live: live_modules + live_components,
            kept: kept as u64,
            unused_resident_bytes: [modules, components].iter().flatten().map(warm).sum(),
        }
    }
}

/// One call that was let in and has its turn, counted once: as cancelled where nothing else is said of it.
#[derive(Debug)]
pub(crate) struct Counted(Option<Arc<Callee>>);

impl Counted {
    /// A call of this function.
    pub(crate) fn new(callee: Arc<Callee>) -> Self {
        Self(Some(callee))
    }

    /// Its function.
    pub(crate) fn function(&self) -> &Function {
        &self.0.as_ref().expect("taken only by what consumes this").function
    }

    /// Leaves the counting to whoever takes it.
    pub(crate) fn take(mut self) -> Arc<Callee> {
        self.0.take().expect("taken only by what consumes this")
    }

    /// It ran.
    pub(crate) fn record(self, outcome: Result<&Outcome, &PlatformError>, timing: &Timing) {
        self.take().function.meters.record(outcome, timing);
    }

    /// It ran, and took so long.
    pub(crate) fn measure(
        self,
        outcome: Result<&Outcome, &PlatformError>,
        payload_bytes: u64,
        timing: &Timing,
        computed: Duration,
        ended: Instant,
    ) {
        if let Ok(outcome) = outcome {
            self.function().measures.lock().record(outcome, payload_bytes, timing, computed, ended);
        }
        self.record(outcome, timing);
    }

    /// It did not run, for this reason.
    pub(crate) fn end(self, reason: Reason) {
        self.take().function.meters.record_ended(reason);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(callee) = self.0.take() {
            callee.function.meters.record_ended(Reason::Cancelled);
        }
    }
}

/// Has everything that there is to watch of a computer written when somebody asks.
pub(crate) fn describe<C: Computing>(
    telemetry: &Telemetry,
    computer: &Arc<C>,
    write: impl Fn(&C, &mut Exposition<'_>) -> fmt::Result + Send + Sync + 'static,
) {
    let name = computer.name().clone();
    let computer: Weak<C> = Arc::downgrade(computer);
    telemetry.describe("computer", name, move |out| match computer.upgrade() {
        Some(computer) => write(&computer, out),
        None => Ok(()),
    });
}

/// Writes what there is to watch of a computer that runs its functions itself.
pub(crate) fn write(computer: &Computer, out: &mut Exposition<'_>) -> fmt::Result {
    computer.settle_measures();
    write_calls(computer.functions().meters(), out)?;
    write_functions(computer, out)?;
    write_instances(computer, out)?;
    write_load(&computer.load(), out)?;
    let resident = probe::resident_bytes();
    out.gauge("nigh_computer_memory_resident_bytes", "Memory that the process holds", resident)?;
    out.histogram(
        "nigh_computer_compile_seconds",
        "Time to compile a module that was not cached",
        computer.modules().compile_times(),
    )?;
    out.counters("nigh_computer_log_lines_dropped_total", "Lines of functions' logs dropped, by reason", |samples| {
        let lost = Lost::ALL.into_iter().map(|reason| (reason, computer.hub().lost(reason)));
        lost.into_iter().try_for_each(|(reason, lines)| samples.counter(&[("reason", reason.word())], lines))
    })?;
    computer.http_responses().write("nigh_computer_http_responses_total", out)
}

/// How busy a computer is.
pub(crate) fn write_load(load: &Load, out: &mut Exposition<'_>) -> fmt::Result {
    out.gauge("nigh_computer_workers", "Calls that can run at once", load.workers)?;
    out.gauges("nigh_computer_utilisation_ratio", "Share of the cores spent in functions, by window", |samples| {
        let windows = ["1s", "10s", "30s"].into_iter().zip(load.utilisation);
        windows.into_iter().try_for_each(|(window, share)| samples.gauge(&[("window", window)], share))
    })
}

/// What was counted of calls, by function.
pub(crate) fn write_calls(meters: &PerFunction<Meters>, out: &mut Exposition<'_>) -> fmt::Result {
    let meters = &meters.all();
    out.counters("nigh_computer_calls_total", "Calls let in that ended, by how", |samples| {
        for (function, meters) in meters {
            for (outcome, calls) in meters.ended.read() {
                samples.counter(&[("function", function), ("outcome", outcome)], calls)?;
            }
        }
        Ok(())
    })?;
    out.counters("nigh_computer_refused_total", "Calls not let in, by reason", |samples| {
        for (function, meters) in meters {
            for (reason, calls) in meters.refused.read() {
                samples.counter(&[("function", function), ("reason", reason)], calls)?;
            }
        }
        Ok(())
    })?;
    let mut phase = |name: &str, help: &str, of: fn(&Meters) -> &Histogram| {
        out.histograms(name, help, |samples| {
            let used = meters.iter().filter(|(function, meters)| function != OTHER || !of(meters).is_empty());
            used.into_iter().try_for_each(|(function, meters)| samples.histogram(&[("function", function)], of(meters)))
        })
    };
    phase("nigh_computer_queue_seconds", "Time that calls waited for their turn", |meters| &meters.queue)?;
    phase("nigh_computer_init_seconds", "Time to make or take an instance for a call", |meters| &meters.init)?;
    phase("nigh_computer_run_seconds", "Time in the function", |meters| &meters.run)?;
    phase("nigh_computer_reset_seconds", "Time to bring an instance back for its next call", |meters| &meters.reset)
}

fn write_functions(computer: &Computer, out: &mut Exposition<'_>) -> fmt::Result {
    let (ready, problems) = computer.functions().announcement();
    out.gauge("nigh_computer_functions", "Functions ready to be called", ready.len())?;
    let help = "Functions whose deployed version cannot run here";
    out.gauge("nigh_computer_functions_failed", help, problems.len())?;
    let known = computer.functions().all().into_iter().map(|known| known.function);
    let known: Vec<_> = known.collect();
    let held_back = known.iter().filter(|function| function.conduct.is_held_back()).count();
    let help = "Functions that break their limits in call after call, and so run one at a time";
    out.gauge("nigh_computer_functions_held_back", help, held_back)?;
    let counts = known.into_iter().map(|function| (function.name.clone(), computer.counts(function.lane)));
    write_counts(computer.functions().meters(), counts, out)
}

/// How many calls run and wait, by function.
pub(crate) fn write_counts(
    meters: &PerFunction<Meters>,
    counts: impl Iterator<Item = (FunctionName, (u32, u32))>,
    out: &mut Exposition<'_>,
) -> fmt::Result {
    let mut by_label: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for (name, (running, queued)) in counts {
        let sum = by_label.entry(meters.label(name.as_str())).or_default();
        *sum = (sum.0.saturating_add(running), sum.1.saturating_add(queued));
    }
    out.gauges("nigh_computer_running", "Calls that run", |samples| {
        by_label.iter().try_for_each(|(function, (running, _))| samples.gauge(&[("function", function)], *running))
    })?;
    out.gauges("nigh_computer_queued", "Calls that wait for their turn", |samples| {
        by_label.iter().try_for_each(|(function, (_, queued))| samples.gauge(&[("function", function)], *queued))
    })
}

fn write_instances(computer: &Computer, out: &mut Exposition<'_>) -> fmt::Result {
    let instances = computer.instances();
    let counts = [("live", instances.live), ("kept", instances.kept)];
    out.gauges("nigh_computer_instances", "Instances: live ones, and those among them kept for reuse", |samples| {
        counts.into_iter().try_for_each(|(state, count)| samples.gauge(&[("state", state)], count))
    })?;
    out.gauge("nigh_computer_instances_max", "Instances that there is room for", computer.instances_max())?;
    out.gauge(
        "nigh_computer_pool_unused_resident_bytes",
        "Memory of slots for instances that are free and kept warm",
        instances.unused_resident_bytes,
    )
}
