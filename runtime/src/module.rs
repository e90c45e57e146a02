//! From a module's bytes to code that can be instantiated: judged, compiled once, kept on disk, loaded from there as often
//! as it is needed. Loads run beside each other and never wait for a module that is being compiled.

use std::collections::HashMap;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use nigh_proto::module::{self, ModuleLimits, abi};
use nigh_proto::{Digest, Kind};
use nigh_telemetry::Histogram;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use wasmtime::component::Component;

use crate::cache::{Cache, Verified};
use crate::compile::Compiler;
use crate::error::PrepareError;
use crate::probe;

/// Modules held in memory to be judged and compiled, at once; whoever brings one more waits.
const INTAKES_AT_ONCE: usize = 4;
/// Bytes of a page of Wasm memory.
const WASM_PAGE_BYTES: u64 = 64 << 10;

/// A module ready to be instantiated.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) code: CompiledCode,
    /// How it is run.
    pub(crate) kind: Kind,
    /// Bytes of memory that an instance begins with.
    pub(crate) memory_bytes_min: u64,
    /// Bytes of code and tables that are mapped.
    pub(crate) code_bytes: u64,
}

/// Compiled code of either form.
#[derive(Debug)]
pub(crate) enum CompiledCode {
    /// Of a core module.
    Module(wasmtime::Module),
    /// Of a component.
    Component(Component),
}

/// What a shelf holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Core modules.
    Module,
    /// Components, which have an engine of their own.
    Component,
}

/// Where modules become code.
#[derive(Debug)]
pub(crate) struct Modules {
    modules: Arc<Shelf>,
    components: Arc<Shelf>,
    limits: ModuleLimits,
    compiler: Compiler,
    intakes: Semaphore,
    loads: Semaphore,
    /// One at a time for each module, so that nothing is loaded or compiled twice.
    turns: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

/// What is compiled: on disk, and in memory as far as somebody uses it.
#[derive(Debug)]
pub(crate) struct Shelf {
    form: Form,
    engine: wasmtime::Engine,
    cache: Cache,
    in_use: Mutex<HashMap<Digest, Weak<Compiled>>>,
}

impl Modules {
    pub(crate) fn new(modules: Shelf, components: Shelf, limits: ModuleLimits, compiler: Compiler) -> Self {
        Self {
            modules: Arc::new(modules),
            components: Arc::new(components),
            limits,
            compiler,
            intakes: Semaphore::new(INTAKES_AT_ONCE),
            loads: Semaphore::new(probe::cores().max(2)),
            turns: Mutex::default(),
        }
    }

    /// The module of this digest if it is compiled already.
    pub(crate) async fn find(&self, digest: Digest) -> Result<Option<Arc<Compiled>>, PrepareError> {
        if let Some(compiled) = self.in_memory(&digest) {
            return Ok(Some(compiled));
        }
        let _turn = self.turn(digest).await;
        self.load(digest).await
    }

