//! What operators set: a TOML file per role, and options of the command line that win over it. Everything is checked
//! before a port is opened. `nigh/config/*.toml` show every key with its default.

mod broker;
mod computer;
mod controller;
mod doors;
mod hardware;
mod keys;
mod mec;
mod node;
mod remote;
mod store;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use nigh_proto::Role;
use serde::de::DeserializeOwned;

pub(crate) use broker::CALLS;
pub use broker::{BrokerOptions, BrokerSettings};
pub(crate) use computer::{COMPILED, STATES};
pub use computer::{ComputerOptions, ComputerSettings, parse_offer};
pub(crate) use controller::STORE;
pub use controller::{ControllerOptions, ControllerSettings};
pub use doors::{DoorOptions, VisitorOptions};
pub use hardware::{BackendName, backend};
pub use mec::{DeciderName, GiveName, MecOptions, MecSettings};
pub use node::{Listen, default_name};
pub(crate) use node::{default_controller, metrics_port, or_none, parse_network};
pub(crate) use store::embedded;
pub use tls::TlsFiles;

/// Ports by convention.
pub mod ports {
    /// Brokers take calls over gRPC.
    pub const CALLS: u16 = 6473;
    /// A broker's forwarding table.
    pub const TABLE: u16 = 6474;
    /// The controller.
    pub const CONTROLLER: u16 = 6475;
    /// Device applications of ETSI MEC.
    pub const MEC: u16 = 6500;
    /// Brokers take calls over HTTP.
    pub const HTTP: u16 = 8080;
    /// A door for clients of OpenWhisk.
    pub const OPENWHISK: u16 = 3233;
    /// A door for clients of AWS Lambda.
    pub const LAMBDA: u16 = 9001;
    /// A door for clients of OpenFaaS.
    pub const OPENFAAS: u16 = 8088;
    /// The first computer of a machine; further ones follow.
    pub const COMPUTERS: u16 = 10_000;
    /// A broker's metrics and health.
    pub const BROKER_METRICS: u16 = 9473;
    /// The controller's metrics and health.
    pub const CONTROLLER_METRICS: u16 = 9475;
    /// The metrics and health of what tells devices where to call.
    pub const MEC_METRICS: u16 = 9500;
    /// The metrics and health of the first computer of a machine; those of further ones follow.
    pub const COMPUTER_METRICS: u16 = 19_000;
    /// From a broker's port for calls to that for metrics; so for the other roles.
    pub(crate) const BROKER_OFFSET: u16 = BROKER_METRICS - CALLS;
    pub(crate) const CONTROLLER_OFFSET: u16 = CONTROLLER_METRICS - CONTROLLER;
    pub(crate) const MEC_OFFSET: u16 = MEC_METRICS - MEC;
    pub(crate) const COMPUTER_OFFSET: u16 = COMPUTER_METRICS - COMPUTERS;
}

/// Why a configuration cannot be used. Whoever starts the role has to act.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something that it cannot.
    #[error("{}:{line}: {message}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what is valid.
        message: String,
    },
    /// Settings, each fine, that do not go together.
    #[error("{0}")]
    Contradiction(String),
    /// Nobody else could know where a role listens.
    #[error(
        "{listen} is every address of this machine, but not one at which others reach this {role}; add `advertise = \"HOST:{}\"` or --advertise HOST:{}",
        .listen.port(),
        .listen.port()
    )]
    Advertise {
        /// Which role.
        role: &'static str,
        /// Where it would listen.
        listen: SocketAddr,
    },
    /// A certificate that cannot be used.
    #[error("certificate {}: {problem}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A socket would be open to others without TLS.
    #[error(
        "{listen} can be reached from other machines, and without TLS whoever is on that network could read every payload, call, deploy and remove. Either give this {role} a certificate (`nigh ca init`, `nigh ca issue --role {role} --name NAME --host HOST`, then --tls-dir DIR or [tls] in its file), or take that risk with --insecure-plaintext (`insecure_plaintext = true`)"
    )]
    Plaintext {
        /// Which role.
        role: Role,
        /// Where it would listen.
        listen: SocketAddr,
    },
    /// No place for what must be kept.
    #[error("there is no home folder to keep data in; say where with `data_dir = \"DIR\"` or --data-dir DIR")]
    NoHome,
}

/// Reads a file; without one, everything has its default.
fn read<File: DeserializeOwned + Default>(path: Option<&Path>) -> Result<File, ConfigError> {
    let Some(path) = path else { return Ok(File::default()) };
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

fn parse<File: DeserializeOwned>(path: &Path, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Invalid {
        path: path.to_owned(),
        line: line_of(text, error.span()),
        message: error.message().to_owned(),
    })
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start).min(text.len());
    1 + text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count()
}

/// Where a role keeps what must outlast it, unless told otherwise: `nigh/ROLE` in the user's data folder
/// (`XDG_DATA_HOME`, else `~/.local/share`).
///
/// # Errors
/// [`ConfigError::NoHome`].
pub fn default_data_dir(role: &str) -> Result<PathBuf, ConfigError> {
    let set = std::env::var_os("XDG_DATA_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let data = set.or_else(|| Some(home()?.join(".local/share"))).ok_or(ConfigError::NoHome)?;
    Ok(data.join("nigh").join(role))
}

#[cfg(test)]
mod tests;
