//! Opening the sockets that roles serve.

use std::io;
use std::net::SocketAddr;

use nigh_proto::channel::Door;
use nigh_proto::{Endpoint, ServerLimits, Tls};
use tokio::net::TcpListener;

/// A socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen at {address} for {purpose}: {source}; is nigh running there already? Choose another address with {option}"
)]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// What it was for.
    pub purpose: &'static str,
    /// The option that chooses another.
    pub option: &'static str,
    /// Why.
    pub source: io::Error,
}

/// A listener and the address that it got; port 0 asks the system for any.
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Bound {
    /// Where others reach it, if at its own address.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.address.into()
    }

    /// A door for metrics and health: over TLS like every other where other machines can reach it. On the machine itself
    /// whoever watches it needs no certificate.
    pub(crate) fn into_metrics_door(self, tls: Option<&Tls>, limits: &ServerLimits) -> Door {
        let tls = tls.filter(|_| !self.address.ip().is_loopback());
        Door::new(self.listener, tls.cloned()).within(limits)
    }
}

/// Opens a socket.
pub(crate) async fn bind(address: SocketAddr, purpose: &'static str, option: &'static str) -> Result<Bound, BindError> {
    let failed = |source| BindError { address, purpose, option, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, address })
}
