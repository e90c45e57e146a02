//! A call of a function that runs elsewhere: is it taken, what is it answered there, and what does that say of its function?

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::ingress::Handler;
use nigh_proto::{Call, Estimate, Outcome, PlatformError, Reason, Reply, Timing};
use nigh_telemetry::outcome_word;
use tracing::Instrument as _;

use super::api::{Failure, Sign};
use super::turns::{Full, Place};
use super::{Function, RemoteComputer};
use crate::admission::{SAMPLES_MIN, late_waiting, retry_delay, stopping, too_busy};
use crate::metrics::Taking;
use crate::states;

impl Handler for RemoteComputer {
    async fn handle(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        let span = tracing::debug_span!("call", id = %call.id, function = %call.function, computer = %self.name);
        let reply = self.take(call, arrived).instrument(span.clone()).await;
        span.in_scope(|| match &reply {
            Ok(Reply { outcome, timing, .. }) => {
                let Timing { queue, run, .. } = timing;
                tracing::debug!(outcome = outcome_word(Ok(outcome)), ?queue, ?run, "ended");
            }
            Err(error) => tracing::debug!(reason = error.reason.word(), %error, "not brought to an outcome"),
        });
        reply
    }
}

impl RemoteComputer {
    async fn take(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        let Some(function) = self.functions().get(&call.function).cloned() else {
            let error = PlatformError::unknown_function(&call.function);
            self.meters.unknown().record_refused(error.reason);
            return Err(error);
        };
        let bytes = call.payload.len() as u64;
        if call.dry_run {
            self.check_payload(&call)?;
            self.check_gateway(&function, Instant::now())?;
            let estimate = function.measures.lock().estimator().estimate(bytes);
            let estimate = Estimate { queue: self.forecast(), ..estimate };
            return Ok(self.reply(&call, Outcome::Estimate(estimate), Timing::default()));
        }
        let refused = |error: &PlatformError| {
            function.measures.lock().record_refused();
            function.meters.record_refused(error.reason);
        };
        // Those that travel with the call are handed back as they were: what runs elsewhere has none.
        let session = states::pass_by(&self.states, &call, arrived).await.inspect_err(refused)?;
        let place = self.admit(&function, &call).inspect_err(refused)?;
        let reply = self.run(&function, call, place, arrived).await?;
        let Some(session) = session else { return Ok(reply) };
        let (outcome, states) = states::settle(Ok(reply.outcome), session).await;
        Ok(Reply { outcome: outcome?, states, ..reply })
    }

