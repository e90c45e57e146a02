//! Objects too large to be values, each checked against its SHA-256 digest when it is read.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StoreError;
use crate::key::Key;

/// How objects are kept. All who open them must say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectsSettings {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// Bytes of all objects, at most.
    pub bytes_max: u64,
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: Key,
    /// Its size.
    pub bytes: u64,
    /// When it was put.
    pub stored: SystemTime,
}

/// Large objects by name. Who wants them by digest names them so.
#[async_trait]
pub trait Objects: Send + Sync + fmt::Debug {
    /// Puts an object, in place of one of this name.
    async fn put(&self, name: &Key, bytes: Bytes) -> Result<(), StoreError>;

    /// An object, whole and as it was put, or nothing.
    async fn get(&self, name: &Key) -> Result<Option<Bytes>, StoreError>;

    /// Deletes an object; one that is not there is deleted already.
    async fn delete(&self, name: &Key) -> Result<(), StoreError>;

    /// All objects, by name.
    async fn list(&self) -> Result<Vec<Object>, StoreError>;
}
