//! Certificates as operators name them: three files, or a folder that holds them by their usual names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nigh_proto::tls::Pem;
use nigh_proto::{NodeName, Role, Tls};

use super::ConfigError;
use crate::ca::folder::{CA, CERTIFICATE, KEY};

/// The files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that are believed.
    pub ca: PathBuf,
    /// The own certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// `[tls]`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsKeys {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsFiles {
    /// The three in a folder, as `nigh ca issue` writes it.
    pub fn in_folder(folder: &Path) -> Self {
        Self { ca: folder.join(CA), certificate: folder.join(CERTIFICATE), key: folder.join(KEY) }
    }

    /// What is in them now.
    ///
    /// # Errors
    /// [`ConfigError::Certificate`] with the file.
    pub fn read(&self) -> Result<Pem, ConfigError> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| ConfigError::Certificate { path: path.clone(), problem: error.to_string() })
        };
        Ok(Pem { ca: read(&self.ca)?, certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    /// Reads and checks them.
    ///
    /// # Errors
    /// [`ConfigError::Certificate`] with what is wrong and what to do.
    pub fn load(&self) -> Result<Tls, ConfigError> {
        let unusable = |error: nigh_proto::tls::TlsError| ConfigError::Certificate {
            path: self.certificate.clone(),
            problem: error.to_string(),
        };
        Tls::new(&self.read()?).map_err(unusable)
    }
}

/// The files that a role is to use, if any: an option wins over the file's keys.
pub(super) fn chosen(folder: Option<&Path>, keys: Option<TlsKeys>) -> Result<Option<TlsFiles>, ConfigError> {
    if let Some(folder) = folder {
        return Ok(Some(TlsFiles::in_folder(folder)));
    }
    match keys {
        None | Some(TlsKeys { ca: None, certificate: None, key: None }) => Ok(None),
        Some(TlsKeys { ca: Some(ca), certificate: Some(certificate), key: Some(key) }) => {
            Ok(Some(TlsFiles { ca, certificate, key }))
        }
        Some(_) => Err(ConfigError::Contradiction("[tls] needs all of `ca`, `certificate` and `key`, or none".into())),
    }
}

/// Loads a role's certificate, which must be for that role.
pub(super) fn load(files: Option<&TlsFiles>, role: Role) -> Result<Option<Tls>, ConfigError> {
    let Some(files) = files else { return Ok(None) };
    let tls = files.load()?;
    let identity = tls.identity();
    if identity.role != role {
        let problem =
            format!("it is of {identity}, but this is a {role}; issue one with `nigh ca issue --role {role}`");
        return Err(ConfigError::Certificate { path: files.certificate.clone(), problem });
    }
    Ok(Some(tls))
}

/// The name of a node: the one given, which must be the one in its certificate, or that one.
pub(super) fn name(given: Option<NodeName>, tls: Option<&Tls>) -> Result<Option<NodeName>, ConfigError> {
    let Some(tls) = tls else { return Ok(given) };
    let proved = tls.identity();
    match given {
        Some(given) if given != proved.name => Err(ConfigError::Contradiction(format!(
            "it is named {given}, but its certificate is of {proved}; leave the name out, or issue a certificate for {given}"
        ))),
        _ => Ok(Some(proved.name)),
    }
}

/// Refuses a plain socket that others could reach, unless that was asked for.
pub(super) fn check_exposed(
    role: Role,
    listen: &[SocketAddr],
    tls: Option<&Tls>,
    insecure_plaintext: bool,
) -> Result<(), ConfigError> {
    let Some(&listen) = listen.iter().find(|listen| tls.is_none() && !listen.ip().is_loopback()) else { return Ok(()) };
    if !insecure_plaintext {
        return Err(ConfigError::Plaintext { role, listen });
    }
    tracing::warn!(%listen, %role, "reachable from other machines without TLS: whoever is on that network can read, call and deploy");
    Ok(())
}
