//! A computer in this process: functions go in by `deploy`, calls by `handle`.

mod entry;
mod role;
mod set_up;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_proto::ingress::Handler;
use nigh_proto::{
    Call, Deployment, Exchange, Exchanged, FunctionName, Kind, Load, NodeName, PlatformError, Reason, Reply, module,
};
use nigh_state::Keeper;
use nigh_telemetry::HttpResponses;
use tokio::sync::{Notify, Semaphore};

use self::set_up::{open_cache, open_offer};
use crate::admission::{self, Brought};
use crate::command::Command;
use crate::compile::Compiler;
use crate::config::{Config, OfferedDirectory};
use crate::crew::Crew;
use crate::engine;
use crate::error::{Error, PrepareError};
use crate::function::{Code, Function, Functions, Grant, Retired, Version};
use crate::host::files::{self, OpenFiles};
use crate::host::{self, Guest};
use crate::http::{self, Http, Outgoing};
use crate::logs::Hub;
use crate::metrics::{self, Instances};
use crate::module::{Compiled, CompiledCode, Form, Modules, Shelf};
use crate::native::Native;
use crate::residency::Residency;
use crate::schedule::{Budgets, LaneId};
use crate::{span, states};

/// When to come again for a function whose code is gone from the cache and has to be fetched and compiled again.
const RETRY_LOST: Duration = Duration::from_millis(500);
/// When to come again where too many calls wait for code.
const RETRY_CROWDED: Duration = Duration::from_millis(10);

/// A computer. Dropping it ends all its calls.
pub struct Computer {
    name: NodeName,
    directories: Vec<OfferedDirectory>,
    files: OpenFiles,
    open_files_max: u32,
    labels: nigh_proto::Labels,
    memory_bytes_max: u64,
    module_bytes_max: u64,
    instances_max: u32,
    linker: wasmtime::Linker<Guest>,
    imports: http::Imports,
    modules: Modules,
    functions: Arc<Functions>,
    crew: Arc<Crew>,
    /// It does not know yet what is deployed, so a name that it does not know may well be.
    is_learning: AtomicBool,
    /// Places for calls that wait until their function's code is back in memory.
    awaiting_code: Semaphore,
    /// Told when code that should be there is gone from the cache.
    lost: Notify,
    /// Answers at the door for HTTP.
    http: HttpResponses,
    /// The states that it holds.
    pub(crate) states: Arc<Keeper>,
}

impl Computer {
    /// Starts a computer: its engine, its workers, its compiler.
    ///
    /// # Errors
    /// Where the configuration contradicts itself, or the host does not give what it needs; the operator has to act.
    pub fn new(config: Config) -> Result<Arc<Self>, Error> {
        Self::start(config, true)
    }

    /// A computer that holds no guest to its limits of time and memory, for the benches to see what these cost.
    #[doc(hidden)]
    pub fn without_limits_for_benches(config: Config) -> Result<Arc<Self>, Error> {
        Self::start(config, false)
    }

    fn start(config: Config, is_limited: bool) -> Result<Arc<Self>, Error> {
        config.check()?;
        let (modules, components) = (engine::start_sized(&config)?, http::engine::start(&config)?);
        let compiler = Compiler::new(&modules, &components, &config);
        let (places, engine) = (modules.places, modules.engine);
        let component_engine = components.engine;
        let shelf = |form, engine: &wasmtime::Engine| {
            Ok::<_, Error>(Shelf::new(form, engine.clone(), open_cache(&config, engine)?))
        };
        let shelves = (shelf(Form::Module, &engine)?, shelf(Form::Component, &component_engine)?);
        let directories = config.directories.iter().map(open_offer).collect::<Result<_, _>>()?;
        let residency = Residency::new(config.resident_functions_max, config.resident_code_bytes_max);
        let functions = Arc::new(Functions::new(residency));
        let budgets = Budgets {
            workers: config.workers,
            instances_max: usize::try_from(places).unwrap_or(usize::MAX),
            queue_max: config.queue_max,
            payload_bytes_max: config.payload_bytes_total_max,
            memory_bytes_max: config.memory_bytes_max,
        };
        let outgoing = Outgoing::new(config.outgoing_networks.clone());
        let engines = (engine.clone(), component_engine.clone());
        let crew = Crew::start(config.name.clone(), engines, budgets, is_limited, outgoing)?;
        let states = states::keeper(&config);
        let computer = Arc::new(Self {
            name: config.name,
            directories,
            files: OpenFiles::new(config.open_files_max),
            open_files_max: config.open_files_max,
            labels: config.labels,
            memory_bytes_max: config.memory_bytes_max,
            module_bytes_max: config.module_limits.bytes_max,
            instances_max: places,
            linker: host::linker(&engine)?,
            imports: http::imports(&component_engine)?,
            modules: Modules::new(shelves.0, shelves.1, config.module_limits, compiler),
            functions,
            crew,
            is_learning: AtomicBool::new(false),
            awaiting_code: Semaphore::new(config.queue_max.min(Semaphore::MAX_PERMITS)),
            lost: Notify::new(),
            http: HttpResponses::default(),
            states,
        });
        metrics::describe(&config.telemetry, &computer, metrics::write);
        Ok(computer)
    }

