//! Making the calls of a workload when they are due, and telling of each how it ended.
//!
//! Calls of an open loop are paced by a thread of its own, since a runtime's timer is no finer than a millisecond; each call is
//! a task, so that none waits for another. Where too many are under way the next is not made, and counted: a client that let it
//! wait would hide what it is there to measure.

mod brokers;
mod closed;
mod http;
mod open;
mod record;
mod wrap;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nigh_client::Caller;
use nigh_proto::{Call, FunctionName, Headers, PlatformError, Priority, Reply};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::brokers::{BROKERS_MAX, Brokers, BrokersError};
pub use self::http::HttpCaller;
pub use self::record::Recorder;
pub use self::wrap::{InTurn, Keeping, Kept};
use crate::sample::{Ending, Sample};
use crate::workload::{Arrivals, Body, Due, Gaps, Payloads, Workload};

/// Something that calls can be made to.
pub trait Target: Send + Sync + 'static {
    /// Makes a call and waits for its outcome, no longer than its deadline.
    fn call(&self, call: Call) -> impl Future<Output = Result<Reply, PlatformError>> + Send;
}

impl Target for Caller {
    fn call(&self, call: Call) -> impl Future<Output = Result<Reply, PlatformError>> + Send {
        self.invoke(call)
    }
}

/// When a call is made in relation to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// When it is due, whatever became of others (open loop).
    Open,
    /// When it is due, or once its client has the outcome of the one before it; what is overdue is made up for.
    Serial,
    /// Once its client has the outcome of the one before it and has thought for a while (closed loop).
    Closed {
        /// How the times of thinking vary.
        gaps: Gaps,
        /// Their mean; zero for none.
        think: Duration,
    },
}

/// What waits until calls of an open loop are due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Timer {
    /// A thread of its own, exact to a tenth of a millisecond.
    #[default]
    Thread,
    /// The runtime, exact to a millisecond; its clock can be paused.
    Runtime,
}

/// What bounds a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Time that each call has.
    pub timeout: Duration,
    /// Calls under way at once, at most; in an open loop further ones are not made.
    pub in_flight_max: usize,
    /// Time at the beginning that is left out of the figures.
    pub warm_up: Duration,
    /// Time after the warm-up in which calls are made.
    pub duration: Option<Duration>,
    /// Calls to be made, at most.
    pub count: Option<u64>,
}

impl Bounds {
    /// When the run ends, if a time says so.
    pub fn horizon(&self) -> Option<Duration> {
        self.duration.map(|duration| self.warm_up + duration)
    }
}

/// What all calls of a run have in common.
#[derive(Debug, Clone, Default)]
pub struct Template {
    /// Their headers.
    pub headers: Headers,
    /// Estimates only.
    pub dry_run: bool,
    /// Running one twice does no harm.
    pub retry_safe: bool,
    /// Whether they give way to others.
    pub priority: Priority,
}

/// A whole run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which call is due when.
    pub workload: Workload,
    /// The functions, by place.
    pub functions: Vec<FunctionName>,
    /// What is sent.
    pub payloads: Payloads,
    /// How calls wait for each other.
    pub pacing: Pacing,
    /// What waits for the next call of an open loop.
    pub timer: Timer,
    /// What bounds the run.
    pub bounds: Bounds,
    /// What all calls have in common.
    pub template: Template,
}

impl Plan {
    /// Lets calls of a timetable go to whatever brokers there are, instead of those that it names.
    pub fn forget_brokers(&mut self) {
        if let Arrivals::Timetable(timetable) = &mut self.workload.arrivals {
            let timetable = Arc::make_mut(timetable);
            timetable.entries.iter_mut().for_each(|entry| entry.broker = None);
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Up to when calls were due, where it was not the last call that said so.
    pub horizon: Option<Duration>,
    /// Whether it was stopped before its time.
    pub stopped_early: bool,
}

/// Makes the calls of a plan, tells of each to `samples`, and ends when the last has ended. After `stop` no more are made.
pub async fn drive<T: Target>(
    plan: Plan,
    brokers: Brokers<T>,
    samples: mpsc::Sender<Sample>,
    stop: CancellationToken,
) -> Ended {
    let run = Arc::new(Run { plan, brokers, samples, stop, begin: Instant::now(), made: AtomicU64::new(0) });
    match run.plan.pacing {
        Pacing::Open => open::run(&run).await,
        Pacing::Serial => closed::serial(&run).await,
        Pacing::Closed { gaps, think } => closed::closed(&run, gaps, think).await,
    }
    let horizon = run.plan.bounds.horizon();
    let stopped_at = run.stop.is_cancelled().then(|| run.now());
    match stopped_at.filter(|at| horizon.is_none_or(|horizon| *at < horizon)) {
        Some(at) => Ended { horizon: Some(at), stopped_early: true },
        None => Ended { horizon, stopped_early: false },
    }
}

/// A run under way.
struct Run<T> {
    plan: Plan,
    brokers: Brokers<T>,
    samples: mpsc::Sender<Sample>,
    stop: CancellationToken,
    begin: Instant,
    /// Calls made or about to be, where their number is bounded.
    made: AtomicU64,
}

impl<T: Target> Run<T> {
    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Whether a call at this time still belongs to the run; counts it if so.
    fn takes(&self, at: Duration) -> bool {
        if self.stop.is_cancelled() || self.plan.bounds.horizon().is_some_and(|horizon| at >= horizon) {
            return false;
        }
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        self.plan.bounds.count.is_none_or(|count| made < count)
    }

    /// Makes a call and tells how it ended; `also` are the brokers that it goes to beside the first.
    async fn make(&self, due: Due, also: u64) {
        let place = usize::try_from(due.function).unwrap_or(usize::MAX);
        let Some(function) = self.plan.functions.get(place) else { return };
        let payload = self.plan.payloads.bytes(due.body);
        let request_bytes = payload.len();
        let mut call = Call::new(function.clone(), payload, self.plan.bounds.timeout);
        let Template { headers, dry_run, retry_safe, priority } = &self.plan.template;
        call.headers.clone_from(headers);
        (call.dry_run, call.retry_safe, call.priority) = (*dry_run, *retry_safe, *priority);
        let sent = self.now();
        let outcome = self.brokers.call(due.client, due.broker, also, call).await;
        let ended = self.now();
        self.tell(due, sent, ended, request_bytes, outcome.into()).await;
    }

    /// Tells of a call that was not made.
    async fn leave_out(&self, due: Due, why: Ending) {
        let now = self.now();
        let request_bytes = match due.body {
            Body::Size(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            Body::Given(_) | Body::Work(_) => 0,
        };
        self.tell(due, now, now, request_bytes, why).await;
    }

    async fn tell(&self, due: Due, sent: Duration, ended: Duration, request_bytes: usize, ending: Ending) {
        let Due { at, client, function, .. } = due;
        let sample = Sample { due: at, sent, ended, client, function, request_bytes, ending };
        // Nobody listens any more only where the whole run has been given up.
        let _ = self.samples.send(sample).await;
    }
}
