//! Large objects in an object store of JetStream, which checks their digests.

use std::time::{Duration, UNIX_EPOCH};

use async_nats::jetstream::object_store::{self, DeleteErrorKind, GetErrorKind, ObjectStore};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::io::AsyncReadExt as _;

use crate::error::StoreError;
use crate::key::Key;
use crate::nats::{Server, failed, limit_of, named, of_source, time_of_nanos};
use crate::objects::{Object, Objects, ObjectsSettings};

/// Time for an object to be written as a whole.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for each try to read one, or the list of them. What is read from may have lost its place, as when a server went, and
/// then waits for ever: it is begun anew, with more time, as an object may be large and its way slow.
const READ_TIMEOUTS: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20)];

/// Objects in NATS.
pub(super) struct NatsObjects {
    what: String,
    store: ObjectStore,
}

impl NatsObjects {
    pub(super) async fn open(server: Server, settings: ObjectsSettings) -> Result<Self, StoreError> {
        let what = format!("the objects of {}", settings.name);
        let name = named(&settings.name)?;
        if let Ok(store) = server.context.get_object_store(&name).await {
            return Ok(Self { what, store });
        }
        let config = object_store::Config {
            bucket: name,
            max_bytes: limit_of(settings.bytes_max),
            num_replicas: server.replicas,
            ..object_store::Config::default()
        };
        let store = server.context.create_object_store(config).await.map_err(failed(&what))?;
        Ok(Self { what, store })
    }
}

/// What was begun, if it ends within this time.
async fn within<T>(
    timeout: Duration,
    what: &str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!("{what}: NATS did not get to the end within {timeout:?}")))
    })
}

/// What is read, begun anew where it does not come to its end.
async fn read<T, Reading>(what: &str, begin: impl Fn() -> Reading) -> Result<T, StoreError>
where
    Reading: Future<Output = Result<T, StoreError>>,
{
    let [first, second, last] = READ_TIMEOUTS;
    for timeout in [first, second] {
        if let Ok(read) = tokio::time::timeout(timeout, begin()).await {
            return read;
        }
        tracing::debug!(what, ?timeout, "reading from NATS is begun anew");
    }
    within(last, what, begin()).await
}

impl std::fmt::Debug for NatsObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsObjects").field("what", &self.what).finish_non_exhaustive()
    }
}

#[async_trait]
impl Objects for NatsObjects {
    async fn put(&self, name: &Key, bytes: Bytes) -> Result<(), StoreError> {
        within(WRITE_TIMEOUT, &self.what, async {
            let mut bytes = bytes.as_ref();
            self.store.put(name.as_str(), &mut bytes).await.map(drop).map_err(failed(&self.what))
        })
        .await
    }

    async fn get(&self, name: &Key) -> Result<Option<Bytes>, StoreError> {
        read(&self.what, || async {
            let mut object = match self.store.get(name.as_str()).await {
                Ok(object) => object,
                Err(error) if error.kind() == GetErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(of_source(&self.what, &error)),
            };
            let mut bytes = Vec::with_capacity(object.info().size);
            object.read_to_end(&mut bytes).await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            Ok(Some(bytes.into()))
        })
        .await
    }

    async fn delete(&self, name: &Key) -> Result<(), StoreError> {
        match self.store.delete(name.as_str()).await {
            Err(error) if error.kind() != DeleteErrorKind::NotFound => Err(of_source(&self.what, &error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<Object>, StoreError> {
        let listed: Vec<_> = read(&self.what, || async {
            let listed = self.store.list().await.map_err(failed(&self.what))?;
            listed.try_collect().await.map_err(failed(&self.what))
        })
        .await?;
        let object = |info: object_store::ObjectInfo| {
            let stored = info.modified.map_or(UNIX_EPOCH, |time| time_of_nanos(time.unix_timestamp_nanos()));
            Some(Object { name: info.name.parse().ok()?, bytes: info.size as u64, stored })
        };
        let mut objects: Vec<Object> = listed.into_iter().filter_map(object).collect();
        objects.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(objects)
    }
}
