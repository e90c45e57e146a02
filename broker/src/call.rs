//! One call's life: is there time left, pick a destination, pass it on, perhaps once more elsewhere, record.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use nigh_doors::Backend;
use nigh_proto::asynchronous::{Accepted, Settled};
use nigh_proto::ingress::Handler;
use nigh_proto::ingress::http::{HttpHandler, Triggered};
use nigh_proto::name::NAME_BYTES_MAX;
use nigh_proto::{
    Acceptance, Call, CallId, CallLimits, Exchange, Exchanged, FunctionName, Kind, NodeName, PlatformError, Priority,
    Reason, Reply, TriggerName,
};
use nigh_routing::estimate::Estimator;
use nigh_routing::{Demand, Policy, RetryBudget, Scope};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::asynchronous::Asynchronous;
use crate::attempt::{Answered, Attempt, Failed};
use crate::config::Config;
use crate::exchange::cut_off;
use crate::forward::Destination;
use crate::metrics::{Counted, Counts};
use crate::routes::Routes;
use crate::triggers::Triggers;
use crate::verdict::judge;

/// When a caller may come again that was refused because too many calls are under way: those of low priority later.
const FULL_RETRY_AFTER: Duration = Duration::from_millis(100);
const LOW_RETRY_AFTER: Duration = Duration::from_millis(400);
/// One place in so many is kept for calls of normal and high priority, and for calls of high priority.
const KEPT_FROM_LOW: usize = 5;
const KEPT_FROM_NORMAL: usize = 20;

/// What every door leads to.
#[derive(Debug)]
pub(crate) struct Broker {
    /// What it is called on the way of a call: its name, and what tells it from a namesake elsewhere.
    mark: NodeName,
    pub(crate) routes: Arc<Routes>,
    places: Arc<Semaphore>,
    calls_max: usize,
    limits: CallLimits,
    counts: Counts,
    /// For calls made twice.
    budget: Mutex<RetryBudget>,
    hedge_percent: Option<u32>,
    /// Destinations asked at once before each call, where the policy has them asked.
    pub(crate) probe_clients: Option<usize>,
    started: Instant,
    asynchronous: Arc<Asynchronous>,
    triggers: Arc<Triggers>,
    /// The drain is over: calls still under way end now.
    pub(crate) cut: CancellationToken,
}

impl Broker {
    pub(crate) fn new(routes: Arc<Routes>, config: &Config, cut: CancellationToken) -> Self {
        let calls_max = config.calls_max.min(Semaphore::MAX_PERMITS);
        let asynchronous = Arc::new(Asynchronous::new(config.asynchronous.clone(), routes.clone()));
        let (limits, name) = (config.limits.clone(), config.name.clone());
        let triggers = Arc::new(Triggers::new(asynchronous.clone(), routes.clone(), limits, name));
        Self {
            mark: mark(&config.name),
            routes: routes.clone(),
            places: Arc::new(Semaphore::new(calls_max)),
            calls_max,
            limits: config.limits.clone(),
            counts: Counts::default(),
            budget: Mutex::new(RetryBudget::new(config.retry_share)),
            hedge_percent: config.hedge_percent,
            probe_clients: match config.policy {
                Policy::Estimated(Estimator::Probe { clients }) => Some(clients),
                _ => None,
            },
            started: Instant::now(),
            asynchronous,
            triggers,
            cut,
        }
    }

    pub(crate) fn limits(&self) -> &CallLimits {
        &self.limits
    }

    /// Calls that run later.
    pub(crate) fn asynchronous(&self) -> &Arc<Asynchronous> {
        &self.asynchronous
    }

    /// What brings calls by itself.
    pub(crate) fn triggers(&self) -> &Arc<Triggers> {
        &self.triggers
    }

