//! What the operator of a controller decides. Every limit has a default that is safe on a small machine.

use std::path::PathBuf;
use std::time::Duration;

use nigh_proto::module::ModuleLimits;
use nigh_proto::{ServerLimits, Tls};
use nigh_routing::install::Hierarchy;
use nigh_store::Place;
use nigh_telemetry::Telemetry;

use crate::error::Error;

/// How a controller is set up. [`Config::new`] gives every field but the store a default; no field may be zero.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where what is deployed is kept: in a file, made if missing, whose folder must exist; or in NATS, where several controllers
    /// share it.
    pub store: Place,
    /// What it proves itself with; without it the wire is plain.
    pub tls: Option<Tls>,
    /// Time that a computer or broker counts as alive after it announced itself.
    pub lease: Duration,
    /// How often computers and brokers let it hear from them.
    pub beat: Duration,
    /// Silence after which one counts as gone, though its lease would last longer; more for one that was so taken for gone
    /// and was not.
    pub silence: Duration,
    /// Time after a start that the computers and brokers known before still count as alive; longer than a node takes to
    /// find a controller that came back.
    pub grace: Duration,
    /// What is accepted of one module.
    pub module_limits: ModuleLimits,
    /// What is accepted of those who connect.
    pub server: ServerLimits,
    /// Functions deployed, at most.
    pub functions_max: usize,
    /// Bytes of all modules stored, at most.
    pub modules_bytes_max: u64,
    /// Computers and brokers alive, at most.
    pub nodes_max: usize,
    /// States of applications that computers hold, at most.
    pub states_max: usize,
    /// Bytes of one announcement, at most.
    pub announcement_bytes_max: usize,
    /// Watch streams open at once.
    pub watchers_max: usize,
    /// Changes that a watcher may be behind before it is cut off and has to begin anew.
    pub watcher_queue_max: usize,
    /// Modules being uploaded at once; each may hold [`ModuleLimits::bytes_max`] in memory.
    pub uploads_max: usize,
    /// Bytes of one part of an upload, at most.
    pub upload_part_bytes_max: usize,
    /// Silence after which an upload is given up.
    pub upload_idle: Duration,
    /// Time for one upload from its first message to its last.
    pub upload_timeout: Duration,
    /// Modules being judged at once, each on a thread of its own.
    pub inspections_max: usize,
    /// Removals under way at once.
    pub removals_max: usize,
    /// Modules being fetched at once.
    pub fetches_max: usize,
    /// Time that a reader of a module may take to accept its next part.
    pub fetch_idle: Duration,
    /// Brokers know computers by this hierarchy; without one every broker knows every computer.
    pub hierarchy: Option<Hierarchy>,
    /// Time for requests to finish once the controller has to stop.
    pub drain: Duration,
    /// Where it tells of itself.
    pub telemetry: Telemetry,
}

impl Config {
    /// The defaults, with the registry kept in this file.
    pub fn new(store: PathBuf) -> Self {
        Self {
            store: Place::Embedded { file: store },
            tls: None,
            lease: Duration::from_secs(3),
            beat: Duration::from_millis(150),
            silence: Duration::from_millis(900),
            grace: Duration::from_secs(5),
            module_limits: ModuleLimits::default(),
            server: ServerLimits::default(),
            functions_max: 10_000,
            modules_bytes_max: 4 << 30,
            nodes_max: 10_000,
            states_max: 100_000,
            announcement_bytes_max: 16 << 20,
            watchers_max: 4096,
            watcher_queue_max: 1024,
            uploads_max: 4,
            upload_part_bytes_max: 4 << 20,
            upload_idle: Duration::from_secs(15),
            upload_timeout: Duration::from_secs(600),
            inspections_max: 2,
            removals_max: 64,
            fetches_max: 64,
            fetch_idle: Duration::from_secs(15),
            hierarchy: None,
            drain: Duration::from_secs(10),
            telemetry: Telemetry::new(),
        }
    }

    /// The place of the store, in words.
    pub(crate) fn told_store(&self) -> String {
        match &self.store {
            Place::Embedded { file } => file.display().to_string(),
            Place::Nats { servers, .. } => format!("NATS at {}", servers.join(", ")),
        }
    }

    /// Refuses what cannot work: a limit or wait of zero.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let waits = [
            ("lease", self.lease),
            ("beat", self.beat),
            ("silence", self.silence),
            ("grace", self.grace),
            ("upload_idle", self.upload_idle),
            ("upload_timeout", self.upload_timeout),
            ("fetch_idle", self.fetch_idle),
            ("drain", self.drain),
        ];
        let limits = [
            ("functions_max", self.functions_max),
            ("nodes_max", self.nodes_max),
            ("states_max", self.states_max),
            ("announcement_bytes_max", self.announcement_bytes_max),
            ("watchers_max", self.watchers_max),
            ("watcher_queue_max", self.watcher_queue_max),
            ("uploads_max", self.uploads_max),
            ("upload_part_bytes_max", self.upload_part_bytes_max),
            ("inspections_max", self.inspections_max),
            ("removals_max", self.removals_max),
            ("fetches_max", self.fetches_max),
        ];
        let zero_wait = waits.iter().find(|(_, wait)| wait.is_zero()).map(|(name, _)| *name);
        let zero_limit = limits.iter().find(|(_, limit)| *limit == 0).map(|(name, _)| *name);
        match zero_wait.or(zero_limit).or((self.modules_bytes_max == 0).then_some("modules_bytes_max")) {
            Some(name) => Err(Error::Config(format!("{name} is 0; leave it out for the default"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        assert!(Config::new("store".into()).check().is_ok());
        let config = Config { uploads_max: 0, ..Config::new("store".into()) };
        assert!(config.check().unwrap_err().to_string().contains("uploads_max"));
        let config = Config { lease: Duration::ZERO, ..Config::new("store".into()) };
        assert!(config.check().unwrap_err().to_string().contains("lease"));
    }
}
