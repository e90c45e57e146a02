//! Calls that are accepted now and run later: nothing accepted is lost. A call is accepted once the store has it; [`work`] takes
//! it from there, makes it through the ordinary path, keeps what came of it and has the caller told ([`callback`]); [`rule`]
//! says what follows from a failure. A call is there until it has a result or is among the dead letters.
//!
//! After a crash of the broker, or where its lease lapsed, a call runs again: at least once is the promise.

mod callback;
mod config;
mod open;
mod rule;
mod work;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_proto::asynchronous::{Accepted, Settled, Stored, settled_from_stored, settled_to_stored};
use nigh_proto::{Acceptance, CallId, Callback, Outcome, PlatformError, Reason};
use nigh_store::{Bucket, Counts, Dead, Enqueued, Key, Objects, Queue, StoreError};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, broadcast};

use crate::routes::Routes;
use crate::triggers::TriggerShelves;

pub use config::AsynchronousConfig;
pub(crate) use open::open;
pub(crate) use work::work;

/// Bytes of a payload that is kept with its call or result; larger ones are objects of their own.
const INLINE_BYTES_MAX: usize = 256 << 10;
/// How long somebody who asks for a result waits, at most.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a result that another broker may bring is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Results whose ids a waiter may be behind before it looks by itself.
const SETTLED_BEHIND: usize = 1024;
/// When to ask again while the store is away.
const RETRY_AWAY: Duration = Duration::from_secs(1);
/// Dead letters told at once, at most.
const DEAD_TOLD_MAX: usize = 1000;

/// What a broker knows of calls that run later.
#[derive(Debug)]
pub(crate) struct Asynchronous {
    config: Option<AsynchronousConfig>,
    routes: Arc<Routes>,
    shelves: OnceCell<Shelves>,
    /// The ids of calls that this broker has brought to an outcome.
    settled: broadcast::Sender<CallId>,
    pub(crate) tally: Tally,
}

/// Where everything is kept.
#[derive(Debug)]
struct Shelves {
    queue: Arc<dyn Queue>,
    /// By call id.
    results: Arc<dyn Bucket>,
    /// Payloads that are large, by call id and `/in` or `/out`.
    payloads: Arc<dyn Objects>,
    triggers: TriggerShelves,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: AtomicU64,
    pub(crate) settled: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) buried: AtomicU64,
    pub(crate) callbacks: AtomicU64,
    pub(crate) callbacks_failed: AtomicU64,
    /// As of the last look.
    pub(crate) counts: Mutex<Counts>,
}

impl Tally {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Asynchronous {
    pub(crate) fn new(config: Option<AsynchronousConfig>, routes: Arc<Routes>) -> Self {
        let (settled, _) = broadcast::channel(SETTLED_BEHIND);
        Self { config, routes, shelves: OnceCell::new(), settled, tally: Tally::default() }
    }

    /// Whether calls that run later are offered at all.
    pub(crate) fn is_offered(&self) -> bool {
        self.config.is_some()
    }

    /// Accepts a call; `from` is where its caller is, if that is known.
    ///
    /// # Errors
    /// [`PlatformError`]; the call may be accepted all the same where the store does not answer, and the same request may be
    /// made again.
    pub(crate) async fn accept(&self, acceptance: Acceptance, from: Option<IpAddr>) -> Result<Accepted, PlatformError> {
        let (config, shelves) = self.shelves()?;
        let id = acceptance.call.id.clone();
        match &acceptance.call.flow {
            None => self.routes.check_known(&acceptance.call.function)?,
            Some(flow) => flow.steps().iter().try_for_each(|step| self.routes.check_known(&step.function))?,
        }
        if let Some(callback) = &acceptance.callback {
            callback::check_allowed(callback, &config.callback_hosts, from)?;
        }
        let key = key_of(&id)?;
        if shelves.results.get(&key).await.map_err(told)?.is_some() {
            return Ok(Accepted { id, known: true });
        }
        let is_apart = acceptance.call.payload.len() > INLINE_BYTES_MAX;
        if is_apart {
            if shelves.queue.standing(&key).await.map_err(told)?.is_some() {
                return Ok(Accepted { id, known: true });
            }
            shelves.payloads.put(&input_of(&id)?, acceptance.call.payload.clone()).await.map_err(told)?;
        }
        let queued = shelves.queue.enqueue(&key, acceptance.to_stored(is_apart)).await.map_err(told)?;
        let known = queued == Enqueued::Known;
        if !known {
            Tally::count(&self.tally.accepted);
            tracing::debug!(%id, function = %acceptance.call.function, "accepted");
        }
        Ok(Accepted { id, known })
    }

