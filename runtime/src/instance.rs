//! The life of an instance.
//!
//! ```text
//!            made                    call                      outcome, and calls left of those deployed
//!  (nothing) ────► busy (first call)      idle ────► busy ─────────────────────────────────────────────► idle
//!                                                     │ │
//!                                                     │ └── outcome, none left ──► worn ── as new again ──► idle
//!                                                     │                             │
//!                                                     └── trap, time-out, …         └── not to be reset
//!                                                          ▼                        ▼
//!                                                        spent                    spent
//! ```
//!
//! By default a function is deployed for one call, so every call finds an instance that is as new: one newly made, or one
//! that was worn and then reset. Nothing leads out of spent.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{Call, Outcome, PlatformError};
use wasmtime::{Store, TypedFunc};

use crate::function::{Code, Version};
use crate::host::{self, Guest, Service, Streams, wait};
use crate::outcome::{self, Failure};
use crate::reset::Ran;
use crate::{command, native};

/// Bytes of memory that an instance may have grown to and still be kept.
pub(crate) const KEPT_MEMORY_BYTES_MAX: usize = 64 << 20;

/// What an instance is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Ready for a call.
    Idle,
    /// In a call.
    Busy,
    /// Has served as many calls as it may; sound, and to be made as new before the next. In a component's stead another is made.
    Worn,
    /// Never to be used again.
    Spent,
}

/// A running copy of a module.
pub(crate) struct Instance {
    store: Store<Guest>,
    entry: Entry,
    life: Life,
    /// Calls served since it was as new.
    calls: u32,
    /// Where these ran.
    ran: Ran,
    /// How long it took to make it as new; nothing where it was newly made.
    reset: Duration,
}

enum Entry {
    Native(native::Entry),
    Command(TypedFunc<(), ()>),
}

/// How a call's time in an instance ended.
pub(crate) struct Ended<I = Box<Instance>> {
    pub(crate) outcome: Result<Outcome, PlatformError>,
    /// The call's own, handed back for the answer.
    pub(crate) service: Option<Service>,
    /// When the instance was ready to run the call; nothing where it never was.
    pub(crate) entered: Option<Instant>,
    /// How long it took, before the call, to make the instance as new; nothing where it was newly made.
    pub(crate) reset: Duration,
    /// The instance, no longer busy; nothing where none could be made.
    pub(crate) instance: Option<I>,
}

impl<I> Ended<I> {
    /// There is no instance for the call.
    pub(crate) fn refused(error: PlatformError, service: Service) -> Self {
        let (outcome, service) = (Err(error), Some(service));
        Self { outcome, service, entered: None, reset: Duration::ZERO, instance: None }
    }

    /// The same with what `form` makes of the instance.
    pub(crate) fn map<T>(self, form: impl FnOnce(I) -> T) -> Ended<T> {
        let Self { outcome, service, entered, reset, instance } = self;
        Ended { outcome, service, entered, reset, instance: instance.map(form) }
    }
}

/// Makes an instance for this call and runs the call in it. Where there is no place for it, `make_place` is asked for one
/// as long as it has any.
pub(crate) async fn run_fresh(
    engine: &wasmtime::Engine,
    version: &Arc<Version>,
    call: &Call,
    service: Service,
    make_place: impl Fn() -> bool,
) -> Ended {
    let streams = match version.code {
        Code::Native(_) | Code::Http(_) => None,
        Code::Command(_) => {
            let answer_max = usize::try_from(version.deployment.limits.payload_bytes).unwrap_or(usize::MAX);
            Some(Streams::of_command(call.payload.clone(), answer_max))
        }
    };
    let is_limited = service.turn.crew.is_limited;
    let files = match version.files.take(&version.deployment, &make_place).await {
        Ok(share) => share,
        Err(error) => return Ended::refused(error, service),
    };
    let mut guest = Guest::new(version.clone(), streams, files);
    guest.begin(service);
    let mut store = Store::new(engine, guest);
    if is_limited {
        store.limiter(|guest| guest);
        store.epoch_deadline_callback(|mut context| host::on_tick(context.data_mut()));
    }
    store.set_epoch_deadline(first_look_in(is_limited));
    loop {
        let entry = match &version.code {
            Code::Native(native) => native.instantiate(&mut store).await.map(Entry::Native),
            Code::Command(command) => command.instantiate(&mut store).await.map(Entry::Command),
            Code::Http(_) => Err(wasmtime::Error::msg("a component is not run as a module")),
        };
        match entry {
            Ok(entry) => {
                let (life, ran, reset) = (Life::Busy, Ran::Nowhere, Duration::ZERO);
                let instance = Instance { store, entry, life, calls: 0, ran, reset };
                return Box::new(instance).run(call).await;
            }
            Err(failure) if outcome::is_want_of_room(&failure) && make_place() => {}
            Err(failure) => {
                let outcome = outcome::of_failure(&failure, store.data());
                let service = store.data_mut().end();
                return Ended { outcome, service, entered: None, reset: Duration::ZERO, instance: None };
            }
        }
    }
}

