//! A call at a modelled computer: is it taken, when has it ended, what is its answer?

use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_model::{Operation, Output, Refusal};
use nigh_proto::ingress::Handler;
use nigh_proto::{Call, Estimate, Headers, Load, Outcome, PlatformError, Reason, Reply, Spread, Timing, older};
use nigh_telemetry::outcome_word;
use tracing::Instrument as _;

use super::pace::{Refused, Taken};
use super::{Function, Modelled};
use crate::admission::{late_waiting, retry_delay, stopping, too_busy};
use crate::metrics::Taking;
use crate::outcome::late_running;
use crate::states;

impl Handler for Modelled {
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

impl Modelled {
    async fn take(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        let Some(function) = self.functions.get(&call.function) else {
            let error = PlatformError::unknown_function(&call.function);
            self.meters.unknown().record_refused(error.reason);
            return Err(error);
        };
        let operation = function.operation(&call);
        if call.dry_run {
            let estimate = self.pace.estimate(operation);
            let nigh_model::Estimate { wait: queue, run } =
                estimate.map_err(|refused| self.refuse(function, &call, refused, Duration::ZERO))?;
            let run_spread = Spread { p10: run, p90: run };
            let estimate = Estimate { queue, run, run_spread, modelled: true, ..Estimate::default() };
            return Ok(self.reply(&call, Outcome::Estimate(estimate), Timing::default(), self.load_of(function)));
        }
        let session = states::pass_by(&self.states, &call, arrived).await.inspect_err(|error| {
            function.measures.lock().record_refused();
            function.meters.record_refused(error.reason);
        })?;
        let left = call.time_left(Instant::now());
        let taken = if left.is_zero() {
            let message = "the deadline had passed when the call arrived; give it more time";
            Err(PlatformError::new(Reason::Late, message))
        } else {
            let taken = self.pace.submit(operation, call.payload.len() as u64, left);
            taken.map_err(|refused| self.refuse(function, &call, refused, left))
        };
        let taken = taken.inspect_err(|error| {
            function.measures.lock().record_refused();
            function.meters.record_refused(error.reason);
        })?;
        let reply = self.await_end(function, call, taken, arrived).await?;
        let Some(session) = session else { return Ok(reply) };
        let (outcome, states) = states::settle(Ok(reply.outcome), session).await;
        Ok(Reply { outcome: outcome?, states, ..reply })
    }

    async fn await_end(
        &self,
        function: &Function,
        call: Call,
        mut taken: Taken,
        arrived: Instant,
    ) -> Result<Reply, PlatformError> {
        // Counted as cancelled where the caller goes away before the end.
        let counted = Taking::of(&function.meters);
        let done = match tokio::time::timeout_at(call.deadline.into(), &mut taken.done).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => {
                counted.end(|meters| meters.record_ended(Reason::Disconnected));
                let message = "the computer stopped before the call had ended; try another";
                return Err(PlatformError::new(Reason::Disconnected, message));
            }
            Err(_) => {
                counted.end(|meters| meters.record_ended(Reason::Late));
                return Err(if taken.is_running() { late_running() } else { late_waiting() });
            }
        };
        let timing = Timing { queue: done.wait(), run: done.run(), ..Timing::default() };
        let outcome = function.answer(&call);
        let load = self.load_of(function);
        counted.end(|meters| meters.record(Ok(&outcome), &timing));
        function.measures.lock().record(&outcome, call.payload.len() as u64, &timing, timing.run, Instant::now());
        function.service.lock().add(timing.run);
        tracing::trace!(late = ?arrived.elapsed().saturating_sub(timing.at_computer()), "ended in the model before");
        Ok(self.reply(&call, outcome, timing, load))
    }

    fn reply(&self, call: &Call, outcome: Outcome, timing: Timing, load: Load) -> Reply {
        Reply {
            outcome,
            computer: self.name.clone(),
            responder: None,
            version: None,
            call: call.id.clone(),
            hops: call.hops,
            load,
            timing,
            steps: Vec::new(),
            states: Vec::new(),
        }
    }

    /// What a caller is told whose call is not taken.
    fn refuse(&self, function: &Function, call: &Call, refused: Refused, left: Duration) -> PlatformError {
        let (reason, message) = match refused {
            Refused::Stopping => return stopping(),
            Refused::WaitTooLong(wait) => return too_busy(wait, left, Duration::MAX),
            Refused::Model(refusal @ (Refusal::TooMuchMemory { .. } | Refusal::NoContainer { .. })) => {
                let message = format!("{}: {refusal}; send a smaller payload, or call another computer", call.function);
                return PlatformError::new(Reason::TooLarge, message);
            }
            Refused::Model(refusal @ Refusal::QueueFull { .. }) => {
                let name = &call.function;
                let message = format!("{name}: {refusal}; try again later, or another computer");
                (Reason::QueueFull, message)
            }
            Refused::QueueFull => {
                let message = "the computer's queue is full; try again later, or another computer";
                (Reason::QueueFull, message.to_owned())
            }
            Refused::PayloadsFull => {
                let message =
                    "the computer holds as many bytes of payload as it may; try again later, or another computer";
                (Reason::OutOfBudget, message.to_owned())
            }
        };
        let next = self.pace.next_end().max(function.service.lock().value() / function.workers.max(1));
        PlatformError::new(reason, message).retry_after(retry_delay(next))
    }
}

impl Function {
    /// What a call asks of the hardware: that grows with all that it brings, so also where a caller of the older system sends two
    /// arguments.
    fn operation(&self, call: &Call) -> Operation {
        let text = call.headers.get(older::INPUT).map_or(0, older::text_bytes);
        let demand = self.requirement.of((call.payload.len() + text) as u64);
        Operation { container: self.container, demand }
    }

    fn answer(&self, call: &Call) -> Outcome {
        match &self.output {
            Output::CopyInput => {
                let text = call.headers.get(older::INPUT).map(|text| (older::OUTPUT.to_owned(), text.to_owned()));
                let headers = Headers::new(text.into_iter().collect()).unwrap_or_default();
                Outcome::Answer { payload: call.payload.clone(), headers }
            }
            Output::Fixed(value) => {
                Outcome::Answer { payload: Bytes::copy_from_slice(value.as_bytes()), headers: Headers::default() }
            }
        }
    }
}