    /// What came of a call; nothing where it still waits or runs after this time.
    ///
    /// # Errors
    /// [`Reason::UnknownCall`], or what the store says.
    pub(crate) async fn result(&self, id: &CallId, wait: Duration) -> Result<Option<Settled>, PlatformError> {
        let (_, shelves) = self.shelves()?;
        let until = Instant::now() + wait.min(WAIT_MAX);
        let mut settled = self.settled.subscribe();
        loop {
            if let Some(known) = self.look(shelves, id).await? {
                return Ok(Some(known));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let is_this = async {
                loop {
                    match settled.recv().await {
                        Ok(other) if other != *id => {}
                        // Perhaps it was among those missed.
                        Ok(_) | Err(_) => return,
                    }
                }
            };
            let _ = tokio::time::timeout(left.min(LOOK_EVERY), is_this).await;
        }
    }

    /// An outcome that is kept; nothing where the call is still under way.
    async fn look(&self, shelves: &Shelves, id: &CallId) -> Result<Option<Settled>, PlatformError> {
        let key = key_of(id)?;
        // The queue first: a call leaves it only after its result is there.
        let standing = shelves.queue.standing(&key).await.map_err(told)?;
        if let Some(found) = shelves.results.get(&key).await.map_err(told)? {
            return shelves.read(id, &found.value).await.map(Some);
        }
        match standing {
            Some(nigh_store::Standing::Alive) => Ok(None),
            Some(nigh_store::Standing::Dead) => {
                let message = "the call was given up; `nigh queue dead` tells why, `nigh queue retry` tries again";
                Ok(Some(Err(PlatformError::new(Reason::Internal, message))))
            }
            None => {
                let message = format!("no asynchronous call {id} is known here; results are kept for a time only");
                Err(PlatformError::new(Reason::UnknownCall, message))
            }
        }
    }

    /// How full the queue is.
    pub(crate) async fn counts(&self) -> Result<Counts, PlatformError> {
        self.shelves()?.1.queue.counts().await.map_err(told)
    }

    /// Calls that were given up, with their functions' names.
    pub(crate) async fn dead(&self, most: usize) -> Result<Vec<(Dead, String)>, PlatformError> {
        let dead = self.shelves()?.1.queue.dead(most.min(DEAD_TOLD_MAX)).await.map_err(told)?;
        Ok(dead
            .into_iter()
            .map(|dead| {
                let function = Stored::function_of(&dead.item);
                (dead, function)
            })
            .collect())
    }

    /// Has a call that was given up tried again.
    pub(crate) async fn retry(&self, id: &CallId) -> Result<(), PlatformError> {
        let shelves = self.shelves()?.1;
        let key = key_of(id)?;
        if shelves.queue.standing(&key).await.map_err(told)? != Some(nigh_store::Standing::Dead) {
            return Err(not_dead(id));
        }
        // What was told of its failure would else be taken for its outcome.
        shelves.results.delete(&key, None).await.map_err(told)?;
        if shelves.queue.requeue(&key).await.map_err(told)? { Ok(()) } else { Err(not_dead(id)) }
    }

    /// Drops a call that was given up.
    pub(crate) async fn drop_dead(&self, id: &CallId) -> Result<(), PlatformError> {
        let shelves = self.shelves()?.1;
        if !shelves.queue.drop_dead(&key_of(id)?).await.map_err(told)? {
            return Err(not_dead(id));
        }
        shelves.payloads.delete(&input_of(id)?).await.map_err(told)
    }

    /// Whether an outcome may be posted there.
    ///
    /// # Errors
    /// [`Reason::NotAllowed`].
    pub(crate) fn check_callback(&self, callback: &Callback) -> Result<(), PlatformError> {
        callback::check_allowed(callback, &self.config()?.callback_hosts, None)
    }

    /// What its operator has set.
    ///
    /// # Errors
    /// [`Reason::NotAllowed`] where these calls are not offered.
    pub(crate) fn config(&self) -> Result<&AsynchronousConfig, PlatformError> {
        self.config.as_ref().ok_or_else(|| {
            let message = "this broker takes no asynchronous calls, as it has nowhere to keep them; start it with --data-dir or --store";
            PlatformError::new(Reason::NotAllowed, message)
        })
    }

    /// Where triggers are kept.
    ///
    /// # Errors
    /// Where these calls are not offered, or the store is away.
    pub(crate) fn trigger_shelves(&self) -> Result<&TriggerShelves, PlatformError> {
        self.shelves().map(|(_, shelves)| &shelves.triggers)
    }

    fn shelves(&self) -> Result<(&AsynchronousConfig, &Shelves), PlatformError> {
        let config = self.config()?;
        let shelves = self.shelves.get().ok_or_else(|| {
            let message = format!("the store of asynchronous calls ({}) cannot be reached yet", config.told_place());
            PlatformError::new(Reason::NotServing, message).retry_after(RETRY_AWAY)
        })?;
        Ok((config, shelves))
    }
}

impl Shelves {
    /// Keeps an outcome.
    async fn write(&self, id: &CallId, settled: Settled) -> Result<(), StoreError> {
        let (stored, apart) = settled_to_stored(settled, INLINE_BYTES_MAX);
        if let Some(payload) = apart {
            self.payloads.put(&output_key(id)?, payload).await?;
        }
        self.results.put(&id.as_str().parse()?, stored).await.map(drop)
    }

