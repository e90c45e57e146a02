//! What must outlast a process: values with revisions ([`Bucket`]), work that is done at least once ([`Queue`]) and large
//! objects ([`Objects`]), behind one trait, [`Store`], so that a role need not know where its data is.
//!
//! There are two: one file on this machine ([`Place::Embedded`]), where many writes share one wait for the disk; and NATS
//! JetStream ([`Place::Nats`]), which several roles on several machines share. `tests/conformance.rs` holds both to the same
//! behaviour.
//!
//! What a method has returned `Ok` for is on disk (in NATS: as its `sync_interval` says). A method that fails with
//! [`StoreError::Unavailable`] may have been carried out.

mod bucket;
mod embedded;
mod error;
mod key;
mod nats;
mod objects;
mod place;
mod queue;

use std::sync::Arc;

use async_trait::async_trait;

pub use bucket::{Bucket, BucketSettings, Change, Entry, Revision, Watch};
pub use error::StoreError;
pub use key::Key;
pub use objects::{Object, Objects, ObjectsSettings};
pub use place::{Given, Place, PlaceError, TlsFiles};
pub use queue::{Counts, Dead, Enqueued, Lease, Queue, QueueSettings, Standing, Taken};

/// Bytes of one value or item, at most, wherever it is kept: what NATS takes by default, with room for what goes around it.
/// What is larger is an object.
pub const VALUE_BYTES_MAX: usize = 512 << 10;

/// Where things are kept. Those of one name are the same things, whoever opens them.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Values by key, made where they are not there yet.
    async fn bucket(&self, settings: BucketSettings) -> Result<Arc<dyn Bucket>, StoreError>;

    /// Work to be done, made where it is not there yet.
    async fn queue(&self, settings: QueueSettings) -> Result<Arc<dyn Queue>, StoreError>;

    /// Large objects by name, made where they are not there yet.
    async fn objects(&self, settings: ObjectsSettings) -> Result<Arc<dyn Objects>, StoreError>;
}

/// Opens a store.
///
/// # Errors
/// [`StoreError`]: for [`StoreError::Unavailable`] it makes sense to try again.
pub async fn open(place: &Place) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match place {
        Place::Embedded { file } => Arc::new(embedded::Embedded::open(file).await?),
        Place::Nats { servers, tls } => Arc::new(nats::Nats::connect(servers, tls.as_ref()).await?),
    })
}
