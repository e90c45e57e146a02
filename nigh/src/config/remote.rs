//! A computer whose functions run elsewhere: where, which they are, and what it proves itself with there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nigh_proto::FunctionName;
use nigh_proto::tls::https::Trust;
use nigh_runtime::{Backend, Credentials, RemoteApi, RemoteFunction, RemoteSettings, RootUrl, UrlTemplate};

use super::ConfigError;
use super::hardware::BackendName;
use crate::units::Time;

/// Calls under way at once, where nobody says how many: they wait for another system, and take no core here.
pub(super) const WORKERS: usize = 64;
/// Holds what is in the file of credentials, where there is no file.
const AUTH_VARIABLE: &str = "NIGH_REMOTE_AUTH";
/// Whose actions of OpenWhisk are offered: those of the credentials.
const OWN_NAMESPACE: &str = "_";

/// Options about functions that run elsewhere; each wins over its key in the file.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Functions that run elsewhere (--backend http, openwhisk)")]
pub struct RemoteOptions {
    /// Where they are: of http, where a function's name stands for `{function}`; of openwhisk, the host
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// A function, and what it is called there; may be given several times [default: all that are listed there]
    #[arg(long, value_name = "NAME[=REMOTE]")]
    pub function: Vec<RemoteFunction>,
    /// File with USER:PASSWORD, or Bearer TOKEN [default: what the variable NIGH_REMOTE_AUTH holds]
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Whose functions [default: of openwhisk, those of the credentials]
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Of a result of openwhisk, answer only the text in its field `payload`
    #[arg(long)]
    pub payload_only: bool,
    /// How often to look which functions there are, and whether anybody answers [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub refresh: Option<Time>,
    /// Authorities that vouch for the host there (PEM) [default: those that this system believes]
    #[arg(long, value_name = "FILE")]
    pub remote_ca: Option<PathBuf>,
    /// Believe any host there to be the right one: whoever is on the way can read and change every call
    #[arg(long, conflicts_with = "remote_ca")]
    pub remote_insecure: bool,
}

/// `[remote]`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RemoteKeys {
    url: Option<String>,
    functions: BTreeMap<String, String>,
    auth_file: Option<PathBuf>,
    namespace: Option<String>,
    payload_only: Option<bool>,
    refresh: Option<Time>,
    ca: Option<PathBuf>,
    insecure: Option<bool>,
}

impl RemoteOptions {
    /// Whether anything is said.
    pub(super) fn is_given(&self) -> bool {
        self.url.is_some()
            || !self.function.is_empty()
            || self.auth_file.is_some()
            || self.namespace.is_some()
            || self.payload_only
            || self.refresh.is_some()
            || self.remote_ca.is_some()
            || self.remote_insecure
    }
}

/// The options and the keys put together.
///
/// # Errors
/// What is missing or contradicts itself, and files that cannot be read.
pub(super) fn backend(name: BackendName, options: &RemoteOptions, keys: RemoteKeys) -> Result<Backend, ConfigError> {
    let wrong = |what: String| ConfigError::Contradiction(format!("remote: {what}"));
    let url = options.url.clone().or(keys.url).ok_or_else(|| wrong("say where the functions are: --url URL".into()))?;
    let namespace = options.namespace.clone().or(keys.namespace);
    let payload_only = options.payload_only || keys.payload_only == Some(true);
    let api = if name == BackendName::Openwhisk {
        let root: RootUrl = url.parse().map_err(wrong)?;
        RemoteApi::OpenWhisk { root, namespace: namespace.unwrap_or_else(|| OWN_NAMESPACE.to_owned()), payload_only }
    } else {
        if payload_only {
            return Err(wrong("payload_only is about results of openwhisk".into()));
        }
        let url: UrlTemplate = url.parse().map_err(wrong)?;
        RemoteApi::Http { url, namespace }
    };
    let insecure = options.remote_insecure || keys.insecure == Some(true);
    let trust = match (api.is_secured(), insecure, options.remote_ca.clone().or(keys.ca)) {
        (false, ..) => None,
        (true, true, _) => Some(Trust::anybody().map_err(|error| wrong(error.to_string()))?),
        (true, false, Some(path)) => {
            let trust = Trust::authorities(read(&path)?.as_bytes());
            Some(trust.map_err(|error| wrong(format!("{}: {error}", path.display())))?)
        }
        (true, false, None) => Some(Trust::system().map_err(|error| wrong(error.to_string()))?),
    };
    let functions = if options.function.is_empty() { functions(keys.functions)? } else { options.function.clone() };
    let credentials = credentials(options.auth_file.clone().or(keys.auth_file).as_deref())?;
    let refresh = options.refresh.or(keys.refresh).map_or(RemoteSettings::REFRESH, Time::duration);
    Ok(Backend::Remote(Box::new(RemoteSettings { api, functions, credentials, trust, refresh })))
}

/// `[remote.functions]`: what each is called there; an empty text where that is no other name.
fn functions(keys: BTreeMap<String, String>) -> Result<Vec<RemoteFunction>, ConfigError> {
    let function = |(name, remote): (String, String)| {
        let name: FunctionName =
            name.parse().map_err(|error| ConfigError::Contradiction(format!("[remote.functions]: {error}")))?;
        Ok(RemoteFunction { name, remote: Some(remote).filter(|remote| !remote.is_empty()) })
    };
    keys.into_iter().map(function).collect()
}

fn credentials(file: Option<&Path>) -> Result<Option<Credentials>, ConfigError> {
    let (text, whence) = match (file, std::env::var(AUTH_VARIABLE)) {
        (Some(path), _) => (read(path)?, path.display().to_string()),
        (None, Ok(text)) if !text.is_empty() => (text, AUTH_VARIABLE.to_owned()),
        (None, _) => return Ok(None),
    };
    let credentials = text.parse().map_err(|error| ConfigError::Contradiction(format!("{whence}: {error}")))?;
    Ok(Some(credentials))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unread = |error| ConfigError::Contradiction(format!("cannot read {}: {error}", path.display()));
    std::fs::read_to_string(path).map_err(unread)
}
