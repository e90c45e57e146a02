//! Values by key in the file.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use redb::{ReadTransaction, ReadableTable as _, WriteTransaction};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::VALUE_BYTES_MAX;
use crate::bucket::{Bucket, BucketSettings, Change, Entry, Revision, Watch};
use crate::embedded::tables::{EXPIRIES, META, REVISION_KEY, VALUES};
use crate::embedded::{File, ms, now_ms};
use crate::error::{StoreError, check_size};
use crate::key::Key;

/// Changes that a watcher may be behind.
const BEHIND_MAX: usize = 4096;
/// Values taken out in one transaction, at most.
const SWEPT_MAX: usize = 1000;

/// A bucket in the file.
#[derive(Debug)]
pub(super) struct EmbeddedBucket {
    file: Arc<File>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: BucketSettings,
    /// Bytes of all keys and values. Only the thread that writes changes it.
    bytes: AtomicU64,
    changes: broadcast::Sender<(Revision, Change)>,
}

/// What must be there for a write to take place.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Anything,
    Nothing,
    Exactly(Revision),
}

impl Expected {
    fn is_met(self, found: Option<u64>) -> bool {
        match self {
            Self::Anything => true,
            Self::Nothing => found.is_none(),
            Self::Exactly(revision) => found == Some(revision.0),
        }
    }
}

impl EmbeddedBucket {
    pub(super) async fn open(file: Arc<File>, settings: BucketSettings) -> Result<Self, StoreError> {
        let name = settings.name.clone();
        // By the thread that writes, so that nothing changes meanwhile.
        let bytes = file.writer.run(0, move |transaction| Ok(Ok(bytes_of(transaction, &name)?)), |_| {}).await?;
        let (changes, _) = broadcast::channel(BEHIND_MAX);
        Ok(Self { file, shared: Arc::new(Shared { settings, bytes: bytes.into(), changes }) })
    }

    async fn write(&self, key: &Key, value: Bytes, expected: Expected) -> Result<Revision, StoreError> {
        check_size(value.len(), VALUE_BYTES_MAX)?;
        let (shared, settled, key) = (self.shared.clone(), self.shared.clone(), key.clone());
        let bytes = value.len();
        let work = move |transaction: &WriteTransaction| shared.write(transaction, key, value, expected);
        let (_, entry) =
            self.file.writer.run(bytes, work, move |(key, entry): &(Key, Entry)| settled.tell_put(key, entry)).await?;
        Ok(entry.revision)
    }

    /// All values whose keys begin so, and the revision that they are as of.
    async fn snapshot(&self, prefix: &str) -> Result<(Vec<(Key, Entry)>, Revision), StoreError> {
        let (name, prefix) = (self.shared.settings.name.clone(), prefix.to_owned());
        self.file.read(move |transaction| snapshot(transaction, &name, &prefix)).await
    }
}

#[async_trait]
impl Bucket for EmbeddedBucket {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let (name, key) = (self.shared.settings.name.clone(), key.clone());
        self.file
            .read(move |transaction| {
                let found = transaction.open_table(VALUES)?.get((name.as_str(), key.as_str()))?;
                Ok(found.and_then(|found| entry_of(found.value(), now_ms())))
            })
            .await
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.write(key, value, Expected::Anything).await
    }

    async fn create(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.write(key, value, Expected::Nothing).await
    }

    async fn update(&self, key: &Key, value: Bytes, was: Revision) -> Result<Revision, StoreError> {
        self.write(key, value, Expected::Exactly(was)).await
    }

    async fn write_all(&self, writes: Vec<(Key, Bytes, Option<Revision>)>) -> Result<Vec<Revision>, StoreError> {
        let mut bytes = 0;
        for (_, value, _) in &writes {
            check_size(value.len(), VALUE_BYTES_MAX)?;
            bytes += value.len();
        }
        let (shared, settled) = (self.shared.clone(), self.shared.clone());
        let work = move |transaction: &WriteTransaction| shared.write_all(transaction, writes);
        let settle = move |written: &Vec<(Key, Entry)>| {
            written.iter().for_each(|(key, entry)| settled.tell_put(key, entry));
        };
        let written = self.file.writer.run(bytes, work, settle).await?;
        Ok(written.into_iter().map(|(_, entry)| entry.revision).collect())
    }

    async fn delete(&self, key: &Key, was: Option<Revision>) -> Result<(), StoreError> {
        let (shared, settled, key) = (self.shared.clone(), self.shared.clone(), key.clone());
        let work = move |transaction: &WriteTransaction| shared.delete(transaction, key, was);
        let settle = move |deleted: &Option<(Key, Revision)>| {
            if let Some((key, revision)) = deleted {
                settled.tell(*revision, Change::Deleted(key.clone()));
            }
        };
        self.file.writer.run(0, work, settle).await.map(drop)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Entry)>, StoreError> {
        Ok(self.snapshot(prefix).await?.0)
    }

    async fn watch(&self, prefix: &str) -> Result<Watch, StoreError> {
        // Before the snapshot is taken, so that nothing falls between.
        let changes = self.shared.changes.subscribe();
        let (values, as_of) = self.snapshot(prefix).await?;
        let known = values.into_iter().map(|(key, entry)| Change::Put(key, entry)).chain([Change::InStep]);
        let known = stream::iter(known.map(Ok).collect::<Vec<_>>());
        let prefix = prefix.to_owned();
        let further = stream::unfold(Some(changes), move |changes| {
            let prefix = prefix.clone();
            async move {
                let mut changes = changes?;
                loop {
                    match changes.recv().await {
                        Ok((revision, change)) if revision > as_of && is_below(&change, &prefix) => {
                            return Some((Ok(change), Some(changes)));
                        }
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => return Some((Err(StoreError::TooSlow), None)),
                        Err(RecvError::Closed) => return None,
                    }
                }
            }
        });
        Ok(Watch::new(known.chain(further).boxed()))
    }
}