    /// Who serves what.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What is counted beside the calls of each function.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Calls under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls_max - self.places.available_permits()
    }

    /// A place for one call, held until it ends. The last places are kept for calls of higher priority, so that those of
    /// lower priority are shed first.
    ///
    /// # Errors
    /// [`Reason::OutOfBudget`] where none is left for its priority.
    pub(crate) fn admit(&self, priority: Priority) -> Result<OwnedSemaphorePermit, PlatformError> {
        let (kept, wait) = match priority {
            Priority::Low => (self.calls_max / KEPT_FROM_LOW, LOW_RETRY_AFTER),
            Priority::Normal => (self.calls_max / KEPT_FROM_NORMAL, FULL_RETRY_AFTER),
            Priority::High => (0, FULL_RETRY_AFTER),
        };
        let has_room = self.places.available_permits() > kept;
        has_room.then(|| self.places.clone().try_acquire_owned().ok()).flatten().ok_or_else(|| {
            self.routes.meters().unknown().record_reason(Reason::OutOfBudget);
            self.counts.count_shed();
            let taken = self.calls_max - kept;
            let message =
                format!("{taken} calls are under way at this broker, all that it takes at {priority} priority");
            PlatformError::new(Reason::OutOfBudget, message).retry_after(wait)
        })
    }

    /// Brings an admitted call to its outcome.
    pub(crate) async fn call(&self, mut call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        if let Some(flow) = call.flow.take() {
            return Box::pin(self.run_flow(call, &flow, arrived)).await;
        }
        let mut counted = Counted::new(&call, self.routes.meters().unknown(), arrived);
        let span = counted.span();
        let passing_on = self.pass_on(call, arrived, &mut counted).instrument(span);
        let outcome = tokio::select! {
            // The drain's end comes once; the call is looked at first.
            biased;
            outcome = passing_on => outcome,
            () = self.cut.cancelled() => Err(cut_off()),
        };
        counted.end(outcome.as_ref().map(|reply| &reply.outcome));
        outcome
    }

    async fn pass_on(&self, mut call: Call, arrived: Instant, counted: &mut Counted) -> Result<Reply, PlatformError> {
        let scope = self.count_hop(&mut call, Instant::now())?;
        let demand = Demand { scope, exclude: None, payload_bytes: call.payload.len() as u64 };
        if call.dry_run {
            return self.estimate(&call, demand, arrived, counted).await;
        }
        let first = self.first_attempt(&call, demand, counted).await?;
        let outcome = match self.hedge_after(&call) {
            None => first.make(&call).await,
            Some(after) => Box::pin(self.hedged(first, &call, demand, after)).await,
        };
        let outcome = match outcome {
            Err(failed) => {
                let second = self.another_after(&call, demand, failed)?;
                second.make(&call).await.map_err(|failed| failed.error)
            }
            Ok(answered) => Ok(answered),
        };
        outcome.map(|Answered { reply, sent }| {
            counted.spent(sent.saturating_duration_since(arrived));
            with_own_time(reply, arrived, sent)
        })
    }

    /// A call begins: the first try of it.
    ///
    /// # Errors
    /// Where nobody serves its function.
    pub(crate) async fn first_attempt(
        &self,
        call: &Call,
        demand: Demand<'_, Destination>,
        counted: &mut Counted,
    ) -> Result<Attempt, PlatformError> {
        // A share of all calls may be made twice.
        self.budget.lock().count(self.started.elapsed());
        let best = self.ask_around(call, demand.scope).await;
        let first = Attempt::first(&self.routes, call, demand, best.as_ref());
        match &first {
            Ok(first) => counted.belongs_to(first.destination().meters()),
            Err(_) => counted.belongs_to(&self.routes.meters().find(call.function.as_str())),
        }
        first
    }

    /// Has the destination that would answer soonest estimate a call. Nothing runs, so another may always be asked.
    async fn estimate(
        &self,
        call: &Call,
        demand: Demand<'_, Destination>,
        arrived: Instant,
        counted: &mut Counted,
    ) -> Result<Reply, PlatformError> {
        let mut failed: Option<(Destination, PlatformError)> = None;
        loop {
            let exclude = failed.as_ref().map(|(destination, _)| destination);
            let demand = Demand { exclude, ..demand };
            let destination = match (self.routes.cheapest(&call.function, demand), failed) {
                (Ok(destination), failed_before) => {
                    failed = failed_before;
                    destination
                }
                (Err(_), Some((_, error))) | (Err(error), None) => return Err(error),
            };
            counted.belongs_to(destination.meters());
            let sent = Instant::now();
            match destination.invoke(call, sent).await {
                Ok(reply) => return Ok(with_own_time(reply, arrived, sent)),
                Err(failure) => {
                    let may_ask_another = judge(&failure, sent.elapsed()).elsewhere.allows(true);
                    if failed.is_some() || !may_ask_another {
                        return Err(failure.error);
                    }
                    failed = Some((destination, failure.error));
                }
            }
        }
    }

    /// After which time a call is made a second time, if it may be.
    fn hedge_after(&self, call: &Call) -> Option<Duration> {
        let percent = self.hedge_percent.filter(|_| call.retry_safe)?;
        self.routes.percentile(&call.function, percent)
    }

    /// Makes a call a second time elsewhere where the first is slow; whichever is answered first counts, and the other is
    /// given up.
    async fn hedged(
        &self,
        first: Attempt,
        call: &Call,
        demand: Demand<'_, Destination>,
        after: Duration,
    ) -> Result<Answered, Failed> {
        let slow = first.destination().clone();
        let first = first.make(call);
        tokio::pin!(first);
        if let Ok(outcome) = tokio::time::timeout(after, &mut first).await {
            return outcome;
        }
        let second = match Attempt::another(&self.routes, call, demand, &slow) {
            Ok(second) if self.may_make_another() => second,
            Ok(_) | Err(_) => return first.await,
        };
        self.counts.count_hedge();
        let second = second.make(call);
        tokio::pin!(second);
        tokio::select! {
            outcome = &mut first => match outcome {
                Ok(answered) => Ok(answered),
                Err(_) => second.await,
            },
            outcome = &mut second => match outcome {
                Ok(answered) => Ok(answered),
                Err(_) => first.await,
            },
        }
    }

    /// One more try elsewhere after one that failed.
    ///
    /// # Errors
    /// The failure's own, where there may be no other try, or nobody else is there.
    pub(crate) fn another_after(
        &self,
        call: &Call,
        demand: Demand<'_, Destination>,
        failed: Failed,
    ) -> Result<Attempt, PlatformError> {
        if !failed.allow_another(call) || !self.may_make_another() {
            return Err(failed.error);
        }
        let second = Attempt::another(&self.routes, call, demand, &failed.destination).map_err(|_| failed.error)?;
        self.counts.count_retry();
        Ok(second)
    }

    /// Takes one more call out of the budget.
    fn may_make_another(&self) -> bool {
        let has_budget = self.budget.lock().spend();
        if !has_budget {
            self.counts.count_retry_refused();
        }
        has_budget
    }

    /// Marks a call as passed on by this broker, if it may be and there is time, and tells where it may go.
    ///
    /// # Errors
    /// [`Reason::LoopDetected`] where it has been here before, or has been passed on too often; [`Reason::Late`].
    pub(crate) fn count_hop(&self, call: &mut Call, now: Instant) -> Result<Scope, PlatformError> {
        let scope = if call.via.is_empty() { Scope::Overall } else { Scope::Final };
        call.hops += 1;
        if call.via.contains(&self.mark) {
            let way: Vec<_> = call.via.iter().chain([&self.mark]).map(NodeName::as_str).collect();
            let way = way.join(" → ");
            let message = format!("brokers forward {} to each other: {way}; `nigh routes` shows where", call.function);
            return Err(PlatformError::new(Reason::LoopDetected, message));
        }
        if call.hops > self.limits.hops_max {
            let message = format!("passed on {} times already; do brokers forward to each other?", call.hops - 1);
            return Err(PlatformError::new(Reason::LoopDetected, message));
        }
        if call.time_left(now).is_zero() {
            return Err(PlatformError::new(Reason::Late, "the deadline passed before the call could be passed on"));
        }
        call.via.push(self.mark.clone());
        Ok(scope)
    }
}

