//! A store in one redb file. All writes go through one thread ([`writer`]), which commits whatever has come together; reads see
//! what is committed. Who is under lease is known in memory alone: after a restart nobody is, and every item waits again.

mod bucket;
mod objects;
mod queue;
mod schedule;
mod tables;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use redb::{Database, ReadTransaction, ReadableDatabase as _};

use crate::Store;
use crate::bucket::{Bucket, BucketSettings};
use crate::embedded::bucket::EmbeddedBucket;
use crate::embedded::objects::EmbeddedObjects;
use crate::embedded::queue::EmbeddedQueue;
use crate::embedded::writer::Writer;
use crate::error::StoreError;
use crate::objects::{Objects, ObjectsSettings};
use crate::queue::{Queue, QueueSettings};

/// How often what has expired is taken out. Until then it takes room, but is not seen.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// An open file.
#[derive(Debug)]
pub(crate) struct Embedded {
    file: Arc<File>,
    buckets: Arc<Mutex<HashMap<String, Arc<EmbeddedBucket>>>>,
    queues: Mutex<HashMap<String, Arc<EmbeddedQueue>>>,
    objects: Mutex<HashMap<String, Arc<EmbeddedObjects>>>,
    /// Held while something is opened, so that nothing is opened twice.
    opening: tokio::sync::Mutex<()>,
    sweeper: tokio::task::AbortHandle,
}

/// The file and the thread that writes it, shared by all that is kept in it. Closed when the last of them is dropped.
pub(crate) struct File {
    path: PathBuf,
    // Dropped first: the thread ends, and lets go of the database.
    writer: Writer,
    database: Arc<Database>,
}

impl Embedded {
    /// Opens the file, or makes it.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let file = blocking(move || {
            let database = Arc::new(tables::open(&path)?);
            let writer = Writer::start(database.clone())
                .map_err(|error| StoreError::Open { path: path.clone(), error: error.to_string() })?;
            Ok(Arc::new(File { path, writer, database }))
        })
        .await?;
        let buckets = Arc::<Mutex<HashMap<String, Arc<EmbeddedBucket>>>>::default();
        let sweeper = tokio::spawn(sweep(Arc::downgrade(&file), buckets.clone())).abort_handle();
        Ok(Self {
            file,
            buckets,
            queues: Mutex::default(),
            objects: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            sweeper,
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

#[async_trait]
impl Store for Embedded {
    async fn bucket(&self, settings: BucketSettings) -> Result<Arc<dyn Bucket>, StoreError> {
        let _opening = self.opening.lock().await;
        check_name(&settings.name)?;
        let open = self.buckets.lock().get(&settings.name).cloned();
        if let Some(open) = open {
            return Ok(open);
        }
        let name = settings.name.clone();
        let bucket = Arc::new(EmbeddedBucket::open(self.file.clone(), settings).await?);
        self.buckets.lock().insert(name, bucket.clone());
        Ok(bucket)
    }

    async fn queue(&self, settings: QueueSettings) -> Result<Arc<dyn Queue>, StoreError> {
        let _opening = self.opening.lock().await;
        check_name(&settings.name)?;
        let open = self.queues.lock().get(&settings.name).cloned();
        if let Some(open) = open {
            return Ok(open);
        }
        let name = settings.name.clone();
        let queue = Arc::new(EmbeddedQueue::open(self.file.clone(), settings).await?);
        self.queues.lock().insert(name, queue.clone());
        Ok(queue)
    }

    async fn objects(&self, settings: ObjectsSettings) -> Result<Arc<dyn Objects>, StoreError> {
        let _opening = self.opening.lock().await;
        check_name(&settings.name)?;
        let open = self.objects.lock().get(&settings.name).cloned();
        if let Some(open) = open {
            return Ok(open);
        }
        let name = settings.name.clone();
        let objects = Arc::new(EmbeddedObjects::open(self.file.clone(), settings).await?);
        self.objects.lock().insert(name, objects.clone());
        Ok(objects)
    }
}

impl File {
    /// Reads, off the async workers, what is committed.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.clone();
        blocking(move || {
            let outcome =
                file.database.begin_read().map_err(redb::Error::from).and_then(|transaction| read(&transaction));
            outcome.map_err(|error| StoreError::Failed(error.to_string()))
        })
        .await
    }

    fn damaged(&self, detail: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), detail: detail.to_string() }
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Runs blocking work off the async workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StoreError::Failed(format!("an operation did not end: {error}"))))
}

/// Takes out what has expired, for as long as the file is open.
async fn sweep(file: Weak<File>, buckets: Arc<Mutex<HashMap<String, Arc<EmbeddedBucket>>>>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(file) = file.upgrade() else { return };
        // Where a part was taken out, there is more.
        while matches!(bucket::sweep(&file, buckets.clone()).await, Ok(true)) {}
    }
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let fits = !name.is_empty()
        && name.len() <= crate::Key::BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if fits { Ok(()) } else { Err(StoreError::Name(name.chars().take(64).collect())) }
}

/// Milliseconds since 1970, as records have them.
fn now_ms() -> u64 {
    ms_of(SystemTime::now())
}

fn ms_of(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn time_of(ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