    /// An outcome as it was kept.
    async fn read(&self, id: &CallId, stored: &[u8]) -> Result<Settled, PlatformError> {
        let (mut settled, is_apart) = settled_from_stored(stored)?;
        if is_apart
            && let Ok(reply) = &mut settled
            && let Outcome::Answer { payload, .. } = &mut reply.outcome
        {
            *payload = self.payload(&output_key(id).map_err(told)?).await?;
        }
        Ok(settled)
    }

    /// A payload that is kept apart.
    async fn payload(&self, name: &Key) -> Result<Bytes, PlatformError> {
        let found = self.payloads.get(name).await.map_err(told)?;
        found.ok_or_else(|| {
            PlatformError::new(Reason::Internal, format!("the payload {name} is not in the store any more"))
        })
    }
}

fn not_dead(id: &CallId) -> PlatformError {
    PlatformError::new(Reason::UnknownCall, format!("no dead letter {id}; `nigh queue dead` lists those that are"))
}

fn key_of(id: &CallId) -> Result<Key, PlatformError> {
    id.as_str().parse().map_err(told)
}

/// Where a call's payload is, if it is large.
fn input_of(id: &CallId) -> Result<Key, PlatformError> {
    format!("{id}/in").parse().map_err(told)
}

/// Where an answer's payload is, if it is large.
fn output_key(id: &CallId) -> Result<Key, StoreError> {
    format!("{id}/out").parse()
}

/// What a caller is told of a failure of the store.
pub(crate) fn told(error: StoreError) -> PlatformError {
    let reason = match &error {
        StoreError::Full { .. } => Reason::QueueFull,
        StoreError::Unavailable(_) | StoreError::Conflict | StoreError::TooSlow => Reason::NotServing,
        StoreError::TooLarge { .. } => Reason::TooLarge,
        StoreError::Name(_) => Reason::Malformed,
        StoreError::Open { .. }
        | StoreError::InUse { .. }
        | StoreError::Damaged { .. }
        | StoreError::Version { .. }
        | StoreError::Failed(_)
        | StoreError::Refused(_)
        | StoreError::LeaseLost => Reason::Internal,
    };
    let told = PlatformError::new(reason, error.to_string());
    if error.retry_helps() { told.retry_after(RETRY_AWAY) } else { told }
}
