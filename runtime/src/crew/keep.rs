//! Instances kept between calls: whoever keeps one has asked the schedule for the room, and whoever drops one says so.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Crew;
use crate::function::Version;
use crate::pool::Reusable;

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

    /// Keeps an instance for a later call, for which the schedule has found room.
    pub(super) fn keep(&self, instance: Reusable) {
        self.drop_kept(self.pool.keep(instance, Instant::now()));
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
