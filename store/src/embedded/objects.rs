//! Large objects in the file, in parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use redb::{ReadableTable as _, WriteTransaction};
use sha2::{Digest as _, Sha256};

use crate::embedded::tables::{OBJECTS, PARTS};
use crate::embedded::{File, now_ms, time_of};
use crate::error::StoreError;
use crate::key::Key;
use crate::objects::{Object, Objects, ObjectsSettings};

/// Bytes of one part: with its key just within a page of 256 KiB, as pages double in size.
const PART_BYTES: usize = 255 << 10;

/// Objects in the file.
#[derive(Debug)]
pub(super) struct EmbeddedObjects {
    file: Arc<File>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: ObjectsSettings,
    /// Bytes of all objects. Only the thread that writes changes it.
    bytes: AtomicU64,
}

impl EmbeddedObjects {
    pub(super) async fn open(file: Arc<File>, settings: ObjectsSettings) -> Result<Self, StoreError> {
        let name = settings.name.clone();
        let work = move |transaction: &WriteTransaction| {
            let mut bytes = 0;
            for record in transaction.open_table(OBJECTS)?.range((name.as_str(), "")..=(name.as_str(), "\u{7f}"))? {
                bytes += record?.1.value().0;
            }
            Ok(Ok(bytes))
        };
        let bytes: u64 = file.writer.run(0, work, |_| {}).await?;
        Ok(Self { file, shared: Arc::new(Shared { settings, bytes: bytes.into() }) })
    }
}

#[async_trait]
impl Objects for EmbeddedObjects {
    async fn put(&self, name: &Key, bytes: Bytes) -> Result<(), StoreError> {
        let (shared, name, size) = (self.shared.clone(), name.clone(), bytes.len());
        let digest = Sha256::digest(&bytes);
        let work = move |transaction: &WriteTransaction| shared.put(transaction, &name, &bytes, &digest);
        self.file.writer.run(size, work, |()| {}).await
    }

    async fn get(&self, name: &Key) -> Result<Option<Bytes>, StoreError> {
        let (collection, object) = (self.shared.settings.name.clone(), name.clone());
        let read = self.file.read(move |transaction| {
            let at = (collection.as_str(), object.as_str());
            let Some(head) = transaction.open_table(OBJECTS)?.get(at)? else { return Ok(None) };
            let (bytes, _, digest) = head.value();
            let mut read = BytesMut::with_capacity(usize::try_from(bytes).unwrap_or_default());
            for part in transaction.open_table(PARTS)?.range((at.0, at.1, 0)..=(at.0, at.1, u32::MAX))? {
                read.extend_from_slice(part?.1.value());
            }
            let is_whole = Sha256::digest(&read).as_slice() == digest;
            Ok(Some((read.freeze(), is_whole)))
        });
        match read.await? {
            None => Ok(None),
            Some((bytes, true)) => Ok(Some(bytes)),
            Some((_, false)) => Err(self.file.damaged(format!("the object {name} is not as it was put"))),
        }
    }

    async fn delete(&self, name: &Key) -> Result<(), StoreError> {
        let (shared, name) = (self.shared.clone(), name.clone());
        let work = move |transaction: &WriteTransaction| {
            let freed = shared.remove(transaction, &name)?;
            shared.bytes.fetch_sub(freed, Ordering::Relaxed);
            Ok(Ok(()))
        };
        self.file.writer.run(0, work, |()| {}).await
    }

    async fn list(&self) -> Result<Vec<Object>, StoreError> {
        let collection = self.shared.settings.name.clone();
        self.file
            .read(move |transaction| {
                let mut objects = Vec::new();
                let all = (collection.as_str(), "")..=(collection.as_str(), "\u{7f}");
                for record in transaction.open_table(OBJECTS)?.range(all)? {
                    let (at, head) = record?;
                    let (bytes, stored_ms, _) = head.value();
                    // What is stored was a key when it was written.
                    if let Ok(name) = at.value().1.parse() {
                        objects.push(Object { name, bytes, stored: time_of(stored_ms) });
                    }
                }
                Ok(objects)
            })
            .await
    }
}

impl Shared {
    fn put(
        &self,
        transaction: &WriteTransaction,
        name: &Key,
        bytes: &Bytes,
        digest: &[u8],
    ) -> Result<Result<(), StoreError>, redb::Error> {
        let at = (self.settings.name.as_str(), name.as_str());
        let before = transaction.open_table(OBJECTS)?.get(at)?.map_or(0, |head| head.value().0);
        let all = self.bytes.load(Ordering::Relaxed).saturating_sub(before) + bytes.len() as u64;
        if all > self.settings.bytes_max {
            let what = format!("the objects of {}", at.0);
            return Ok(Err(StoreError::Full { what, limit: format!("{} bytes", self.settings.bytes_max) }));
        }
        self.remove(transaction, name)?;
        transaction.open_table(OBJECTS)?.insert(at, (bytes.len() as u64, now_ms(), digest))?;
        let mut parts = transaction.open_table(PARTS)?;
        for (number, part) in (0u32..).zip(bytes.chunks(PART_BYTES)) {
            parts.insert((at.0, at.1, number), part)?;
        }
        self.bytes.store(all, Ordering::Relaxed);
        Ok(Ok(()))
    }

    /// Takes an object out; the bytes that it had.
    fn remove(&self, transaction: &WriteTransaction, name: &Key) -> Result<u64, redb::Error> {
        let at = (self.settings.name.as_str(), name.as_str());
        let freed = transaction.open_table(OBJECTS)?.remove(at)?.map_or(0, |head| head.value().0);
        transaction.open_table(PARTS)?.retain_in((at.0, at.1, 0)..=(at.0, at.1, u32::MAX), |_, _| false)?;
        Ok(freed)
    }
}
