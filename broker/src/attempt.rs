//! One try of a call at one destination, and what it says of the destination.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::exchange::RequestHead;
use nigh_proto::{Call, Exchanged, FunctionName, Outcome, PlatformError, Reply, Timing};
use nigh_routing::{Demand, Observation, Pick, Report};

use crate::forward::{Destination, Failure};
use crate::rewind::Rewound;
use crate::routes::Routes;
use crate::verdict::{Elsewhere, judge};

/// One try of a call at one destination. Ends with an observation in any case, also when its caller goes away.
pub(crate) struct Attempt {
    routes: Arc<Routes>,
    function: FunctionName,
    pick: Pick<Destination>,
    sent: Instant,
    observation: Option<Observation>,
}

/// A try that brought a reply.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    /// When the call was passed on.
    pub(crate) sent: Instant,
}

/// A try that brought no reply.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: PlatformError,
    pub(crate) destination: Destination,
    elsewhere: Elsewhere,
}

impl Attempt {
    /// A first try: at the best destination, if that was found out, or else where the policy wants it.
    pub(crate) fn first(
        routes: &Arc<Routes>,
        call: &Call,
        demand: Demand<'_, Destination>,
        best: Option<&Destination>,
    ) -> Result<Self, PlatformError> {
        match best.and_then(|best| routes.pick_one(&call.function, best, demand)) {
            Some(pick) => Ok(Self::at(routes, call, pick)),
            None => Ok(Self::at(routes, call, routes.pick(&call.function, demand)?)),
        }
    }

    /// A further try, elsewhere.
    pub(crate) fn another(
        routes: &Arc<Routes>,
        call: &Call,
        demand: Demand<'_, Destination>,
        exclude: &Destination,
    ) -> Result<Self, PlatformError> {
        let demand = Demand { exclude: Some(exclude), ..demand };
        Ok(Self::at(routes, call, routes.pick(&call.function, demand)?))
    }

    fn at(routes: &Arc<Routes>, call: &Call, pick: Pick<Destination>) -> Self {
        let function = call.function.clone();
        Self { routes: routes.clone(), function, pick, sent: Instant::now(), observation: None }
    }

    /// Where it goes.
    pub(crate) fn destination(&self) -> &Destination {
        &self.pick.destination
    }

    /// When the call was passed on.
    pub(crate) fn sent(&self) -> Instant {
        self.sent
    }

    /// Passes on a call that is answered as a whole.
    pub(crate) async fn make(mut self, call: &Call) -> Result<Answered, Failed> {
        tracing::debug!(destination = ?self.pick.destination, "passing on");
        let reply = match self.pick.destination.invoke(call, self.sent).await {
            Ok(reply) => reply,
            Err(failure) => return Err(self.failed(failure)),
        };
        self.observation = Some(match reply.outcome {
            Outcome::Answer { .. } => {
                let (latency, timing) = of_the_first(&reply, self.sent.elapsed());
                Observation::Answered { latency, report: report(&reply, timing) }
            }
            Outcome::Error { .. } | Outcome::Estimate(_) => Observation::Unmeasured,
        });
        Ok(Answered { reply, sent: self.sent })
    }

    /// Passes on a call whose bodies travel in parts, up to the head of its answer.
    pub(crate) async fn exchange(
        mut self,
        call: &Call,
        head: &RequestHead,
        body: Rewound,
    ) -> Result<(Exchanged, Self), Failed> {
        tracing::debug!(destination = ?self.pick.destination, "passing on");
        let exchanged = match self.pick.destination.exchange(call, head, body, self.sent).await {
            Ok(exchanged) => exchanged,
            Err(failure) => return Err(self.failed(failure)),
        };
        self.observation = Some(match exchanged {
            Exchanged::Answer(..) => Observation::answered(self.sent.elapsed()),
            Exchanged::Failed(_) => Observation::Unmeasured,
        });
        Ok((exchanged, self))
    }

    /// The answer whose head came is whole. How long that took is also its reader's doing, so its head's time stands.
    pub(crate) fn learn_of_the_end(&mut self, reply: &Reply) {
        if let (Some(Observation::Answered { latency, .. }), Outcome::Answer { .. }) =
            (self.observation, &reply.outcome)
        {
            let run = reply.timing.run.min(latency.saturating_sub(reply.timing.queue + reply.timing.init));
            let report = report(reply, Timing { run, ..reply.timing });
            self.observation = Some(Observation::Answered { latency, report });
        }
    }

    fn failed(mut self, failure: Failure) -> Failed {
        let verdict = judge(&failure, self.sent.elapsed());
        self.observation = Some(verdict.observation);
        let destination = self.pick.destination.clone();
        tracing::debug!(?destination, reason = failure.error.reason.word(), error = %failure.error, "no reply");
        Failed { error: failure.error, destination, elsewhere: verdict.elsewhere }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let observation = self.observation.unwrap_or_else(|| Observation::Unfinished { elapsed: self.sent.elapsed() });
        self.routes.observe(&self.function, &self.pick, observation);
    }
}

impl Failed {
    pub(crate) fn allow_another(&self, call: &Call) -> bool {
        self.elsewhere.allows(call.retry_safe) && !call.time_left(Instant::now()).is_zero()
    }
}

/// What the call's own function took, where others ran after it.
fn of_the_first(reply: &Reply, elapsed: Duration) -> (Duration, Timing) {
    match reply.steps.split_first() {
        None => (elapsed, reply.timing),
        Some((first, later)) => {
            let later: Duration = later.iter().map(|ran| ran.timing.total()).sum();
            (elapsed.saturating_sub(later), first.timing)
        }
    }
}

/// What a reply tells of the computer that ran the call.
fn report(reply: &Reply, timing: Timing) -> Report {
    let load = &reply.load;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what a percentage can be")]
    let load_percent = (0.5 + 100.0 * load.utilisation[0]).clamp(0.0, 100.0) as u32;
    Report {
        queue: timing.queue,
        run: timing.init + timing.run,
        running: load.running,
        queued: load.queued,
        workers: load.workers,
        service: load.service,
        load_percent,
    }
}
