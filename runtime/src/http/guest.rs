//! What an http function may touch: WASI with its standard streams ending in the log, the directories granted, clocks,
//! randomness, no sockets; and HTTP, incoming and outgoing.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::keyvalue::Buckets;
use super::outgoing::{Outgoing, Sender};
use super::renewal::{HANDLES_MAX, Remembers, Shown};
use crate::function::Version;
use crate::host::files::Share;
use crate::host::{self, Service, Stop, Streams};

/// Handles that a guest may hold at once, beside those of open files.
const RESOURCES_MAX: usize = 1 << 12;

/// What the host holds for one instance of a component.
pub(crate) struct Guest {
    // Dropped first: whoever waits for the answer has to learn that the guest is gone before the body looks ended.
    pub(super) base: host::Guest,
    memory_bytes: u64,
    // Built when first used: a component that only answers never does.
    wasi: Option<Box<WasiCtx>>,
    http: WasiHttpCtx,
    pub(super) sender: Sender,
    pub(super) table: ResourceTable,
    /// What the call has opened of its states.
    pub(super) buckets: Buckets,
    /// Ticks that it may still see while it is made and no call has taken it yet.
    pub(super) ticks_ahead: Option<u32>,
    /// It wanted something of its host while no call had taken it.
    pub(super) has_asked: bool,
    /// Where its memory is, just after it was shown.
    pub(super) shown: Option<Shown>,
}

impl Guest {
    pub(super) fn new(version: Arc<Version>, outgoing: &Outgoing, files: Share) -> Self {
        let streams = Streams::of_native();
        let sender = Sender::new(version.clone(), streams.clone(), outgoing);
        let mut table = ResourceTable::new();
        let open_files = version.deployment.limits.open_files as usize;
        table.set_max_capacity(RESOURCES_MAX.saturating_add(open_files));
        Self {
            base: host::Guest::new(version, Some(streams), files),
            memory_bytes: 0,
            wasi: None,
            http: WasiHttpCtx::new(),
            sender,
            table,
            buckets: Buckets::default(),
            ticks_ahead: None,
            has_asked: false,
            shown: None,
        }
    }

    /// Whatever the host holds for the calls so far is let go. Says how many resources it held at once, and so handles the
    /// guest, at most; nothing where that is more than [`HANDLES_MAX`], or some are still held.
    pub(super) fn forget(&mut self) -> Option<u32> {
        if !self.table.is_empty() {
            return None;
        }
        // Without room for new places only those are taken that were taken before.
        let max_capacity = self.table.max_capacity();
        self.table.set_max_capacity(0);
        let taken = (0..=HANDLES_MAX).take_while(|_| self.table.push(()).is_ok()).count();
        let held = u32::try_from(taken).ok().filter(|held| *held <= HANDLES_MAX)?;
        self.table = ResourceTable::with_capacity(taken);
        self.table.set_max_capacity(max_capacity);
        self.wasi = None;
        self.http = WasiHttpCtx::new();
        self.buckets = Buckets::default();
        Some(held)
    }

    /// From now on it serves this call.
    pub(super) fn begin(&mut self, service: Service) {
        self.sender.until = service.deadline.min(service.time_limit);
        self.buckets = Buckets::default();
        self.ticks_ahead = None;
        self.base.begin(service);
    }

    /// At each tick of the epoch, as for modules.
    pub(super) fn on_tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if let Some(left) = &mut self.ticks_ahead {
            *left = left.checked_sub(1).ok_or(Stop::TimeLimit)?;
        }
        host::on_tick(&mut self.base)
    }

    /// Resources, for what needs nothing else.
    pub(super) fn resources(&mut self) -> &mut ResourceTable {
        self.note_asked();
        &mut self.table
    }

    /// The guest wants something of its host.
    pub(super) fn note_asked(&mut self) {
        self.has_asked |= self.ticks_ahead.is_some();
    }

    /// Bytes of all its memories.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.note_asked();
        let Self { base, wasi, table, .. } = self;
        let ctx = wasi.get_or_insert_with(|| {
            let streams = base.streams().clone();
            Box::new(host::context(base.version(), &streams).build())
        });
        WasiCtxView { ctx, table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.note_asked();
        WasiHttpCtxView { hooks: &mut self.sender, table: &mut self.table, ctx: &mut self.http }
    }
}

impl Remembers for Guest {
    fn shown(&mut self) -> &mut Option<Shown> {
        &mut self.shown
    }
}

/// A component may have several memories; together they are within the limit.
impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current) as u64);
        let fits = total <= self.base.version().deployment.limits.memory_bytes;
        if fits {
            self.memory_bytes = total;
        }
        self.base.is_out_of_memory |= !fits;
        Ok(fits)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired as u64 <= u64::from(self.base.version().deployment.limits.table_elements);
        self.base.is_out_of_table |= !fits;
        Ok(fits)
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("base", &self.base).finish_non_exhaustive()
    }
}
