//! Making the calls that were accepted: each is taken from the queue, tried, and settled.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nigh_proto::asynchronous::{Settled, Stored};
use nigh_proto::ingress::Handler as _;
use nigh_proto::{CallId, PlatformError, Reason};
use nigh_store::{StoreError, Taken};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::open::LEASE;
use super::rule::{Next, Patience, Tried, judge};
use super::{Asynchronous, AsynchronousConfig, Shelves, Tally, callback, input_of};
use crate::call::Broker;

/// Calls taken in one go, at most.
const TAKEN_AT_ONCE: usize = 64;
/// Callbacks under way at once, at most; beyond, calls keep their places until their callers are told.
const CALLBACKS_MAX: usize = 1024;
/// The wait after the store has failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How often a word to the store is said again that had no answer.
const SAID_AGAIN_MAX: u32 = 20;
/// How often the queue is looked at for those who watch, and payloads for ones that nobody knows.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const ORPHANS_EVERY: u32 = 120;

/// What becomes of an item that was taken.
#[derive(Debug)]
enum Step {
    Done,
    Later(Duration),
    Bury(String),
}

/// Makes calls until `stop`, then waits for those under way.
pub(crate) async fn work(asynchronous: Arc<Asynchronous>, broker: Arc<Broker>, stop: CancellationToken) {
    let Some(config) = asynchronous.config.clone() else { return };
    // It is set once the store is there.
    let is_there = async {
        while asynchronous.shelves.get().is_none() {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    };
    if stop.run_until_cancelled(is_there).await.is_none() {
        return;
    }
    let crew = Arc::new(Crew {
        places: Arc::new(Semaphore::new(config.calls_max.clamp(1, Semaphore::MAX_PERMITS))),
        callbacks: Arc::new(Semaphore::new(CALLBACKS_MAX)),
        asynchronous,
        broker,
        config,
    });
    let under_way = TaskTracker::new();
    tokio::select! {
        () = stop.cancelled() => {}
        () = crew.take_all(&under_way) => {}
        () = crew.look() => {}
    }
    under_way.close();
    under_way.wait().await;
}

/// All that making calls needs.
struct Crew {
    asynchronous: Arc<Asynchronous>,
    broker: Arc<Broker>,
    config: AsynchronousConfig,
    places: Arc<Semaphore>,
    callbacks: Arc<Semaphore>,
}

impl Crew {
    async fn take_all(self: &Arc<Self>, under_way: &TaskTracker) {
        let Some(shelves) = self.asynchronous.shelves.get() else { return };
        loop {
            // The semaphore is never closed.
            let Ok(first) = self.places.clone().acquire_owned().await else { return };
            let most = (1 + self.places.available_permits()).min(TAKEN_AT_ONCE);
            let taken = match shelves.queue.take(most).await {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(%error, "cannot take asynchronous calls");
                    drop(first);
                    tokio::time::sleep(AFTER_FAILURE).await;
                    continue;
                }
            };
            let mut first = Some(first);
            for taken in taken {
                let place = match first.take() {
                    Some(place) => place,
                    // Nobody else takes places, so there are as many as were counted.
                    None => match self.places.clone().acquire_owned().await {
                        Ok(place) => place,
                        Err(_) => return,
                    },
                };
                let crew = self.clone();
                under_way.spawn(async move { crew.bring_to_an_end(taken, place).await });
            }
        }
    }

    /// Keeps what is told to those who watch up to date, and cleans up.
    async fn look(&self) {
        let Some(shelves) = self.asynchronous.shelves.get() else { return };
        for round in 0u32.. {
            if let Ok(counts) = shelves.queue.counts().await {
                *self.asynchronous.tally.counts.lock() = counts;
            }
            if round.is_multiple_of(ORPHANS_EVERY)
                && let Err(error) = shelves.delete_orphans().await
            {
                tracing::debug!(%error, "cannot look for payloads that nobody knows");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes one call as far as it goes, under its lease all the while.
    async fn bring_to_an_end(&self, taken: Taken, place: OwnedSemaphorePermit) {
        let Some(shelves) = self.asynchronous.shelves.get() else { return };
        let step = {
            let step = self.step(shelves, &taken, place);
            tokio::pin!(step);
            loop {
                tokio::select! {
                    step = &mut step => break step,
                    () = tokio::time::sleep(LEASE / 4) => match shelves.queue.extend(&taken.lease).await {
                        Ok(()) => {}
                        Err(StoreError::LeaseLost) => {
                            tracing::warn!(id = %taken.id, "an asynchronous call was taken over while it ran here");
                            return;
                        }
                        // The next one may come in time.
                        Err(error) => tracing::debug!(id = %taken.id, %error, "cannot extend a lease"),
                    },
                }
            }
        };
        let id = taken.id.clone();
        let settled = match step {
            Step::Done => shelves.queue.ack(taken.lease).await,
            Step::Later(after) => {
                Tally::count(&self.asynchronous.tally.retried);
                shelves.queue.retry(taken.lease, after).await
            }
            Step::Bury(why) => {
                tracing::warn!(%id, why, "an asynchronous call was given up; it is among the dead letters");
                Tally::count(&self.asynchronous.tally.buried);
                shelves.queue.bury(taken.lease, &why).await
            }
        };
        if let Err(error) = settled {
            // Its lease lapses; what was kept of it says how far it had come.
            tracing::warn!(%id, %error, "what came of an asynchronous call could not be written down; it is looked at again");
        }
    }

    async fn step(&self, shelves: &Shelves, taken: &Taken, place: OwnedSemaphorePermit) -> Step {
        let stored = match Stored::read(&taken.item, self.broker.limits(), Instant::now()) {
            Ok(stored) => stored,
            Err(error) => return Step::Bury(error.to_string()),
        };
        let id = stored.acceptance.call.id.clone();
        let known = match shelves.results.get(&taken.id).await {
            Ok(Some(found)) => shelves.read(&id, &found.value).await,
            Ok(None) => match self.outcome(shelves, &stored, taken).await {
                Ok(settled) => self.keep(shelves, &id, settled).await,
                Err(after) => return Step::Later(after),
            },
            Err(error) => Err(super::told(error)),
        };
        // Nothing can be said of it for now; a result that was kept is found again.
        let Ok(settled) = known.inspect_err(|error| tracing::warn!(%id, %error, "cannot settle an asynchronous call"))
        else {
            return Step::Later(AFTER_FAILURE);
        };
        if let Some(to) = &stored.acceptance.callback {
            let Ok(_slot) = self.callbacks.acquire().await else { return Step::Later(AFTER_FAILURE) };
            // Others may run while the caller is told.
            drop(place);
            self.tell(to, &stored, &settled).await;
        }
        match settled {
            Err(error) => Step::Bury(format!("{}: {error}", error.reason.word())),
            Ok(_) => {
                if stored.payload_apart
                    && let Ok(name) = input_of(&id)
                    && let Err(error) = shelves.payloads.delete(&name).await
                {
                    tracing::debug!(%id, %error, "a payload is deleted later");
                }
                Step::Done
            }
        }
    }

    async fn tell(&self, to: &nigh_proto::Callback, stored: &Stored, settled: &Settled) {
        let tally = &self.asynchronous.tally;
        let connector = self.config.callback_connector();
        match callback::deliver(to, &stored.acceptance.call, settled, &connector).await {
            Ok(()) => Tally::count(&tally.callbacks),
            Err(why) => {
                Tally::count(&tally.callbacks_failed);
                tracing::warn!(id = %stored.acceptance.call.id, why, "the caller of an asynchronous call could not be told");
            }
        }
    }

    /// One try: an outcome, a failure for good, or the wait before the next one.
    async fn outcome(&self, shelves: &Shelves, stored: &Stored, taken: &Taken) -> Result<Settled, Duration> {
        let mut call = stored.acceptance.call.clone();
        let tried = Tried {
            retry_safe: call.retry_safe,
            tries: taken.attempt,
            // Since it was taken back, where it had been given up.
            age: SystemTime::now().duration_since(taken.enqueued).unwrap_or_default(),
        };
        let id = call.id.clone();
        let outcome = async {
            if stored.payload_apart {
                call.payload = shelves.payload(&input_of(&call.id)?).await?;
            }
            call.deadline = Instant::now() + stored.acceptance.timeout;
            self.broker.handle(call, Instant::now()).await
        };
        let error = match outcome.await {
            Ok(reply) => return Ok(Ok(reply)),
            Err(error) => error,
        };
        let patience = Patience { tries_max: self.config.tries_max, give_up_after: self.config.give_up_after };
        match judge(&error, tried, patience, rand::random()) {
            Next::Again(after) => {
                tracing::debug!(%id, tries = taken.attempt, ?after, %error, "an asynchronous call is tried again");
                Err(after)
            }
            Next::GiveUp => Ok(Err(explained(error, tried))),
        }
    }

    /// Keeps an outcome, saying it again while the store does not answer: the function has run.
    async fn keep(&self, shelves: &Shelves, id: &CallId, settled: Settled) -> Result<Settled, PlatformError> {
        for again in 0.. {
            match shelves.write(id, settled.clone()).await {
                Ok(()) => break,
                Err(error) if error.retry_helps() && again < SAID_AGAIN_MAX => {
                    tracing::debug!(%id, %error, "a result cannot be kept yet");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                Err(error) => return Err(super::told(error)),
            }
        }
        Tally::count(&self.asynchronous.tally.settled);
        // Nobody may be waiting.
        let _ = self.asynchronous.settled.send(id.clone());
        Ok(settled)
    }
}

/// The failure, with what made it one for good.
fn explained(mut error: PlatformError, tried: Tried) -> PlatformError {
    if !error.reason.certainly_not_started() && !tried.retry_safe && error.reason != Reason::Internal {
        error.message.push_str("; it may have run, and was not said to be safe to retry");
    }
    error
}
