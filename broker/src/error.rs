//! Why a broker cannot start or go on. What goes wrong with one call is a [`PlatformError`].

use std::net::SocketAddr;

use nigh_proto::PlatformError;

/// A failure of the broker as a whole; each is for its operator to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener's address cannot be told.
    #[error("cannot tell a listener's address: {0}")]
    Listener(#[source] std::io::Error),
    /// The broker would announce an address at which nobody can reach it.
    #[error("{0} is no address that others could reach; set `advertise` to one that they can")]
    Advertise(SocketAddr),
    /// The routes given by hand are not acceptable.
    #[error("cannot take the routes given: {0}")]
    Routes(#[from] PlatformError),
    /// What asynchronous calls are kept in cannot be used.
    #[error("asynchronous calls: {0}")]
    Store(#[from] nigh_store::StoreError),
    /// Serving a door failed.
    #[error("cannot go on serving {door}: {source}")]
    Serve {
        /// Which: `calls` or `table`.
        door: &'static str,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
