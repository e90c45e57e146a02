//! What is counted of calls for those who watch this broker, and how all that there is to watch is written.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nigh_proto::{Call, NodeName, Outcome, PlatformError, Reason};
use nigh_telemetry::{Exposition, Histogram, HttpResponses, OTHER, Outcomes, Telemetry, outcome_word};
use tracing::Span;

use crate::asynchronous::Tally;
use crate::call::Broker;
use crate::triggers::Tally as TriggersTally;

/// What is counted of one function's calls. Destinations carry it, so counting looks nothing up.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    ended: Outcomes,
    whole: Histogram,
    own: Histogram,
}

impl Meters {
    /// Counts a call that was refused before it was anybody's.
    pub(crate) fn record_reason(&self, reason: Reason) {
        self.ended.record_reason(reason);
    }
}

/// One call, counted once however it ends: also where its caller goes away.
#[derive(Debug)]
pub(crate) struct Counted {
    /// What is said of the call stands in it.
    span: Span,
    meters: Arc<Meters>,
    arrived: Instant,
    own: Option<Duration>,
    is_over: bool,
}

impl Counted {
    /// A call that is no known function's yet.
    pub(crate) fn new(call: &Call, unknown: &Arc<Meters>, arrived: Instant) -> Self {
        let span = tracing::debug_span!("call", id = %call.id, function = %call.function);
        Self { span, meters: unknown.clone(), arrived, own: None, is_over: false }
    }

    /// Where whatever is said of the call belongs.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Whose call it is.
    pub(crate) fn belongs_to(&mut self, meters: &Arc<Meters>) {
        self.meters = meters.clone();
    }

    /// What the broker itself took of the call's time.
    pub(crate) fn spent(&mut self, own: Duration) {
        self.own = Some(own);
    }

    /// How it ended.
    pub(crate) fn end(mut self, outcome: Result<&Outcome, &PlatformError>) {
        let after = self.arrived.elapsed();
        self.span.in_scope(|| tracing::debug!(outcome = outcome_word(outcome), ?after, "ended"));
        self.is_over = true;
        self.meters.ended.record(outcome);
        self.meters.whole.record(after);
        if let Some(own) = self.own {
            self.meters.own.record(own);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.is_over {
            self.meters.record_reason(Reason::Cancelled);
        }
    }
}

/// What is counted beside the calls of each function.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    retries: AtomicU64,
    hedges: AtomicU64,
    retries_refused: AtomicU64,
    shed: AtomicU64,
    pub(crate) http: HttpResponses,
}

impl Counts {
    /// A call is passed on once more, elsewhere.
    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A call is made a second time while the first is under way.
    pub(crate) fn count_hedge(&self) {
        self.hedges.fetch_add(1, Ordering::Relaxed);
    }

    /// A call could have been passed on once more, but the budget for that was used up.
    pub(crate) fn count_retry_refused(&self) {
        self.retries_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A call was refused because there was no room for its priority.
    pub(crate) fn count_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Has everything that there is to watch of a broker written when somebody asks.
pub(crate) fn describe(telemetry: &Telemetry, name: &NodeName, broker: &Arc<Broker>) {
    let broker: Weak<Broker> = Arc::downgrade(broker);
    telemetry.describe("broker", name, move |out| match broker.upgrade() {
        Some(broker) => write(&broker, out),
        None => Ok(()),
    });
}

fn write(broker: &Broker, out: &mut Exposition<'_>) -> fmt::Result {
    let meters = broker.routes().meters().all();
    out.counters("nigh_broker_calls_total", "Calls that ended, by how", |samples| {
        for (function, meters) in &meters {
            for (outcome, calls) in meters.ended.read() {
                samples.counter(&[("function", function), ("outcome", outcome)], calls)?;
            }
        }
        Ok(())
    })?;
    let mut times = |name: &str, help: &str, of: fn(&Meters) -> &Histogram| {
        out.histograms(name, help, |samples| {
            let mut used = meters.iter().filter(|(function, meters)| function != OTHER || !of(meters).is_empty());
            used.try_for_each(|(function, meters)| samples.histogram(&[("function", function)], of(meters)))
        })
    };
    times("nigh_broker_call_seconds", "Time from a call's arrival to its end", |meters| &meters.whole)?;
    let help = "Time of a call before it was passed on, tries that failed included";
    times("nigh_broker_own_seconds", help, |meters| &meters.own)?;

    let counts = broker.counts();
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    out.counter("nigh_broker_retries_total", "Calls passed on once more, elsewhere", read(&counts.retries))?;
    out.counter("nigh_broker_hedges_total", "Calls made a second time while the first was slow", read(&counts.hedges))?;
    let help = "Calls not made again because the budget for that was used up";
    out.counter("nigh_broker_retries_refused_total", help, read(&counts.retries_refused))?;
    out.counter("nigh_broker_shed_total", "Calls refused for want of room", read(&counts.shed))?;
    out.gauge("nigh_broker_in_flight", "Calls under way", broker.in_flight())?;
    let census = broker.routes().census();
    out.gauge("nigh_broker_functions", "Functions in the forwarding table", census.functions)?;
    out.gauges("nigh_broker_destinations", "Destinations of all functions, by state", |samples| {
        let states = [("in-use", census.in_use), ("set-aside", census.set_aside), ("probing", census.probing)];
        states.into_iter().try_for_each(|(state, count)| samples.gauge(&[("state", state)], count))
    })?;
    if broker.asynchronous().is_offered() {
        write_asynchronous(&broker.asynchronous().tally, out)?;
        write_triggers(&broker.triggers().tally, out)?;
    }
    counts.http.write("nigh_broker_http_responses_total", out)
}

fn write_asynchronous(tally: &Tally, out: &mut Exposition<'_>) -> fmt::Result {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    out.counter("nigh_broker_asynchronous_accepted_total", "Calls accepted for later", read(&tally.accepted))?;
    out.counter("nigh_broker_asynchronous_settled_total", "Of these, brought to an outcome", read(&tally.settled))?;
    out.counter("nigh_broker_asynchronous_retries_total", "Tries put off to a later time", read(&tally.retried))?;
    out.counter("nigh_broker_asynchronous_buried_total", "Calls given up", read(&tally.buried))?;
    out.counters("nigh_broker_callbacks_total", "Callers told of an outcome, or in vain", |samples| {
        samples.counter(&[("outcome", "taken")], read(&tally.callbacks))?;
        samples.counter(&[("outcome", "failed")], read(&tally.callbacks_failed))
    })?;
    let counts = *tally.counts.lock();
    out.gauges("nigh_broker_asynchronous_calls", "Calls accepted for later, by state", |samples| {
        let states = [("waiting", counts.waiting), ("taken", counts.taken), ("dead", counts.dead)];
        states.into_iter().try_for_each(|(state, count)| samples.gauge(&[("state", state)], count))
    })
}

fn write_triggers(tally: &TriggersTally, out: &mut Exposition<'_>) -> fmt::Result {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    out.counters("nigh_broker_triggered_total", "Messages of triggers, by what became of them", |samples| {
        samples.counter(&[("outcome", "accepted")], read(&tally.delivered))?;
        samples.counter(&[("outcome", "refused")], read(&tally.refused))
    })?;
    out.counter("nigh_broker_trigger_failures_total", "Times that a trigger's source failed", read(&tally.failures))
}
