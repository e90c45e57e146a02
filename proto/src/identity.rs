//! Who a peer is by its certificate: a role and a name, written into it as the URI `nigh://ROLE/NAME`, and the hosts at
//! which it may be reached.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::name::{Digest, NodeName};

/// The scheme of the URI that names role and name.
const SCHEME: &str = "nigh://";

/// What a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Keeps what is deployed, knows who is alive.
    Controller,
    /// Takes calls and passes them on.
    Broker,
    /// Runs functions.
    Computer,
    /// Tells device applications where to call.
    Mec,
    /// Has functions run.
    Client,
    /// Deploys, removes, edits routes, reads logs; a person or a program that acts for one.
    Operator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Controller, Self::Broker, Self::Computer, Self::Mec, Self::Client, Self::Operator];

    /// The word that stands for it in certificates, options and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Broker => "broker",
            Self::Computer => "computer",
            Self::Mec => "mec",
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }

    /// Whether others connect to it, so that its certificate has to name a host.
    pub const fn listens(self) -> bool {
        matches!(self, Self::Controller | Self::Broker | Self::Computer | Self::Mec)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(given: &str) -> Result<Self, IdentityError> {
        Self::ALL.into_iter().find(|role| role.as_str() == given).ok_or_else(|| IdentityError::Role(shortened(given)))
    }
}

/// A role and a name, as a certificate proves them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What it may be.
    pub role: Role,
    /// Which one.
    pub name: NodeName,
}

impl Identity {
    /// The URI that stands in a certificate.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.role, self.name)
    }

    fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Uri(shortened(uri));
        let (role, name) = uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(malformed)?;
        Ok(Self { role: role.parse()?, name: name.parse().map_err(|_| malformed())? })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// Why a certificate does not say who its owner is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read.
    #[error("it is no X.509 certificate ({0})")]
    Certificate(String),
    /// No role stands in it.
    #[error("it names no role; issue one with `nigh ca issue`, or with the URI nigh://ROLE/NAME among its names")]
    Nobody,
    /// More than one does.
    #[error("it names more than one role; one certificate is for one")]
    Several,
    /// The URI is not of its form.
    #[error("{0:?} is not of the form nigh://ROLE/NAME")]
    Uri(String),
    /// There is no such role.
    #[error("{0:?} is no role; there are controller, broker, computer, mec, client and operator")]
    Role(String),
}

fn shortened(given: &str) -> String {
    given.chars().take(100).collect()
}

/// What a certificate says of itself. Nothing here is proved by reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is, for people.
    pub subject: String,
    /// Who has signed it, for people.
    pub issuer: String,
    /// Who its owner is.
    pub identity: Result<Identity, IdentityError>,
    /// Names and addresses at which its owner may be reached.
    pub hosts: Vec<String>,
    /// It may sign others.
    pub is_ca: bool,
    /// Valid from here on.
    pub not_before: SystemTime,
    /// Valid until then.
    pub not_after: SystemTime,
    /// SHA-256 of the whole.
    pub fingerprint: Digest,
}

impl Certificate {
    /// Reads a certificate in binary form (DER).
    ///
    /// # Errors
    /// [`IdentityError::Certificate`].
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let unreadable = |error: &dyn fmt::Display| IdentityError::Certificate(error.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        let names = certificate.subject_alternative_name().map_err(|error| unreadable(&error))?;
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
                _ => None,
            })
            .collect();
        let identity = match uris[..] {
            [] => Err(IdentityError::Nobody),
            [uri] => Identity::from_uri(uri),
            _ => Err(IdentityError::Several),
        };
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            identity,
            hosts: names.iter().filter_map(host).collect(),
            is_ca: certificate.is_ca(),
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
            fingerprint: Digest::of(der),
        })
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match (<[u8; 4]>::try_from(*octets), <[u8; 16]>::try_from(*octets)) {
            (Ok(v4), _) => Some(std::net::Ipv4Addr::from(v4).to_string()),
            (_, Ok(v6)) => Some(std::net::Ipv6Addr::from(v6).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// A point in time, moved to the epoch where it lies before.
fn time(time: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[&str]) -> Certificate {
        let mut params = CertificateParams::new(vec!["edge-7.example".to_owned(), "10.0.0.7".to_owned()]).unwrap();
        params.subject_alt_names.extend(names.iter().map(|name| SanType::URI((*name).try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn a_certificate_tells_role_name_and_hosts() {
        let read = certificate(&["https://example.com/", "nigh://computer/camera-7"]);
        let identity = Identity { role: Role::Computer, name: "camera-7".parse().unwrap() };
        assert_eq!(read.identity, Ok(identity.clone()));
        assert_eq!(read.hosts, ["edge-7.example", "10.0.0.7"]);
        assert_eq!(
            (identity.uri(), identity.to_string()),
            ("nigh://computer/camera-7".into(), "computer camera-7".into())
        );
        assert!(!read.is_ca && read.not_before < read.not_after);
    }

    #[test]
    fn a_certificate_without_one_role_is_nobodys() {
        assert_eq!(certificate(&[]).identity, Err(IdentityError::Nobody));
        assert_eq!(certificate(&["nigh://client/a", "nigh://operator/a"]).identity, Err(IdentityError::Several));
        assert!(matches!(certificate(&["nigh://root/a"]).identity, Err(IdentityError::Role(_))));
        for uri in ["nigh://client", "nigh://client/", "nigh://client/Ada L", "nigh://client/a/b"] {
            assert!(matches!(certificate(&[uri]).identity, Err(IdentityError::Uri(_))), "{uri}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Certificate::from_der(&bytes);
        }

        #[test]
        fn no_damage_makes_the_parser_panic(at in 0usize..400, byte in any::<u8>()) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["edge".to_owned()]).unwrap();
            let mut der = params.self_signed(&key).unwrap().der().to_vec();
            let at = at % der.len();
            der[at] = byte;
            let _ = Certificate::from_der(&der);
        }
    }
}