/// A name that no other broker marks calls with, even one that has the same name by default.
fn mark(name: &NodeName) -> NodeName {
    let name_bytes = name.as_str().len().min(NAME_BYTES_MAX - 9);
    let mark = format!("{}.{:08x}", &name.as_str()[..name_bytes], rand::random::<u32>());
    mark.parse().unwrap_or_else(|_| name.clone())
}

impl Handler for Broker {
    async fn handle(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        let _place = self.admit(call.priority)?;
        self.call(call, arrived).await
    }

    async fn accept(&self, acceptance: Acceptance, from: Option<IpAddr>) -> Result<Accepted, PlatformError> {
        self.asynchronous.accept(acceptance, from).await
    }

    async fn exchange(&self, exchange: Exchange, arrived: Instant) -> Result<Exchanged, PlatformError> {
        let place = self.admit(exchange.call.priority)?;
        self.pass_exchange(exchange, place, arrived).await
    }
}

impl HttpHandler for Broker {
    type Place = OwnedSemaphorePermit;

    fn kind(&self, function: &FunctionName) -> Option<Kind> {
        self.routes.kind(function)
    }

    fn admit(&self, priority: Priority) -> Result<OwnedSemaphorePermit, PlatformError> {
        self.admit(priority)
    }

    async fn handle_in(
        &self,
        place: OwnedSemaphorePermit,
        call: Call,
        arrived: Instant,
    ) -> Result<Reply, PlatformError> {
        let reply = self.call(call, arrived).await;
        drop(place);
        reply
    }

