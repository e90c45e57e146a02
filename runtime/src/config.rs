//! What the operator of a computer decides. Every limit has a default that is safe on the machine at hand.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nigh_model::Hardware;
use nigh_proto::http_client::IpNet;
use nigh_proto::module::ModuleLimits;
use nigh_proto::tls::HttpClients;
use nigh_proto::{CallLimits, Endpoint, Endpoints, NodeName, ServerLimits, Tls};
use nigh_telemetry::Telemetry;

use crate::error::Error;
use crate::probe;
use crate::remote::RemoteSettings;

/// Files of guests open at once, where this process may have twice as many.
const OPEN_FILES_MAX: u32 = 4096;

/// What runs a computer's functions.
#[derive(Debug, Clone, Default)]
pub enum Backend {
    /// Instances of Wasm modules, on the host's own processors.
    #[default]
    Wasm,
    /// Nothing: calls are answered when this hardware would have answered them.
    Modelled(Hardware),
    /// A system elsewhere, which is asked over HTTP.
    Remote(Box<RemoteSettings>),
}

/// How a computer is set up. [`Config::new`] gives every field but the name a default.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name, unique among the nodes of one controller.
    pub name: NodeName,
    /// What runs its functions. Where the hardware is modelled or they run elsewhere, only the fields about the wire,
    /// `queue_max`, `payload_bytes_total_max`, `drain` and, elsewhere, `workers` matter.
    pub backend: Backend,
    /// Where others reach it, if not at its listener's own address.
    pub advertise: Option<Endpoint>,
    /// What it proves itself with, to those who call and to its controller; without it the wire is plain.
    pub tls: Option<Tls>,
    /// Where it learns what is deployed and announces itself; without one it runs what [`Computer::deploy`] is given.
    ///
    /// [`Computer::deploy`]: crate::Computer::deploy
    pub controller: Option<Endpoints>,
    /// A controller of the older system that is to know of this computer too.
    pub older_controller: Option<Endpoint>,
    /// Folder for compiled modules, made if missing; without one it is a temporary folder, and each start compiles anew.
    pub cache: Option<PathBuf>,
    /// Bytes of that folder's files, at most; the oldest are removed first.
    pub cache_bytes_max: u64,
    /// Functions whose code is in memory, at most; that of those not called for longest leaves, and is loaded from the
    /// cache when it is called again.
    pub resident_functions_max: usize,
    /// Bytes of code in memory, at most, under the same rule.
    pub resident_code_bytes_max: u64,
    /// The program that compiles one module in a process of its own, where its time and memory are bounded. Without one,
    /// modules are compiled in this process, and neither is.
    pub compiler: Option<CompilerProgram>,
    /// Modules compiled at once; as many again that have shown to be slow.
    pub compiles_max: usize,
    /// Processor time for compiling one module, in whole seconds.
    pub compile_cpu_max: Duration,
    /// Time for compiling one module, waiting for a core included.
    pub compile_timeout: Duration,
    /// Bytes of memory for compiling one module.
    pub compile_memory_bytes_max: u64,
    /// Directories that functions may be granted.
    pub directories: Vec<OfferedDirectory>,
    /// Networks to which names may lead that functions are allowed to send requests to, beside the public internet.
    pub outgoing_networks: Vec<IpNet>,
    /// What its operator says of it, by which functions choose where they run.
    pub labels: nigh_proto::Labels,
    /// Calls that compute at once, each on a thread of its own; at least 1. Those that wait for their host are not counted.
    pub workers: usize,
    /// Instances at once, those kept for reuse included; at least `workers`.
    pub instances_max: u32,
    /// Sum of the memory limits of all instances.
    pub memory_bytes_max: u64,
    /// Sum of the limits of open files of all instances that may have any.
    pub open_files_max: u32,
    /// Calls that wait, of all functions together.
    pub queue_max: usize,
    /// Bytes of the payloads of all calls that wait or run.
    pub payload_bytes_total_max: u64,
    /// What is accepted of one call.
    pub limits: CallLimits,
    /// What is accepted of those who connect.
    pub server: ServerLimits,
    /// Whom the door for HTTP lets in without a certificate, where there is TLS.
    pub http_clients: HttpClients,
    /// What is accepted of one module.
    pub module_limits: ModuleLimits,
    /// Time for calls to finish once the computer has to stop.
    pub drain: Duration,
    /// Where it tells of itself.
    pub telemetry: Telemetry,
    /// How it keeps states.
    pub states: nigh_state::Config,
}

/// A program that compiles: it calls [`compile_for_parent`](crate::compile_for_parent) as its first act and ends with what
/// that returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompilerProgram {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// A directory of this host that deployments can ask for by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedDirectory {
    /// The name; the form of a node's name.
    pub name: String,
    /// Where it is on this host.
    pub path: PathBuf,
    /// Functions that ask for it may also write.
    pub writable: bool,
}

impl Config {
    /// The defaults: a worker for each core, as guests that wait hold none and more would only have the kernel take turns
    /// where the schedule should; and half of the memory that this process may use.
    pub fn new(name: NodeName) -> Self {
        let memory_bytes = probe::memory_bytes();
        Self {
            name,
            backend: Backend::default(),
            advertise: None,
            tls: None,
            controller: None,
            older_controller: None,
            cache: None,
            cache_bytes_max: 1 << 30,
            resident_functions_max: 1024,
            resident_code_bytes_max: (256 << 20).min(memory_bytes / 8),
            compiler: None,
            compiles_max: (probe::cores() / 2).max(1),
            compile_cpu_max: Duration::from_secs(60),
            compile_timeout: Duration::from_secs(120),
            compile_memory_bytes_max: (1 << 30).min(memory_bytes / 4),
            directories: Vec::new(),
            outgoing_networks: Vec::new(),
            labels: nigh_proto::Labels::default(),
            workers: probe::cores(),
            instances_max: 256,
            memory_bytes_max: memory_bytes / 2,
            open_files_max: OPEN_FILES_MAX.min(probe::open_files() / 2),
            queue_max: 4096,
            payload_bytes_total_max: 512 << 20,
            limits: CallLimits::default(),
            module_limits: ModuleLimits::default(),
            server: ServerLimits::default(),
            http_clients: HttpClients::Certified,
            drain: Duration::from_secs(30),
            telemetry: Telemetry::new(),
            states: nigh_state::Config::default(),
        }
    }

    /// Checks what no single setting shows.
    ///
    /// # Errors
    /// [`Error::Config`], where settings contradict each other.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        if self.workers == 0 {
            return wrong("workers is 0; a computer needs at least one".to_owned());
        }
        if u64::from(self.instances_max) < self.workers as u64 {
            return wrong(format!("instances_max is {}, less than the {} workers", self.instances_max, self.workers));
        }
        for (at, offer) in self.directories.iter().enumerate() {
            if offer.name.parse::<NodeName>().is_err() {
                return wrong(format!("directory name {:?}: use the form of a node's name", offer.name));
            }
            if self.directories[..at].iter().any(|other| other.name == offer.name) {
                return wrong(format!("directory {} is offered twice", offer.name));
            }
        }
        Ok(())
    }
}
