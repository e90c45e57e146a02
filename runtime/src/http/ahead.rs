//! Instances made before a call asks for them, each in the stead of one that a call has used. Such an instance is as any that a
//! call would make for itself: making it asks its host for nothing, and all that the host has for a guest (clocks, random
//! numbers, streams, limits, states) is that of the call which takes it. A component for which that cannot be said has none.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::instance::Instance;
use crate::crew::Crew;
use crate::function::{Code, Version};
use crate::outcome;

/// Ticks that a guest may see while its instance is made ahead, so that calls do not wait longer for the thread. One that the
/// kernel keeps from running sees one, however long that takes.
const TICKS_MAX: u32 = 2;
/// After so many failures in a row, each of which doubles the number of calls until the next try, that number stays as it is.
const FAILURES_MAX: u32 = 10;
/// Calls until the next try, of a component that wants something of its host while it is made.
const NEVER: u32 = u32::MAX;

/// Whether instances of a component are made ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Calls until the next try.
    skip: AtomicU32,
    /// Failures in a row.
    failures: AtomicU32,
}

/// How the making ended.
enum Made {
    Instance(Box<Instance>),
    /// The guest wanted something of its host.
    Asked,
    /// It failed, or took too long.
    Failed,
    /// There is no room for it now.
    NoRoom,
}

impl Ahead {
    /// Whether one is to be made after a call.
    pub(super) fn is_due(&self) -> bool {
        match self.skip.load(Ordering::Relaxed) {
            0 => true,
            NEVER => false,
            skip => {
                self.skip.store(skip - 1, Ordering::Relaxed);
                false
            }
        }
    }

    fn learn(&self, made: Made) -> Option<Box<Instance>> {
        match made {
            Made::Instance(instance) => {
                // Written only when it changes: other threads read it.
                if self.failures.load(Ordering::Relaxed) > 0 {
                    self.failures.store(0, Ordering::Relaxed);
                }
                return Some(instance);
            }
            Made::Asked => self.skip.store(NEVER, Ordering::Relaxed),
            Made::Failed => {
                let failures = self.failures.load(Ordering::Relaxed).min(FAILURES_MAX - 1) + 1;
                self.failures.store(failures, Ordering::Relaxed);
                self.skip.store(1 << failures, Ordering::Relaxed);
            }
            Made::NoRoom => {}
        }
        None
    }
}

impl Instance {
    /// Takes a worn instance down, and makes another in its stead.
    pub(crate) fn renew(self: Box<Self>, crew: &Crew) -> Option<Box<Self>> {
        let began = Instant::now();
        let version = self.version().clone();
        let (holds_any, memory_bytes) = (self.holds_resources(), self.memory_bytes());
        drop(self);
        let Code::Http(http) = &version.code else { return None };
        let mut made = http.ahead.learn(make(&version, crew))?;
        // An image is worth its memory only where this one would have been as new with it.
        if http.image.get().is_none() && !holds_any && memory_bytes == made.memory_bytes() {
            // Fails only where another thread was first, and saw the same.
            let _ = http.image.set(made.into_image());
            made = http.ahead.learn(make(&version, crew))?;
        }
        made.reset = began.elapsed();
        Some(made)
    }
}

/// Makes an instance in one go, or not at all.
fn make(version: &Arc<Version>, crew: &Crew) -> Made {
    let Code::Http(http) = &version.code else { return Made::Failed };
    let Some(files) = version.files.try_take(&version.deployment) else { return Made::NoRoom };
    let mut store = Instance::store(http, version, crew, files);
    store.data_mut().ticks_ahead = Some(TICKS_MAX);
    let made = pin!(http.instantiate(&mut store)).poll(&mut Context::from_waker(Waker::noop()));
    match made {
        _ if store.data().has_asked => Made::Asked,
        Poll::Ready(Ok((proxy, renew))) => Made::Instance(Instance::new(store, proxy, renew)),
        Poll::Ready(Err(failure)) if outcome::is_want_of_room(&failure) => Made::NoRoom,
        Poll::Ready(Err(_)) | Poll::Pending => Made::Failed,
    }
}
