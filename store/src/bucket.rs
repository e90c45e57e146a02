//! Values by key, each with a revision that grows with every change.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::error::StoreError;
use crate::key::Key;

/// How a bucket is kept. All who open it must say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSettings {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// Values are gone so long after they were written last.
    pub expire_after: Option<Duration>,
    /// Bytes of all keys and values, at most; NATS counts what it keeps beside them too.
    pub bytes_max: u64,
}

/// Counts the changes of a bucket; a later change has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A value and its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// As of its last change.
    pub revision: Revision,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A value is there, or has changed.
    Put(Key, Entry),
    /// A value was deleted. Of those that expire a watcher may hear nothing.
    Deleted(Key),
    /// All that was there when the watch began has been told.
    InStep,
}

/// Values by key.
#[async_trait]
pub trait Bucket: Send + Sync + fmt::Debug {
    /// The value of a key.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Writes a value, whatever was there.
    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError>;

    /// Writes a value where there is none; else [`StoreError::Conflict`].
    async fn create(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError>;

    /// Writes a value in place of the one of this revision; where it has another, [`StoreError::Conflict`].
    async fn update(&self, key: &Key, value: Bytes, was: Revision) -> Result<Revision, StoreError>;

    /// Writes several values, each as [`update`](Self::update) where a revision is given, else as [`create`](Self::create): in one
    /// file all or none of them; in NATS one after the other, up to the first that fails.
    async fn write_all(&self, writes: Vec<(Key, Bytes, Option<Revision>)>) -> Result<Vec<Revision>, StoreError>;

    /// Deletes a value; where a revision is given, only that one, else [`StoreError::Conflict`]. One that is not there is
    /// deleted already.
    async fn delete(&self, key: &Key, was: Option<Revision>) -> Result<(), StoreError>;

    /// All values whose keys begin so, by key.
    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Entry)>, StoreError>;

    /// All values whose keys begin so, then every change of one, in order.
    async fn watch(&self, prefix: &str) -> Result<Watch, StoreError>;
}

/// What becomes of a bucket's values.
pub struct Watch(BoxStream<'static, Result<Change, StoreError>>);

impl Watch {
    pub(crate) fn new(changes: BoxStream<'static, Result<Change, StoreError>>) -> Self {
        Self(changes)
    }

    /// The next change, when there is one; after an error or `None` it is over, and one begins a new watch.
    pub async fn next(&mut self) -> Option<Result<Change, StoreError>> {
        self.0.next().await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
