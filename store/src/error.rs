//! Why a store could not do what was asked for.

use std::path::PathBuf;

/// A failure of a store; nothing was changed unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error("cannot open the store {}: {error}; does its folder exist, and may this user write there?", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: String,
    },
    /// Another process has the file.
    #[error("the store {} is in use; does another process run with it?", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is no store, or not any more.
    #[error("{} is damaged or no store of this platform ({detail}); bring back a copy, or move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file was written by another release.
    #[error("the store {} has version {found}, this release reads {known}; run the release that wrote it, or move it away", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that it has.
        found: u64,
        /// The version that this release reads and writes.
        known: u64,
    },
    /// The file cannot be read or written any more.
    #[error("the store failed: {0}; is the disk full or broken? Restart once it is not")]
    Failed(String),
    /// The server cannot be reached, or did not answer in time. What was asked for may have been done.
    #[error("no answer from the store: {0}; is its server running?")]
    Unavailable(String),
    /// The server does not do it.
    #[error("the store refused: {0}")]
    Refused(String),
    /// Somebody else was faster: the value is not, or no longer, of the revision given, or there is one already.
    #[error("the value was changed by somebody else in the meantime; read it again")]
    Conflict,
    /// There is no room.
    #[error(
        "{what} holds {limit}, which is its limit; let what is there be done, drop what is not needed, or raise the limit"
    )]
    Full {
        /// What is full.
        what: String,
        /// Its limit, with its unit.
        limit: String,
    },
    /// A value that may not be as large.
    #[error("{bytes} bytes are too many for one value; at most {limit} are taken")]
    TooLarge {
        /// What was given.
        bytes: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// The lease has lapsed, so the item may be somebody else's by now.
    #[error("the lease has lapsed; somebody else may have taken the item")]
    LeaseLost,
    /// A watcher was too far behind.
    #[error("the watcher was too far behind; watch again to get everything at once")]
    TooSlow,
    /// Not of the form that keys, or names of buckets and queues, have.
    #[error("{0:?} is no name for what is stored: use 1 to 128 visible ASCII characters")]
    Name(String),
}

impl StoreError {
    /// Whether the same request may succeed later without anybody's doing.
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Full { .. } | Self::Conflict | Self::TooSlow => true,
            Self::Open { .. }
            | Self::InUse { .. }
            | Self::Damaged { .. }
            | Self::Version { .. }
            | Self::Failed(_)
            | Self::Refused(_)
            | Self::TooLarge { .. }
            | Self::LeaseLost
            | Self::Name(_) => false,
        }
    }
}

/// Refuses a value that is too large.
pub(crate) fn check_size(bytes: usize, limit: usize) -> Result<(), StoreError> {
    if bytes > limit { Err(StoreError::TooLarge { bytes, limit }) } else { Ok(()) }
}
