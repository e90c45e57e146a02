//! The states that a computer keeps: read and written here, each used by one call at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nigh_proto::{ApplicationName, Endpoint, NodeName, StateId};
use nigh_store::{Bucket, BucketSettings, Place, Revision, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, OwnedMutexGuard};
use tokio::time::Instant;

use crate::config::Config;
use crate::directory::{Directory, Peers};
use crate::error::StateError;
use crate::lease::Lease;
use crate::record::{Record, Standing, id_of, key_of};

/// The bucket of states.
const BUCKET: &str = "states";
/// The file of a store that is gone with the process.
const FILE: &str = "states.redb";
/// States known in memory; beyond, those that no call uses are forgotten and read again when they are needed.
const KNOWN_MAX: usize = 1024;
/// Bytes of a state that stays in memory between calls.
pub(crate) const KNOWN_BYTES_MAX: usize = 64 << 10;

/// Keeps states. What it needs on disk is opened when it is first used.
#[derive(Debug)]
pub struct Keeper {
    pub(crate) config: Config,
    /// Of this computer.
    pub(crate) name: NodeName,
    /// Where others reach this computer.
    endpoint: OnceLock<Endpoint>,
    /// Who holds which state; without one, this computer holds them all.
    directory: Option<Arc<dyn Directory>>,
    pub(crate) peers: Arc<dyn Peers>,
    shelf: OnceCell<Shelf>,
    slots: Mutex<HashMap<StateId, Arc<Slot>>>,
}

/// Where states are.
#[derive(Debug)]
struct Shelf {
    /// Those that this computer holds.
    own: Arc<dyn Bucket>,
    /// Those that all computers share, where they do.
    shared: Option<Arc<dyn Bucket>>,
    _stores: Vec<Arc<dyn Store>>,
    _folder: Option<tempfile::TempDir>,
}

/// The place of one state in memory.
#[derive(Debug)]
struct Slot {
    waiting: AtomicUsize,
    kept: Arc<tokio::sync::Mutex<Kept>>,
}

/// One state, to be used by whoever has it locked.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) id: StateId,
    /// As it is on disk; nothing where that has to be looked up.
    pub(crate) known: Option<Known>,
}

/// What is on disk of a state.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) record: Option<Record>,
    pub(crate) revision: Option<Revision>,
}

/// A state, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Which.
    pub id: StateId,
    /// Changes of its content so far.
    pub version: u64,
    /// Bytes of its content.
    pub bytes: usize,
    /// Held here; otherwise it is on its way.
    pub is_held: bool,
    /// All computers share the store that it is in.
    pub is_shared: bool,
}

