//! TLS on the wire between roles and from clients: both sides prove by a certificate of one authority who they are.
//!
//! [`Tls`] is what a role or client proves itself with, and whom it believes. It can be replaced while in use: connections
//! made from then on use the new one, those that exist live on. `accept` makes connections of those who come, `connect`
//! makes them to other roles, `outgoing` and, for clients that keep connections, `https` to the rest of the world, `refusal` says why one was not made, and `connection` is what they are.

pub mod accept;
pub(crate) mod complaints;
pub(crate) mod connect;
pub mod connection;
pub mod https;
mod plaintext;
pub(crate) mod refusal;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore, ServerConfig};

use crate::identity::{Certificate, Identity, IdentityError};

/// Certificates in one file, at most: an authority's own, those before and after it, and a chain between.
const CERTIFICATES_MAX: usize = 32;
/// What is spoken inside: HTTP/2 alone, as gRPC is.
const ALPN_GRPC: &[&[u8]] = &[b"h2"];
const ALPN_HTTP1: &[u8] = b"http/1.1";
/// What is spoken at the HTTP door, and by clients of HTTP.
const ALPN_HTTP: &[&[u8]] = &[b"h2", ALPN_HTTP1];

/// Certificates and a key as text (PEM).
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The authorities whose certificates are believed. Two or more stand one after another, as while one replaces another.
    pub ca: Vec<u8>,
    /// The own certificate, and those between it and the authority.
    pub certificate: Vec<u8>,
    /// The key of the own certificate (PKCS#8).
    pub key: Vec<u8>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

/// Why certificates cannot be used. Whoever runs the role has to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A part cannot be read.
    #[error("the {part} cannot be read: {problem}")]
    Unreadable {
        /// `ca`, `certificate` or `key`.
        part: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The certificate says not who its owner is.
    #[error("the certificate does not say whose it is: {0}")]
    Identity(#[from] IdentityError),
    /// The key is another one's.
    #[error("the key does not belong to the certificate; copy both from one `nigh ca issue`")]
    OtherKey,
    /// No authority that is believed has signed it.
    #[error("the certificate was not issued by the authority in the ca file; copy both from one `nigh ca issue`")]
    OtherAuthority,
    /// Its time is over.
    #[error("the certificate has expired; issue a new one with `nigh ca issue`")]
    Expired,
    /// Its time is yet to come.
    #[error("the certificate is not valid yet; is the clock of this machine right?")]
    NotYetValid,
    /// It is not of use for some other cause.
    #[error("the certificate cannot be used: {0}")]
    Unusable(String),
    /// A replacement is for somebody else.
    #[error("the new certificate is of {new}, but this is {now}; start it anew to make it another")]
    OtherIdentity {
        /// Who it is.
        now: Identity,
        /// Who it would be.
        new: Identity,
    },
}

/// What a role or client proves itself with, and whom it believes. Clones share it, also when it is replaced.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<Loaded>>);

struct Loaded {
    identity: Identity,
    certificate: Certificate,
    client: Arc<ClientConfig>,
    /// For gRPC: who comes without a certificate is turned away.
    mutual: Arc<ServerConfig>,
    /// For HTTP, so.
    http_mutual: Arc<ServerConfig>,
    /// For HTTP where anybody may come; a certificate that is shown must be good all the same.
    http_open: Arc<ServerConfig>,
}

/// Who may come to an HTTP door where there is TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpClients {
    /// Whoever has a certificate whose role may call.
    #[default]
    Certified,
    /// Anybody; who does show a certificate must have a good one all the same.
    Anybody,
}

/// What is spoken at a door, and with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Grpc,
    Http(HttpClients),
}

