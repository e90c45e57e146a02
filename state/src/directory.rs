//! Whom a keeper asks: the directory, who holds what; other computers, for what they hold.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use nigh_proto::{Endpoint, NodeName, PlatformError, StateId, StateName};

/// A computer that holds a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub name: NodeName,
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// Of its claim; grows with every claim of the state.
    pub epoch: u64,
}

/// What came of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The state is held by whoever claimed it.
    Yes,
    /// It is not; and by whom it is.
    No(Option<Holder>),
}

/// A state as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Under which it was held.
    pub epoch: u64,
    /// Changes of its content so far.
    pub version: u64,
    /// Nothing where there is none.
    pub content: Option<Bytes>,
}

/// Says who holds which state. A claim that fails may have been made.
#[async_trait]
pub trait Directory: Send + Sync + fmt::Debug {
    /// Who holds it, if anybody.
    async fn locate(&self, id: &StateId) -> Result<Option<Holder>, PlatformError>;

    /// Has `name` hold it, under the epoch after `expected`, where it is still held under that (0: by nobody), or by just this
    /// claim.
    async fn claim(
        &self,
        id: &StateId,
        name: &NodeName,
        endpoint: &Endpoint,
        expected: u64,
    ) -> Result<Claimed, PlatformError>;

    /// Nobody holds it any more, if `name` did.
    async fn forget(&self, id: &StateId, name: &NodeName) -> Result<(), PlatformError>;
}

/// Other computers.
#[async_trait]
pub trait Peers: Send + Sync + fmt::Debug {
    /// Asks the holder of a state for it, to hold it here; nothing where it has not got it.
    async fn take(
        &self,
        holder: &Endpoint,
        id: &StateId,
        name: &NodeName,
        endpoint: &Endpoint,
    ) -> Result<Option<Given>, PlatformError>;

    /// Tells whoever handed it over that it is held here.
    async fn taken(&self, before: &Endpoint, id: &StateId, name: &NodeName, epoch: u64) -> Result<(), PlatformError>;

    /// The content of a state at a state server of the older system.
    async fn older_get(&self, location: &Endpoint, state: &StateName) -> Result<Bytes, PlatformError>;

    /// Deletes it there.
    async fn older_delete(&self, location: &Endpoint, state: &StateName) -> Result<(), PlatformError>;
}
