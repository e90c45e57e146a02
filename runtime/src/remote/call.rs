//! A call of a function that runs elsewhere: is it taken, what is it answered there, and what does that say of its function?

use std::time::{Duration, Instant};

use nigh_proto::{Call, Estimate, Outcome, PlatformError, Reason, Timing};

use super::api::{Failure, Sign};
use super::turns::{Full, Place};
use super::{Function, RemoteSystem};
use crate::admission::{SAMPLES_MIN, late_waiting, payloads_full, queue_full, retry_delay, stopping, too_busy};
use crate::outcome::stopped_running;

impl RemoteSystem {
    /// What a call would take that came now.
    pub(super) fn foresee(&self, function: &Function, call: &Call) -> Result<Estimate, PlatformError> {
        self.check_payload(call)?;
        self.check_gateway(function, Instant::now())?;
        let estimate = function.tally.measures.lock().estimator().estimate(call.payload.len() as u64);
        Ok(Estimate { queue: self.forecast(), ..estimate })
    }

    /// A place for a call, if it has a chance.
    pub(super) fn enter(&self, function: &Function, call: &Call, left: Duration) -> Result<Place<'_>, PlatformError> {
        self.check_payload(call)?;
        self.check_gateway(function, Instant::now())?;
        let is_known = function.tally.measures.lock().estimator().expected(0).samples >= SAMPLES_MIN;
        let wait = self.forecast();
        if is_known && wait > left {
            return Err(too_busy(wait, left, Duration::MAX));
        }
        self.turns.enter(&function.counts, call.payload.len() as u64).map_err(|full| {
            let error = match full {
                Full::Closed => return stopping(),
                Full::Queue => queue_full(),
                Full::Payloads => payloads_full(),
            };
            error.retry_after(retry_delay(self.service.lock().value() / self.turns.workers().max(1)))
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

    /// Brings a call to its outcome, unless the computer ends before.
    pub(super) async fn complete(
        &self,
        function: &Function,
        call: &Call,
        mut place: Place<'_>,
        arrived: Instant,
    ) -> Result<(Outcome, Timing), PlatformError> {
        let ran = tokio::select! {
            ran = self.run_at_turn(function, call, &mut place, arrived) => ran,
            () = self.ended.cancelled() => Err(stopped_running()),
        };
        if let Ok((_, timing)) = &ran {
            self.service.lock().add(timing.run);
        }
        ran
    }

    async fn run_at_turn(
        &self,
        function: &Function,
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
                    self.has_changed();
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
