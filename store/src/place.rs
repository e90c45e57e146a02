//! Where a store is, as operators say it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In one file on this machine, for one process at a time.
    Embedded {
        /// The file.
        file: PathBuf,
    },
    /// In NATS JetStream.
    Nats {
        /// `host:port` of each of its servers. With three or more, everything is kept on three of them.
        servers: Vec<String>,
        /// What this side proves itself with; without it the wire is plain.
        tls: Option<TlsFiles>,
    },
}

/// The files that a connection over TLS needs, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that are believed.
    pub authorities: PathBuf,
    /// The own certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What operators write: `embedded`, `nats://host:port[,host:port…]` or `tls://host:port[,…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// In one file of the role's data folder.
    Embedded,
    /// In NATS.
    Nats {
        /// `host:port` each.
        servers: Vec<String>,
        /// Over TLS.
        over_tls: bool,
    },
}

/// Why a place is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place for a store: write embedded, nats://HOST:PORT[,HOST:PORT…] or tls://HOST:PORT[,HOST:PORT…]")]
pub struct PlaceError(String);

/// The port of NATS by convention.
const NATS_PORT: u16 = 4222;

impl FromStr for Given {
    type Err = PlaceError;

    fn from_str(given: &str) -> Result<Self, PlaceError> {
        let wrong = || PlaceError(given.chars().take(128).collect());
        let (scheme, rest) = match given.split_once("://") {
            None if given == "embedded" => return Ok(Self::Embedded),
            None => return Err(wrong()),
            Some(parts) => parts,
        };
        let over_tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(wrong()),
        };
        let servers: Option<Vec<String>> = rest.split(',').map(|server| server_of(server, scheme)).collect();
        Ok(Self::Nats { servers: servers.ok_or_else(wrong)?, over_tls })
    }
}

/// `host:port` of one server; the scheme may be said again.
fn server_of(given: &str, scheme: &str) -> Option<String> {
    let given = given.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")).unwrap_or(given);
    let is_host = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
    };
    let bracketed = given.ends_with(']');
    match given.rsplit_once(':') {
        Some((host, port)) if !bracketed => {
            let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
            (is_host(host) && (!host.contains(':') || host.starts_with('['))).then(|| format!("{host}:{port}"))
        }
        _ => is_host(given).then(|| format!("{given}:{NATS_PORT}")),
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Nats { servers, over_tls } => {
                write!(f, "{}://{}", if *over_tls { "tls" } else { "nats" }, servers.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let nats = |servers: &[&str], over_tls| Given::Nats {
            servers: servers.iter().map(ToString::to_string).collect(),
            over_tls,
        };
        assert_eq!("embedded".parse(), Ok(Given::Embedded));
        assert_eq!("nats://a:4222,b:5".parse(), Ok(nats(&["a:4222", "b:5"], false)));
        assert_eq!("tls://a,tls://10.0.0.1:7".parse(), Ok(nats(&["a:4222", "10.0.0.1:7"], true)));
        assert_eq!("nats://[::1]:4222,[::1]".parse(), Ok(nats(&["[::1]:4222", "[::1]:4222"], false)));
        for wrong in [
            "",
            "embeded",
            "http://a:1",
            "nats://",
            "nats://a:b",
            "nats://a:0",
            "nats://a:1,",
            "nats://u:p@a:1",
            "nats://::1:4",
        ] {
            assert!(wrong.parse::<Given>().is_err(), "{wrong}");
        }
        let written = "nats://a:4222,b:5";
        assert_eq!(written.parse::<Given>().unwrap().to_string(), written);
    }
}