    /// Prepares a version and then switches the function to it: calls from then on use it, those under way finish on
    /// the one before. Where it fails, the one before stays in use.
    ///
    /// # Errors
    /// Where this computer cannot run the version.
    pub async fn deploy(&self, deployment: Deployment, module: Bytes) -> Result<(), PrepareError> {
        let deployment = Arc::new(deployment);
        let compiled = async {
            self.check(&deployment)?;
            self.modules.obtain(deployment.module, async { Ok::<_, PrepareError>(module) }).await
        };
        let name = deployment.name.clone();
        let version = deployment.version;
        let prepared = compiled.await.and_then(|compiled| self.prepare(deployment, &compiled));
        match prepared {
            Ok(prepared) => {
                self.switch(prepared);
                Ok(())
            }
            Err(error) => {
                self.functions.note_problem(&name, version, error.to_string());
                Err(error)
            }
        }
    }

    /// Forgets a function; its calls under way finish.
    pub fn remove(&self, name: &FunctionName) {
        self.retire(self.functions.remove(name));
    }

    /// Functions whose code is in memory, and the bytes of it. Of the others it is on disk.
    pub fn resident(&self) -> (usize, u64) {
        self.functions.resident()
    }

    /// How busy the computer is.
    pub fn load(&self) -> Load {
        self.crew.load()
    }

    /// Takes no more calls: they are refused with [`Reason::NotServing`]. Those waiting or running go on.
    pub fn close(&self) {
        self.crew.close();
    }

    /// Calls that wait or run.
    pub fn under_way(&self) -> usize {
        self.crew.under_way()
    }

    /// Instances that it can hold at once.
    pub(crate) fn instances_max(&self) -> u32 {
        self.instances_max
    }

    /// Instances that there are.
    pub(crate) fn instances(&self) -> Instances {
        Instances::new([&self.crew.engine, &self.crew.component_engine], self.crew.pool.kept())
    }

    /// How many calls of a function run and wait.
    pub(crate) fn counts(&self, lane: LaneId) -> (u32, u32) {
        self.crew.counts(lane)
    }

    /// What its operator says of it.
    pub(crate) fn labels(&self) -> &nigh_proto::Labels {
        &self.labels
    }

    /// The functions that it knows.
    pub(crate) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// Where compiled modules are found.
    pub(crate) fn modules(&self) -> &Modules {
        &self.modules
    }

    /// Every line logged from now on.
    pub(crate) fn hub(&self) -> &Hub {
        self.functions.hub()
    }

    /// Says whether it is still to learn what is deployed.
    pub(crate) fn set_learning(&self, is_learning: bool) {
        self.is_learning.store(is_learning, Ordering::Relaxed);
    }

    /// Has everything counted that calls have measured.
    pub(crate) fn settle_measures(&self) {
        self.crew.settle_measures();
    }

    /// Checks what can be checked before the module is at hand; what is granted then.
    pub(crate) fn check(&self, deployment: &Deployment) -> Result<Vec<Grant>, PrepareError> {
        let (found, limit) = (deployment.module_bytes, self.module_bytes_max);
        if found > limit {
            return Err(module::ModuleError::OverLimit { what: "bytes", found, limit }.into());
        }
        let wanted = deployment.limits.memory_bytes;
        if wanted > self.memory_bytes_max {
            return Err(PrepareError::MemoryOverBudget { wanted, limit: self.memory_bytes_max });
        }
        let wanted = files::wanted(deployment);
        if wanted > self.open_files_max {
            return Err(PrepareError::FilesOverBudget { wanted, limit: self.open_files_max });
        }
        self.grants(deployment)
    }

