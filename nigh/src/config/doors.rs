//! Doors for clients of other systems: where they listen, and who may come in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nigh_doors::{Callers, System};

use super::ConfigError;
use super::keys::{OrNone, Text};

/// Options about such doors; each wins over its key in the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DoorOptions {
    /// A door for clients of another system (openwhisk, lambda, openfaas); may be given several times
    #[arg(long, value_name = "SYSTEM=IP:PORT", value_parser = parse_door)]
    pub door: Vec<(System, SocketAddr)>,
    /// Who may come in there.
    #[command(flatten)]
    pub visitors: VisitorOptions,
}

/// Who may come in by such doors.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct VisitorOptions {
    /// Who may come in by such doors: a file with a line for each, `USER:KEY NAMESPACE`, and `deploy` after it for who may
    /// deploy too
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// Let everybody in who can reach such doors, to call and to deploy; on this machine only
    #[arg(long, conflicts_with = "credentials")]
    pub everybody: bool,
}

/// `[doors]`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DoorKeys {
    openwhisk: Option<Text<OrNone<SocketAddr>>>,
    lambda: Option<Text<OrNone<SocketAddr>>>,
    openfaas: Option<Text<OrNone<SocketAddr>>>,
    credentials: Option<PathBuf>,
    everybody: Option<bool>,
}

/// Where doors listen, and who may come in.
#[derive(Debug, Clone)]
pub(super) struct Doors {
    pub(super) listen: Vec<(System, SocketAddr)>,
    /// Nothing where there is no door.
    pub(super) callers: Option<Callers>,
}

impl Doors {
    /// The keys and the options put together; `insecure` waives that everybody may come from this machine only.
    pub(super) fn new(options: &DoorOptions, keys: DoorKeys, insecure: bool) -> Result<Self, ConfigError> {
        let mut listen = options.door.clone();
        let given =
            [(System::OpenWhisk, keys.openwhisk), (System::Lambda, keys.lambda), (System::OpenFaas, keys.openfaas)];
        for (system, key) in given {
            let at = key.and_then(|key| key.0.0);
            listen
                .extend(at.filter(|_| !options.door.iter().any(|(given, _)| *given == system)).map(|at| (system, at)));
        }
        let mut visitors = options.visitors.clone();
        if visitors.credentials.is_none() && !visitors.everybody {
            visitors = VisitorOptions { credentials: keys.credentials, everybody: keys.everybody == Some(true) };
        }
        if listen.is_empty() {
            return Ok(Self { listen, callers: None });
        }
        let at: Vec<_> = listen.iter().map(|(_, at)| *at).collect();
        Ok(Self { listen, callers: Some(visitors.callers(&at, insecure)?) })
    }
}

impl VisitorOptions {
    /// Who may come in where doors listen.
    ///
    /// # Errors
    /// [`ConfigError`] where nobody has said who, the file is no good, or everybody could come from elsewhere.
    pub fn callers(&self, listen: &[SocketAddr], insecure: bool) -> Result<Callers, ConfigError> {
        match (&self.credentials, self.everybody) {
            (Some(_), true) => {
                Err(ConfigError::Contradiction("doors: give `credentials` or `everybody = true`, not both".into()))
            }
            (Some(path), false) => read(path),
            (None, true) => match listen.iter().find(|at| !at.ip().is_loopback()) {
                Some(at) if !insecure => Err(ConfigError::Contradiction(format!(
                    "a door at {at} would let everybody call and deploy from other machines; give --credentials FILE, or listen at 127.0.0.1"
                ))),
                _ => Ok(Callers::everybody()),
            },
            (None, false) => Err(ConfigError::Contradiction(
                "who may come in by the door? Give --credentials FILE, or --everybody on this machine".into(),
            )),
        }
    }
}

fn read(path: &Path) -> Result<Callers, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Callers::from_text(&text)
        .map_err(|error| ConfigError::Contradiction(format!("credentials {}: {error}", path.display())))
}

/// `SYSTEM=IP:PORT`.
pub(crate) fn parse_door(given: &str) -> Result<(System, SocketAddr), String> {
    let (system, at) = given.split_once('=').ok_or("write it as SYSTEM=IP:PORT, as in openwhisk=127.0.0.1:3233")?;
    let at = at.parse().map_err(|_| format!("{at:?} is no IP:PORT"))?;
    Ok((system.parse()?, at))
}
