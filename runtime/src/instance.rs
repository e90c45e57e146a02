//! The life of an instance: idle, busy with one call, then idle again or spent.

use std::sync::Arc;
use std::time::Instant;

use nigh_proto::{Call, Outcome, PlatformError};
use wasmtime::{Store, TypedFunc};

use crate::function::{Code, Version};
use crate::host::{self, Guest, Service, Streams, wait};
use crate::outcome::{self, Failure};
use crate::{command, native};

/// Bytes of memory that an instance may have grown to and still be kept.
const KEPT_MEMORY_BYTES_MAX: usize = 64 << 20;

/// What an instance is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Ready for a call.
    Idle,
    /// In a call.
    Busy,
    /// Never to be used again.
    Spent,
}

/// A running copy of a module.
pub(crate) struct Instance {
    store: Store<Guest>,
    entry: Entry,
    life: Life,
    calls: u32,
}

enum Entry {
    Native(native::Entry),
    Command(TypedFunc<(), ()>),
}

/// How a call's time in an instance ended.
pub(crate) struct Ended {
    pub(crate) outcome: Result<Outcome, PlatformError>,
    /// The call's own, handed back for the answer.
    pub(crate) service: Option<Service>,
    /// When the instance was ready to run the call; nothing where it never was.
    pub(crate) entered: Option<Instant>,
    /// The instance, idle or spent; nothing where none could be made.
    pub(crate) instance: Option<Instance>,
}

/// Makes an instance for this call and runs the call in it. Its making is under the call's limits too.
pub(crate) async fn run_fresh(
    engine: &wasmtime::Engine,
    version: &Arc<Version>,
    call: &Call,
    service: Service,
) -> Ended {
    let streams = match version.code {
        Code::Native(_) => None,
        Code::Command(_) => {
            let answer_max = usize::try_from(version.deployment.limits.payload_bytes).unwrap_or(usize::MAX);
            Some(Streams::of_command(call.payload.clone(), answer_max))
        }
    };
    let mut guest = Guest::new(version.clone(), streams);
    guest.begin(service);
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| guest);
    store.epoch_deadline_callback(|mut context| host::on_tick(context.data_mut()));
    store.set_epoch_deadline(1);
    let entry = match &version.code {
        Code::Native(native) => native.instantiate(&mut store).await.map(Entry::Native),
        Code::Command(command) => command.instantiate(&mut store).await.map(Entry::Command),
    };
    match entry {
        Ok(entry) => Instance { store, entry, life: Life::Busy, calls: 0 }.run(call).await,
        Err(failure) => {
            let outcome = outcome::of_failure(&failure, store.data());
            Ended { outcome, service: store.data_mut().end(), entered: None, instance: None }
        }
    }
}

impl Instance {
    /// Runs another call in an instance kept from one before.
    pub(crate) async fn run_again(mut self, call: &Call, service: Service) -> Ended {
        debug_assert_eq!(self.life, Life::Idle, "a busy or spent instance is never kept");
        self.life = Life::Busy;
        self.store.data_mut().begin(service);
        self.store.set_epoch_deadline(1);
        self.run(call).await
    }

    /// What it is at.
    pub(crate) fn life(&self) -> Life {
        self.life
    }

    /// The version that it is an instance of.
    pub(crate) fn version(&self) -> &Arc<Version> {
        self.store.data().version()
    }

    async fn run(mut self, call: &Call) -> Ended {
        let entered = Instant::now();
        let limits = self.store.data().waiting_limits();
        let result = wait::within(limits, self.enter(call)).await;
        let is_sound = result.is_ok();
        let outcome = result.or_else(|failure| outcome::of_failure(&failure, self.store.data()));
        let service = self.store.data_mut().end();
        self.calls += 1;
        self.life = if is_sound && self.may_serve_again() { Life::Idle } else { Life::Spent };
        Ended { outcome, service, entered: Some(entered), instance: Some(self) }
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

    /// Only after a call that came to its own outcome, within the number of calls that the deployment allows, and
    /// without more memory than is good to keep. A program has only one run in it.
    fn may_serve_again(&self) -> bool {
        let Entry::Native(entry) = &self.entry else { return false };
        self.calls < self.version().deployment.limits.reuse
            && !self.store.data().is_out_of_memory
            && entry.memory_bytes(&self.store) <= KEPT_MEMORY_BYTES_MAX
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("life", &self.life).field("calls", &self.calls).finish_non_exhaustive()
    }
}