    /// A place for a call, if it has a chance.
    fn admit(&self, function: &Function, call: &Call) -> Result<Place<'_>, PlatformError> {
        let now = Instant::now();
        let left = call.time_left(now);
        if left.is_zero() {
            let message = "the deadline had passed when the call arrived; give it more time";
            return Err(PlatformError::new(Reason::Late, message));
        }
        self.check_payload(call)?;
        self.check_gateway(function, now)?;
        let is_known = function.measures.lock().estimator().expected(0).2 >= SAMPLES_MIN;
        let wait = self.forecast();
        if is_known && wait > left {
            return Err(too_busy(wait, left, Duration::MAX));
        }
        self.turns.enter(&function.counts, call.payload.len() as u64).map_err(|full| {
            let (reason, message) = match full {
                Full::Closed => return stopping(),
                Full::Queue => {
                    (Reason::QueueFull, "the computer's queue is full; try again later, or another computer")
                }
                Full::Payloads => (
                    Reason::OutOfBudget,
                    "the computer holds as many bytes of payload as it may; try again later, or another computer",
                ),
            };
            let next = self.service.lock().value() / self.turns.workers().max(1);
            PlatformError::new(reason, message).retry_after(retry_delay(next))
        })
    }

    fn check_payload(&self, call: &Call) -> Result<(), PlatformError> {
        let (bytes, bytes_max) = (call.payload.len(), self.api.payload_bytes_max());
        if bytes <= bytes_max {
            return Ok(());
        }
        let message = format!("a payload of {bytes} bytes; {} is where at most {bytes_max} are taken", call.function);
        Err(PlatformError::new(Reason::TooLarge, message))
    }

    /// Whether anybody is there who takes calls of a function.
    fn check_gateway(&self, function: &Function, now: Instant) -> Result<(), PlatformError> {
        self.gateway.admit(now)?;
        function.admit(now)
    }

    /// How long a call that comes now would wait for its turn.
    fn forecast(&self) -> Duration {
        self.service.lock().value().saturating_mul(self.turns.ahead()) / self.turns.workers().max(1)
    }

    async fn run(
        &self,
        function: &Arc<Function>,
        call: Call,
        mut place: Place<'_>,
        arrived: Instant,
    ) -> Result<Reply, PlatformError> {
        // Counted as cancelled where the caller goes away before the end.
        let counted = Taking::of(&function.meters);
        let ran = tokio::select! {
            ran = self.run_at_turn(function, &call, &mut place, arrived) => ran,
            () = self.ended.cancelled() => {
                let message = "the computer stopped before the call had ended; try another";
                Err(PlatformError::new(Reason::Disconnected, message))
            }
        };
        drop(place);
        let (outcome, timing) = match ran {
            Ok(ran) => ran,
            Err(error) => {
                counted.end(|meters| meters.record_ended(error.reason));
                return Err(error);
            }
        };
        counted.end(|meters| meters.record(Ok(&outcome), &timing));
        function.measures.lock().record(&outcome, call.payload.len() as u64, &timing, timing.run, Instant::now());
        self.service.lock().add(timing.run);
        Ok(self.reply(&call, outcome, timing))
    }

    async fn run_at_turn(
        &self,
        function: &Arc<Function>,
        call: &Call,
        place: &mut Place<'_>,
        arrived: Instant,
    ) -> Result<(Outcome, Timing), PlatformError> {
        if tokio::time::timeout_at(call.deadline.into(), place.turn()).await.is_err() {
            return Err(late_waiting());
        }
        let began = Instant::now();
        // What was learnt meanwhile of where it would go.
        self.check_gateway(function, began)?;
        let queue = began.saturating_duration_since(arrived);
        match self.api.invoke(&self.client, &function.target, call, self.answer_bytes_max).await {
            Ok(outcome) => {
                self.gateway.answered();
                Ok((outcome, Timing { queue, run: began.elapsed(), ..Timing::default() }))
            }
            Err(failure) => Err(self.learn_from(function, failure)),
        }
    }

    /// What a failure says of the system elsewhere is heeded by calls to come.
    fn learn_from(&self, function: &Function, failure: Failure) -> PlatformError {
        let Failure { error, sign } = failure;
        match sign {
            Sign::None | Sign::TooLarge => {}
            Sign::Unconnected => {
                if self.gateway.unconnected(&error.message, Instant::now()) {
                    tracing::warn!(url = self.gateway.url(), %error, "the gateway is down");
                    self.offer();
                    self.look_again.notify_one();
                }
                return error;
            }
            Sign::Gone => self.look_again.notify_one(),
            Sign::Busy => {
                let until = error.retry_after.and_then(|wait| Instant::now().checked_add(wait));
                *function.held_until.lock() = until;
            }
        }
        self.gateway.answered();
        error
    }

    fn reply(&self, call: &Call, outcome: Outcome, timing: Timing) -> Reply {
        Reply {
            outcome,
            computer: self.name.clone(),
            responder: None,
            version: None,
            call: call.id.clone(),
            hops: call.hops,
            load: self.load(),
            timing,
            steps: Vec::new(),
            states: Vec::new(),
        }
    }
}

impl Function {
    /// Refuses a call while the system wants to be left alone with this function.
    fn admit(&self, now: Instant) -> Result<(), PlatformError> {
        let mut held_until = self.held_until.lock();
        let left = held_until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero());
        let Some(left) = left else {
            *held_until = None;
            return Ok(());
        };
        let message = "the gateway takes no calls of the function for now; try again later, or another computer";
        Err(PlatformError::new(Reason::TooBusy, message).retry_after(left))
    }
}
