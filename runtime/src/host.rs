//! What a guest may touch, and nothing else: a log, clocks and randomness, standard streams that end here, the
//! directories granted. No network, no environment, no arguments but a program's own name.

pub(crate) mod files;
mod random;
mod sleep;
mod state;
mod streams;
pub(crate) mod wait;

use std::sync::Arc;
use std::time::Instant;

use nigh_proto::module::abi;
use nigh_state::Session;
use tokio::sync::oneshot;
use wasmtime::{Caller, Extern, Linker, ResourceLimiter, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, HostMonotonicClock, I32Exit, WasiCtxBuilder, WasiView as _};

use crate::admission::Answer;
use crate::crew::{Crew, Turn};
use crate::error::Error;
use crate::function::{Code, Version};
use crate::logs::{self, CallLog};

use sleep::now_monotonic;
pub(crate) use streams::Streams;

/// What WASI holds for a guest beside its files: three standard streams, and one that reads or writes a file just then.
const STREAMS_OPEN: usize = 4;

/// What WASI says of a descriptor that is no socket.
const NOT_A_SOCKET: i32 = 57;

/// Why the host ended a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    /// Its function's time limit passed.
    #[error("the time limit passed")]
    TimeLimit,
    /// Its caller's deadline passed.
    #[error("the caller's deadline passed")]
    Late,
    /// Its caller went away.
    #[error("nobody waits for the answer any more")]
    Cancelled,
    /// The computer stops and its time to drain is over.
    #[error("the computer stops")]
    Stopping,
    /// It wrote more to its standard output than an answer may hold.
    #[error("the answer is too large")]
    AnswerTooLarge,
}

/// The call that an instance serves.
#[derive(Debug)]
pub(crate) struct Service {
    /// Closed once nobody waits for the answer.
    pub(crate) answer: oneshot::Sender<Answer>,
    /// The caller's deadline.
    pub(crate) deadline: Instant,
    /// When the function's time limit ends.
    pub(crate) time_limit: Instant,
    /// Where the call's lines go.
    pub(crate) log: CallLog,
    /// Its place among those that compute.
    pub(crate) turn: Turn,
    /// The states that are leased to it.
    pub(crate) states: Option<Box<Session>>,
}

/// What the host holds for one instance.
pub(crate) struct Guest {
    version: Arc<Version>,
    service: Option<Service>,
    /// The message of a panic in this call.
    pub(crate) panic: Option<String>,
    /// Memory was asked for and refused in this call.
    pub(crate) is_out_of_memory: bool,
    /// Elements of a table were asked for and refused in this call.
    pub(crate) is_out_of_table: bool,
    naps: sleep::Naps,
    streams: Option<Streams>,
    // Built when first used: most native guests never do.
    wasi: Option<Box<WasiP1Ctx>>,
    // Given back after what it stands for is closed.
    _files: files::Share,
}

impl Guest {
    pub(crate) fn new(version: Arc<Version>, streams: Option<Streams>, files: files::Share) -> Self {
        Self {
            version,
            service: None,
            panic: None,
            is_out_of_memory: false,
            is_out_of_table: false,
            naps: sleep::Naps::default(),
            streams,
            wasi: None,
            _files: files,
        }
    }

    /// The version that it is an instance of.
    pub(crate) fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// From now on it serves this call.
    pub(crate) fn begin(&mut self, service: Service) {
        self.panic = None;
        self.is_out_of_memory = false;
        self.is_out_of_table = false;
        self.naps = sleep::Naps::default();
        self.service = Some(service);
    }

    /// Whatever the host holds for the calls so far is let go: streams, open files, what was told to the guest of them.
    pub(crate) fn forget(&mut self) {
        self.streams = None;
        self.wasi = None;
    }

    /// The call has ended.
    pub(crate) fn end(&mut self) -> Option<Service> {
        self.drain_streams(true);
        self.service.take()
    }

    /// Looked in on from time to time: why the guest must not go on, if so.
    fn look_in(&mut self) -> wasmtime::Result<()> {
        self.drain_streams(false);
        self.stop().map_or(Ok(()), |stop| Err(stop.into()))
    }

    /// Where its call runs, while there is one.
    pub(crate) fn crew(&self) -> Option<&Crew> {
        self.service.as_ref().map(|service| &*service.turn.crew)
    }

    /// What bounds a guest while it waits for its host, and no tick can reach it.
    pub(crate) fn waiting_limits(&self) -> Option<wait::Limits> {
        let service = self.service.as_ref().filter(|service| service.turn.crew.is_limited)?;
        let (until, stop) = if service.deadline <= service.time_limit {
            (service.deadline, Stop::Late)
        } else {
            (service.time_limit, Stop::TimeLimit)
        };
        Some(wait::Limits { until, stop, crew: service.turn.crew.clone() })
    }

    fn stop(&self) -> Option<Stop> {
        let service = self.service.as_ref()?;
        let now = Instant::now();
        if service.answer.is_closed() {
            Some(Stop::Cancelled)
        } else if service.turn.crew.stopping.is_cancelled() {
            Some(Stop::Stopping)
        } else if now >= service.deadline {
            Some(Stop::Late)
        } else if now >= service.time_limit {
            Some(Stop::TimeLimit)
        } else {
            None
        }
    }

    /// The standard streams, made when first used.
    pub(crate) fn streams(&mut self) -> &Streams {
        self.streams.get_or_insert_with(Streams::of_native)
    }

    /// The states of the call that it serves, where its function has any.
    pub(crate) fn states(&mut self) -> Option<&mut Session> {
        self.service.as_mut()?.states.as_deref_mut()
    }