impl Instance {
    /// Runs another call in an idle instance.
    pub(crate) fn run_again(mut self: Box<Self>, call: &Call, service: Service) -> impl Future<Output = Ended> {
        debug_assert_eq!(self.life, Life::Idle, "only idle instances are kept");
        self.life = Life::Busy;
        self.store.set_epoch_deadline(first_look_in(service.turn.crew.is_limited));
        self.store.data_mut().begin(service);
        self.run(call)
    }

    /// What it is at.
    pub(crate) fn life(&self) -> Life {
        self.life
    }

    /// The version that it is an instance of.
    pub(crate) fn version(&self) -> &Arc<Version> {
        self.store.data().version()
    }

    /// Makes a worn instance as new, and so idle. One that cannot be is spent.
    pub(crate) fn reset(&mut self) {
        debug_assert_eq!(self.life, Life::Worn, "an idle instance needs no reset, a spent one gets none");
        let began = Instant::now();
        let is_as_new = match &mut self.entry {
            Entry::Native(entry) => entry.reset(self.ran, &mut self.store),
            Entry::Command(_) => false,
        };
        self.store.data_mut().forget();
        self.calls = 0;
        self.ran = Ran::Nowhere;
        self.life = if is_as_new { Life::Idle } else { Life::Spent };
        self.reset = began.elapsed();
    }

    /// Bytes of its memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        match &self.entry {
            Entry::Native(entry) => entry.memory_bytes(&self.store) as u64,
            Entry::Command(_) => 0,
        }
    }

    async fn run(mut self: Box<Self>, call: &Call) -> Ended {
        let limits = self.store.data().waiting_limits();
        let mut entered = None;
        let (result, ran) = {
            let guest = pin!(async {
                self.initialize().await?;
                entered = Some(Instant::now());
                self.enter(call).await
            });
            wait::within(limits, guest).await
        };
        self.ran = self.ran.and(ran);
        let is_sound = result.is_ok();
        let outcome = result.or_else(|failure| outcome::of_failure(&failure, self.store.data()));
        let service = self.store.data_mut().end();
        self.calls += 1;
        self.life = if is_sound { self.life_after_call() } else { Life::Spent };
        Ended { outcome, service, entered, reset: self.reset, instance: Some(self) }
    }

    async fn initialize(&mut self) -> wasmtime::Result<()> {
        match &self.entry {
            Entry::Native(entry) if self.calls == 0 => entry.initialize(&mut self.store).await,
            _ => Ok(()),
        }
    }

    async fn enter(&mut self, call: &Call) -> Result<Outcome, Failure> {
        match &self.entry {
            Entry::Native(entry) => {
                let answer_max = self.store.data().version().deployment.limits.payload_bytes;
                entry.call(&mut self.store, &call.payload, &call.headers, answer_max).await
            }
            Entry::Command(start) => command::run(start, &mut self.store).await,
        }
    }

    /// What it is at after a call that came to its own outcome. A program has only one run in it.
    fn life_after_call(&self) -> Life {
        let Entry::Native(entry) = &self.entry else { return Life::Spent };
        let is_good_to_keep =
            !self.store.data().is_out_of_memory && entry.memory_bytes(&self.store) <= KEPT_MEMORY_BYTES_MAX;
        if is_good_to_keep && self.calls < self.version().deployment.limits.reuse {
            Life::Idle
        } else if is_good_to_keep && entry.can_be_reset() {
            Life::Worn
        } else {
            Life::Spent
        }
    }
}

/// Ticks until a guest is looked in on.
fn first_look_in(is_limited: bool) -> u64 {
    // Far enough not to be reached, and not so far that the sum with the ticks so far overflows.
    if is_limited { 1 } else { 1 << 40 }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("life", &self.life).field("calls", &self.calls).finish_non_exhaustive()
    }
}
