//! Instances kept between calls: whoever keeps one has asked the schedule for the room, and whoever drops one says so.
//! In the stead of worn ones others are made, when the thread has nothing to do for calls.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Crew;
use crate::function::Version;
use crate::http;
use crate::instance::Life;
use crate::pool::Reusable;
use crate::schedule::Demand;

impl Crew {
    /// Drops the instances kept of a version no longer in use, and whatever else holds it.
    pub(crate) fn retire(&self, version: &Version) {
        self.drop_kept(self.pool.retire(version));
        self.settle_measures();
    }

    /// Drops a kept instance, the one idle for longest; says whether there was one.
    pub(crate) fn evict(&self) -> bool {
        let evicted = self.pool.evict();
        evicted.map(|instance| self.drop_kept([instance])).is_some()
    }

    /// Keeps an instance for a later call, for which the schedule has found room: as it is, or until another has been made in its
    /// stead.
    pub(super) fn keep(&self, instance: Reusable) {
        let now = Instant::now();
        if instance.life() == Life::Worn {
            match self.pool.keep_worn(instance, now) {
                Ok(None) => {}
                Ok(Some(shelf)) => drop(self.runtime.spawn(renew_worn(self.this.clone(), shelf))),
                Err(given_back) => self.drop_kept([given_back]),
            }
        } else {
            self.drop_kept(self.pool.keep(instance, now));
        }
        self.tell_of_kept();
    }

    /// Makes another instance in the stead of a worn one that this thread just used, if nobody waits for the thread.
    pub(crate) fn renew_at_once(&self, worn: Box<http::Instance>) -> Option<Box<http::Instance>> {
        let may_renew = self.demand() == Demand::None && self.pool.has_room_ahead(worn.version());
        if may_renew { worn.renew(self) } else { None }
    }

    /// Makes another instance in the stead of one from a shelf.
    fn renew(&self, worn: Reusable, shelf: usize) {
        let began = Instant::now();
        let before = worn.memory_bytes();
        let _ticking = self.ticker.guest_runs();
        let renewed = match worn {
            Reusable::Component(worn) if !self.stopping.is_cancelled() => worn.renew(self),
            Reusable::Component(_) | Reusable::Module(_) => None,
        };
        let renewed = renewed.map(Reusable::Component);
        let after = renewed.as_ref().map_or(0, Reusable::memory_bytes);
        self.released_bytes.fetch_add(before.saturating_sub(after), Ordering::Relaxed);
        let now = Instant::now();
        self.seats.note_renewing(now.saturating_duration_since(began));
        let given_back = renewed.and_then(|renewed| self.pool.keep_on(shelf, renewed, now));
        self.drop_kept(given_back);
        self.tell_of_kept();
    }

    /// Has calls go on that waited for memory of kept instances, and what is kept looked after.
    fn tell_of_kept(&self) {
        // Sequentially consistent with `next`: either that sees the instance, or this sees that memory is wanted.
        if self.is_memory_wanted.load(Ordering::SeqCst) && self.is_memory_wanted.swap(false, Ordering::SeqCst) {
            drop(self.desk.lock());
            self.work.notify_one();
        }
        if !self.is_looked_after.load(Ordering::SeqCst) && !self.is_looked_after.swap(true, Ordering::SeqCst) {
            self.runtime.spawn(look_after(self.this.clone()));
        }
    }

    /// Whether there may be a kept instance to drop for the memory that a call waits for. Where there is none, whoever
    /// keeps the next one will say so.
    pub(super) fn may_evict(&self) -> bool {
        self.is_memory_wanted.store(true, Ordering::SeqCst);
        let may_evict = !self.pool.is_empty();
        self.is_memory_wanted.store(!may_evict, Ordering::SeqCst);
        may_evict
    }

    /// Drops instances that the schedule counts as kept.
    fn drop_kept(&self, instances: impl IntoIterator<Item = Reusable>) {
        for instance in instances {
            let memory_bytes = instance.memory_bytes();
            drop(instance);
            self.released_bytes.fetch_add(memory_bytes, Ordering::Relaxed);
        }
    }
}

/// Makes others in the stead of the worn instances on a shelf, each once this thread has seen to everything that calls want of
/// it.
async fn renew_worn(crew: Weak<Crew>, shelf: usize) {
    loop {
        tokio::task::yield_now().await;
        let Some(crew) = crew.upgrade() else { return };
        let Some(worn) = crew.pool.take_worn(shelf) else { return };
        if panic::catch_unwind(AssertUnwindSafe(|| crew.renew(worn, shelf))).is_err() {
            tracing::error!("an instance could not be taken down; please report this");
        }
    }
}

/// Drops instances that were kept for too long without a call, until none is kept.
async fn look_after(crew: Weak<Crew>) {
    loop {
        let Some(interval) = crew.upgrade().map(|crew| crew.pool.look_interval()) else { return };
        tokio::time::sleep(interval).await;
        let Some(crew) = crew.upgrade() else { return };
        crew.drop_kept(crew.pool.expire(Instant::now()));
        if crew.pool.is_empty() {
            // Whoever keeps one from now on starts another of these; whoever did so just before relied on this one.
            crew.is_looked_after.store(false, Ordering::SeqCst);
            if crew.pool.is_empty() || crew.is_looked_after.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
}
