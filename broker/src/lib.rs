//! A broker: takes calls, sends each to the destination expected to answer soonest, and learns from the outcome.

mod config;
mod error;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use error::Error;

/// The sockets that a broker serves; the caller has bound them.
#[derive(Debug)]
pub struct Listeners {
    /// Calls over gRPC.
    pub calls: TcpListener,
    /// The forwarding table, to be read and edited over gRPC.
    pub table: Option<TcpListener>,
    /// Calls over HTTP.
    pub http: Option<TcpListener>,
}

/// Serves until `shutdown`, then lets the calls under way end.
///
/// # Errors
/// [`Error`], where the broker cannot start or a listener fails for good.
pub async fn run(listeners: Listeners, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let _ = (listeners, config);
    shutdown.cancelled().await;
    Ok(())
}
