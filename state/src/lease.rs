//! A state leased to one call: read from it, and written once the call has its outcome.

use std::sync::Arc;

use bytes::Bytes;
use nigh_proto::StateId;
use nigh_store::{Revision, StoreError};
use tokio::sync::OwnedMutexGuard;

use crate::error::StateError;
use crate::keeper::{KNOWN_BYTES_MAX, Keeper, Kept, Known};
use crate::record::{Record, Standing, key_of};

/// A state that nobody else uses as long as this is held.
pub struct Lease {
    keeper: Arc<Keeper>,
    /// Nothing once it is given back.
    kept: Option<OwnedMutexGuard<Kept>>,
}

/// What a call does with a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This is its content from now on.
    Put(Bytes),
    /// It is gone.
    Delete,
}

impl Lease {
    pub(crate) fn new(keeper: Arc<Keeper>, kept: OwnedMutexGuard<Kept>) -> Self {
        Self { keeper, kept: Some(kept) }
    }

    /// Which state it is.
    pub fn id(&self) -> &StateId {
        &self.kept().id
    }

    /// Its content; nothing where there is none.
    pub fn content(&self) -> Option<&Bytes> {
        self.record()?.content.as_ref()
    }

    /// Changes of its content so far.
    pub fn version(&self) -> u64 {
        self.record().map_or(0, |record| record.version)
    }

    fn record(&self) -> Option<&Record> {
        self.kept().known.as_ref()?.record.as_ref()
    }

    fn kept(&self) -> &Kept {
        self.kept.as_ref().expect("given back only when it is dropped")
    }

    /// The record after a change; nothing where the change makes none.
    fn after(&self, change: Option<&Change>) -> Record {
        let before = self.record().cloned().unwrap_or_else(|| Record::empty(0));
        let (version, content) = match change {
            None => (before.version, before.content.clone()),
            Some(Change::Put(content)) => (before.version + 1, Some(content.clone())),
            Some(Change::Delete) => (before.version + 1, None),
        };
        Record { version, content, standing: Standing::Held, ..before }
    }
}

/// Writes what calls have done with states leased to them: all or nothing where this computer holds them, one after the other
/// where computers share a store.
///
/// # Errors
/// [`StateError::Conflict`] where a lease had ended and somebody else has written; [`StateError::Unsaved`].
pub(crate) async fn commit(keeper: &Keeper, changes: &mut [(&mut Lease, Change)]) -> Result<(), StateError> {
    for is_shared in [false, true] {
        let mut of_store: Vec<_> =
            changes.iter_mut().filter(|(lease, _)| keeper.is_shared(lease.id()) == is_shared).collect();
        let Some((first, _)) = of_store.first() else { continue };
        let id = first.id().clone();
        let bucket = keeper.bucket(&id).await?;
        let mut writes = Vec::with_capacity(of_store.len());
        for (lease, change) in &mut of_store {
            let record = lease.after(Some(change));
            let kept = lease.kept.as_mut().expect("given back only when it is dropped");
            let was = kept.known.take().and_then(|known| known.revision);
            writes.push((key_of(&kept.id), record, was));
        }
        let records = writes.iter().map(|(key, record, was)| (key.clone(), record.encode(), *was)).collect();
        let written = bucket.write_all(records).await.map_err(|error| match error {
            StoreError::Conflict => StateError::Conflict(id),
            error => StateError::Unsaved(error),
        })?;
        for (((lease, _), (_, record, _)), revision) in of_store.into_iter().zip(writes).zip(written) {
            let kept = lease.kept.as_mut().expect("given back only when it is dropped");
            kept.known = Some(Known { record: Some(record), revision: Some(revision) });
        }
    }
    Ok(())
}

impl Drop for Lease {
    fn drop(&mut self) {
        let after = self.after(None);
        let is_leased = matches!(self.record().map(|record| &record.standing), Some(Standing::Leased { .. }));
        let Some(mut kept) = self.kept.take() else { return };
        if self.keeper.is_shared(&kept.id) {
            let was: Option<Revision> = kept.known.take().and_then(|known| known.revision);
            // A lease that cannot be given back ends by itself.
            if let (Some(was), true, Ok(runtime)) = (was, is_leased, tokio::runtime::Handle::try_current()) {
                let keeper = self.keeper.clone();
                runtime.spawn(async move { keeper.give_back(kept, after, was).await });
            }
            return;
        }
        let bytes = after.content.map_or(0, |content| content.len());
        if bytes > KNOWN_BYTES_MAX {
            kept.known = None;
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("id", self.id()).finish_non_exhaustive()
    }
}