    /// The module of this digest: as it is compiled already, or compiled from what `fetch` brings.
    pub(crate) async fn obtain<E: From<PrepareError>>(
        &self,
        digest: Digest,
        fetch: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Arc<Compiled>, E> {
        if let Some(compiled) = self.in_memory(&digest) {
            return Ok(compiled);
        }
        let _turn = self.turn(digest).await;
        if let Some(compiled) = self.load(digest).await? {
            return Ok(compiled);
        }
        let _intake = self.intakes.acquire().await.map_err(|_| PrepareError::Stopping)?;
        let module = fetch.await?;
        Ok(self.take_in(digest, module).await?)
    }

    /// How long modules took to compile.
    pub(crate) fn compile_times(&self) -> &Histogram {
        self.compiler.times()
    }

    /// Judges, compiles and stores a module.
    async fn take_in(&self, digest: Digest, module: Bytes) -> Result<Arc<Compiled>, PrepareError> {
        let (limits, judged) = (self.limits.clone(), module.clone());
        let judge = move || {
            let found = Digest::of(&judged);
            if found != digest {
                return Err(PrepareError::OtherModule { expected: digest, found });
            }
            Ok(module::inspect(&judged, &limits)?.kind)
        };
        let kind = blocking(judge).await?;
        let code = self.compiler.compile(&digest, kind, module).await?;
        let shelf = if kind == Kind::Http { self.components.clone() } else { self.modules.clone() };
        blocking(move || shelf.put(digest, code)).await
    }

    async fn load(&self, digest: Digest) -> Result<Option<Arc<Compiled>>, PrepareError> {
        if let Some(compiled) = self.in_memory(&digest) {
            return Ok(Some(compiled));
        }
        let _load = self.loads.acquire().await.map_err(|_| PrepareError::Stopping)?;
        let (modules, components) = (self.modules.clone(), self.components.clone());
        blocking(move || Ok(modules.take(digest).or_else(|| components.take(digest)))).await
    }

    fn in_memory(&self, digest: &Digest) -> Option<Arc<Compiled>> {
        self.modules.in_memory(digest).or_else(|| self.components.in_memory(digest))
    }

    async fn turn(&self, digest: Digest) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            let known = turns.get(&digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                turns.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::default();
                turns.insert(digest, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

/// Runs work that blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
) -> Result<T, PrepareError> {
    let panicked = |_| PrepareError::Compiler("it panicked; please report this".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(panicked)?
}

impl Shelf {
    /// Of code for this engine, kept in this folder.
    pub(crate) fn new(form: Form, engine: wasmtime::Engine, cache: Cache) -> Self {
        Self { form, engine, cache, in_use: Mutex::default() }
    }

    fn in_memory(&self, digest: &Digest) -> Option<Arc<Compiled>> {
        self.in_use.lock().get(digest).and_then(Weak::upgrade)
    }

    /// Stores code just compiled, and makes a module of it.
    fn put(&self, digest: Digest, code: Vec<u8>) -> Result<Arc<Compiled>, PrepareError> {
        match self.cache.store(&digest, &code) {
            Ok(()) => {
                if let Some(compiled) = self.take(digest) {
                    return Ok(compiled);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a compiled module cannot be kept on disk; once out of memory it is compiled again");
            }
        }
        let code = deserialize(&self.engine, self.form, Trusted::Compiled(&code))
            .map_err(|error| PrepareError::Compiler(format!("its code cannot be loaded: {error:#}")))?;
        Ok(self.use_code(digest, code))
    }

    /// Makes a module of code on disk.
    fn take(&self, digest: Digest) -> Option<Arc<Compiled>> {
        match deserialize(&self.engine, self.form, Trusted::Cached(self.cache.load(&digest)?)) {
            Ok(code) => Some(self.use_code(digest, code)),
            Err(error) => {
                tracing::warn!(module = %digest.short(), %error, "a compiled module does not fit this engine, compiling anew");
                None
            }
        }
    }

    fn use_code(&self, digest: Digest, code: CompiledCode) -> Arc<Compiled> {
        let compiled = Arc::new(describe(code));
        let mut in_use = self.in_use.lock();
        // Those gone are swept out now and then, at a cost that is small beside the load.
        if in_use.len() == in_use.capacity() {
            in_use.retain(|_, module| module.strong_count() > 0);
        }
        in_use.insert(digest, Arc::downgrade(&compiled));
        compiled
    }
}

/// Code that is ours, and why.
enum Trusted<'a> {
    /// This process's own compiler has just made it.
    Compiled(&'a [u8]),
    /// This computer has written it, which was checked.
    Cached(Verified),
}

/// Makes a module or a component of code that is ours.
#[expect(unsafe_code, reason = "loading compiled code means to trust it; `Trusted` is why that is sound")]
fn deserialize(engine: &wasmtime::Engine, form: Form, code: Trusted<'_>) -> wasmtime::Result<CompiledCode> {
    // SAFETY: these functions need what `Engine::precompile_module` or `precompile_component` produced, unaltered and, for
    // a file, unaltered for as long as the code lives; which of the two it is, they check themselves. `Trusted::Compiled`
    // is made in `Shelf::put` alone, of what `Compiler` returned: the output of those functions in this process, or in a
    // child of it whose pipe nobody else holds. `Verified` is made in `Cache::judge` alone, of contents whose HMAC proves
    // that `Cache::store` wrote them, under a key that only this user can read; and `Cache::store` is given nothing but the
    // same output. A `Verified::File` can be written to by nobody but this user, and this program never writes to a file
    // that has its final name: it makes another and renames it. The path below `/proc` leads to the file that was judged,
    // whatever its name leads to by now.
    unsafe {
        match (form, code) {
            (Form::Module, Trusted::Compiled(code)) => {
                wasmtime::Module::deserialize(engine, code).map(CompiledCode::Module)
            }
            (Form::Module, Trusted::Cached(Verified::Bytes(code))) => {
                wasmtime::Module::deserialize(engine, code).map(CompiledCode::Module)
            }
            (Form::Module, Trusted::Cached(Verified::File(file))) => {
                wasmtime::Module::deserialize_open_file(engine, file).map(CompiledCode::Module)
            }
            (Form::Component, Trusted::Compiled(code)) => {
                Component::deserialize(engine, code).map(CompiledCode::Component)
            }
            (Form::Component, Trusted::Cached(Verified::Bytes(code))) => {
                Component::deserialize(engine, code).map(CompiledCode::Component)
            }
            (Form::Component, Trusted::Cached(Verified::File(file))) => {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                Component::deserialize_file(engine, path).map(CompiledCode::Component)
            }
        }
    }
}

/// What `inspect` found out about the module when it was compiled, told from the compiled code.
fn describe(code: CompiledCode) -> Compiled {
    // So that the first call does not pay for making the image. Where it fails, instances are made the slower way.
    let (kind, pages, image) = match &code {
        CompiledCode::Module(module) => {
            let _ = module.initialize_copy_on_write_image();
            let kind = if module.get_export(abi::HANDLE).is_some() { Kind::Native } else { Kind::Command };
            (kind, module.resources_required().max_initial_memory_size, module.image_range())
        }
        CompiledCode::Component(component) => {
            let _ = component.initialize_copy_on_write_image();
            let pages = component.resources_required().and_then(|required| required.max_initial_memory_size);
            (Kind::Http, pages, component.image_range())
        }
    };
    let memory_bytes_min = pages.unwrap_or(0).saturating_mul(WASM_PAGE_BYTES);
    let code_bytes = (image.end.addr() - image.start.addr()) as u64;
    Compiled { code, kind, memory_bytes_min, code_bytes }
}
