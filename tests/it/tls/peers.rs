//! Peers as no role of Nigh is: certificates that are over or yet to come, none at all, older TLS, no TLS.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nigh::ca::Authority;
use nigh_proto::{Digest, Endpoint, Identity, Role};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Where a certificate stands in its life.
#[derive(Debug, Clone, Copy)]
pub(super) enum Age {
    Valid,
    Expired,
    Future,
}

type Certified = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn certified(authority: &Authority, role: Role, hosts: &[&str], age: Age) -> Certified {
    let identity = Identity { role, name: "stray".parse().unwrap() };
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.subject_alt_names.push(SanType::URI(identity.uri().try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let day = Duration::from_secs(24 * 60 * 60);
    let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::UNIX_EPOCH.elapsed().unwrap();
    (params.not_before, params.not_after) = match age {
        Age::Valid => (now - day, now + day),
        Age::Expired => (now - 2 * day, now - day),
        Age::Future => (now + day, now + 2 * day),
    };
    let issuing = KeyPair::from_pem(&authority.key()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.certificate(), issuing).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    roots
}

/// A client that shows whatever it was given.
pub(super) struct Client(Option<Certified>);

impl Client {
    pub(super) fn of(authority: &Authority, role: Role, age: Age) -> Self {
        Self(Some(certified(authority, role, &[], age)))
    }

    /// Without a certificate.
    pub(super) fn nobody() -> Self {
        Self(None)
    }

    async fn connect(
        &self,
        to: &Endpoint,
        believed: &Authority,
        version: &'static SupportedProtocolVersion,
        alpn: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots(believed));
        let mut config = match &self.0 {
            Some((certificate, key)) => {
                config.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.into()];
        let stream = TcpStream::connect(to.as_str()).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
    }

    /// What the other side says in place of an answer.
    pub(super) async fn alert(&self, to: &Endpoint, believed: &Authority) -> String {
        let refused = async {
            let mut stream = self.connect(to, believed, &TLS13, "h2").await?;
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
            let mut everything = Vec::new();
            stream.read_to_end(&mut everything).await
        };
        refused.await.expect_err("it is refused").to_string()
    }

    /// One request, and all that comes back.
    pub(super) async fn post(
        &self,
        to: &Endpoint,
        believed: &Authority,
        path: &str,
        body: &str,
    ) -> Result<String, String> {
        let answered = async {
            let mut stream = self.connect(to, believed, &TLS13, "http/1.1").await?;
            let length = body.len();
            let request = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        answered.await.map_err(|error| error.to_string())
    }

    /// The version and protocol that a client of TLS 1.2 comes to speak.
    pub(super) async fn handshake_1_2(&self, to: &Endpoint, believed: &Authority) -> (String, String) {
        let stream = self.connect(to, believed, &TLS12, "h2").await.unwrap();
        let session = stream.get_ref().1;
        let version = format!("{:?}", session.protocol_version().unwrap());
        (version, String::from_utf8_lossy(session.alpn_protocol().unwrap()).into_owned())
    }
}

/// The certificate that a new connection meets.
pub(super) async fn fingerprint(to: &Endpoint, authority: &Authority) -> Digest {
    let client = Client::of(authority, Role::Client, Age::Valid);
    let stream = client.connect(to, authority, &TLS13, "h2").await.unwrap();
    Digest::of(&stream.get_ref().1.peer_certificates().unwrap()[0])
}

/// One plain request, and all that comes back.
pub(super) async fn plain_post(to: &Endpoint, path: &str) -> String {
    let mut stream = TcpStream::connect(to.as_str()).await.unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A server that shakes hands with whatever it was given, and does no more.
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
}

impl Server {
    pub(super) async fn of(authority: &Authority, role: Role, hosts: &[&str], age: Age) -> Self {
        let (certificate, key) = certified(authority, role, hosts, age);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec!["h2".into()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(move |stream| {
            let acceptor = acceptor.clone();
            async move { drop(acceptor.accept(stream).await) }
        })
        .await
    }

    /// One that greets in plain HTTP/2.
    pub(super) async fn plain() -> Self {
        Self::start(|mut stream| async move {
            let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
            let _ = stream.read(&mut [0; 1024]).await;
        })
        .await
    }

    async fn start<Greeted>(mut greet: impl FnMut(TcpStream) -> Greeted + Send + 'static) -> Self
    where
        Greeted: Future<Output = ()> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                greet(stream).await;
            }
        });
        Self { endpoint }
    }
}
