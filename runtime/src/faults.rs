//! Page faults of the calling thread, as the kernel counts them (`getrusage`). A page that is written to for the first time costs
//! its thread a fault. So where only this thread has touched a memory, and had none, no page of it has come to be written.

use std::sync::LazyLock;

use crate::pages::{self, PAGES_BYTES};
use crate::threads;

/// Places that are tried, each in pages of its own.
const PLACES: usize = 8;

/// How many faults one thread has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Faults {
    thread: usize,
    count: i64,
}

impl Faults {
    /// Those of the calling thread so far; nothing where this kernel does not count them rightly.
    pub(crate) fn so_far() -> Option<Self> {
        static ARE_COUNTED: LazyLock<bool> = LazyLock::new(are_counted);
        if !*ARE_COUNTED {
            return None;
        }
        Some(Self { thread: threads::number(), count: count()? })
    }
}

#[expect(unsafe_code, reason = "the kernel is handed a record to fill in")]
fn count() -> Option<i64> {
    // SAFETY: the record is plain numbers, for which zeros are valid; the kernel writes to no more than it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) == 0).then_some(usage)
    };
    usage.map(|usage| usage.ru_minflt.wrapping_add(usage.ru_majflt))
}

/// Reads memory that nothing was ever written to, and then writes to it: each is to count.
fn are_counted() -> bool {
    let mut memory = vec![0u8; (PLACES + 1) * PAGES_BYTES];
    let memory = std::hint::black_box(pages::whole_pages(&mut memory, PLACES * PAGES_BYTES));
    // Untouched, and in small pages, so that each place is a page of its own.
    if pages::keep_small(memory).and_then(|()| pages::give_back(memory)).is_err() {
        return false;
    }
    let each = (0..PLACES).map(|place| place * PAGES_BYTES);
    let faults_of = |touch: &mut dyn FnMut(usize)| {
        each.clone().all(|at| {
            let before = count();
            touch(at);
            before.is_some() && before < count()
        })
    };
    let on_reading = faults_of(&mut |at| {
        std::hint::black_box(memory[at]);
    });
    on_reading && faults_of(&mut |at| std::hint::black_box(&mut memory[at..])[0] = 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_counts_its_own_and_no_others() {
        let Some(before) = Faults::so_far() else { return };
        let others = std::thread::spawn(|| {
            are_counted();
            Faults::so_far().unwrap()
        });
        assert_ne!(others.join().unwrap(), before);
        assert!(are_counted());
        let after = Faults::so_far().unwrap();
        assert!(after.thread == before.thread && after.count >= before.count + 2 * PLACES as i64);
    }
}
