//! What can go wrong: as a whole, and with one request.

use std::path::PathBuf;

use nigh_store::StoreError;

/// Why it cannot start or go on. The operator has to act.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
    /// What contexts are kept in cannot be used.
    #[error("contexts: {0}")]
    Store(#[from] StoreError),
    /// A context that is kept cannot be read.
    #[error(
        "the context {key} is kept in a form that this release does not read ({detail}); run the release that wrote it, or move the store away"
    )]
    Kept {
        /// Its key.
        key: String,
        /// What is wrong.
        detail: String,
    },
    /// The file of associations cannot be used.
    #[error(transparent)]
    Associations(#[from] AssociationsError),
    /// A listener's address cannot be told.
    #[error("cannot tell a listener's address: {0}")]
    Listener(#[source] std::io::Error),
    /// Serving a door failed.
    #[error("cannot go on serving {door}: {source}")]
    Serve {
        /// Which.
        door: &'static str,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a file of associations is none.
#[derive(Debug, thiserror::Error)]
pub enum AssociationsError {
    /// It cannot be read.
    #[error("cannot read the associations {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not of its form.
    #[error("{}:{line}: {detail}; write lines of CLIENT APPLICATION SERVER, where CLIENT is an address, a network or *", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// There is nothing in it.
    #[error("{} has no association; write lines of CLIENT APPLICATION SERVER", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Why a request of a device is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request is not as it should be: {0}")]
    Malformed(String),
    #[error("there is no application {0:?} here; the application list has those that there are")]
    UnknownApplication(String),
    #[error(
        "nobody can serve {0:?} now; try again, or ask for it with appAutoInstantiation to be told once somebody can"
    )]
    NoServer(String),
    #[error("there is no such context; it may have been deleted, or its application be gone")]
    UnknownContext,
    #[error("there is nothing at this path")]
    UnknownPath,
    #[error("{limit} {whose}, which is the limit; delete those that are not needed")]
    TooMany { limit: usize, whose: &'static str },
    #[error("notifications may not go to {0}: name the device's own address, or have the operator allow it")]
    Callback(String),
    #[error("what is to be kept cannot be: {0}")]
    Store(#[from] StoreError),
}