    /// What was written to standard streams goes to the log.
    fn drain_streams(&mut self, is_end: bool) {
        if let (Some(streams), Some(service)) = (&self.streams, &mut self.service) {
            streams.drain_lines(&mut service.log, is_end);
        }
    }

    fn log(&mut self, level: u32, text: &[u8]) {
        if level == logs::PANIC && self.panic.is_none() {
            self.panic = Some(logs::printable(&text[..text.len().min(logs::LINE_BYTES_MAX)]));
        }
        if let Some(service) = &mut self.service {
            service.log.write(level, text);
        }
    }

    fn wasi(&mut self) -> &mut WasiP1Ctx {
        if self.wasi.is_none() {
            let streams = self.streams().clone();
            self.wasi = Some(Box::new(context_of_module(&self.version, &streams)));
        }
        self.wasi.as_mut().expect("made just above")
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired as u64 <= self.version.deployment.limits.memory_bytes;
        self.is_out_of_memory |= !fits;
        Ok(fits)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired as u64 <= u64::from(self.version.deployment.limits.table_elements);
        self.is_out_of_table |= !fits;
        Ok(fits)
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("version", &self.version).field("service", &self.service).finish_non_exhaustive()
    }
}

/// At each tick of the epoch: go on, let others compute first, or stop and say why.
pub(crate) fn on_tick(guest: &mut Guest) -> wasmtime::Result<UpdateDeadline> {
    guest.look_in()?;
    let yields = guest.service.as_mut().is_some_and(|service| service.turn.should_yield());
    Ok(if yields { UpdateDeadline::Yield(1) } else { UpdateDeadline::Continue(1) })
}

/// Everything that guests can import.
pub(crate) fn linker(engine: &wasmtime::Engine) -> Result<Linker<Guest>, Error> {
    let mut linker = Linker::new(engine);
    define(&mut linker).map_err(|error| Error::Engine(format!("{error:#}")))?;
    Ok(linker)
}

fn define(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, Guest::wasi)?;
    linker.allow_shadowing(true);
    // WASI's own holds each subscription in a table of its own making, for files that are always ready.
    linker.func_wrap_async(abi::WASI, "poll_oneoff", |caller: Caller<'_, Guest>, request| {
        Box::new(sleep::poll_oneoff(caller, request))
    })?;
    linker.func_wrap_async(abi::WASI, "random_get", |caller: Caller<'_, Guest>, request| {
        Box::new(random::random_get(caller, request))
    })?;
    // There are no sockets. WASI's own say so in the operator's log, each time.
    linker.func_wrap(abi::WASI, "sock_accept", |_: i32, _: i32, _: i32| NOT_A_SOCKET)?;
    linker.func_wrap(abi::WASI, "sock_recv", |_: i32, _: i32, _: i32, _: i32, _: i32, _: i32| NOT_A_SOCKET)?;
    linker.func_wrap(abi::WASI, "sock_send", |_: i32, _: i32, _: i32, _: i32, _: i32| NOT_A_SOCKET)?;
    linker.func_wrap(abi::WASI, "sock_shutdown", |_: i32, _: i32| NOT_A_SOCKET)?;
    // WASI's own takes exit codes over 125 for a fault of the host.
    linker.func_wrap(abi::WASI, "proc_exit", |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) })?;
    linker.allow_shadowing(false);
    linker.func_wrap(abi::IMPORT_MODULE, abi::LOG, log)?;
    state::define(linker)
}

/// `nigh::log_v1(level, address, length)`.
fn log(mut caller: Caller<'_, Guest>, level: u32, address: u32, len: u32) -> wasmtime::Result<()> {
    let Some(Extern::Memory(memory)) = caller.get_export(abi::MEMORY) else {
        return Err(wasmtime::Error::msg("log_v1 was called by a module without a memory"));
    };
    let (bytes, guest) = memory.data_and_store_mut(&mut caller);
    let text = range(bytes, address, len)
        .ok_or_else(|| wasmtime::Error::msg("log_v1 was given a text that does not lie in memory"))?;
    let of_interest = guest.service.as_ref().map_or(0, |service| service.log.bytes_of_interest());
    guest.log(level, &text[..text.len().min(of_interest.max(logs::LINE_BYTES_MAX))]);
    Ok(())
}

/// Bytes of guest memory, if they are in it.
pub(crate) fn range(memory: &[u8], address: u32, len: u32) -> Option<&[u8]> {
    let start = usize::try_from(address).ok()?;
    memory.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

/// What WASI gives a guest of this version.
pub(crate) fn context(version: &Version, streams: &Streams) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    builder
        .monotonic_clock(Monotonic)
        .allow_tcp(false)
        .allow_udp(false)
        .stdin(streams.stdin())
        .stdout(streams.stdout())
        .stderr(streams.stderr());
    if matches!(version.code, Code::Command(_)) {
        builder.arg(version.deployment.name.as_str());
    }
    for grant in &version.grants {
        let perms = if grant.is_writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        if let Err(error) = builder.preopened_dir(&grant.host_path, &grant.guest_path, perms) {
            let function = version.deployment.name.as_str();
            tracing::warn!(function, path = %grant.host_path.display(), %error, "a directory granted cannot be opened");
        }
    }
    builder
}

/// The same for a module, with no more files than it may have open.
fn context_of_module(version: &Version, streams: &Streams) -> WasiP1Ctx {
    let mut context = context(version, streams).build_p1();
    let files = version.deployment.limits.open_files as usize;
    context.ctx().table.set_max_capacity(files.saturating_add(STREAMS_OPEN));
    context
}

struct Monotonic;

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        now_monotonic()
    }
}
