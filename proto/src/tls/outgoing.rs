//! TLS to others than roles: to whoever is to be told of an outcome at an `https://` address. They prove who they are by the public
//! authorities, or by those that the operator names in their place; this side proves nothing.

use std::fmt;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{TlsError, certificates, unreadable, unusable};

/// Whom this side believes beyond the edge. Clones share it.
#[derive(Clone)]
pub struct Outgoing(Arc<ClientConfig>);

impl Outgoing {
    /// Believes these authorities (PEM) and no others.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn believing(authorities: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates("ca", authorities)? {
            roots.add(authority).map_err(|error| unreadable("ca", &error))?;
        }
        Self::new(roots)
    }

    fn new(roots: RootCertStore) -> Result<Self, TlsError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Connects to whoever proves to be this host (a name or an address, IPv6 without brackets); why not.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no name of a host"))?;
        let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
        TlsConnector::from(self.0.clone()).connect(name, stream).await.map_err(|error| error.to_string())
    }
}

impl Default for Outgoing {
    /// Believes the public authorities.
    fn default() -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self::new(roots).expect("the provider speaks both versions")
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
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

    /// An authority, as PEM, and a server for `localhost` that answers each connection with this; what it was sent comes back.
    async fn server(answer: &'static str) -> (Vec<u8>, u16, tokio::task::JoinHandle<String>) {
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
        (authority.pem().into_bytes(), port, serving)
    }

    async fn post(outgoing: &Outgoing, port: u16) -> Result<(), String> {
        let call = Call::new("echo".parse().unwrap(), "", Duration::from_secs(5));
        let settled = Err(PlatformError::new(Reason::NotServing, "it is stopping"));
        let url = format!("https://localhost:{port}/told?x=1").parse().unwrap();
        event::post(&url, &call, settled, outgoing).await
    }

    const TAKEN: &str = "HTTP/1.1 204 No Content\r\n\r\n";

    #[tokio::test]
    async fn outcomes_are_told_over_https_to_whom_an_authority_vouches_for() {
        let (authority, port, serving) = server(TAKEN).await;
        post(&Outgoing::believing(&authority).unwrap(), port).await.unwrap();
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
        for outgoing in [Outgoing::default(), Outgoing::believing(&other).unwrap()] {
            let (_, port, serving) = server(TAKEN).await;
            let refused = post(&outgoing, port).await.unwrap_err();
            assert!(refused.contains("certificate"), "{refused}");
            assert_eq!(serving.await.unwrap(), "", "nothing was said");
        }
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let moved = "HTTP/1.1 302 Found\r\nlocation: https://localhost/\r\ncontent-length: 0\r\n\r\n";
        let (authority, port, _serving) = server(moved).await;
        let refused = post(&Outgoing::believing(&authority).unwrap(), port).await.unwrap_err();
        assert!(refused.contains("302"), "{refused}");
    }
}
