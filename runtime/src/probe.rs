//! What this host has: cores and memory, as far as this process may use them.

use std::fs;

/// What is assumed where the host does not tell.
const MEMORY_BYTES_ASSUMED: u64 = 2 << 30;

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of memory that this process may use: the host's, its control group's share or its limit of address space, whatever
/// is least.
pub(crate) fn memory_bytes() -> u64 {
    let host = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib_of(&text, "MemTotal:"));
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let address_space = rustix::process::getrlimit(rustix::process::Resource::As).current;
    host.into_iter().chain(group).chain(address_space).min().unwrap_or(MEMORY_BYTES_ASSUMED)
}

/// Bytes of memory that this process holds; 0 where the host does not tell.
pub(crate) fn resident_bytes() -> u64 {
    fs::read_to_string("/proc/self/status").ok().and_then(|text| kib_of(&text, "VmRSS:")).unwrap_or(0)
}

/// Bytes of address space that this process has mapped; 0 where the host does not tell.
pub(crate) fn mapped_bytes() -> u64 {
    fs::read_to_string("/proc/self/status").ok().and_then(|text| kib_of(&text, "VmSize:")).unwrap_or(0)
}

/// Bytes of address space that this process may still map under its own limit (`ulimit -v`); nothing where it has none.
pub(crate) fn address_space_left() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    Some(limit.saturating_sub(mapped_bytes()))
}

/// Files that this process may have open.
pub(crate) fn open_files() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

/// The bytes of a line such as `VmRSS:   1234 kB`.
fn kib_of(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tables_are_read_by_field() {
        let table = "MemTotal:       24576 kB\nMemFree:  1 kB\nHugePages_Total:  0\n";
        assert_eq!(kib_of(table, "MemTotal:"), Some(24576 * 1024));
        assert_eq!(kib_of(table, "HugePages_Total:"), None);
        assert_eq!(kib_of(table, "VmRSS:"), None);
    }

    #[test]
    fn a_host_has_something() {
        assert!(cores() >= 1);
        assert!(memory_bytes() >= 64 << 20);
    }
}
