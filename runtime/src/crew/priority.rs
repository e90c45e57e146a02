//! Where the threads of the crew run, and how they stand towards others on their core: where the computer is full, what serves the network goes
//! first, as a late answer helps nobody.

use std::ffi::c_uint;
use std::io;

/// How far the crew steps back behind the threads that serve the network, in steps of `nice`. Where those take all that they can
/// get, it still has a seventh. With 5 steps it had a quarter, and beside guests that computed about one brief call in a hundred was set
/// aside by the kernel for a millisecond, on the thread of the network that ran it.
const NICENESS: i32 = 8;
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

/// Has the calling thread stay on one of the cores that this process may use, the one with this number among them: a thread
/// that is woken beside a long call on one other core was now and then placed behind that call, although its own was idle.
#[expect(unsafe_code, reason = "the kernel is handed sets of cores")]
pub(super) fn stay_on_core(number: usize) {
    // SAFETY: a set of cores is plain bits, for which zeros are valid; the kernel reads or writes no more bytes than it has, and
    // only this thread is moved.
    let moved = unsafe {
        let (mut allowed, mut own): (libc::cpu_set_t, libc::cpu_set_t) = (std::mem::zeroed(), std::mem::zeroed());
        if libc::sched_getaffinity(0, size_of_val(&allowed), &raw mut allowed) != 0 {
            return;
        }
        let bits = 0..8 * size_of_val(&allowed);
        let cores: Vec<usize> = bits.filter(|core| libc::CPU_ISSET(*core, &allowed)).collect();
        let Some(core) = number.checked_rem(cores.len()) else { return };
        libc::CPU_SET(cores[core], &mut own);
        libc::sched_setaffinity(0, size_of_val(&own), &raw const own)
    };
    if moved != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "a thread of guests is not held to a core");
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
