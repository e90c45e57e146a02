//! Serving HTTP/1.1 and HTTP/2 at a door, within the limits that gRPC has there too.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Door, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, incoming_http};
use crate::connections::ServerLimits;
use crate::tls::HttpClients;
use crate::tls::connection::{Connection, Peer};

/// Wait after the system refused to give a connection, as it does when a process has too many files open.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves until `stop`, and then until the requests under way have been answered. Dropped, it cuts them off.
pub async fn serve<A, F, B>(door: impl Into<Door>, clients: HttpClients, stop: CancellationToken, answer: A)
where
    A: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let door = door.into();
    let server = server(door.limits());
    let mut incoming = incoming_http(door, clients);
    let mut connections = JoinSet::new();
    loop {
        let connection = tokio::select! {
            connection = incoming.next() => connection,
            // They end by themselves; this frees what is left of them.
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match connection {
            Some(Ok(connection)) => {
                connections.spawn(serve_connection(server.clone(), connection, stop.clone(), answer.clone()));
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
            None => break,
        }
    }
    drop(incoming);
    while connections.join_next().await.is_some() {}
}

fn server(limits: &ServerLimits) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(limits.intake_timeout);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(limits.requests_per_connection_max);
    server
}

async fn serve_connection<A, F, B>(
    server: auto::Builder<TokioExecutor>,
    connection: Connection,
    stop: CancellationToken,
    answer: A,
) where
    A: Fn(Request<Incoming>, Peer) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let peer = connection.peer().clone();
    // One of its own: looking whether it is cancelled takes a lock, for which connections are not to wait for each other.
    let stop = stop.child_token();
    let service = service_fn(|request| answer(request, peer.clone()).map(Ok::<_, Infallible>));
    let mut serving = pin!(server.serve_connection(TokioIo::new(connection), service));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %peer.address, error, "a connection broke");
    }
}
