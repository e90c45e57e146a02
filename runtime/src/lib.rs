//! A computer: it admits a call, takes an instance, runs the guest, and says where the time went.

#![expect(
    dead_code,
    unused_variables,
    clippy::unimplemented,
    clippy::unused_async,
    reason = "signatures first; the rooms follow"
)]

mod config;
mod error;
mod probe;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use nigh_proto::ingress::Handler;
use nigh_proto::{Call, Deployment, FunctionName, PlatformError, Reply};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{Config, OfferedDirectory};
pub use error::{Error, PrepareError};

/// A computer in this process.
#[derive(Debug)]
pub struct Computer {
    config: Config,
}

impl Computer {
    /// Starts a computer.
    ///
    /// # Errors
    /// Where the engine cannot be started.
    pub fn new(config: Config) -> Result<Arc<Self>, Error> {
        unimplemented!()
    }

    /// Prepares a version and switches the function to it.
    ///
    /// # Errors
    /// Where this computer cannot run it.
    pub async fn deploy(&self, deployment: Deployment, module: Bytes) -> Result<(), PrepareError> {
        unimplemented!()
    }

    /// Forgets a function; its calls under way finish.
    pub fn remove(&self, name: &FunctionName) {
        unimplemented!()
    }
}

impl Handler for Computer {
    async fn handle(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        unimplemented!()
    }
}

/// Serves calls until `shutdown`, then drains.
///
/// # Errors
/// Where the computer cannot start.
pub async fn run(listener: TcpListener, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    unimplemented!()
}
