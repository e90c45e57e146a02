//! A computer in front of something else that runs its functions: hardware that is modelled, or another system. It brings them
//! itself, so that nothing is deployed to it; what such a [`Backend`] has to say differs, all else is here.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::ingress::Handler;
use nigh_proto::membership::Node;
use nigh_proto::{
    Call, Endpoint, Estimate, FunctionName, Kind, Labels, Load, NodeName, Outcome, PlatformError, Reason, Reply, Timing,
};
use nigh_state::Keeper;
use nigh_telemetry::{Exposition, HttpResponses, PerFunction};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::admission::late_arriving;
use crate::computing::{Computing, FunctionStatus};
use crate::config::Config;
use crate::measure::{Mean, Measures};
use crate::metrics::{self, Meters};
use crate::{span, states};

/// What runs the functions that a computer brings.
pub(crate) trait Backend: Send + Sync + 'static {
    /// It tells what hardware would do that is not there.
    const IS_MODELLED: bool = false;

    /// What is known of one function.
    type Function: AsRef<Tally> + Send + Sync;
    /// The place of a call that was taken; dropped, it is given up.
    type Place<'a>: Send
    where
        Self: 'a;

    /// One function.
    fn function(&self, name: &FunctionName) -> Option<Arc<Self::Function>>;

    /// All functions, whether or not they can be called right now.
    fn functions(&self) -> Vec<(FunctionName, Arc<Self::Function>)>;

    /// What is counted of calls.
    fn meters(&self) -> &PerFunction<Meters>;

    /// What a call would take.
    fn estimate(&self, function: &Self::Function, call: &Call) -> Result<Estimate, PlatformError>;

    /// A place for a call that has so much time left, if it has a chance.
    fn admit(&self, function: &Self::Function, call: &Call, left: Duration) -> Result<Self::Place<'_>, PlatformError>;

    /// Brings a call to its outcome, until its deadline.
    fn run<'a>(
        &'a self,
        function: &'a Self::Function,
        call: &'a Call,
        place: Self::Place<'a>,
        arrived: Instant,
    ) -> impl Future<Output = Result<(Outcome, Timing), PlatformError>> + Send;

    /// How busy all of it is.
    fn load(&self) -> Load;

    /// How busy what serves one function is.
    fn load_of(&self, _function: &Self::Function) -> Load {
        self.load()
    }

    /// How many calls of a function run and wait.
    fn counts(&self, function: &Self::Function) -> (u32, u32);

    /// By name, the share of each processor that was busy in the last second.
    fn processors(&self) -> Vec<(String, f32)>;

    /// Whether calls have a chance; else why not.
    fn readiness(&self) -> Result<(), String>;

    /// The functions to be announced.
    fn offered(&self) -> Vec<FunctionName>;

    /// Told whenever these may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Writes what there is to watch of it alone.
    fn write_metrics(&self, out: &mut Exposition<'_>) -> fmt::Result;

    /// Takes no more calls; those that wait or run go on.
    fn close(&self);

    /// Calls that wait or run.
    fn under_way(&self) -> usize;

    /// Ends everything at once.
    fn end(&self);
}

/// What is remembered of the calls of one function.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) meters: Arc<Meters>,
    pub(crate) measures: Mutex<Measures>,
    /// Mean time of a call.
    pub(crate) service: Mutex<Mean>,
}

impl Tally {
    pub(crate) fn new(meters: Arc<Meters>) -> Self {
        Self { meters, ..Self::default() }
    }

    fn refused(&self, error: &PlatformError) {
        self.measures.lock().record_refused();
        self.meters.record_refused(error.reason);
    }
}

/// One call that was taken, counted once: as cancelled where its caller goes away before it ends.
struct Counted<'a>(Option<&'a Tally>);

impl Counted<'_> {
    fn end(mut self, replied: Result<&Reply, &PlatformError>, payload_bytes: u64) {
        let Some(tally) = self.0.take() else { return };
        match replied {
            Ok(Reply { outcome, timing, .. }) => {
                tally.meters.record(Ok(outcome), timing);
                tally.measures.lock().record(outcome, payload_bytes, timing, timing.run, Instant::now());
                tally.service.lock().add(timing.run);
            }
            Err(error) => tally.meters.record_ended(error.reason),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(tally) = self.0 {
            tally.meters.record_ended(Reason::Cancelled);
        }
    }
}

/// A computer in front of a backend. Dropping it ends all its calls.
pub(crate) struct Front<B: Backend> {
    name: NodeName,
    /// What its operator says of it.
    labels: Labels,
    /// The states that it holds.
    states: Arc<Keeper>,
    http: HttpResponses,
    backend: Arc<B>,
}

impl<B: Backend> Front<B> {
    pub(crate) fn new(config: &Config, backend: Arc<B>) -> Arc<Self> {
        let computer = Arc::new(Self {
            name: config.name.clone(),
            labels: config.labels.clone(),
            states: states::keeper(config),
            http: HttpResponses::default(),
            backend,
        });
        metrics::describe(&config.telemetry, &computer, Self::write_metrics);
        computer
    }

