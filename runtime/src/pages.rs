//! Which pages of a memory may have been written to, as the kernel knows it (`PAGEMAP_SCAN`, Linux 6.7 and later). Nobody
//! asks the guest.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::mm::{Advice, madvise};

/// Ranges that one request to the kernel can tell of; where there are more, it is asked again from there on.
const RANGES: usize = 32;
/// A multiple of the size of a page, whatever that is on this host.
pub(crate) const PAGES_BYTES: usize = 64 << 10;
/// Bytes of the memory that the kernel is tried with.
const TRIAL_BYTES: usize = 2 << 20;

// Of linux/fs.h.
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// This process's page table, as far as it can be asked.
#[derive(Debug)]
pub(crate) struct Pages {
    table: File,
}

impl Pages {
    /// Opens the page table, if this kernel can be asked and answers a trial rightly.
    pub(crate) fn open() -> Option<Self> {
        let pages = Self { table: File::open("/proc/self/pagemap").ok()? };
        pages.tells_what_is_written().then_some(pages)
    }

    /// The same page table, opened once more: threads that ask through one file each do not meet at its counter.
    pub(crate) fn reopen(&self) -> Option<Self> {
        Some(Self { table: File::open("/proc/self/pagemap").ok()? })
    }

    /// Hands over all ranges of whole pages of `memory` that may have been written to since they were mapped, in order.
    /// Stops once they are over `bytes_max` in all, and says whether it got to the end.
    ///
    /// # Errors
    /// Where the kernel cannot tell; then nothing may be taken for unwritten.
    pub(crate) fn written(
        &self,
        memory: &mut [u8],
        bytes_max: usize,
        mut each: impl FnMut(&mut [u8], Range<usize>),
    ) -> io::Result<bool> {
        let base = memory.as_ptr().addr() as u64;
        let end = base + memory.len() as u64;
        let mut ranges = [PageRange::default(); RANGES];
        let mut from = base;
        let mut bytes = 0;
        while from < end {
            let (found, walked) = self.scan(from..end, &mut ranges)?;
            for range in &ranges[..found] {
                let within =
                    |address: u64| usize::try_from(address.wrapping_sub(base)).ok().filter(|at| *at <= memory.len());
                let (Some(start), Some(end)) = (within(range.start), within(range.end)) else {
                    return Err(io::Error::other("the kernel told of pages that it was not asked about"));
                };
                bytes += end.saturating_sub(start);
                if bytes > bytes_max {
                    return Ok(false);
                }
                each(memory, start..end);
            }
            if walked <= from {
                return Err(io::Error::other("the kernel did not get on"));
            }
            from = walked;
        }
        Ok(true)
    }

    /// The first ranges between two addresses, and up to where the kernel has looked.
    #[expect(unsafe_code, reason = "only the kernel knows; it is asked by an ioctl")]
    fn scan(&self, addresses: Range<u64>, ranges: &mut [PageRange; RANGES]) -> io::Result<(usize, u64)> {
        let request = Request {
            size: size_of::<Request>() as u64,
            start: addresses.start,
            end: addresses.end,
            ranges: ranges.as_mut_ptr().expose_provenance() as u64,
            ranges_len: RANGES as u64,
            // Neither backed by a file, as a memory's first contents are, nor by the page of zeros that reading unused
            // memory maps; and there, in memory or swapped out.
            category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            ..Request::default()
        };
        // SAFETY: the kernel writes to nothing but the request's `walk_end` and the `RANGES` places of `ranges`, which has the
        // layout of `struct page_region[]` and lives longer than the call. Looking at page tables changes no memory: no flag
        // that would write-protect pages is set.
        let (found, walked) = unsafe { ioctl(&self.table, request) }?;
        Ok((found.min(RANGES), walked))
    }

    /// Writes to some pages of a memory and sees whether the kernel tells of them.
    fn tells_what_is_written(&self) -> bool {
        // So much zeroed memory at once mostly comes untouched from the kernel.
        let mut memory = vec![0u8; TRIAL_BYTES + PAGES_BYTES];
        let memory = whole_pages(&mut memory, TRIAL_BYTES);
        let written: Vec<usize> = (0..TRIAL_BYTES).step_by(3 * PAGES_BYTES).map(|at| at + 4097).collect();
        for &at in &written {
            std::hint::black_box(&mut memory[at..])[0] = 1;
        }
        let mut told = Vec::new();
        let scanned = self.written(memory, usize::MAX, |_, range| told.push(range));
        let is_told = |at: &usize| told.iter().any(|range| range.contains(at));
        scanned.is_ok_and(|is_all| is_all) && written.iter().all(is_told)
    }
}

/// So many bytes of a memory that begin where a page does; it has [`PAGES_BYTES`] more than that.
pub(crate) fn whole_pages(memory: &mut [u8], bytes: usize) -> &mut [u8] {
    let skipped = memory.as_ptr().align_offset(PAGES_BYTES);
    &mut memory[skipped..][..bytes]
}

