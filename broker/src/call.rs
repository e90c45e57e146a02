//! One call's life: is there time left, pick a destination, pass it on, perhaps once more elsewhere, record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::ingress::Handler;
use nigh_proto::{Call, CallLimits, Exchange, Exchanged, Outcome, PlatformError, Reason, Reply};
use nigh_routing::{Observation, Pick};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::forward::Destination;
use crate::metrics::{Counted, Counts};
use crate::routes::Routes;
use crate::verdict::{Elsewhere, judge};

/// When a caller may come again that was refused because too many calls are under way.
const FULL_RETRY_AFTER: Duration = Duration::from_millis(100);

/// What every door leads to.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) routes: Arc<Routes>,
    places: Arc<Semaphore>,
    calls_max: usize,
    limits: CallLimits,
    counts: Counts,
    /// The drain is over: calls still under way end now.
    pub(crate) cut: CancellationToken,
}

impl Broker {
    pub(crate) fn new(routes: Arc<Routes>, config: &Config, cut: CancellationToken) -> Self {
        let calls_max = config.calls_max.min(Semaphore::MAX_PERMITS);
        Self {
            routes,
            places: Arc::new(Semaphore::new(calls_max)),
            calls_max,
            limits: config.limits.clone(),
            counts: Counts::default(),
            cut,
        }
    }

    pub(crate) fn limits(&self) -> &CallLimits {
        &self.limits
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

    /// A place for one call, held until it ends.
    ///
    /// # Errors
    /// [`Reason::OutOfBudget`] where all are taken.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, PlatformError> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            self.routes.meters().unknown().record_reason(Reason::OutOfBudget);
            let message = format!("{} calls are under way at this broker, all that it takes", self.calls_max);
            PlatformError::new(Reason::OutOfBudget, message).retry_after(FULL_RETRY_AFTER)
        })
    }

    /// Brings an admitted call to its outcome.
    pub(crate) async fn call(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        let mut counted = Counted::new(self.routes.meters().unknown(), arrived);
        let outcome = tokio::select! {
            // The drain's end comes once; the call is looked at first.
            biased;
            outcome = self.pass_on(call, arrived, &mut counted) => outcome,
            () = self.cut.cancelled() => Err(PlatformError::new(
                Reason::Disconnected,
                "the broker stopped before the call ended; it may have run, so retry where that does no harm",
            )),
        };
        counted.end(outcome.as_ref().map(|reply| &reply.outcome));
        outcome
    }

    async fn pass_on(&self, mut call: Call, arrived: Instant, counted: &mut Counted) -> Result<Reply, PlatformError> {
        self.count_hop(&mut call, Instant::now())?;
        let first = Attempt::new(&self.routes, &call, None).inspect_err(|_| {
            counted.belongs_to(&self.routes.meters().find(call.function.as_str()));
        })?;
        counted.belongs_to(first.pick.destination.meters());
        let mut sent = first.sent;
        let outcome = match first.make().await {
            Err(failed) if failed.allow_another(&call) => {
                match Attempt::new(&self.routes, &call, Some(&failed.destination)) {
                    Ok(second) => {
                        self.counts.count_retry();
                        sent = second.sent;
                        second.make().await.map_err(|failed| failed.error)
                    }
                    // Nobody else is there, so the first failure is the one to tell.
                    Err(_) => Err(failed.error),
                }
            }
            outcome => outcome.map_err(|failed| failed.error),
        };
        counted.spent(sent.saturating_duration_since(arrived));
        outcome.map(|reply| with_own_time(reply, arrived, sent))
    }

    /// Counts one more role that the call has passed, if it may and there is time.
    pub(crate) fn count_hop(&self, call: &mut Call, now: Instant) -> Result<(), PlatformError> {
        call.hops += 1;
        if call.hops > self.limits.hops_max {
            let message = format!("passed on {} times already; do brokers forward to each other?", call.hops - 1);
            return Err(PlatformError::new(Reason::LoopDetected, message));
        }
        if call.time_left(now).is_zero() {
            return Err(PlatformError::new(Reason::Late, "the deadline passed before the call could be passed on"));
        }
        Ok(())
    }
}

impl Handler for Broker {
    async fn handle(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        let _place = self.admit()?;
        self.call(call, arrived).await
    }

    async fn exchange(&self, exchange: Exchange, arrived: Instant) -> Result<Exchanged, PlatformError> {
        let place = self.admit()?;
        self.pass_exchange(exchange, place, arrived).await
    }
}

/// One try of a call at one destination. Ends with an observation in any case, also when its caller goes away.
struct Attempt<'a> {
    routes: &'a Routes,
    call: &'a Call,
    pick: Pick<Destination>,
    sent: Instant,
    observation: Option<Observation>,
}

/// A try that brought no reply.
struct Failed {
    error: PlatformError,
    destination: Destination,
    elsewhere: Elsewhere,
}

impl<'a> Attempt<'a> {
    fn new(routes: &'a Routes, call: &'a Call, exclude: Option<&Destination>) -> Result<Self, PlatformError> {
        let pick = routes.pick(&call.function, exclude)?;
        Ok(Self { routes, call, pick, sent: Instant::now(), observation: None })
    }

    async fn make(mut self) -> Result<Reply, Failed> {
        let outcome = self.pick.destination.invoke(self.call, self.sent).await;
        let elapsed = self.sent.elapsed();
        match outcome {
            Ok(reply) => {
                self.observation = Some(match reply.outcome {
                    Outcome::Answer { .. } => Observation::Answered { latency: elapsed },
                    Outcome::Error { .. } | Outcome::Estimate(_) => Observation::Unmeasured,
                });
                Ok(reply)
            }
            Err(failure) => {
                let verdict = judge(&failure, elapsed);
                self.observation = Some(verdict.observation);
                let destination = self.pick.destination.clone();
                tracing::debug!(
                    call = %self.call.id, function = %self.call.function, ?destination,
                    reason = failure.error.reason.word(), error = %failure.error, "no reply"
                );
                Err(Failed { error: failure.error, destination, elsewhere: verdict.elsewhere })
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let observation = self.observation.unwrap_or_else(|| Observation::Unfinished { elapsed: self.sent.elapsed() });
        self.routes.observe(&self.call.function, &self.pick, observation);
    }
}

impl Failed {
    fn allow_another(&self, call: &Call) -> bool {
        self.elsewhere.allows(call.retry_safe) && !call.time_left(Instant::now()).is_zero()
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