impl Shared {
    /// Nobody may be watching.
    fn tell(&self, revision: Revision, change: Change) {
        let _ = self.changes.send((revision, change));
    }

    fn tell_put(&self, key: &Key, entry: &Entry) {
        self.tell(entry.revision, Change::Put(key.clone(), entry.clone()));
    }

    fn write(
        &self,
        transaction: &WriteTransaction,
        key: Key,
        value: Bytes,
        expected: Expected,
    ) -> Result<Result<(Key, Entry), StoreError>, redb::Error> {
        let written = self.write_each(transaction, vec![(key, value, expected)])?;
        Ok(written.map(|mut written| written.remove(0)))
    }

    fn write_all(
        &self,
        transaction: &WriteTransaction,
        writes: Vec<(Key, Bytes, Option<Revision>)>,
    ) -> Result<Result<Vec<(Key, Entry)>, StoreError>, redb::Error> {
        let expected = |was: Option<Revision>| was.map_or(Expected::Nothing, Expected::Exactly);
        let writes = writes.into_iter().map(|(key, value, was)| (key, value, expected(was)));
        self.write_each(transaction, writes.collect())
    }

    /// All of them, or none where one may not be.
    fn write_each(
        &self,
        transaction: &WriteTransaction,
        writes: Vec<(Key, Bytes, Expected)>,
    ) -> Result<Result<Vec<(Key, Entry)>, StoreError>, redb::Error> {
        let now = now_ms();
        let (mut bytes_before, mut bytes_now) = (0, 0);
        let values = transaction.open_table(VALUES)?;
        for (key, value, expected) in &writes {
            let found = values.get((self.settings.name.as_str(), key.as_str()))?;
            let revision = found.as_ref().and_then(|found| entry_of(found.value(), now)).map(|entry| entry.revision.0);
            if !expected.is_met(revision) {
                return Ok(Err(StoreError::Conflict));
            }
            bytes_before += found.as_ref().map_or(0, |found| size_and_expiry(key, found.value()).0);
            bytes_now += (key.as_str().len() + value.len()) as u64;
        }
        drop(values);
        let all = self.bytes.load(Ordering::Relaxed).saturating_sub(bytes_before).saturating_add(bytes_now);
        if all > self.settings.bytes_max && bytes_now > bytes_before {
            let what = format!("the bucket {}", self.settings.name);
            return Ok(Err(StoreError::Full { what, limit: format!("{} bytes", self.settings.bytes_max) }));
        }
        let mut written = Vec::with_capacity(writes.len());
        for (key, value, _) in writes {
            let revision = self.put_in(transaction, &key, &value, now)?;
            written.push((key, Entry { value, revision }));
        }
        self.bytes.store(all, Ordering::Relaxed);
        Ok(Ok(written))
    }

    /// Puts a value in the place of whatever is there.
    fn put_in(
        &self,
        transaction: &WriteTransaction,
        key: &Key,
        value: &Bytes,
        now: u64,
    ) -> Result<Revision, redb::Error> {
        let at = (self.settings.name.as_str(), key.as_str());
        let mut values = transaction.open_table(VALUES)?;
        let expired = values.get(at)?.map_or(0, |found| size_and_expiry(key, found.value()).1);
        let revision = next_revision(transaction)?;
        let expires = self.settings.expire_after.map_or(0, |after| now.saturating_add(ms(after)));
        values.insert(at, (revision.0, expires, value.as_ref()))?;
        let mut expiries = transaction.open_table(EXPIRIES)?;
        if expired > 0 {
            expiries.remove((expired, at.0, at.1))?;
        }
        if expires > 0 {
            expiries.insert((expires, at.0, at.1), ())?;
        }
        Ok(revision)
    }

