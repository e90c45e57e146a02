//! Calls take turns: so many are under way at once, so many wait, first come first served, with so many bytes of payload in
//! all. A place that is dropped is free again, wherever its call was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::utilisation::Utilisation;

/// What may be there at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Calls under way.
    pub(super) workers: usize,
    /// Calls that wait.
    pub(super) queue_max: usize,
    /// Bytes of the payloads of all of them.
    pub(super) payload_bytes_max: u64,
}

/// Who is there.
pub(super) struct Turns {
    limits: Limits,
    workers: Semaphore,
    desk: Mutex<Desk>,
}

struct Desk {
    running: usize,
    queued: usize,
    payload_bytes: u64,
    is_closed: bool,
    utilisation: Utilisation,
}

/// Calls of one function.
#[derive(Debug, Default)]
pub(super) struct Counts {
    running: AtomicU32,
    queued: AtomicU32,
}

impl Counts {
    /// Those under way, and those that wait.
    pub(super) fn read(&self) -> (u32, u32) {
        (self.running.load(Ordering::Relaxed), self.queued.load(Ordering::Relaxed))
    }
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// As many wait as may.
    Queue,
    /// As many bytes are there as may be.
    Payloads,
    /// The computer stops.
    Closed,
}

/// A call's place. It waits for its turn until [`Place::turn`] is done.
pub(crate) struct Place<'a> {
    turns: &'a Turns,
    counts: Arc<Counts>,
    payload_bytes: u64,
    turn: Option<SemaphorePermit<'a>>,
}

impl Turns {
    pub(super) fn new(limits: Limits) -> Self {
        let limits = Limits { workers: limits.workers.clamp(1, Semaphore::MAX_PERMITS), ..limits };
        let utilisation = Utilisation::new(limits.workers, Instant::now());
        let desk = Desk { running: 0, queued: 0, payload_bytes: 0, is_closed: false, utilisation };
        Self { limits, workers: Semaphore::new(limits.workers), desk: Mutex::new(desk) }
    }

    /// A place for a call with so many bytes.
    pub(super) fn enter(&self, counts: &Arc<Counts>, payload_bytes: u64) -> Result<Place<'_>, Full> {
        let mut desk = self.desk.lock();
        if desk.is_closed {
            return Err(Full::Closed);
        }
        if desk.payload_bytes.saturating_add(payload_bytes) > self.limits.payload_bytes_max {
            return Err(Full::Payloads);
        }
        // Somebody who need not wait takes the turn before the next one comes in.
        let turn = if desk.queued == 0 { self.workers.try_acquire().ok() } else { None };
        if turn.is_none() && desk.queued >= self.limits.queue_max {
            return Err(Full::Queue);
        }
        desk.payload_bytes += payload_bytes;
        let mut place = Place { turns: self, counts: counts.clone(), payload_bytes, turn: None };
        desk.queued += 1;
        counts.queued.fetch_add(1, Ordering::Relaxed);
        if let Some(turn) = turn {
            place.begin(&mut desk, turn);
        }
        Ok(place)
    }

    /// Takes nobody any more.
    pub(super) fn close(&self) {
        self.desk.lock().is_closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.desk.lock().is_closed
    }

    /// Calls under way, or waiting.
    pub(super) fn under_way(&self) -> usize {
        let desk = self.desk.lock();
        desk.running + desk.queued
    }

    pub(super) fn workers(&self) -> u32 {
        count(self.limits.workers)
    }

    /// Calls under way, those that wait, and the shares of the places that were taken of late.
    pub(super) fn look(&self) -> (u32, u32, [f32; 3]) {
        let mut desk = self.desk.lock();
        let shares = desk.utilisation.shares(Instant::now());
        (count(desk.running), count(desk.queued), shares)
    }

    /// Calls that have to begin before one that comes now does.
    pub(super) fn ahead(&self) -> u32 {
        let desk = self.desk.lock();
        let is_free = desk.running < self.limits.workers && desk.queued == 0;
        if is_free { 0 } else { count(desk.queued).saturating_add(1) }
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl<'a> Place<'a> {
    /// Waits for the turn.
    pub(super) async fn turn(&mut self) {
        if self.turn.is_some() {
            return;
        }
        // The semaphore is never closed.
        if let Ok(turn) = self.turns.workers.acquire().await {
            let turns = self.turns;
            self.begin(&mut turns.desk.lock(), turn);
        }
    }

    fn begin(&mut self, desk: &mut Desk, turn: SemaphorePermit<'a>) {
        self.turn = Some(turn);
        desk.queued -= 1;
        desk.running += 1;
        desk.utilisation.set_running(desk.running, Instant::now());
        self.counts.queued.fetch_sub(1, Ordering::Relaxed);
        self.counts.running.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut desk = self.turns.desk.lock();
        desk.payload_bytes -= self.payload_bytes;
        if self.turn.is_some() {
            desk.running -= 1;
            let running = desk.running;
            desk.utilisation.set_running(running, Instant::now());
            self.counts.running.fetch_sub(1, Ordering::Relaxed);
        } else {
            desk.queued -= 1;
            self.counts.queued.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn turns(workers: usize, queue_max: usize) -> Turns {
        Turns::new(Limits { workers, queue_max, payload_bytes_max: 100 })
    }

    #[test]
    fn who_waits_goes_in_order_and_leaves_nothing_behind() {
        let (turns, counts) = (turns(1, 2), Arc::<Counts>::default());
        let first = turns.enter(&counts, 40).unwrap();
        let mut second = turns.enter(&counts, 40).unwrap();
        assert_eq!(turns.enter(&counts, 40).err(), Some(Full::Payloads));
        let mut third = turns.enter(&counts, 1).unwrap();
        assert_eq!(turns.enter(&counts, 1).err(), Some(Full::Queue));
        assert_eq!((counts.read(), turns.ahead(), turns.under_way()), ((1, 2), 3, 3));
        {
            let mut waits = Box::pin(second.turn());
            let mut waits_longer = Box::pin(third.turn());
            assert!(waits.as_mut().now_or_never().is_none() && waits_longer.as_mut().now_or_never().is_none());
            drop(first);
            assert!(waits_longer.as_mut().now_or_never().is_none(), "not its turn");
            assert!(waits.now_or_never().is_some());
        }
        assert_eq!(counts.read(), (1, 1));
        drop(second);
        assert!(third.turn().now_or_never().is_some());
        drop(third);
        assert_eq!((counts.read(), turns.ahead(), turns.under_way()), ((0, 0), 0, 0));
        assert!(turns.enter(&counts, 100).is_ok());
        turns.close();
        assert_eq!(turns.enter(&counts, 0).err(), Some(Full::Closed));
    }

    #[test]
    fn without_a_queue_nobody_waits() {
        let (turns, counts) = (turns(2, 0), Arc::<Counts>::default());
        let places = [turns.enter(&counts, 0).unwrap(), turns.enter(&counts, 0).unwrap()];
        assert_eq!((turns.enter(&counts, 0).err(), counts.read()), (Some(Full::Queue), (2, 0)));
        drop(places);
        assert!(turns.enter(&counts, 0).is_ok());
    }
}