    async fn exchange_in(
        &self,
        place: OwnedSemaphorePermit,
        exchange: Exchange,
        arrived: Instant,
    ) -> Result<Exchanged, PlatformError> {
        self.pass_exchange(exchange, place, arrived).await
    }

    async fn accept_in(&self, place: OwnedSemaphorePermit, acceptance: Acceptance) -> Result<Accepted, PlatformError> {
        let accepted = self.asynchronous.accept(acceptance, None).await;
        drop(place);
        accepted
    }

    fn triggered_by(&self, path: &str) -> Option<Triggered> {
        self.triggers.triggered_by(path)
    }

    async fn accept_triggered(
        &self,
        place: OwnedSemaphorePermit,
        trigger: &TriggerName,
        acceptance: Acceptance,
    ) -> Result<Accepted, PlatformError> {
        let accepted = self.triggers.accept(trigger, acceptance).await;
        drop(place);
        accepted
    }

    async fn result(&self, id: &CallId, wait: Duration) -> Result<Option<Settled>, PlatformError> {
        self.asynchronous.result(id, wait).await
    }

    fn readiness(&self) -> Result<(), String> {
        self.routes.readiness()
    }

    fn answered(&self, status: StatusCode) {
        self.counts.http.count(status.as_u16());
    }
}

impl Backend for Broker {
    async fn check_known(&self, function: &FunctionName) -> Result<(), PlatformError> {
        self.routes.check_known(function)
    }
}

/// Adds the broker's own time, before `sent`, a try that failed included; and the network's: what passed since beyond the
/// time accounted for.
pub(crate) fn with_own_time(mut reply: Reply, arrived: Instant, sent: Instant) -> Reply {
    let accounted_for = reply.timing.total();
    reply.timing.network += sent.elapsed().saturating_sub(accounted_for);
    reply.timing.broker += sent.saturating_duration_since(arrived);
    reply
}