/// Gives a memory's pages back to the kernel: it is as it was when it was mapped, and nothing of it is there until it is touched.
/// A memory that was only looked at has a page of zeros for every page of it, which the kernel would look at in each scan.
#[expect(unsafe_code, reason = "the kernel is handed a memory to drop the pages of")]
pub(crate) fn give_back(memory: &mut [u8]) -> io::Result<()> {
    // SAFETY: the range is borrowed for writing, and only its bytes change: any are valid.
    unsafe { madvise(memory.as_mut_ptr().cast(), memory.len(), Advice::LinuxDontNeed) }.map_err(io::Error::from)
}

/// Has the kernel keep a memory in small pages: it puts no others together, and so no page comes to be there but by a fault of
/// whoever touches it.
#[expect(unsafe_code, reason = "the kernel is handed a memory to mark")]
pub(crate) fn keep_small(memory: &mut [u8]) -> io::Result<()> {
    // SAFETY: the range is borrowed for writing, and none of its bytes changes.
    let kept = unsafe { madvise(memory.as_mut_ptr().cast(), memory.len(), Advice::LinuxNoHugepage) };
    match kept {
        // A kernel that has no large pages.
        Err(rustix::io::Errno::INVAL) => Ok(()),
        kept => kept.map_err(io::Error::from),
    }
}

/// `struct pm_scan_arg`.
#[derive(Debug, Default)]
#[repr(C)]
struct Request {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    ranges: u64,
    ranges_len: u64,
    pages_max: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[derive(Debug, Default, Clone, Copy)]
#[repr(C)]
struct PageRange {
    start: u64,
    end: u64,
    categories: u64,
}

#[expect(unsafe_code, reason = "the kernel is handed an address")]
// SAFETY: `PAGEMAP_SCAN` expects the address of a `struct pm_scan_arg`, which is what `as_ptr` gives, and returns the number
// of regions that it found; after the call the same address is read as the same type.
unsafe impl Ioctl for Request {
    type Output = (usize, u64);
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<Self>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(found: IoctlOutput, request: *mut c_void) -> rustix::io::Result<Self::Output> {
        // SAFETY: see above.
        let walked = unsafe { (*request.cast::<Self>()).walk_end };
        Ok((usize::try_from(found).unwrap_or(0), walked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_told_and_nothing_more_than_asked_for() {
        let Some(pages) = Pages::open() else { return };
        let mut memory = vec![0u8; 201 * PAGES_BYTES];
        let memory = whole_pages(&mut memory, 200 * PAGES_BYTES);
        // More ranges than one request can tell of.
        let written: Vec<_> = (0..200).step_by(2).map(|block| block * PAGES_BYTES + 70).collect();
        for &at in &written {
            memory[at] = 1;
        }
        let told = |memory: &mut [u8], bytes_max| {
            let mut told = Vec::new();
            let is_all = pages.written(memory, bytes_max, |_, range| told.push(range)).unwrap();
            (told, is_all)
        };
        let (all, is_all) = told(memory, usize::MAX);
        assert!(is_all && written.iter().all(|at| all.iter().any(|range| range.contains(at))), "{all:?}");
        assert!(all.is_sorted_by(|a, b| a.end <= b.start), "{all:?}");
        let (some, is_all) = told(memory, PAGES_BYTES);
        assert!(!is_all && some.iter().map(Range::len).sum::<usize>() <= PAGES_BYTES);
        // A part of it, and nothing at all.
        let (part, _) = told(&mut memory[50 * PAGES_BYTES..60 * PAGES_BYTES], usize::MAX);
        let written =
            written.iter().filter_map(|at| at.checked_sub(50 * PAGES_BYTES)).filter(|at| *at < 10 * PAGES_BYTES);
        assert_eq!(written.filter(|at| part.iter().any(|range| range.contains(at))).count(), 5);
        assert_eq!(told(&mut [], 0), (vec![], true));
    }

    #[test]
    fn what_was_only_read_is_not_told_and_can_be_given_back() {
        let Some(pages) = Pages::open() else { return };
        let mut memory = vec![0u8; 21 * PAGES_BYTES];
        let memory = whole_pages(&mut memory, 20 * PAGES_BYTES);
        memory[5 * PAGES_BYTES] = 1;
        assert_eq!(memory.iter().map(|byte| usize::from(*byte)).sum::<usize>(), 1);
        give_back(memory).unwrap();
        assert!(memory.iter().all(|byte| *byte == 0), "as it was mapped");
        assert!(pages.written(memory, 0, |_, _| {}).unwrap(), "nothing of it is there");
    }

    #[test]
    fn a_memory_that_is_not_of_whole_pages_is_refused() {
        let Some(pages) = Pages::open() else { return };
        let mut memory = vec![0u8; 2 * PAGES_BYTES];
        let skipped = memory.as_ptr().align_offset(PAGES_BYTES) + 1;
        assert!(pages.written(&mut memory[skipped..][..100], usize::MAX, |_, _| {}).is_err());
    }
}
