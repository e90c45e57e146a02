//! How the threads of the crew stand towards others on their core: where the computer is full, what serves the network goes
//! first, as a late answer helps nobody.

use std::ffi::c_uint;
use std::io;

/// How far the crew steps back behind the threads that serve the network, in steps of `nice`.
const NICENESS: i32 = 5;
/// The kernel's slice of a thread of the crew: longer than that of others (up to 2.8 ms), as a thread that wakes goes before
/// one that has a longer slice at once (Linux 6.12), and not only once that is over. It is not how long a guest computes.
const SLICE_NS: u64 = 20_000_000;

/// `struct sched_attr` in its first form.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Has the calling thread step back.
pub(super) fn step_back() {
    // On Linux this is of the calling thread alone.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "guests run at the priority of the process");
        return;
    }
    if let Err(error) = set_slice() {
        tracing::debug!(%error, "threads that wake wait for the end of a guest's slice");
    }
}

/// Has the kernel know the calling thread as one with long slices; kernels before 6.12 take no notice.
#[expect(unsafe_code, reason = "no safe wrapper has this system call")]
fn set_slice() -> io::Result<()> {
    let mut attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).unwrap_or(0),
        nice: NICENESS,
        runtime: SLICE_NS,
        ..Attributes::default()
    };
    let (this_thread, no_flags): (c_uint, c_uint) = (0, 0);
    // SAFETY: the kernel reads `size` bytes of the attributes, which live longer than the call, and writes only to `size`
    // itself, should it know a smaller struct only; nothing else of the process's memory is touched.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw mut attributes, no_flags) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