/// Counts a call among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Keeper {
    /// The keeper of the computer of this name.
    pub fn new(
        config: Config,
        name: NodeName,
        directory: Option<Arc<dyn Directory>>,
        peers: Arc<dyn Peers>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            name,
            endpoint: OnceLock::new(),
            directory,
            peers,
            shelf: OnceCell::new(),
            slots: Mutex::default(),
        })
    }

    /// The same over a bucket that is open already, for the tests to have it as they like.
    #[doc(hidden)]
    pub fn over(
        bucket: Arc<dyn Bucket>,
        config: Config,
        name: NodeName,
        directory: Option<Arc<dyn Directory>>,
        peers: Arc<dyn Peers>,
    ) -> Arc<Self> {
        let shelf = Shelf { own: bucket, shared: None, _stores: Vec::new(), _folder: None };
        let shelf = OnceCell::new_with(Some(shelf));
        Arc::new(Self { config, name, endpoint: OnceLock::new(), directory, peers, shelf, slots: Mutex::default() })
    }

    /// Says where others reach this computer, once.
    pub fn set_endpoint(&self, endpoint: Endpoint) {
        // A second one would be the same.
        let _ = self.endpoint.set(endpoint);
    }

    /// Where others reach this computer, if anywhere.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.get()
    }

    /// Leases a state to a call, once it is here and no other call uses it. Where computers share a store, the lease ends after
    /// `term`.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Late`] where that takes beyond `until`.
    pub async fn lease(self: &Arc<Self>, id: &StateId, until: Instant, term: Duration) -> Result<Lease, StateError> {
        let leasing = async {
            let mut kept = self.lock(id).await?;
            if self.is_shared(id) {
                self.lease_shared(&mut kept, term).await?;
            } else {
                self.own(&mut kept).await?;
            }
            Ok(Lease::new(self.clone(), kept))
        };
        tokio::time::timeout_at(until, leasing).await.unwrap_or_else(|_| Err(StateError::Late(id.clone())))
    }

    /// All states kept here, of one application or of all.
    ///
    /// # Errors
    /// [`StateError::Unreadable`].
    pub async fn list(&self, application: Option<&ApplicationName>) -> Result<Vec<Info>, StateError> {
        let prefix = application.map(|application| format!("{application}/")).unwrap_or_default();
        let shelf = self.shelf().await?;
        let mut infos = Vec::new();
        for (bucket, is_shared) in [(Some(&shelf.own), false), (shelf.shared.as_ref(), true)] {
            let Some(bucket) = bucket else { continue };
            for (key, entry) in bucket.list(&prefix).await.map_err(StateError::unreadable)? {
                let Some(id) = id_of(&key) else { continue };
                let record = Record::decode(&entry.value).map_err(StateError::unreadable)?;
                // One that was never written, or is deleted, is none.
                let Some(content) = record.content else { continue };
                let is_held = matches!(record.standing, Standing::Held | Standing::Leased { .. });
                infos.push(Info { id, version: record.version, bytes: content.len(), is_held, is_shared });
            }
        }
        infos.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(infos)
    }

    /// The directory that knows of this state, if any.
    pub(crate) fn directory_of(&self, id: &StateId) -> Option<&dyn Directory> {
        self.directory.as_deref().filter(|_| id.application.as_str() != ApplicationName::OLDER)
    }

    /// Whether all computers share the store that this state is in.
    pub(crate) fn is_shared(&self, id: &StateId) -> bool {
        matches!(self.config.place, Some(Place::Nats { .. })) && id.application.as_str() != ApplicationName::OLDER
    }

    /// Whether what is kept here outlasts the process.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self.config.place, Some(Place::Embedded { .. }))
    }

    /// Waits until nobody uses a state here.
    pub(crate) async fn lock(&self, id: &StateId) -> Result<OwnedMutexGuard<Kept>, StateError> {
        let slot = self.slot(id);
        let waiting = Waiting(&slot.waiting);
        if slot.waiting.fetch_add(1, Ordering::Relaxed) >= self.config.waiting_max {
            return Err(StateError::Crowded { id: id.clone(), limit: self.config.waiting_max });
        }
        let kept = slot.kept.clone().lock_owned().await;
        drop(waiting);
        Ok(kept)
    }

    fn slot(&self, id: &StateId) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(id) {
            return slot.clone();
        }
        if slots.len() >= KNOWN_MAX {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || Arc::strong_count(&slot.kept) > 1);
        }
        let kept = Kept { id: id.clone(), known: None };
        let slot = Arc::new(Slot { waiting: AtomicUsize::new(0), kept: Arc::new(tokio::sync::Mutex::new(kept)) });
        slots.insert(id.clone(), slot.clone());
        slot
    }

    async fn shelf(&self) -> Result<&Shelf, StateError> {
        self.shelf.get_or_try_init(|| self.open()).await.map_err(StateError::unreadable)
    }

    async fn open(&self) -> Result<Shelf, StoreError> {
        let settings =
            || BucketSettings { name: BUCKET.to_owned(), expire_after: None, bytes_max: self.config.bytes_max };
        let temporary = || {
            let folder = tempfile::tempdir();
            folder.map_err(|error| StoreError::Open { path: std::env::temp_dir(), error: error.to_string() })
        };
        let (file, folder) = match &self.config.place {
            Some(Place::Embedded { file }) => {
                if let Some(folder) = file.parent() {
                    let failed =
                        |error: std::io::Error| StoreError::Open { path: file.clone(), error: error.to_string() };
                    std::fs::create_dir_all(folder).map_err(failed)?;
                }
                (file.clone(), None)
            }
            Some(Place::Nats { .. }) | None => {
                let folder = temporary()?;
                (folder.path().join(FILE), Some(folder))
            }
        };
        let store = nigh_store::open(&Place::Embedded { file }).await?;
        let own = store.bucket(settings()).await?;
        let mut stores = vec![store];
        let shared = match &self.config.place {
            Some(place @ Place::Nats { .. }) => {
                let store = nigh_store::open(place).await?;
                let bucket = store.bucket(settings()).await?;
                stores.push(store);
                Some(bucket)
            }
            Some(Place::Embedded { .. }) | None => None,
        };
        Ok(Shelf { own, shared, _stores: stores, _folder: folder })
    }

    /// The bucket that a state is in.
    pub(crate) async fn bucket(&self, id: &StateId) -> Result<&Arc<dyn Bucket>, StateError> {
        let shelf = self.shelf().await?;
        Ok(shelf.shared.as_ref().filter(|_| self.is_shared(id)).unwrap_or(&shelf.own))
    }

    /// What is on disk of a state, whoever uses it, if it is held here.
    pub(crate) async fn peek(&self, id: &StateId) -> Result<Option<Record>, StateError> {
        let found = self.bucket(id).await?.get(&key_of(id)).await.map_err(StateError::unreadable)?;
        let record = found.map(|entry| Record::decode(&entry.value)).transpose().map_err(StateError::unreadable)?;
        Ok(record.filter(|record| matches!(record.standing, Standing::Held | Standing::Leased { .. })))
    }

    /// What is on disk of a state.
    pub(crate) async fn read<'a>(&self, kept: &'a mut Kept) -> Result<&'a Known, StateError> {
        if kept.known.is_none() {
            let found = self.bucket(&kept.id).await?.get(&key_of(&kept.id)).await.map_err(StateError::unreadable)?;
            let revision = found.as_ref().map(|entry| entry.revision);
            let record = found.map(|entry| Record::decode(&entry.value)).transpose().map_err(StateError::unreadable)?;
            kept.known = Some(Known { record, revision });
        }
        Ok(kept.known.as_ref().expect("read just above"))
    }

    /// Writes a state's record in place of the one that was read; false where that is not there any more.
    pub(crate) async fn write(&self, kept: &mut Kept, record: Record) -> Result<bool, StateError> {
        let was = self.read(kept).await?.revision;
        let (bucket, key, value) = (self.bucket(&kept.id).await?, key_of(&kept.id), record.encode());
        // Where this is given up halfway, nobody knows what is there.
        kept.known = None;
        let written = match was {
            Some(was) => bucket.update(&key, value, was).await,
            None => bucket.create(&key, value).await,
        };
        match written {
            Ok(revision) => {
                kept.known = Some(Known { record: Some(record), revision: Some(revision) });
                Ok(true)
            }
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(StateError::Unsaved(error)),
        }
    }

    /// Deletes a state's record, if it is the one that was read.
    pub(crate) async fn delete(&self, kept: &mut Kept) -> Result<(), StateError> {
        let Some(was) = self.read(kept).await?.revision else { return Ok(()) };
        let (bucket, key) = (self.bucket(&kept.id).await?, key_of(&kept.id));
        kept.known = None;
        match bucket.delete(&key, Some(was)).await {
            Ok(()) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(StateError::Unsaved(error)),
        }
    }
}