impl Tls {
    /// Checks everything that can go wrong before the first connection: form, key, authority, time, role.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(pem: &Pem) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Loaded::new(pem)?))))
    }

    /// Puts others in place; connections made from now on use them. Where they are no good, those before stay.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn replace(&self, pem: &Pem) -> Result<(), TlsError> {
        let (loaded, now) = (Loaded::new(pem)?, self.identity());
        if loaded.identity != now {
            return Err(TlsError::OtherIdentity { now, new: loaded.identity });
        }
        self.0.store(Arc::new(loaded));
        Ok(())
    }

    /// Who the own certificate says this is.
    pub fn identity(&self) -> Identity {
        self.0.load().identity.clone()
    }

    /// What the own certificate says.
    pub fn certificate(&self) -> Certificate {
        self.0.load().certificate.clone()
    }

    fn client(&self) -> Arc<ClientConfig> {
        self.0.load().client.clone()
    }

    fn server(&self, admission: Admission) -> Arc<ServerConfig> {
        let loaded = self.0.load();
        match admission {
            Admission::Grpc => loaded.mutual.clone(),
            Admission::Http(HttpClients::Certified) => loaded.http_mutual.clone(),
            Admission::Http(HttpClients::Anybody) => loaded.http_open.clone(),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.identity()).finish()
    }
}

impl Loaded {
    fn new(pem: &Pem) -> Result<Self, TlsError> {
        let authorities = certificates("ca", &pem.ca)?;
        let chain = certificates("certificate", &pem.certificate)?;
        let certificate = Certificate::from_der(&chain[0])?;
        let identity = certificate.identity.clone()?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| unreadable("key", &error))?;

        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| unreadable("ca", &error))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let verifier = || WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let mutual = verifier().build().map_err(|error| unreadable("ca", &error))?;
        let open = verifier().allow_unauthenticated().build().map_err(|error| unreadable("ca", &error))?;
        // The own certificate is judged as peers will judge it, so that a mistake shows at the start and not at each of them.
        mutual.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).map_err(unusable)?;

        let server = |verifier: &Arc<dyn ClientCertVerifier>, alpn| {
            server_config(&provider, verifier.clone(), chain.clone(), key.clone_key(), alpn)
        };
        Ok(Self {
            mutual: server(&mutual, ALPN_GRPC)?,
            http_mutual: server(&mutual, ALPN_HTTP)?,
            http_open: server(&open, ALPN_HTTP)?,
            client: client_config(&provider, roots, chain.clone(), key.clone_key())?,
            identity,
            certificate,
        })
    }
}

/// What the certificates in a text (PEM) say of themselves; there is at least one. Nothing is proved by it.
///
/// # Errors
/// [`TlsError::Unreadable`] or [`TlsError::Identity`].
pub fn read_certificates(pem: &[u8]) -> Result<Vec<Certificate>, TlsError> {
    certificates("certificate", pem)?.iter().map(|der| Ok(Certificate::from_der(der)?)).collect()
}

fn certificates(part: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX + 1).collect();
    let read = read.map_err(|error| unreadable(part, &error))?;
    let problem = match read.len() {
        0 => "there is no certificate in it".to_owned(),
        1..=CERTIFICATES_MAX => return Ok(read),
        _ => format!("there are over {CERTIFICATES_MAX} certificates in it"),
    };
    Err(TlsError::Unreadable { part, problem })
}

fn unreadable(part: &'static str, problem: &dyn fmt::Display) -> TlsError {
    TlsError::Unreadable { part, problem: problem.to_string() }
}

/// What is wrong with the own certificate or key.
fn unusable(error: rustls::Error) -> TlsError {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            TlsError::Expired
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => TlsError::NotYetValid,
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            TlsError::OtherAuthority
        }
        rustls::Error::InconsistentKeys(_) => TlsError::OtherKey,
        other => TlsError::Unusable(other.to_string()),
    }
}

/// TLS 1.2 and 1.3: gRPC clients of older systems speak the former.
fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // Connections live long, so resuming saves little; and it would carry a certificate past its end.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// TLS 1.3 alone: every role of Nigh speaks it.
fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = ALPN_GRPC.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
