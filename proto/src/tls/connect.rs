//! Making connections over TLS: to the host that was asked for, of the role that was expected.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, TlsStream};
use tonic::codegen::http::Uri;
use tower::Service;

use super::Tls;
use super::connection::{Connection, Proof};
use super::refusal::Refused;
use crate::dial::dial;
use crate::identity::Role;
use crate::name::Endpoint;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tls: Tls,
    endpoint: Endpoint,
    roles: &'static [Role],
}

impl Connector {
    /// `roles` are what the peer may be; none means any.
    pub(crate) fn new(endpoint: Endpoint, tls: Tls, roles: &'static [Role]) -> Self {
        Self { tls, endpoint, roles }
    }

    async fn connect(self) -> Result<TokioIo<Connection>, BoxError> {
        let stream = dial(&self.endpoint).await?;
        let address = stream.peer_addr()?;
        let host = ServerName::try_from(self.endpoint.host().to_owned())
            .map_err(|_| Refused::new(format!("{} is no host that a certificate could name", self.endpoint.host())))?;
        // Taken now, so that each connection uses what is in place when it is made.
        let connector = TlsConnector::from(self.tls.client());
        let stream = connector.connect(host, stream).await.map_err(|error| Refused::at(&self.endpoint, &error))?;
        let connection = Connection::secured(TlsStream::Client(stream), address);
        self.check(&connection)?;
        Ok(TokioIo::new(connection))
    }

    /// A certificate for a host is not enough: no computer may pass for the controller.
    fn check(&self, connection: &Connection) -> Result<(), Refused> {
        let Self { endpoint, roles, .. } = self;
        match &*connection.peer().proof {
            _ if roles.is_empty() => Ok(()),
            Proof::Certificate(Ok(identity)) if roles.contains(&identity.role) => Ok(()),
            Proof::Certificate(Ok(identity)) => {
                let roles: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
                let message = format!(
                    "{endpoint} is the {identity} by its certificate, not a {}; is the address right?",
                    roles.join(" or ")
                );
                Err(Refused::new(message))
            }
            Proof::Certificate(Err(error)) => {
                Err(Refused::new(format!("the certificate of {endpoint} does not say whose it is: {error}")))
            }
            Proof::Nobody | Proof::Plain => Err(Refused::new(format!("{endpoint} showed no certificate"))),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}
