//! Connections to servers that are no part of an edge: plain or over TLS, to hosts that the system's authorities, or one that
//! the operator names, vouch for.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::{Connected, Connection as Pooled};
use hyper_util::rt::TokioIo;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::{TlsConnector, TlsStream};
use tower::Service;

use super::connection::Connection;
use super::{ALPN_HTTP, TlsError, certificates, unreadable, unusable};
use crate::dial::dial;
use crate::name::Endpoint;

/// Time for a connection to be made, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Which servers beyond the edge are believed to be who they say. Cheap to clone.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Those that an authority vouches for which this system believes (its own store, or `SSL_CERT_FILE`).
    ///
    /// # Errors
    /// [`TlsError::Unreadable`], where the system has none.
    pub fn system() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
            let problem = format!("the system's store of authorities: {why}; install ca-certificates, or name a file");
            return Err(TlsError::Unreadable { part: "ca", problem });
        }
        Self::with(|config| config.with_root_certificates(roots).with_no_client_auth())
    }

    /// Those alone that an authority of this text (PEM) vouches for.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`].
    pub fn authorities(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates("ca", pem)? {
            roots.add(authority).map_err(|error| unreadable("ca", &error))?;
        }
        Self::with(|config| config.with_root_certificates(roots).with_no_client_auth())
    }

    /// Anybody: what is sent can be read by whoever is on the way and pretends to be the server.
    ///
    /// # Errors
    /// [`TlsError::Unusable`].
    pub fn anybody() -> Result<Self, TlsError> {
        let believing = Arc::new(Believing(ring::default_provider().signature_verification_algorithms));
        Self::with(|config| config.dangerous().with_custom_certificate_verifier(believing).with_no_client_auth())
    }

    fn with(
        finish: impl FnOnce(rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>) -> ClientConfig,
    ) -> Result<Self, TlsError> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?;
        let mut config = finish(builder);
        config.alpn_protocols = ALPN_HTTP.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self(Arc::new(config)))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

/// Believes every certificate, as long as whoever shows it has its key.
#[derive(Debug)]
struct Believing(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Makes connections for an HTTP client: plain for `http`, over TLS for `https`, which has to be told whom to believe.
#[derive(Debug, Clone)]
pub struct HttpsConnector {
    trust: Option<Trust>,
}

impl HttpsConnector {
    /// Without trust, `https` is refused.
    pub fn new(trust: Option<Trust>) -> Self {
        Self { trust }
    }

    /// Makes one connection.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(self, uri: Uri) -> io::Result<Connection> {
        let connecting = self.connect_at_last(&uri);
        tokio::time::timeout(CONNECT_MAX, connecting).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT_MAX:?}")))
        })
    }

    async fn connect_at_last(self, uri: &Uri) -> io::Result<Connection> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let host = uri.host().ok_or_else(|| wrong(format!("{uri} has no host")))?;
        let is_secured = uri.scheme() == Some(&Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if is_secured { 443 } else { 80 });
        let endpoint: Endpoint = format!("{host}:{port}").parse().map_err(|error| wrong(format!("{error}")))?;
        let stream = dial(&endpoint).await?;
        let address = stream.peer_addr()?;
        if !is_secured {
            return Ok(Connection::outgoing(stream, address));
        }
        let trust = self.trust.ok_or_else(|| wrong("https, and nobody to believe".to_owned()))?;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|_| wrong(format!("{host} is no host for a certificate")))?;
        let stream = TlsConnector::from(trust.0).connect(name, stream).await?;
        Ok(Connection::secured(TlsStream::Client(stream), address))
    }
}

impl Service<Uri> for HttpsConnector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}

impl Pooled for Connection {
    fn connected(&self) -> Connected {
        if self.speaks_http2() { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}
