//! The door: `GET /metrics`, `/healthz` and `/readyz` over HTTP, within the limits of the role's other doors.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use nigh_proto::ServerLimits;
use nigh_proto::channel::{self, Door};
use nigh_proto::tls::HttpClients;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::Telemetry;

/// Connections at once, where the door has no narrower limit. Those who watch a role are few.
pub const CONNECTIONS_MAX: usize = 64;
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
    let limits = door.limits();
    let limits = ServerLimits { connections_max: limits.connections_max.min(CONNECTIONS_MAX), ..limits.clone() };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(unknown_path)
        .with_state(telemetry);
    // It ends with the role.
    let never = CancellationToken::new();
    channel::http::serve(door.within(&limits), HttpClients::Certified, never, move |request, _peer| {
        let answer = router.clone().call(request);
        async { answer.await.unwrap_or_else(|never| match never {}) }
    })
    .await;
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
