//! The door: `GET /metrics`, `/healthz` and `/readyz` over HTTP, with bounds on whoever knocks.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use nigh_proto::channel::{self, Door};
use nigh_proto::tls::HttpClients;
use nigh_proto::tls::connection::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Telemetry;

/// Connections at once; further ones are closed. Those who watch a role are few.
pub const CONNECTIONS_MAX: usize = 64;
/// Time for a connection to send its next request.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Time for a connection to take its answer and ask again, in all.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// Wait where no connection can be taken for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// What OpenMetrics calls its text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Runs a role and, if there is a door, tells of it there until it ends: also while it drains.
pub async fn serve_while<T>(door: Option<impl Into<Door>>, telemetry: Telemetry, role: impl Future<Output = T>) -> T {
    let Some(door) = door else { return role.await };
    // A task, so that it answers also while the role's own future is busy; it ends with this future.
    let door = AbortOnDrop(tokio::spawn(serve(door.into(), telemetry)));
    let ended = role.await;
    drop(door);
    ended
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(door: Door, telemetry: Telemetry) {
    let mut incoming = channel::incoming_http(door, HttpClients::Certified);
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(unknown_path)
        .with_state(telemetry);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    while let Some(connection) = incoming.next().await {
        match connection {
            Ok(connection) => {
                while connections.try_join_next().is_some() {}
                match places.clone().try_acquire_owned() {
                    Ok(place) => drop(connections.spawn(answer(connection, router.clone(), place))),
                    Err(_) => tracing::warn!(CONNECTIONS_MAX, "too many connections ask for metrics; closed one"),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection that asks for metrics");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn answer(connection: Connection, router: Router, _place: OwnedSemaphorePermit) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(REQUEST_MAX);
    let serving = pin!(http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router)));
    // What went wrong with a connection is for its peer to know.
    let _ = tokio::time::timeout(CONNECTION_MAX, serving).await;
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.metrics() {
        Ok(told) => ([(header::CONTENT_TYPE, OPEN_METRICS)], told).into_response(),
        Err(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written; please report this\n").into_response()
        }
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn unknown_path() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz here\n")
}
