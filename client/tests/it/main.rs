//! The client against peers made up for each test, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod calls;
mod inspect;

use std::future::Future;
use std::time::Duration;

use nigh_proto::{Endpoint, channel};
use tokio::net::TcpListener;

/// Longer than anything here takes, so that a hang fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves on a port of its own; the port is free again once the runtime ends.
async fn serve(services: channel::Services) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    tokio::spawn(services.serve_with_incoming(channel::incoming(listener)));
    endpoint
}

/// An endpoint where nobody listens.
async fn nobody() -> Endpoint {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("an end in time")
}
