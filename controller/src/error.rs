//! What can go wrong in a controller, room by room, and what the other side of the wire is told.

use std::path::PathBuf;
use std::time::Duration;

use nigh_proto::module::ModuleError;
use nigh_proto::{Digest, FunctionName, Kind, PlatformError, Reason};

/// Time after which it makes sense to ask again where too much was going on at once.
const RETRY_WHEN_BUSY: Duration = Duration::from_secs(1);

/// Why a controller cannot start or go on. The operator has to act.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server broke.
    #[error("the controller's server ended: {0}")]
    Server(Box<dyn std::error::Error + Send + Sync>),
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error("cannot open the store {}: {error}; does its folder exist, and may this user write there?", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Another process has it.
    #[error("the store {} is in use; does another controller run with it?", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is no store, or not any more.
    #[error(
        "{} is damaged or no store of a controller ({detail}); bring back a copy, or move it away and deploy again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file was written by another release.
    #[error(
        "the store {} has version {found}, this release reads {known}; run the release that wrote it, or move it away and deploy again",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that it has.
        found: u64,
        /// The version that this release reads and writes.
        known: u64,
    },
    /// Reading or writing failed while the controller was running.
    #[error("the store failed: {0}; is the disk full or broken? Restart the controller once it is not")]
    Failed(String),
    /// The controller is stopping.
    #[error("the controller is stopping; try again once it is back")]
    Closed,
    /// The store that controllers share failed.
    #[error(transparent)]
    Shared(#[from] nigh_store::StoreError),
}

macro_rules! failed {
    ($($error:ty),*) => {
        $(
            impl From<$error> for StoreError {
                fn from(error: $error) -> Self {
                    Self::Failed(error.to_string())
                }
            }

            impl From<$error> for DeployError {
                fn from(error: $error) -> Self {
                    Self::Store(error.into())
                }
            }
        )*
    };
}

failed!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

impl From<StoreError> for PlatformError {
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::Closed => Reason::NotServing,
            StoreError::Shared(nigh_store::StoreError::Full { .. }) => Reason::OutOfBudget,
            StoreError::Shared(shared) if shared.retry_helps() => Reason::NotServing,
            _ => Reason::Internal,
        };
        Self::new(reason, error.to_string())
    }
}

/// Why a function could not be deployed or removed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeployError {
    #[error("an upload begins with a head: name, limits and directories")]
    NoHead,
    #[error("an upload has one head, before the module")]
    TwoHeads,
    #[error("no module followed the head; is the file empty?")]
    Empty,
    #[error("an empty part in an upload; send parts of at least one byte")]
    EmptyPart,
    #[error("a part of {bytes} bytes; send a module in parts of at most {limit}")]
    PartTooLarge { bytes: usize, limit: usize },
    #[error("the module has over {limit} bytes, which is the limit; was it built with --release and stripped?")]
    TooLarge { limit: u64 },
    #[error("the upload broke off: {0}; nothing was changed")]
    BrokenOff(PlatformError),
    #[error("nothing of the upload arrived for {0:?}; nothing was changed")]
    Stalled(Duration),
    #[error("the upload took over {0:?}; nothing was changed")]
    TimedOut(Duration),
    #[error("{limit} {what} are under way already, which is the limit; try again in a moment")]
    Busy { what: &'static str, limit: usize },
    #[error(transparent)]
    Refused(#[from] PlatformError),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error("hosts are allowed to http functions only, and this module is of kind {0}; deploy it without --allow-host")]
    HostsWithoutHttp(Kind),
    #[error("a program with `main` cannot reach states; deploy it without --state, or build it with nigh-sdk")]
    StatesOfCommand,
    #[error("{0} functions are deployed, which is the limit; remove one that is no longer used (`nigh ls`, `nigh rm`)")]
    FunctionsFull(usize),
    #[error(
        "with this module all modules would have {bytes} bytes; the limit is {limit}; remove a function that is no longer used (`nigh ls`, `nigh rm`)"
    )]
    ModulesFull { bytes: u64, limit: u64 },
    #[error("no function {0} is deployed")]
    Unknown(FunctionName),
    #[error("judging the module failed: {0}")]
    Judge(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DeployError> for PlatformError {
    fn from(error: DeployError) -> Self {
        let reason = match error {
            DeployError::Refused(error) => return error,
            DeployError::Module(error) => return error.into(),
            DeployError::Store(error) => return error.into(),
            DeployError::Unknown(name) => return Self::unknown_function(name),
            DeployError::Busy { .. } => {
                return Self::new(Reason::QueueFull, error.to_string()).retry_after(RETRY_WHEN_BUSY);
            }
            DeployError::NoHead
            | DeployError::TwoHeads
            | DeployError::Empty
            | DeployError::EmptyPart
            | DeployError::HostsWithoutHttp(_)
            | DeployError::StatesOfCommand => Reason::Malformed,
            DeployError::PartTooLarge { .. } | DeployError::TooLarge { .. } => Reason::TooLarge,
            DeployError::BrokenOff(_) => Reason::Disconnected,
            DeployError::Stalled(_) | DeployError::TimedOut(_) => Reason::Late,
            DeployError::FunctionsFull(_) | DeployError::ModulesFull { .. } => Reason::OutOfBudget,
            DeployError::Judge(_) => Reason::Internal,
        };
        Self::new(reason, error.to_string())
    }
}

/// Why a module cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("no module {0} is stored; was its function removed or updated in the meantime?")]
    Unknown(Digest),
    #[error("{0} modules are being fetched, which is the limit; try again in a moment")]
    Busy(usize),
    #[error("no part of the module was accepted for {0:?}, so handing it out was given up")]
    Stalled(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FetchError> for PlatformError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Unknown(_) => Self::new(Reason::UnknownFunction, error.to_string()),
            FetchError::Busy(_) => Self::new(Reason::QueueFull, error.to_string()).retry_after(RETRY_WHEN_BUSY),
            FetchError::Stalled(_) => Self::new(Reason::Late, error.to_string()),
            FetchError::Store(error) => error.into(),
        }
    }
}

/// Why the registry refuses a node or a watcher, or ends a watch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("{0} computers and brokers are alive, which is the limit of this controller (nodes_max)")]
    NodesFull(usize),
    #[error("{0} watchers are open, which is the limit of this controller (watchers_max)")]
    WatchersFull(usize),
    #[error("the watcher was over {0} changes behind; watch again to get all of them at once")]
    TooSlow(usize),
    #[error("the controller is stopping; what is known stays good until it is back")]
    Closed,
    #[error(transparent)]
    NoAddress(#[from] nigh_routing::install::UnknownAddress),
}

impl From<RegistryError> for PlatformError {
    fn from(error: RegistryError) -> Self {
        let reason = match error {
            RegistryError::Closed => Reason::NotServing,
            RegistryError::NoAddress(_) => Reason::NotAllowed,
            RegistryError::NodesFull(_) | RegistryError::WatchersFull(_) | RegistryError::TooSlow(_) => {
                Reason::OutOfBudget
            }
        };
        Self::new(reason, error.to_string())
    }
}
