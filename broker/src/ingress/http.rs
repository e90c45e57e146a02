//! The HTTP door: `POST /function/{name}` runs a function with the body as its payload; an http function is given every
//! request below `/function/{name}` as it is; `GET /healthz` tells whether the broker serves. Every failure is a problem
//! document (RFC 9457).
//!
//! How a request becomes a call is told in [`request`], how a reply becomes an answer in [`answer`], how requests and
//! answers of http functions pass in [`pass`], and which failure has which status in [`problem`].

mod answer;
mod connections;
mod pass;
mod problem;
mod request;

pub use request::call_for_fuzzing;

use std::future::IntoFuture as _;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get};
use http_body_util::BodyExt as _;
use nigh_proto::channel::Door as TcpDoor;
use nigh_proto::tls::HttpClients;
use nigh_proto::tls::connection::{Peer, Proof};
use nigh_proto::{FunctionName, Kind, PlatformError, Reason, access};
use percent_encoding::percent_decode_str;
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
        .route("/function/{name}", any(function))
        .route("/function/{name}/", any(function))
        .route("/function/{name}/{*path}", any(function))
        .route("/healthz", get(healthz).fallback(wrong_method_for_health))
        .fallback(unknown_path)
        .layer(middleware::map_response(move |response: Response| {
            counting.counts().count_http(response.status());
            std::future::ready(response)
        }))
        .layer(middleware::from_fn(keep_busy))
        .with_state(Arc::new(door));
    let router = router.into_make_service_with_connect_info::<Caller>();
    axum::serve(connections, router).with_graceful_shutdown(stop.cancelled_owned()).into_future().await
}

/// While a request is being answered, the silence of who waits is patience.
async fn keep_busy(ConnectInfo(Caller(peer)): ConnectInfo<Caller>, request: Request, next: Next) -> Response {
    let busy = peer.busy.begin();
    let answer = next.run(request).await;
    // Until the last byte of the answer is handed over.
    answer.map(|body| {
        Body::new(body.inspect_frame(move |_| {
            let _held = &busy;
        }))
    })
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

/// Whatever is asked of a function.
async fn function(
    State(door): State<Arc<Door>>,
    ConnectInfo(Caller(peer)): ConnectInfo<Caller>,
    request: Request,
) -> Response {
    let arrived = Instant::now();
    if let Err(error) = door.check(&peer) {
        return Problem::of_platform(&error).respond(None);
    }
    let (name, path) = request::name_and_path(request.uri().path());
    let decoded = percent_decode_str(name).decode_utf8_lossy();
    let function = match decoded.parse::<FunctionName>() {
        Ok(function) => function,
        Err(error) => return Problem::of_platform(&error.into()).respond(None),
    };
    match door.routes.kind(&function) {
        Some(Kind::Http) => pass::exchange(&door.broker, function, request, arrived).await,
        _ if path.is_some() => {
            let detail = format!(
                "{function} is no http function that is deployed, so it has no paths of its own; others are run with POST \
                 /function/{{name}}, and `nigh ls` lists all"
            );
            Problem::of_request(StatusCode::NOT_FOUND, "unknown-path", "No such path", &detail).respond(None)
        }
        _ if request.method() != Method::POST => wrong_method_for_function().await,
        _ => invoke(&door, function, request, arrived).await,
    }
}

async fn invoke(door: &Door, function: FunctionName, request: Request, arrived: Instant) -> Response {
    let (parts, body) = request.into_parts();
    let head = match Head::new(function, &parts, door.broker.limits(), arrived) {
        Ok(head) => head,
        Err(error) => return Problem::of_platform(&error).respond(None),
    };
    let id = head.id.clone();
    let outcome = async {
        // Before the body is read, so that bodies too are bounded in number.
        let _place = door.broker.admit(head.priority)?;
        let payload = request::payload(&parts.headers, body, door.broker.limits(), head.deadline).await?;
        door.broker.call(head.into_call(payload), arrived).await
    };
    match outcome.await {
        Ok(reply) => answer::respond(reply),
        Err(error) => Problem::of_platform(&error).respond(Some(&id)),
    }
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
