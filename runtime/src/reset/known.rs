//! What is known of an instance's memory without asking the kernel again: a page that was not written to costs a fault when it
//! is, so where the one thread that touched the memory had no fault since, the pages written are those told the last time.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::faults::Faults;
use crate::pages::{self, Pages};
use crate::threads;

/// After so many times the kernel is asked anyway, and has to tell the same.
const UNASKED_MAX: u32 = 255;

/// Faults tell what they are taken to tell, as far as was seen.
static DO_FAULTS_TELL: AtomicBool = AtomicBool::new(true);

/// Where an instance was used: its code, and the host on its behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    Nowhere,
    /// Only on the thread of this number.
    On(usize),
    OnSeveral,
}

/// What is known of one instance's memory.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The faults of the thread that asked the kernel last, just before it did; nothing where it has to be asked.
    since: Option<Faults>,
    /// What the kernel told.
    written: Vec<Range<usize>>,
    /// Times since then.
    unasked: u32,
    is_in_small_pages: bool,
}

impl Ran {
    /// On the calling thread.
    pub(crate) fn here() -> Self {
        Self::On(threads::number())
    }

    /// First here, then there.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nowhere, one) | (one, Self::Nowhere) => one,
            (one, other) if one == other => one,
            _ => Self::OnSeveral,
        }
    }
}

impl Known {
    /// As [`Pages::written`] for the memory of an instance that was used there since the last time, asking only where it has to.
    pub(super) fn written(
        &mut self,
        pages: &Pages,
        memory: &mut [u8],
        ran: Ran,
        bytes_max: usize,
        mut each: impl FnMut(&mut [u8], Range<usize>),
    ) -> io::Result<bool> {
        if !self.is_in_small_pages {
            self.is_in_small_pages = pages::keep_small(memory).is_ok();
        }
        // Taken before the kernel is asked: what is written to later counts for the next time.
        let faults = Faults::so_far().filter(|_| self.is_in_small_pages && DO_FAULTS_TELL.load(Ordering::Relaxed));
        let is_known = ran == Ran::here() && faults.is_some() && faults == self.since;
        if is_known && self.unasked < UNASKED_MAX {
            self.unasked += 1;
            self.written.iter().for_each(|range| each(memory, range.clone()));
            return Ok(true);
        }
        let before = std::mem::take(&mut self.written);
        self.since = None;
        self.unasked = 0;
        let is_all = pages.written(memory, bytes_max, |memory, range| {
            self.written.push(range.clone());
            each(memory, range);
        })?;
        if is_known && self.written != before {
            DO_FAULTS_TELL.store(false, Ordering::Relaxed);
            tracing::error!("pages were written to without a fault: from now on the kernel is asked after each call");
        }
        self.since = faults.filter(|_| is_all);
        Ok(is_all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pages::PAGES_BYTES;

    const PAGES_MAX: usize = 8;

    /// What is told of a memory that was used there.
    fn told(known: &mut Known, pages: &Pages, memory: &mut [u8], ran: Ran) -> Vec<Range<usize>> {
        let mut told = Vec::new();
        assert!(known.written(pages, memory, ran, usize::MAX, |_, range| told.push(range)).unwrap());
        told
    }

    #[test]
    fn the_kernel_is_not_asked_again_where_nothing_new_was_touched() {
        let (Some(pages), Some(_)) = (Pages::open(), Faults::so_far()) else { return };
        let mut memory = vec![0; (PAGES_MAX + 1) * PAGES_BYTES];
        let memory = pages::whole_pages(&mut memory, PAGES_MAX * PAGES_BYTES);
        memory[3 * PAGES_BYTES] = 1;
        let mut known = Known::default();
        let first = told(&mut known, &pages, memory, Ran::here());
        assert_eq!(first.len(), 1);
        // A fault of anything else on this thread has the kernel asked once more.
        let again = (0..100).any(|_| {
            memory[3 * PAGES_BYTES] = 2;
            let before = known.unasked;
            assert_eq!(told(&mut known, &pages, memory, Ran::here()), first);
            known.unasked == before + 1
        });
        assert!(again);
        assert_eq!(told(&mut known, &pages, memory, Ran::OnSeveral), first);
        assert_eq!(known.unasked, 0, "another thread's faults are not known");
    }

    #[test]
    fn the_kernel_is_asked_now_and_then_anyway() {
        let (Some(pages), Some(_)) = (Pages::open(), Faults::so_far()) else { return };
        let mut memory = vec![0; (PAGES_MAX + 1) * PAGES_BYTES];
        let memory = pages::whole_pages(&mut memory, PAGES_MAX * PAGES_BYTES);
        memory[0] = 1;
        let mut known = Known::default();
        for _ in 0..10 * UNASKED_MAX {
            assert_eq!(told(&mut known, &pages, memory, Ran::here()).len(), 1);
            assert!(known.unasked <= UNASKED_MAX);
        }
    }

    #[test]
    fn where_something_ran_adds_up() {
        let (one, other) = (Ran::On(1), Ran::On(2));
        assert_eq!(Ran::Nowhere.and(one), one);
        assert_eq!(one.and(Ran::Nowhere).and(one), one);
        assert_eq!(one.and(other), Ran::OnSeveral);
        assert_eq!(one.and(other).and(one), Ran::OnSeveral);
        assert_ne!(Ran::here(), std::thread::spawn(Ran::here).join().unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_was_written_to_on_whatever_thread_is_told(
            rounds in prop::collection::vec((prop::collection::vec(0..PAGES_MAX * 16, 0..6), any::<bool>(), any::<bool>()), 1..12),
        ) {
            let Some(pages) = Pages::open() else { return Ok(()) };
            let mut memory = vec![0; (PAGES_MAX + 1) * PAGES_BYTES];
            let memory = pages::whole_pages(&mut memory, PAGES_MAX * PAGES_BYTES);
            let mut known = Known::default();
            for (places, elsewhere, read_first) in rounds {
                let mut touch = || {
                    for &place in &places {
                        let byte = &mut memory[place * (PAGES_BYTES / 16)];
                        if !read_first || *byte != 1 {
                            *byte = 1;
                        }
                    }
                    Ran::here()
                };
                let ran = if elsewhere { std::thread::scope(|scope| scope.spawn(touch).join().unwrap()) } else { touch() };
                let told = told(&mut known, &pages, memory, ran);
                for (at, _) in memory.iter().enumerate().filter(|(_, byte)| **byte != 0) {
                    prop_assert!(told.iter().any(|range| range.contains(&at)), "{at} of {told:?}");
                }
                for range in told {
                    memory[range].fill(0);
                }
            }
        }
    }
}
