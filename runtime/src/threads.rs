//! Numbers of this process's threads, so that each may have something of its own where it would otherwise wait for others.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of the calling thread: the first that asks is 0, and neighbours come one after the other.
pub(crate) fn number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}