    /// Makes a version of a deployment and its module.
    pub(crate) fn prepare(
        &self,
        deployment: Arc<Deployment>,
        compiled: &Arc<Compiled>,
    ) -> Result<Arc<Version>, PrepareError> {
        let grants = self.check(&deployment)?;
        if compiled.kind != deployment.kind {
            return Err(PrepareError::OtherKind { expected: deployment.kind, found: compiled.kind });
        }
        let facts = module::Module { kind: compiled.kind, memory_bytes_min: compiled.memory_bytes_min };
        facts.check_limits(&deployment.limits)?;
        let code = match &compiled.code {
            CompiledCode::Component(component) => Code::Http(Http::prepare(&self.imports, component)?),
            CompiledCode::Module(module) if compiled.kind == Kind::Native => {
                Code::Native(Native::prepare(&self.linker, module)?)
            }
            CompiledCode::Module(module) => Code::Command(Command::prepare(&self.linker, module)?),
        };
        Ok(Arc::new(Version::new(deployment, code, grants, self.files.clone(), compiled.clone())))
    }

    /// Switches a function to a version.
    pub(crate) fn switch(&self, version: Arc<Version>) {
        let (name, digest) = (version.deployment.name.clone(), version.deployment.version);
        self.retire(self.functions.switch(version));
        tracing::info!(function = %name, version = %digest.short(), "ready");
    }

    /// Told when code is gone from memory and cache, so that its version has to be prepared anew.
    pub(crate) async fn code_lost(&self) {
        self.lost.notified().await;
    }

    /// Drops what is kept of versions that are not in memory any more.
    fn retire(&self, retired: Retired) {
        for version in retired.0 {
            self.crew.retire(&version);
        }
    }

    /// Brings the code of the version in use back into memory. One call does it, the others wait for that.
    async fn bring_back(&self, function: &Function) -> Result<Arc<Version>, PlatformError> {
        let _place = self.awaiting_code.try_acquire().map_err(|_| {
            let message = "too many calls wait for code to be loaded; try again later, or another computer";
            PlatformError::new(Reason::QueueFull, message).retry_after(RETRY_CROWDED)
        })?;
        let _turn = function.loading.lock().await;
        let known =
            self.functions.get(&function.name).ok_or_else(|| PlatformError::unknown_function(&function.name))?;
        let deployment = match (known.version, known.deployment) {
            (Some(version), _) => return Ok(version),
            (None, Some(deployment)) => deployment,
            (None, None) => return Err(admission::not_ready(&function.name, known.problem.map(|(_, why)| why))),
        };
        let found = self.modules.find(deployment.module).await;
        let prepared = found.and_then(|found| match found {
            Some(compiled) => self.prepare(deployment.clone(), &compiled).map(Some),
            None => Ok(None),
        });
        match prepared {
            Ok(Some(version)) => {
                self.retire(self.functions.bring_back(version.clone()));
                Ok(version)
            }
            Ok(None) => {
                self.functions.lose(&deployment);
                self.lost.notify_one();
                let message = format!(
                    "the compiled code of {} is gone from this computer's cache; it is being made anew",
                    function.name
                );
                Err(PlatformError::new(Reason::NotReady, message).retry_after(RETRY_LOST))
            }
            Err(error) => Err(PlatformError::new(Reason::NotReady, error.to_string()).retry_after(RETRY_LOST)),
        }
    }

    fn grants(&self, deployment: &Deployment) -> Result<Vec<Grant>, PrepareError> {
        let grant = |wanted: &nigh_proto::DirectoryGrant| {
            let refuse = |access| PrepareError::DirectoryNotOffered { name: wanted.name.clone(), access };
            let offer =
                self.directories.iter().find(|offer| offer.name == wanted.name).ok_or_else(|| refuse("reading"))?;
            if wanted.writable && !offer.writable {
                return Err(refuse("writing"));
            }
            let (host_path, guest_path) = (offer.path.clone(), wanted.guest_path.clone());
            Ok(Grant { host_path, guest_path, is_writable: wanted.writable })
        };
        deployment.directories.iter().map(grant).collect()
    }
}

impl Handler for Computer {
    const COMPUTES: bool = true;

    async fn handle(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        span::around(&self.name, call, |call| self.run(call, arrived)).await
    }

    fn exchange(
        &self,
        exchange: Exchange,
        arrived: Instant,
    ) -> impl Future<Output = Result<Exchanged, PlatformError>> + Send {
        let Exchange { call, head, body } = exchange;
        let deadline = call.deadline;
        self.enter(call, Brought::Request(head, body), arrived).exchanged(deadline)
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        self.crew.end();
    }
}

impl fmt::Debug for Computer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computer").field("name", &self.name).finish_non_exhaustive()
    }
}
