//! A call at a modelled computer: is it taken, when has it ended, what is its answer?

use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_model::{Operation, Output, Refusal};
use nigh_proto::{Call, Estimate, Headers, Outcome, PlatformError, Reason, Spread, Timing, older};

use super::pace::{Place, Refused};
use super::{Function, Modelled};
use crate::admission::{late_waiting, payloads_full, queue_full, retry_delay, stopping, too_busy};
use crate::outcome::{late_running, stopped_running};

/// Waits for the end of a call that was taken, until its deadline.
pub(super) async fn await_end(
    function: &Function,
    call: &Call,
    mut place: Place,
    arrived: Instant,
) -> Result<(Outcome, Timing), PlatformError> {
    match tokio::time::timeout_at(call.deadline.into(), &mut place.done).await {
        Ok(Ok(done)) => {
            let timing = Timing { queue: done.wait(), run: done.run(), ..Timing::default() };
            let late = arrived.elapsed().saturating_sub(timing.at_computer());
            tracing::trace!(?late, "ended in the model before");
            Ok((function.answer(call), timing))
        }
        Ok(Err(_)) => Err(stopped_running()),
        Err(_) if place.is_running() => Err(late_running()),
        Err(_) => Err(late_waiting()),
    }
}

impl Modelled {
    /// What a call would take that came now.
    pub(super) fn foresee(&self, function: &Function, call: &Call) -> Result<Estimate, PlatformError> {
        let foreseen = self.pace.estimate(function.operation(call));
        let nigh_model::Estimate { wait: queue, run } =
            foreseen.map_err(|refused| self.refuse(function, call, refused, Duration::ZERO))?;
        let run_spread = Spread { p10: run, p90: run };
        Ok(Estimate { queue, run, run_spread, modelled: true, ..Estimate::default() })
    }

    /// Hands a call to the hardware.
    pub(super) fn submit(&self, function: &Function, call: &Call, left: Duration) -> Result<Place, PlatformError> {
        let place = self.pace.submit(function.operation(call), call.payload.len() as u64, left);
        place.map_err(|refused| self.refuse(function, call, refused, left))
    }

    /// What a caller is told whose call is not taken.
    fn refuse(&self, function: &Function, call: &Call, refused: Refused, left: Duration) -> PlatformError {
        let error = match refused {
            Refused::Stopping => return stopping(),
            Refused::WaitTooLong(wait) => return too_busy(wait, left, Duration::MAX),
            Refused::Model(refusal @ (Refusal::TooMuchMemory { .. } | Refusal::NoContainer { .. })) => {
                let message = format!("{}: {refusal}; send a smaller payload, or call another computer", call.function);
                return PlatformError::new(Reason::TooLarge, message);
            }
            Refused::Model(refusal @ Refusal::QueueFull { .. }) => {
                let message = format!("{}: {refusal}; try again later, or another computer", call.function);
                PlatformError::new(Reason::QueueFull, message)
            }
            Refused::QueueFull => queue_full(),
            Refused::PayloadsFull => payloads_full(),
        };
        let next = self.pace.next_end().max(function.tally.service.lock().value() / function.workers.max(1));
        error.retry_after(retry_delay(next))
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
