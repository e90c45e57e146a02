//! Why a computer cannot start, and why it cannot run a version.

use nigh_proto::module::ModuleError;
use nigh_proto::{Digest, Kind};

/// Why a computer cannot start or go on. The operator has to act.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself or the host.
    #[error("configuration: {0}")]
    Config(String),
    /// The engine cannot be started on this host.
    #[error("cannot start the Wasm engine: {0}")]
    Engine(String),
    /// It was made where no Tokio runtime is, which guests' timers and files need.
    #[error("a computer has to be made within a Tokio runtime")]
    Runtime,
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}; are there too many processes on this host?")]
    Thread(std::io::Error),
    /// The cache's folder cannot be used.
    #[error("cannot use the folder for compiled modules {path}: {error}; choose another or leave it out")]
    Cache {
        /// The folder.
        path: String,
        /// What went wrong.
        error: std::io::Error,
    },
    /// A directory offered to functions cannot be opened.
    #[error("cannot offer directory {name} at {path}: {error}")]
    Directory {
        /// Its name.
        name: String,
        /// Where it should be.
        path: String,
        /// What went wrong.
        error: std::io::Error,
    },
    /// The listener does not work.
    #[error("cannot listen: {0}")]
    Listen(std::io::Error),
    /// The server of calls broke.
    #[error("the server of calls ended: {0}")]
    Server(String),
}

/// Why a computer cannot run a version. The version's deployer has to act, unless the message names the operator;
/// trying again changes nothing, except after [`PrepareError::Stopping`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The module is none that can be deployed.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The module is not what the deployment says.
    #[error("the module's digest is {found}, the deployment says {expected}; deploy it again")]
    OtherModule {
        /// What the deployment says.
        expected: Digest,
        /// What the bytes are.
        found: Digest,
    },
    /// The module is of another kind than the deployment says.
    #[error("the module is of kind {found}, the deployment says {expected}; deploy it again")]
    OtherKind {
        /// What the deployment says.
        expected: Kind,
        /// What the module is.
        found: Kind,
    },
    /// An export has a signature that the ABI does not know.
    #[error("the module's export {export} is not {expected}; build it with the nigh-sdk of this release")]
    Signature {
        /// The export's name.
        export: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// An import has a signature that the host does not give.
    #[error("the module's imports do not fit what computers offer: {0}")]
    Imports(String),
    /// One instance would be over all that the computer may use.
    #[error(
        "the function's memory limit of {wanted} bytes is over what this computer may use in all ({limit}); deploy it with a lower --memory, or give the computer more"
    )]
    MemoryOverBudget {
        /// The function's limit.
        wanted: u64,
        /// The computer's budget.
        limit: u64,
    },
    /// One instance could have more files open than all together.
    #[error(
        "the function may have {wanted} files and directories open, over what all functions of this computer may ({limit}); deploy it with fewer --open-files, or have the computer's operator raise open_files_max"
    )]
    FilesOverBudget {
        /// The function's limit.
        wanted: u32,
        /// The computer's budget.
        limit: u32,
    },
    /// A directory that the operator does not offer, or not for writing.
    #[error("directory {name} is not offered for {access} on this computer; its operator can offer it")]
    DirectoryNotOffered {
        /// The directory's name.
        name: String,
        /// `reading` or `writing`.
        access: &'static str,
    },
    /// The compiler gave up.
    #[error("the module cannot be compiled: {0}")]
    Compile(String),
    /// Compiling took too long.
    #[error(
        "compiling the module takes over {limit_ms} ms, this computer's limit; make its functions smaller, or have the computer's operator raise compile_cpu_max and compile_timeout"
    )]
    CompileTime {
        /// The limit that was hit.
        limit_ms: u64,
    },
    /// Compiling took too much memory.
    #[error(
        "compiling the module takes over {limit} bytes of memory, this computer's limit; make its functions smaller, or have the computer's operator raise compile_memory_bytes_max"
    )]
    CompileMemory {
        /// The limit that was hit.
        limit: u64,
    },
    /// The compiler itself does not work here; the computer's operator has to act.
    #[error("this computer's compiler does not work: {0}")]
    Compiler(String),
    /// The module cannot be held by the pool of instances.
    #[error("the module does not fit this computer's pool of instances: {0}")]
    Pool(String),
    /// The computer is stopping.
    #[error("the computer is stopping; try another")]
    Stopping,
}
