//! Where a role keeps what must outlast it: in a file of its data folder, or in NATS.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nigh_store::{Given, Place};

use super::{ConfigError, TlsFiles, default_data_dir};

/// What is said of a role's store.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// `--store` or `store`.
    pub(super) given: Option<Given>,
    /// `--data-dir` or `data_dir`.
    pub(super) data_dir: Option<PathBuf>,
    /// The file's name in that folder.
    pub(super) file: &'a str,
    /// The role, for its default folder.
    pub(super) role: &'a str,
    /// The role's own certificate.
    pub(super) tls: Option<&'a TlsFiles>,
    /// Plain connections to other machines are allowed.
    pub(super) insecure_plaintext: bool,
}

/// Where the store is, and the folder that it needs, if any; nothing where nothing was said.
pub(super) fn place(wanted: Wanted<'_>) -> Result<Option<(Place, Option<PathBuf>)>, ConfigError> {
    let embedded = |folder: PathBuf| (Place::Embedded { file: folder.join(wanted.file) }, Some(folder));
    match (wanted.given, wanted.data_dir) {
        (None, None) => Ok(None),
        (None | Some(Given::Embedded), Some(folder)) => Ok(Some(embedded(folder))),
        (Some(Given::Embedded), None) => Ok(Some(embedded(default_data_dir(wanted.role)?))),
        (Some(Given::Nats { servers, over_tls: false }), _) => {
            if let Some(server) = servers.iter().find(|server| !is_loopback(server) && !wanted.insecure_plaintext) {
                return Err(ConfigError::Contradiction(format!(
                    "store: {server} is another machine, and over nats:// whoever is on that network can read and change everything in it; use tls:// with [tls], or take that risk with --insecure-plaintext (`insecure_plaintext = true`)"
                )));
            }
            Ok(Some((Place::Nats { servers, tls: None }, None)))
        }
        (Some(Given::Nats { servers, over_tls: true }), _) => {
            let Some(files) = wanted.tls else {
                let message = "store: tls:// needs the role's own certificate; give it one with --tls-dir DIR or [tls]";
                return Err(ConfigError::Contradiction(message.into()));
            };
            Ok(Some((Place::Nats { servers, tls: Some(tls_files(files)) }, None)))
        }
    }
}

/// The role's own certificate, as a store needs it.
pub(super) fn tls_files(TlsFiles { ca, certificate, key }: &TlsFiles) -> nigh_store::TlsFiles {
    nigh_store::TlsFiles { authorities: ca.clone(), certificate: certificate.clone(), key: key.clone() }
}

fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The file in a data folder.
pub(crate) fn embedded(data_dir: &Path, file: &str) -> Place {
    Place::Embedded { file: data_dir.join(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(given: &str, tls: bool, insecure_plaintext: bool) -> Result<Place, String> {
        let folder = PathBuf::from("/certificates");
        let files = TlsFiles::in_folder(&folder);
        let given = Some(given.parse().unwrap());
        let tls = tls.then_some(&files);
        let data_dir = Some("/data".into());
        let placed = place(Wanted { given, data_dir, file: "calls.redb", role: "broker", tls, insecure_plaintext });
        placed.map(|placed| placed.unwrap().0).map_err(|error| error.to_string())
    }

    #[test]
    fn a_store_is_where_it_was_said_to_be() {
        assert_eq!(placed("embedded", false, false), Ok(Place::Embedded { file: "/data/calls.redb".into() }));
        let servers = |servers: &[&str]| servers.iter().map(ToString::to_string).collect::<Vec<_>>();
        let nats = placed("nats://127.0.0.1:4222,localhost", false, false);
        assert_eq!(nats, Ok(Place::Nats { servers: servers(&["127.0.0.1:4222", "localhost:4222"]), tls: None }));
        assert!(matches!(placed("tls://10.0.0.1", true, false), Ok(Place::Nats { tls: Some(_), .. })));
    }

    #[test]
    fn other_machines_are_not_spoken_to_in_the_clear_unless_that_was_asked_for() {
        assert!(placed("nats://10.0.0.1", true, false).unwrap_err().contains("10.0.0.1:4222"));
        assert!(placed("nats://10.0.0.1", false, true).is_ok());
        assert!(placed("tls://10.0.0.1", false, false).unwrap_err().contains("--tls-dir"));
    }
}
