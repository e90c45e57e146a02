//! Telling watchers: first a snapshot, then every change in order. Nobody waits for a slow watcher: one that falls behind
//! is cut off, opens its watch again and gets a new snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::Topics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::RegistryError;

/// Whether a watcher of these topics is to be told of this event.
pub(crate) fn concerns(topics: Topics, event: &WatchEvent) -> bool {
    match event {
        WatchEvent::Function(_) | WatchEvent::FunctionRemoved(_) => topics.functions,
        WatchEvent::Computer(_) | WatchEvent::ComputerRemoved(_) => topics.computers,
        WatchEvent::Broker(_) | WatchEvent::BrokerRemoved(_) | WatchEvent::Hierarchy(_) => topics.brokers,
        WatchEvent::Synced => true,
    }
}

/// Everyone who watches. The registry holds it beside what it publishes, under one lock, so that no change falls between
/// a snapshot and what follows it.
#[derive(Debug)]
pub(crate) struct Watchers {
    open: Vec<Watcher>,
    places: Arc<Semaphore>,
    watchers_max: usize,
    queue_max: usize,
}

#[derive(Debug)]
struct Watcher {
    topics: Topics,
    changes: mpsc::Sender<Arc<WatchEvent>>,
    cut_off: Arc<AtomicBool>,
}

impl Watchers {
    pub(crate) fn new(watchers_max: usize, queue_max: usize) -> Self {
        Self { open: Vec::new(), places: Arc::new(Semaphore::new(watchers_max)), watchers_max, queue_max }
    }

    /// Adds a watcher that has been told nothing but what `snapshot` will tell it.
    pub(crate) fn add(
        &mut self,
        topics: Topics,
        snapshot: Vec<Arc<WatchEvent>>,
    ) -> Result<Subscription, RegistryError> {
        // Those who left since the last change still stand in the list.
        self.open.retain(|watcher| !watcher.changes.is_closed());
        let place =
            self.places.clone().try_acquire_owned().map_err(|_| RegistryError::WatchersFull(self.watchers_max))?;
        let (sender, changes) = mpsc::channel(self.queue_max);
        let cut_off = Arc::new(AtomicBool::new(false));
        self.open.push(Watcher { topics, changes: sender, cut_off: cut_off.clone() });
        let snapshot = snapshot.into_iter();
        Ok(Subscription { snapshot, is_synced: false, changes, cut_off, queue_max: self.queue_max, _place: place })
    }

    /// How many watch.
    pub(crate) fn count(&self) -> usize {
        self.watchers_max - self.places.available_permits()
    }

    /// Tells everyone whom it concerns, without waiting.
    pub(crate) fn publish(&mut self, event: &Arc<WatchEvent>) {
        self.open.retain(|watcher| {
            if !concerns(watcher.topics, event) {
                return true;
            }
            match watcher.changes.try_send(event.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    watcher.cut_off.store(true, Ordering::Release);
                    tracing::warn!(queue = self.queue_max, "cut off a watcher that fell behind");
                    false
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }

    /// Ends all watches.
    pub(crate) fn end(&mut self) {
        self.open.clear();
    }
}

/// A watcher's end: the snapshot, [`WatchEvent::Synced`], and changes as they happen.
#[derive(Debug)]
pub(crate) struct Subscription {
    snapshot: std::vec::IntoIter<Arc<WatchEvent>>,
    is_synced: bool,
    changes: mpsc::Receiver<Arc<WatchEvent>>,
    cut_off: Arc<AtomicBool>,
    queue_max: usize,
    _place: OwnedSemaphorePermit,
}

impl Subscription {
    /// The next event; `None` once the controller stops.
    ///
    /// # Errors
    /// [`RegistryError::TooSlow`]: cut off; nothing follows.
    pub(crate) async fn next(&mut self) -> Option<Result<Arc<WatchEvent>, RegistryError>> {
        if let Some(event) = self.snapshot.next() {
            return Some(Ok(event));
        }
        if !self.is_synced {
            self.is_synced = true;
            return Some(Ok(Arc::new(WatchEvent::Synced)));
        }
        // What is queued still is no longer of use to one who has to begin anew.
        let event = if self.cut_off.load(Ordering::Acquire) { None } else { self.changes.recv().await };
        match event {
            Some(event) => Some(Ok(event)),
            None if self.cut_off.swap(false, Ordering::AcqRel) => {
                self.changes.close();
                while self.changes.try_recv().is_ok() {}
                Some(Err(RegistryError::TooSlow(self.queue_max)))
            }
            None => None,
        }
    }
}
