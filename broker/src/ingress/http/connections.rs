//! The connections of the HTTP door, plain or over TLS, as axum takes them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::StreamExt as _;
use nigh_proto::channel::{self, Door};
use nigh_proto::tls::HttpClients;
use nigh_proto::tls::accept::Incoming;
use nigh_proto::tls::connection::{Connection, Peer};

/// Wait after the system refused to give a connection, as it does when a process has too many files open.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Connections as they come.
pub(super) struct Connections {
    incoming: Incoming,
    address: SocketAddr,
}

/// Who is at the other end of a request's connection.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Peer);

impl Connections {
    pub(super) fn new(door: Door, clients: HttpClients) -> io::Result<Self> {
        let address = door.address()?;
        Ok(Self { incoming: channel::incoming_http(door, clients), address })
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.incoming.next().await {
                Some(Ok(connection)) => {
                    let address = connection.peer().address;
                    return (connection, address);
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, Connections>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        Self(stream.io().peer().clone())
    }
}
