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
use super::{ALPN_HTTP, ALPN_HTTP1, TlsError, certificates, unreadable, unusable};
use crate::reach::Reach;

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

    /// Those that a public authority vouches for, whatever this system believes.
    pub fn public() -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let trust = Self::with(|config| config.with_root_certificates(roots).with_no_client_auth());
        trust.expect("the provider speaks both versions")
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

/// Whether an error of a connection is one of TLS, so that a server was there.
pub fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>())
}

/// Makes connections for an HTTP client: plain for `http`, over TLS for `https`, which has to be told whom to believe.
#[derive(Debug, Clone)]
pub struct HttpsConnector {
    trust: Option<Trust>,
    reach: Reach,
}

impl HttpsConnector {
    /// Without trust, `https` is refused.
    pub fn new(trust: Option<Trust>) -> Self {
        Self { trust, reach: Reach::Anywhere }
    }

    /// One that connects to nobody beyond this.
    pub fn reaching(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// One whose connections speak HTTP/1.1 alone.
    pub fn by_http1(mut self) -> Self {
        if let Some(Trust(config)) = &mut self.trust {
            Arc::make_mut(config).alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        }
        self
    }

    /// Makes one connection.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(self, uri: Uri) -> io::Result<Connection> {
        self.connect_within(CONNECT_MAX, uri).await
    }

    /// The same for whoever has so much time.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect_within(self, timeout: Duration, uri: Uri) -> io::Result<Connection> {
        let connecting = self.connect_at_last(&uri);
        tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {timeout:?}")))
        })
    }

    async fn connect_at_last(self, uri: &Uri) -> io::Result<Connection> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let host = uri.host().ok_or_else(|| wrong(format!("{uri} has no host")))?;
        let is_secured = uri.scheme() == Some(&Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if is_secured { 443 } else { 80 });
        let host = host.trim_matches(['[', ']']);
        let stream = self.reach.connect(host, port).await?;
        let address = stream.peer_addr()?;
        if !is_secured {
            return Ok(Connection::outgoing(stream, address));
        }
        let trust = self.trust.ok_or_else(|| wrong("https, and nobody to believe".to_owned()))?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| wrong(format!("{host} is no host for a certificate")))?;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;
    use crate::call::Call;
    use crate::event;
    use crate::status::{PlatformError, Reason};

    /// An authority, as PEM, and what a server needs that is `localhost`.
    fn identity() -> (Vec<u8>, ServerConfig) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        (authority.pem().into_bytes(), config)
    }

    /// An authority, as PEM, and a server for `localhost` that answers each connection with this; what it was sent comes back.
    async fn server(answer: &'static str) -> (Vec<u8>, u16, tokio::task::JoinHandle<String>) {
        let (authority, config) = identity();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return String::new() };
            let mut read = Vec::new();
            let mut buffer = [0; 4096];
            while !String::from_utf8_lossy(&read).contains("not-serving") {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => read.extend_from_slice(&buffer[..bytes]),
                }
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            String::from_utf8(read).unwrap()
        });
        (authority, port, serving)
    }

    #[tokio::test]
    async fn whoever_speaks_http1_alone_agrees_on_that() {
        let (authority, mut config) = identity();
        config.alpn_protocols = ALPN_HTTP.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("https://localhost:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
        let either = HttpsConnector::new(Some(Trust::authorities(&authority).unwrap()));
        for (connector, speaks_http2) in [(either.clone(), true), (either.by_http1(), false)] {
            let accepting = async { acceptor.accept(listener.accept().await.unwrap().0).await };
            let (connection, accepted) = tokio::join!(connector.connect(url.clone()), accepting);
            assert_eq!(connection.unwrap().speaks_http2(), speaks_http2);
            accepted.unwrap();
        }
    }

    async fn post(trust: &Trust, port: u16) -> Result<(), String> {
        let call = Call::new("echo".parse().unwrap(), "", Duration::from_secs(5));
        let settled = Err(PlatformError::new(Reason::NotServing, "it is stopping"));
        let url = format!("https://localhost:{port}/told?x=1").parse().unwrap();
        event::post(&url, &call, settled, HttpsConnector::new(Some(trust.clone()))).await
    }

    const TAKEN: &str = "HTTP/1.1 204 No Content\r\n\r\n";

    #[tokio::test]
    async fn outcomes_are_told_over_https_to_whom_an_authority_vouches_for() {
        let (authority, port, serving) = server(TAKEN).await;
        post(&Trust::authorities(&authority).unwrap(), port).await.unwrap();
        let told = serving.await.unwrap();
        assert!(told.starts_with("POST /told?x=1 HTTP/1.1\r\n"), "{told}");
        assert!(
            told.contains(&format!("host: localhost:{port}\r\n")) && told.contains("ce-type: nigh.call.failed"),
            "{told}"
        );
    }

    #[tokio::test]
    async fn nobody_is_told_who_cannot_prove_who_they_are() {
        let other = server(TAKEN).await.0;
        for trust in [Trust::public(), Trust::authorities(&other).unwrap()] {
            let (_, port, serving) = server(TAKEN).await;
            let refused = post(&trust, port).await.unwrap_err();
            assert!(refused.contains("certificate"), "{refused}");
            assert_eq!(serving.await.unwrap(), "", "nothing was said");
        }
    }
}
