//! One try of a call at one destination, and what it says of the destination.

use std::time::{Duration, Instant};

use nigh_proto::{Call, Outcome, PlatformError, Reply, Timing};
use nigh_routing::{Demand, Observation, Pick, Report, Scope};

use crate::forward::Destination;
use crate::routes::Routes;
use crate::verdict::{Elsewhere, judge};

/// One try of a call at one destination. Ends with an observation in any case, also when its caller goes away.
pub(crate) struct Attempt<'a> {
    routes: &'a Routes,
    call: &'a Call,
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

impl<'a> Attempt<'a> {
    /// A first try: at the best destination, if that was found out, or else where the policy wants it.
    pub(crate) fn first(
        routes: &'a Routes,
        call: &'a Call,
        scope: Scope,
        best: Option<&Destination>,
    ) -> Result<Self, PlatformError> {
        let demand = Demand { scope, exclude: None, payload_bytes: call.payload.len() as u64 };
        let pick = match best.and_then(|best| routes.pick_one(&call.function, best, demand)) {
            Some(pick) => pick,
            None => routes.pick(&call.function, demand)?,
        };
        Ok(Self { routes, call, pick, sent: Instant::now(), observation: None })
    }

    /// A further try, elsewhere.
    pub(crate) fn another(
        routes: &'a Routes,
        call: &'a Call,
        scope: Scope,
        exclude: &Destination,
    ) -> Result<Self, PlatformError> {
        let demand = Demand { scope, exclude: Some(exclude), payload_bytes: call.payload.len() as u64 };
        let pick = routes.pick(&call.function, demand)?;
        Ok(Self { routes, call, pick, sent: Instant::now(), observation: None })
    }

    /// Where it goes.
    pub(crate) fn destination(&self) -> &Destination {
        &self.pick.destination
    }

    pub(crate) async fn make(mut self) -> Result<Answered, Failed> {
        tracing::debug!(destination = ?self.pick.destination, "passing on");
        let outcome = self.pick.destination.invoke(self.call, self.sent).await;
        let elapsed = self.sent.elapsed();
        match outcome {
            Ok(reply) => {
                self.observation = Some(match reply.outcome {
                    Outcome::Answer { .. } => {
                        let (latency, timing) = of_the_first(&reply, elapsed);
                        Observation::Answered { latency, report: report(&reply, timing) }
                    }
                    Outcome::Error { .. } | Outcome::Estimate(_) => Observation::Unmeasured,
                });
                Ok(Answered { reply, sent: self.sent })
            }
            Err(failure) => {
                let verdict = judge(&failure, elapsed);
                self.observation = Some(verdict.observation);
                let destination = self.pick.destination.clone();
                tracing::debug!(
                    ?destination, reason = failure.error.reason.word(), error = %failure.error, "no reply"
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