    async fn take(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        let Some(function) = self.backend.function(&call.function) else {
            let error = PlatformError::unknown_function(&call.function);
            self.backend.meters().unknown().record_refused(error.reason);
            return Err(error);
        };
        if call.dry_run {
            let estimate = self.backend.estimate(&function, &call)?;
            return Ok(self.reply(&function, &call, Outcome::Estimate(estimate), Timing::default()));
        }
        let tally = (*function).as_ref();
        let refused = |error: &PlatformError| tally.refused(error);
        // Those that travel with the call are handed back as they were: what runs behind a front has none.
        let session = states::pass_by(&self.states, &call, arrived).await.inspect_err(refused)?;
        let place = self.admit(&function, &call).inspect_err(refused)?;
        let counted = Counted(Some(tally));
        let ran = self.backend.run(&function, &call, place, arrived).await;
        // What its reply says of the load is without it.
        let replied = ran.map(|(outcome, timing)| self.reply(&function, &call, outcome, timing));
        counted.end(replied.as_ref(), call.payload.len() as u64);
        let reply = replied?;
        let Some(session) = session else { return Ok(reply) };
        let (outcome, states) = states::settle(Ok(reply.outcome), session).await;
        Ok(Reply { outcome: outcome?, states, ..reply })
    }

    fn admit(&self, function: &B::Function, call: &Call) -> Result<B::Place<'_>, PlatformError> {
        match call.time_left(Instant::now()) {
            Duration::ZERO => Err(late_arriving()),
            left => self.backend.admit(function, call, left),
        }
    }

    fn reply(&self, function: &B::Function, call: &Call, outcome: Outcome, timing: Timing) -> Reply {
        let reply = Reply::new(outcome, self.name.clone(), call.id.clone());
        Reply { hops: call.hops, load: self.backend.load_of(function), timing, ..reply }
    }

    fn write_metrics(&self, out: &mut Exposition<'_>) -> fmt::Result {
        let (backend, functions) = (&*self.backend, self.backend.functions());
        metrics::write_calls(backend.meters(), out)?;
        out.gauge("nigh_computer_functions", "Functions ready to be called", functions.len())?;
        let counts = functions.into_iter().map(|(name, function)| (name, backend.counts(&function)));
        metrics::write_counts(backend.meters(), counts, out)?;
        metrics::write_load(&backend.load(), out)?;
        self.http.write("nigh_computer_http_responses_total", out)?;
        backend.write_metrics(out)
    }
}

impl<B: Backend> Handler for Front<B> {
    async fn handle(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        span::around(&self.name, call, |call| self.take(call, arrived)).await
    }
}

impl<B: Backend> Computing for Front<B> {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn states(&self) -> &Arc<Keeper> {
        &self.states
    }

    fn http_responses(&self) -> &HttpResponses {
        &self.http
    }

    fn readiness(&self) -> Result<(), String> {
        self.backend.readiness()
    }

    fn kind(&self, function: &FunctionName) -> Option<Kind> {
        self.backend.function(function).is_some().then_some(Kind::Native)
    }

    fn load(&self) -> Load {
        self.backend.load()
    }

    fn processors(&self) -> Vec<(String, f32)> {
        self.backend.processors()
    }

    fn function_statuses(&self) -> Vec<FunctionStatus> {
        let now = Instant::now();
        let status = |(name, function): (FunctionName, Arc<B::Function>)| {
            let (running, queued) = self.backend.counts(&function);
            let summary = (*function).as_ref().measures.lock().summary(now);
            FunctionStatus { name, version: None, summary, running, queued, held_back: false }
        };
        self.backend.functions().into_iter().map(status).collect()
    }

    fn is_modelled(&self) -> bool {
        B::IS_MODELLED
    }

    fn node(&self, endpoint: Endpoint) -> Option<Node> {
        // Without functions of its own it would count among those that run what is deployed.
        let own_functions = Some(self.backend.offered()).filter(|offered| !offered.is_empty())?;
        Some(Node::Computer(nigh_proto::Computer {
            name: self.name.clone(),
            endpoint,
            ready: Vec::new(),
            problems: Vec::new(),
            workers: self.backend.load().workers,
            directories: Vec::new(),
            own_functions,
            older: false,
            labels: self.labels.clone(),
        }))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.backend.changes()
    }

    fn close(&self) {
        self.backend.close();
    }

    fn under_way(&self) -> usize {
        self.backend.under_way()
    }

    fn end(&self) {
        self.backend.end();
    }
}

impl<B: Backend> Drop for Front<B> {
    fn drop(&mut self) {
        self.backend.end();
    }
}

impl<B: Backend> fmt::Debug for Front<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("name", &self.name).finish_non_exhaustive()
    }
}
