//! Who is alive and what is deployed: the registry of one edge.
//!
//! A request enters at `ingress`, which turns messages into checked values. `deploy` judges modules and puts them into
//! `store`; `registry` knows functions, computers and brokers; `publish` tells watchers. Nothing here is on the way of a
//! call: an edge goes on running while its controller is away.

mod config;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;

/// Why a controller cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
}

/// Serves `nigh.v1.Controller` on `listener` until `shutdown`, then drains and closes the store.
///
/// # Errors
/// [`Error`]: the operator has to act.
pub async fn run(_listener: TcpListener, _config: Config, _shutdown: CancellationToken) -> Result<(), Error> {
    unimplemented!()
}
