//! From a module's bytes to code that can be instantiated: judged, compiled once, kept in memory while in use and on
//! disk for the next start. On a thread of its own, one module after the other, so that compiling never takes more than
//! one core.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread;

use bytes::Bytes;
use nigh_proto::module::{self, ModuleLimits, abi};
use nigh_proto::{Digest, Kind};
use nigh_telemetry::Histogram;
use tokio::sync::{mpsc, oneshot};

use crate::cache::{Cache, Verified};
use crate::error::{Error, PrepareError};
use crate::expose::expose;

/// Modules that wait to be compiled; whoever brings one more waits for a place.
const QUEUE_MAX: usize = 16;
/// Stack of the compiling thread; the compiler recurses over deeply nested blocks.
const STACK_BYTES: usize = 16 << 20;

/// Bytes of a page of Wasm memory.
const WASM_PAGE_BYTES: u64 = 64 << 10;

/// A module ready to be instantiated.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) module: wasmtime::Module,
    /// How it is run.
    pub(crate) kind: Kind,
    /// Bytes of memory that an instance begins with.
    pub(crate) memory_bytes_min: u64,
}

/// The compiling thread's counter.
#[derive(Debug)]
pub(crate) struct Modules {
    tasks: mpsc::Sender<Task>,
    compile_times: Arc<Histogram>,
}

struct Task {
    digest: Digest,
    /// Without them, only what is compiled already is of use.
    bytes: Option<Bytes>,
    done: oneshot::Sender<Result<Option<Arc<Compiled>>, PrepareError>>,
}

impl Modules {
    /// Starts the thread; it ends when this is dropped.
    pub(crate) fn start(engine: wasmtime::Engine, cache: Option<Cache>, limits: ModuleLimits) -> Result<Self, Error> {
        let (tasks, queue) = mpsc::channel(QUEUE_MAX);
        let compile_times = Arc::<Histogram>::default();
        let compiler = Compiler { engine, cache, limits, in_use: HashMap::new(), compile_times: compile_times.clone() };
        thread::Builder::new()
            .name("nigh-compile".into())
            .stack_size(STACK_BYTES)
            .spawn(move || compiler.work(queue))
            .map_err(Error::Thread)?;
        Ok(Self { tasks, compile_times })
    }

    /// The module of this digest if it is compiled already, in memory or on disk.
    pub(crate) async fn find(&self, digest: Digest) -> Result<Option<Arc<Compiled>>, PrepareError> {
        self.ask(digest, None).await
    }

    /// The module of this digest, compiled if need be.
    pub(crate) async fn compile(&self, digest: Digest, bytes: Bytes) -> Result<Arc<Compiled>, PrepareError> {
        self.ask(digest, Some(bytes)).await?.ok_or(PrepareError::Stopping)
    }

    /// How long modules took to compile.
    pub(crate) fn compile_times(&self) -> &Histogram {
        &self.compile_times
    }

    async fn ask(&self, digest: Digest, bytes: Option<Bytes>) -> Result<Option<Arc<Compiled>>, PrepareError> {
        let (done, answer) = oneshot::channel();
        self.tasks.send(Task { digest, bytes, done }).await.map_err(|_| PrepareError::Stopping)?;
        answer.await.map_err(|_| PrepareError::Compile("the compiler gave up on this module".to_owned()))?
    }
}

struct Compiler {
    engine: wasmtime::Engine,
    cache: Option<Cache>,
    limits: ModuleLimits,
    in_use: HashMap<Digest, Weak<Compiled>>,
    compile_times: Arc<Histogram>,
}

impl Compiler {
    fn work(mut self, mut queue: mpsc::Receiver<Task>) {
        while let Some(Task { digest, bytes, done }) = queue.blocking_recv() {
            if done.is_closed() {
                continue;
            }
            // A compiler that panics on a module must not take the other modules with it.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.take(&digest, bytes.as_ref())));
            // Without an answer, whoever asked is told that the compiler gave up.
            if let Ok(result) = result {
                let _ = done.send(result);
            }
        }
    }

    fn take(&mut self, digest: &Digest, bytes: Option<&Bytes>) -> Result<Option<Arc<Compiled>>, PrepareError> {
        if let Some(bytes) = bytes {
            let found = Digest::of(bytes);
            if found != *digest {
                return Err(PrepareError::OtherModule { expected: *digest, found });
            }
        }
        if let Some(compiled) = self.in_use.get(digest).and_then(Weak::upgrade) {
            return Ok(Some(compiled));
        }
        let module = match (self.load(digest), bytes) {
            (Some(module), _) => module,
            (None, None) => return Ok(None),
            (None, Some(bytes)) => self.compile(digest, bytes)?,
        };
        // So that the first call does not pay for it. Where it fails, instances are made the slower way.
        let _ = module.initialize_copy_on_write_image();
        let compiled = Arc::new(describe(module));
        self.in_use.retain(|_, module| module.strong_count() > 0);
        self.in_use.insert(*digest, Arc::downgrade(&compiled));
        Ok(Some(compiled))
    }

    fn compile(&self, digest: &Digest, bytes: &[u8]) -> Result<wasmtime::Module, PrepareError> {
        module::inspect(bytes, &self.limits)?;
        let started = std::time::Instant::now();
        let exposed = expose(bytes).map_err(|error| PrepareError::Compile(error.to_string()))?;
        let module = wasmtime::Module::new(&self.engine, exposed)
            .map_err(|error| PrepareError::Compile(format!("{error:#}")))?;
        let took = started.elapsed();
        self.compile_times.record(took);
        tracing::info!(module = %digest.short(), ms = took.as_millis(), "compiled");
        if let Some(cache) = &self.cache {
            let stored = module.serialize().map_err(std::io::Error::other).and_then(|code| cache.store(digest, &code));
            if let Err(error) = stored {
                tracing::warn!(%error, "a compiled module cannot be kept on disk; the next start compiles it again");
            }
        }
        Ok(module)
    }

    fn load(&self, digest: &Digest) -> Option<wasmtime::Module> {
        let verified = self.cache.as_ref()?.load(digest)?;
        match deserialize(&self.engine, &verified) {
            Ok(module) => Some(module),
            Err(error) => {
                tracing::warn!(module = %digest.short(), %error, "a compiled module does not fit this engine, compiling anew");
                None
            }
        }
    }
}

/// Makes a module of code that is ours.
#[expect(unsafe_code, reason = "loading compiled code means to trust it; `Verified` is why that is sound")]
fn deserialize(engine: &wasmtime::Engine, verified: &Verified) -> wasmtime::Result<wasmtime::Module> {
    // SAFETY: `Module::deserialize` needs bytes that `Module::serialize` produced, unaltered. `Verified` is only made
    // by `Cache::load`, from bytes whose HMAC proves that `Cache::store` wrote them, under a key that only this user
    // can read; and `Cache::store` is given nothing but the output of `Module::serialize`. The bytes are judged and
    // used in memory, so no change of the file can come between.
    unsafe { wasmtime::Module::deserialize(engine, verified.code()) }
}

/// What `inspect` found out about the module when it was compiled, told from the compiled code.
fn describe(module: wasmtime::Module) -> Compiled {
    let kind = if module.get_export(abi::HANDLE).is_some() { Kind::Native } else { Kind::Command };
    let pages = module.resources_required().max_initial_memory_size.unwrap_or(0);
    let memory_bytes_min = pages.saturating_mul(WASM_PAGE_BYTES);
    Compiled { module, kind, memory_bytes_min }
}
