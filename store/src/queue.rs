//! Work to be done at least once. An item is waiting, taken under a lease, or dead; it leaves by `ack` or by being dropped.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::message::Acker;
use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StoreError;
use crate::key::Key;

/// How a queue is kept. All who open it must say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// For how long an item belongs to whoever took it, unless extended.
    pub lease: Duration,
    /// Items, the dead included, at most (in NATS: so many, and as many dead ones again).
    pub entries_max: u64,
    /// Bytes of all items, the dead included, at most (in NATS as above, and with what it keeps beside them).
    pub bytes_max: u64,
}

/// What became of an item that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits now.
    New,
    /// One of this id is there already, waiting, taken or dead; this one was not looked at.
    Known,
}

/// Where an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Waiting or taken.
    Alive,
    /// Given up.
    Dead,
}

/// An item that is this side's for the time of its lease.
#[derive(Debug)]
pub struct Taken {
    /// Its name.
    pub id: Key,
    /// The item.
    pub item: Bytes,
    /// When it was handed in, or taken back from the dead.
    pub enqueued: SystemTime,
    /// How often it has been taken, this time included. After a crash of an embedded store it may be fewer.
    pub attempt: u32,
    /// Shows that it is this side's.
    pub lease: Lease,
}

/// Shows that an item is this side's. One that is dropped lapses, and the item waits again.
#[derive(Debug)]
pub struct Lease(pub(crate) Kind);

pub(crate) enum Kind {
    Embedded { number: u64, token: u64 },
    Nats { acker: Box<Acker>, id: Key, item: Bytes, enqueued: SystemTime, attempt: u32 },
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { number, .. } => write!(f, "{number}"),
            Self::Nats { id, .. } => write!(f, "{id}"),
        }
    }
}

/// An item that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// Its name.
    pub id: Key,
    /// The item.
    pub item: Bytes,
    /// Why it was given up.
    pub why: String,
    /// When it was handed in.
    pub enqueued: SystemTime,
    /// When it was given up.
    pub died: SystemTime,
    /// How often it was taken.
    pub attempts: u32,
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items that wait, those put off included.
    pub waiting: u64,
    /// Items taken.
    pub taken: u64,
    /// Items given up.
    pub dead: u64,
    /// Bytes of all.
    pub bytes: u64,
}

/// Work to be done at least once.
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug {
    /// Hands in an item. Once this returns [`Enqueued::New`] it will be taken until it is acknowledged or given up.
    async fn enqueue(&self, id: &Key, item: Bytes) -> Result<Enqueued, StoreError>;

    /// Whether an item of this id is there, and where.
    async fn standing(&self, id: &Key) -> Result<Option<Standing>, StoreError>;

    /// Takes up to so many items; waits until there is one. Oldest first, but those put off when their time has come.
    async fn take(&self, most: usize) -> Result<Vec<Taken>, StoreError>;

    /// Keeps an item for one more lease from now on; [`StoreError::LeaseLost`] where that is known to be too late.
    async fn extend(&self, lease: &Lease) -> Result<(), StoreError>;

    /// The item is done.
    async fn ack(&self, lease: Lease) -> Result<(), StoreError>;

    /// The item is to be taken again after this time.
    async fn retry(&self, lease: Lease, after: Duration) -> Result<(), StoreError>;

    /// The item is given up; it stays among the dead until somebody drops it or has it tried again.
    async fn bury(&self, lease: Lease, why: &str) -> Result<(), StoreError>;

    /// Up to so many of the dead, those that died first before the others.
    async fn dead(&self, most: usize) -> Result<Vec<Dead>, StoreError>;

    /// Lets a dead item wait again, as if handed in now; false where there is none of this id.
    async fn requeue(&self, id: &Key) -> Result<bool, StoreError>;

    /// Drops a dead item; false where there is none of this id.
    async fn drop_dead(&self, id: &Key) -> Result<bool, StoreError>;

    /// How full it is.
    async fn counts(&self) -> Result<Counts, StoreError>;
}

/// Bytes of the text that says why an item was given up, at most.
const WHY_BYTES_MAX: usize = 1024;

/// The text, cut where it is too long.
pub(crate) fn reason_of(why: &str) -> String {
    let mut end = why.len().min(WHY_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why[..end].to_owned()
}
