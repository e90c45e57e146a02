//! A function's limits and grants, as options of `nigh deploy`.

use clap::Args;
use nigh_proto::{DirectoryGrant, Limits, PlatformError};

use crate::units::{Size, Time};

/// Limits on each computer; what is not given has its default.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits on each computer")]
pub(super) struct LimitOptions {
    /// Memory of an instance, up to 1GiB [default: 128MiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Time of one call once it runs, up to 1h [default: 10s]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Time>,
    /// Calls that run at once [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Calls that wait [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    queue: Option<u32>,
    /// Calls that one instance may serve; over 1, what a call leaves behind is there for the next [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    reuse: Option<u32>,
    /// Payload of a request and of an answer, each, up to 64MiB [default: 16MiB]
    #[arg(long, value_name = "SIZE")]
    payload: Option<Size>,
    /// Log text of one call, up to 16MiB [default: 64KiB]
    #[arg(long, value_name = "SIZE")]
    log: Option<Size>,
    /// How long an instance kept for a later call is kept without one, up to 1h [default: 30s]
    #[arg(long, value_name = "TIME")]
    idle: Option<Time>,
    /// Log text of all calls for each second, up to 64MiB [default: 256KiB]
    #[arg(long, value_name = "SIZE")]
    log_rate: Option<Size>,
    /// Time that a call waits for its turn, up to 1h [default: 10s]
    #[arg(long, value_name = "TIME")]
    queue_wait: Option<Time>,
    /// Elements of each table of an instance, up to 100000 [default: 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    table_elements: Option<u32>,
    /// Files and directories that an instance has open at once, up to 1024 [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    open_files: Option<u32>,
    /// Content of each of its states, up to 511KiB [default: 64KiB]
    #[arg(long, value_name = "SIZE")]
    state_bytes: Option<Size>,
}

impl LimitOptions {
    /// The limits, within what a deployment may ask for.
    pub(super) fn limits(&self) -> Result<Limits, PlatformError> {
        let default = Limits::default();
        let bytes = |size: Option<Size>, default| size.map_or(default, Size::bytes);
        let limits = Limits {
            memory_bytes: bytes(self.memory, default.memory_bytes),
            timeout: self.timeout.map_or(default.timeout, Time::duration),
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            queue: self.queue.unwrap_or(default.queue),
            payload_bytes: bytes(self.payload, default.payload_bytes),
            reuse: self.reuse.unwrap_or(default.reuse),
            log_bytes: bytes(self.log, default.log_bytes),
            idle: self.idle.map_or(default.idle, Time::duration),
            log_bytes_per_second: bytes(self.log_rate, default.log_bytes_per_second),
            queue_wait: self.queue_wait.map_or(default.queue_wait, Time::duration),
            table_elements: self.table_elements.unwrap_or(default.table_elements),
            open_files: self.open_files.unwrap_or(default.open_files),
            state_bytes: bytes(self.state_bytes, default.state_bytes),
        };
        // The controller's own check, made before anything is uploaded.
        Limits::from_wire(&limits.to_wire())
    }
}

/// `NAME[=/guest/path][:rw]`.
pub(super) fn parse_grant(given: &str) -> Result<DirectoryGrant, String> {
    let (given, writable) = given.strip_suffix(":rw").map_or((given, false), |given| (given, true));
    let (name, guest_path) = match given.split_once('=') {
        Some((name, path)) => (name, path.to_owned()),
        None => (given, format!("/{given}")),
    };
    let name: nigh_proto::NodeName = name.parse().map_err(|error: nigh_proto::name::NameError| error.to_string())?;
    if !guest_path.starts_with('/') {
        return Err(format!("{guest_path:?} is not an absolute path; write NAME=/path or NAME=/path:rw"));
    }
    Ok(DirectoryGrant { name: name.as_str().to_owned(), guest_path, writable })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn limits_given_replace_defaults_and_are_held_to_their_range() {
        assert_eq!(LimitOptions::default().limits().unwrap(), Limits::default());
        let options = LimitOptions {
            memory: Some("64MiB".parse().unwrap()),
            timeout: Some("1500ms".parse().unwrap()),
            idle: Some("2m".parse().unwrap()),
            ..Default::default()
        };
        let limits = options.limits().unwrap();
        assert_eq!((limits.memory_bytes, limits.timeout), (64 << 20, Duration::from_millis(1500)));
        assert_eq!(limits.idle, Duration::from_secs(120));
        let greedy = LimitOptions { memory: Some("2GiB".parse().unwrap()), ..Default::default() };
        assert!(greedy.limits().unwrap_err().message.contains("memory"));
    }

    #[test]
    fn grants_have_a_path_of_their_name_by_default() {
        let grant =
            |name: &str, path: &str, writable| DirectoryGrant { name: name.into(), guest_path: path.into(), writable };
        assert_eq!(parse_grant("pictures"), Ok(grant("pictures", "/pictures", false)));
        assert_eq!(parse_grant("pictures:rw"), Ok(grant("pictures", "/pictures", true)));
        assert_eq!(parse_grant("pictures=/in/put:rw"), Ok(grant("pictures", "/in/put", true)));
        for odd in ["", "/etc", "a=b", "a b", "a="] {
            assert!(parse_grant(odd).is_err(), "{odd}");
        }
    }
}
