//! Things of a thread's own, where it would otherwise wait for others: a number, and handles.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of the calling thread: the first that asks is 0, and neighbours come one after the other.
pub(crate) fn number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}

/// What one thread writes, on a cache line of its own: others that read or write what lies beside it are not to wait for that.
#[derive(Debug, Default)]
// Two lines, as processors fetch the next one too.
#[repr(align(128))]
pub(crate) struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A thread's own handle of something that all share: where each thread clones and drops its own, they do not meet at one
/// count of owners.
#[expect(clippy::redundant_allocation, reason = "the outer count of owners is the thread's own")]
pub(crate) struct Handle<T>(Arc<Arc<T>>);

impl<T> From<Arc<T>> for Handle<T> {
    fn from(shared: Arc<T>) -> Self {
        Self(Arc::new(shared))
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
