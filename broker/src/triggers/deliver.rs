//! From a message to a call that the store has. What cannot be accepted for now is held, and so is all that comes after it at
//! the source; what can never be a call is refused, counted, and done with.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_proto::asynchronous::Accepted;
use nigh_proto::ingress::http::id_of;
use nigh_proto::trigger::State;
use nigh_proto::{Acceptance, Call, CallId, Callback, Headers, PlatformError, Reason, TriggerName};

use super::{Active, Triggers};

/// Waits before a message is offered again that could not be accepted.
const HOLD_MIN: Duration = Duration::from_millis(100);
const HOLD_MAX: Duration = Duration::from_secs(5);
/// The header that names the trigger.
const TRIGGER: &str = "trigger";

/// What a source brings.
#[derive(Debug)]
pub(super) struct Message {
    /// What tells it from others and is the same when it comes again; without it each time is another message.
    pub(super) id: Option<String>,
    pub(super) payload: Bytes,
    /// What the source says beside it.
    pub(super) headers: Vec<(String, String)>,
}

impl Triggers {
    /// Offers a message until the store has its call, however long that takes; its id.
    ///
    /// # Errors
    /// Where it can never be a call.
    pub(super) async fn deliver(&self, active: &Active, message: Message) -> Result<CallId, PlatformError> {
        active.take_turn().await;
        let acceptance = self.acceptance(active, message).inspect_err(|error| self.refused(active, error))?;
        let mut wait = HOLD_MIN;
        loop {
            match self.asynchronous.accept(acceptance.clone(), None).await {
                Ok(accepted) => {
                    active.record.is(State::Listening);
                    self.delivered(active, &accepted);
                    return Ok(accepted.id);
                }
                Err(error) if is_hopeless(&error) => {
                    self.refused(active, &error);
                    return Err(error);
                }
                Err(error) => active.record.failed(&error.message, State::Holding),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(HOLD_MAX);
        }
    }

    /// A request at the door has become a call.
    pub(crate) async fn accept(&self, name: &TriggerName, acceptance: Acceptance) -> Result<Accepted, PlatformError> {
        let http = self.http.load();
        let active = http.values().find(|active| active.definition.trigger.name == *name).cloned();
        let Some(active) = active else { return Err(unknown(name)) };
        if let Err(wait) = active.rate.lock().take(Instant::now()) {
            let message = format!("the trigger {name} takes no more requests per second; raise its --rate");
            return Err(PlatformError::new(Reason::OutOfBudget, message).retry_after(wait));
        }
        let accepted = self.asynchronous.accept(acceptance, None).await.inspect_err(|error| {
            if is_hopeless(error) {
                self.refused(&active, error);
            } else {
                active.record.failed(&error.message, State::Listening);
            }
        })?;
        self.delivered(&active, &accepted);
        Ok(accepted)
    }

    fn acceptance(&self, active: &Active, message: Message) -> Result<Acceptance, PlatformError> {
        let trigger = &active.definition.trigger;
        let bytes_max = self.limits.payload_bytes_max;
        if message.payload.len() > bytes_max {
            let message = format!("a message of {} bytes; at most {bytes_max} are taken", message.payload.len());
            return Err(PlatformError::new(Reason::TooLarge, message));
        }
        let timeout = self.limits.time(trigger.timeout);
        let mut call = Call::new(trigger.function.clone(), message.payload, timeout);
        if let Some(said) = message.id {
            call.id = id_of(&active.definition.id, &said)?;
        }
        (call.retry_safe, call.priority) = (trigger.retry_safe, trigger.priority);
        let own = [(TRIGGER.to_owned(), trigger.name.to_string())].into_iter();
        let own = own.chain(trigger.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        call.headers = Headers::new(own.chain(message.headers).collect())?;
        Acceptance { call, timeout, callback: trigger.callback.clone().map(Callback::Http) }.checked()
    }

    fn delivered(&self, active: &Active, accepted: &Accepted) {
        // One that came again has been counted.
        if !accepted.known {
            self.tally.delivered.fetch_add(1, Ordering::Relaxed);
            active.record.delivered();
        }
    }

    /// Messages that are no calls and never will be.
    pub(super) fn refused(&self, active: &Active, error: &PlatformError) {
        self.refused_many(active, 1, &error.message);
    }

    pub(super) fn refused_many(&self, active: &Active, messages: u64, why: &str) {
        self.tally.refused.fetch_add(messages, Ordering::Relaxed);
        active.record.refused(messages, why);
    }
}

pub(super) fn unknown(name: &TriggerName) -> PlatformError {
    PlatformError::new(
        Reason::UnknownTrigger,
        format!("no trigger {name} is there any more; `nigh trigger ls` lists those there are"),
    )
}

/// Whether a message will be refused however often it is offered.
fn is_hopeless(error: &PlatformError) -> bool {
    matches!(error.reason, Reason::Malformed | Reason::TooLarge)
}

impl Active {
    /// Waits until one more message is within the trigger's rate.
    async fn take_turn(&self) {
        loop {
            let taken = self.rate.lock().take(Instant::now());
            let Err(wait) = taken else { return };
            tokio::time::sleep(wait).await;
        }
    }
}

/// How many messages may come: so many in each second, and no more at once.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    left: f64,
    counted: Option<Instant>,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, left: per_second, counted: None }
    }

    /// Takes one, or says how long there will be none.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = self.counted.map_or(Duration::ZERO, |counted| now.saturating_duration_since(counted));
        self.counted = Some(now);
        self.left = (self.left + passed.as_secs_f64() * self.per_second).min(self.per_second);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_come_than_the_rate_allows() {
        let (mut rate, start) = (Rate::new(10), Instant::now());
        let mut taken = 0;
        for ms in 0..3000 {
            taken += u32::from(rate.take(start + Duration::from_millis(ms)).is_ok());
        }
        // A second's worth at once, then three seconds' worth.
        assert!((39..=40).contains(&taken), "{taken}");
        let wait = Rate { per_second: 10.0, left: 0.0, counted: None }.take(start).unwrap_err();
        assert!((wait.as_secs_f64() - 0.1).abs() < 1e-6, "{wait:?}");
    }
}
