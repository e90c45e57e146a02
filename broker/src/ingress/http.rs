//! The HTTP door: `POST /function/{name}` runs a function with the body as its payload, `GET /healthz` tells whether the
//! broker serves. Every failure is a problem document (RFC 9457).
//!
//! How a request becomes a call is told in [`request`], how a reply becomes an answer in [`answer`], and which failure has
//! which status in [`problem`].

mod answer;
mod connections;
mod problem;
mod request;

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use nigh_proto::channel::Door as TcpDoor;
use nigh_proto::tls::HttpClients;
use nigh_proto::tls::connection::{Peer, Proof};
use nigh_proto::{FunctionName, PlatformError, Reason, access};
use tokio_util::sync::CancellationToken;

use crate::call::Broker;
use crate::ingress::http::connections::{Caller, Connections};
use crate::ingress::http::problem::Problem;
use crate::ingress::http::request::Head;
use crate::routes::Routes;

struct Door {
    clients: HttpClients,
    broker: Arc<Broker>,
    routes: Arc<Routes>,
    stop: CancellationToken,
}

/// Serves until `stop`, and then until the calls under way have ended.
pub(crate) async fn serve(
    door: TcpDoor,
    clients: HttpClients,
    broker: Arc<Broker>,
    routes: Arc<Routes>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let counting = broker.clone();
    let connections = Connections::new(door, clients)?;
    let door = Door { clients, broker, routes, stop: stop.clone() };
    let router = Router::new()
        .route("/function/{name}", post(invoke).fallback(wrong_method_for_function))
        .route("/healthz", get(healthz).fallback(wrong_method_for_health))
        .fallback(unknown_path)
        .layer(axum::middleware::map_response(move |response: Response| {
            counting.counts().count_http(response.status());
            std::future::ready(response)
        }))
        .with_state(Arc::new(door));
    let router = router.into_make_service_with_connect_info::<Caller>();
    axum::serve(connections, router).with_graceful_shutdown(stop.cancelled_owned()).into_future().await
}

impl Door {
    /// Whether this peer may call.
    fn check(&self, peer: &Peer) -> Result<(), PlatformError> {
        match (self.clients, &*peer.proof) {
            (HttpClients::Anybody, Proof::Nobody) => Ok(()),
            _ => access::allow(peer, "call functions", access::CALLERS),
        }
    }
}

async fn invoke(
    State(door): State<Arc<Door>>,
    ConnectInfo(Caller(peer)): ConnectInfo<Caller>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let arrived = Instant::now();
    if let Err(error) = door.check(&peer) {
        return Problem::of_platform(&error).respond(None);
    }
    let (parts, body) = request.into_parts();
    let head = match checked_head(name, &parts, &door, arrived) {
        Ok(head) => head,
        Err(error) => return Problem::of_platform(&error).respond(None),
    };
    let id = head.id.clone();
    let outcome = async {
        // Before the body is read, so that bodies too are bounded in number.
        let _place = door.broker.admit()?;
        let payload = request::payload(&parts.headers, body, door.broker.limits(), head.deadline).await?;
        door.broker.call(head.into_call(payload), arrived).await
    };
    match outcome.await {
        Ok(reply) => answer::respond(reply),
        Err(error) => Problem::of_platform(&error).respond(Some(&id)),
    }
}

fn checked_head(
    name: Result<Path<String>, PathRejection>,
    parts: &axum::http::request::Parts,
    door: &Door,
    arrived: Instant,
) -> Result<Head, PlatformError> {
    let Path(name) = name.map_err(|rejection| PlatformError::malformed(rejection.body_text()))?;
    let function: FunctionName = name.parse()?;
    Head::new(function, parts, door.broker.limits(), arrived)
}

async fn healthz(State(door): State<Arc<Door>>) -> Result<&'static str, Response> {
    let wrong = if door.stop.is_cancelled() {
        "the broker is stopping"
    } else if !door.routes.is_ready() {
        "the broker has not heard from its controller yet"
    } else {
        return Ok("ok\n");
    };
    Err(Problem::of_platform(&PlatformError::new(Reason::NotServing, wrong)).respond(None))
}

async fn wrong_method_for_function() -> Response {
    problem::wrong_method("POST", "functions are run with POST /function/{name}")
}

async fn wrong_method_for_health() -> Response {
    problem::wrong_method("GET, HEAD", "health is told by GET /healthz")
}

async fn unknown_path() -> Response {
    let detail = "there is nothing here; functions are run with POST /function/{name}";
    Problem::of_request(StatusCode::NOT_FOUND, "unknown-path", "No such path", detail).respond(None)
}