    fn delete(
        &self,
        transaction: &WriteTransaction,
        key: Key,
        was: Option<Revision>,
    ) -> Result<Result<Option<(Key, Revision)>, StoreError>, redb::Error> {
        let at = (self.settings.name.as_str(), key.as_str());
        let mut values = transaction.open_table(VALUES)?;
        let found = match values.get(at)? {
            None => None,
            Some(found) => {
                let (bytes, expires) = size_and_expiry(&key, found.value());
                entry_of(found.value(), now_ms()).map(|entry| (entry.revision, bytes, expires))
            }
        };
        let Some((revision, bytes, expires)) = found else { return Ok(Ok(None)) };
        if was.is_some_and(|was| was != revision) {
            return Ok(Err(StoreError::Conflict));
        }
        values.remove(at)?;
        if expires > 0 {
            transaction.open_table(EXPIRIES)?.remove((expires, at.0, at.1))?;
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let revision = next_revision(transaction)?;
        Ok(Ok(Some((key, revision))))
    }
}

/// Takes out a part of what has expired; whether there may be more.
pub(super) async fn sweep(
    file: &Arc<File>,
    buckets: Arc<Mutex<HashMap<String, Arc<EmbeddedBucket>>>>,
) -> Result<bool, StoreError> {
    let now = now_ms();
    let first =
        file.read(move |transaction| Ok(transaction.open_table(EXPIRIES)?.first()?.map(|(at, _)| at.value().0)));
    if first.await?.is_none_or(|first| first > now) {
        return Ok(false);
    }
    let work = move |transaction: &WriteTransaction| {
        let mut expiries = transaction.open_table(EXPIRIES)?;
        let mut values = transaction.open_table(VALUES)?;
        let expired: Vec<(u64, String, String)> = expiries
            .range(..=(now, "\u{7f}", "\u{7f}"))?
            .take(SWEPT_MAX)
            .map(|record| {
                let (record, ()) = record.map(|(at, _)| (at, ()))?;
                let (at, bucket, key) = record.value();
                Ok((at, bucket.to_owned(), key.to_owned()))
            })
            .collect::<Result<_, redb::StorageError>>()?;
        let buckets = buckets.lock();
        for (at, bucket, key) in &expired {
            expiries.remove((*at, bucket.as_str(), key.as_str()))?;
            let removed = values.remove((bucket.as_str(), key.as_str()))?;
            let bytes = removed.map_or(0, |removed| (key.len() + removed.value().2.len()) as u64);
            if let Some(open) = buckets.get(bucket) {
                open.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
        Ok(Ok(expired.len() == SWEPT_MAX))
    };
    file.writer.run(0, work, |_| {}).await
}

fn is_below(change: &Change, prefix: &str) -> bool {
    match change {
        Change::Put(key, _) | Change::Deleted(key) => key.as_str().starts_with(prefix),
        Change::InStep => false,
    }
}

/// A record as it is seen now; one that has expired is not.
fn entry_of((revision, expires, value): (u64, u64, &[u8]), now: u64) -> Option<Entry> {
    let is_there = expires == 0 || expires > now;
    is_there.then(|| Entry { value: Bytes::copy_from_slice(value), revision: Revision(revision) })
}

fn size_and_expiry(key: &Key, (_, expires, value): (u64, u64, &[u8])) -> (u64, u64) {
    ((key.as_str().len() + value.len()) as u64, expires)
}

fn next_revision(transaction: &WriteTransaction) -> Result<Revision, redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let revision = meta.get(REVISION_KEY)?.map_or(0, |last| last.value()) + 1;
    meta.insert(REVISION_KEY, revision)?;
    Ok(Revision(revision))
}

fn bytes_of(transaction: &WriteTransaction, name: &str) -> Result<u64, redb::Error> {
    let mut bytes = 0;
    for record in transaction.open_table(VALUES)?.range((name, "")..=(name, "\u{7f}"))? {
        let (at, value) = record?;
        bytes += (at.value().1.len() + value.value().2.len()) as u64;
    }
    Ok(bytes)
}

fn snapshot(
    transaction: &ReadTransaction,
    name: &str,
    prefix: &str,
) -> Result<(Vec<(Key, Entry)>, Revision), redb::Error> {
    let now = now_ms();
    let mut found = Vec::new();
    for record in transaction.open_table(VALUES)?.range((name, prefix)..=(name, "\u{7f}"))? {
        let (at, value) = record?;
        let key = at.value().1;
        if !key.starts_with(prefix) {
            break;
        }
        // What is stored was a key when it was written.
        if let (Ok(key), Some(entry)) = (key.parse(), entry_of(value.value(), now)) {
            found.push((key, entry));
        }
    }
    let as_of = transaction.open_table(META)?.get(REVISION_KEY)?.map_or(0, |last| last.value());
    Ok((found, Revision(as_of)))
}
