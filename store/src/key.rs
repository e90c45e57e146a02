//! Names of what is stored.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::StoreError;

/// Names a value, an item of work or an object: 1 to 128 visible ASCII characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Bytes of a key, at most.
    pub const BYTES_MAX: usize = 128;

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = StoreError;

    fn from_str(given: &str) -> Result<Self, StoreError> {
        let fits = (1..=Self::BYTES_MAX).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(given.into())).ok_or_else(|| StoreError::Name(given.chars().take(64).collect()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
