//! The HTTP door that brokers and computers share: `POST /function/{name}` runs a function with the body as its payload; an
//! http function is given every request below `/function/{name}` as it is; `GET /healthz` tells whether the role serves.
//! CloudEvents are calls too ([`cloudevent`]). `Prefer: respond-async` has a call run later ([`later`]), as does `POST /trigger/{path}`
//! where there is a trigger ([`trigger`]); `GET /result/{id}` tells what came of it.
//! Every failure is a problem document (RFC 9457).
//!
//! How a request becomes a call is told in [`request`], how a reply becomes an answer in [`answer`], how requests and
//! answers of http functions pass in [`pass`], and which failure has which status in [`problem`].

mod answer;
pub(crate) mod body;
mod cloudevent;
pub(crate) mod later;
mod pass;
mod problem;
pub(super) mod request;
mod trigger;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio_util::sync::CancellationToken;

use self::later::Preferences;
use self::problem::Problem;
use self::request::Head;
use super::gate::Gate;
use super::not_offered;
use crate::asynchronous::{Acceptance, Accepted, Callback, Settled};
use crate::call::{Call, CallId, CallLimits, Priority};
use crate::channel::{self, Door};
use crate::deployment::Kind;
use crate::exchange::{Exchange, Exchanged};
use crate::name::{FunctionName, TriggerName};
use crate::reply::Reply;
use crate::status::{PlatformError, Reason};
use crate::tls::HttpClients;
use crate::tls::connection::Peer;

pub use self::body::AnswerBody;
#[doc(hidden)]
pub use self::request::call_for_fuzzing;
pub use self::request::is_spent;
pub use self::trigger::{Triggered, id_of};

/// An answer on its way to a caller.
type Answer = Response<AnswerBody>;

/// What stands behind an HTTP door: it handles calls, and knows of which kind each function is.
pub trait HttpHandler: Send + Sync + 'static {
    /// What a call holds from its head on.
    type Place: Send + 'static;

    /// The kind of a function, if one of this name is deployed.
    fn kind(&self, function: &FunctionName) -> Option<Kind>;

    /// A place for one call. It is taken before a body is read, so that bodies too are bounded in number.
    ///
    /// # Errors
    /// Where there is no room.
    fn admit(&self, priority: Priority) -> Result<Self::Place, PlatformError>;

    /// As [`Handler::handle`](super::Handler::handle), for a call that has its place.
    fn handle_in(
        &self,
        place: Self::Place,
        call: Call,
        arrived: Instant,
    ) -> impl Future<Output = Result<Reply, PlatformError>> + Send;

    /// As [`Handler::exchange`](super::Handler::exchange), for a call that has its place.
    fn exchange_in(
        &self,
        place: Self::Place,
        exchange: Exchange,
        arrived: Instant,
    ) -> impl Future<Output = Result<Exchanged, PlatformError>> + Send;

    /// As [`Handler::accept`](super::Handler::accept), for a call that has its place.
    fn accept_in(
        &self,
        _place: Self::Place,
        acceptance: Acceptance,
    ) -> impl Future<Output = Result<Accepted, PlatformError>> + Send {
        std::future::ready(Err(not_offered(&acceptance.call.function)))
    }

    /// The HTTP trigger of a path, and what it makes of requests.
    fn triggered_by(&self, _path: &str) -> Option<Triggered> {
        None
    }

    /// Accepts a call that a trigger has brought, for a call that has its place.
    fn accept_triggered(
        &self,
        _place: Self::Place,
        _trigger: &TriggerName,
        acceptance: Acceptance,
    ) -> impl Future<Output = Result<Accepted, PlatformError>> + Send {
        std::future::ready(Err(not_offered(&acceptance.call.function)))
    }

    /// What came of a call that was accepted; nothing where that is not known after this time.
    fn result(
        &self,
        id: &CallId,
        _wait: Duration,
    ) -> impl Future<Output = Result<Option<Settled>, PlatformError>> + Send {
        std::future::ready(Err(not_offered(id)))
    }

    /// Whether calls have a chance.
    ///
    /// # Errors
    /// Why not.
    fn readiness(&self) -> Result<(), String>;

    /// Told the status of each answer.
    fn answered(&self, status: StatusCode);
}

/// The door, as each of its connections sees it.
pub struct HttpDoor<H> {
    handler: Arc<H>,
    gate: Gate,
    stall_max: Duration,
    stop: CancellationToken,
}

/// Serves until `stop`, and then until the calls under way have ended.
pub async fn serve<H: HttpHandler>(
    door: Door,
    clients: HttpClients,
    handler: Arc<H>,
    limits: CallLimits,
    stop: CancellationToken,
) {
    let gate = Gate::new(clients, limits, door.limits());
    let http = OfConnection::new(HttpDoor::new(handler, gate, door.limits().stall_max, stop.clone()));
    channel::http::serve(door, clients, stop, move |request, peer: Peer| {
        let http = http.of_request();
        async move {
            // While a request is being answered, the silence of who waits is patience.
            let busy = peer.busy.begin();
            let answer = http.answer(request, &peer).await;
            http.handler.answered(answer.status());
            answer.map(|body| body.holding(busy))
        }
    })
    .await;
}

/// What all connections share, as one of them holds it: its requests count as owners of its own hold, so those of different
/// connections, and so threads, do not meet at one count.
#[expect(clippy::redundant_allocation, reason = "the outer count of owners is the connection's own")]
struct OfConnection<T>(Arc<Arc<T>>);

impl<T> OfConnection<T> {
    fn new(shared: T) -> Self {
        Self(Arc::new(Arc::new(shared)))
    }

    /// For one request.
    #[expect(clippy::redundant_allocation, reason = "see above")]
    fn of_request(&self) -> Arc<Arc<T>> {
        self.0.clone()
    }
}

impl<T> Clone for OfConnection<T> {
    /// For another connection.
    fn clone(&self) -> Self {
        Self(Arc::new(Arc::clone(&self.0)))
    }
}

impl<H> std::fmt::Debug for HttpDoor<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpDoor").field("gate", &self.gate).finish_non_exhaustive()
    }
}

fn at_once<'a>(answer: Answer) -> BoxFuture<'a, Answer> {
    Box::pin(std::future::ready(answer))
}

impl<H: HttpHandler> HttpDoor<H> {
    /// One that takes what its gate lets in, until `stop`; `stall_max` is how long an answer may go unread.
    pub fn new(handler: Arc<H>, gate: Gate, stall_max: Duration, stop: CancellationToken) -> Self {
        Self { handler, gate, stall_max, stop }
    }

    /// Answers a request.
    pub fn answer<'a>(&'a self, request: Request<Incoming>, peer: &'a Peer) -> BoxFuture<'a, Answer> {
        let path = request.uri().path();
        if path.strip_prefix("/function/").is_some_and(|name| !name.is_empty()) {
            return self.function(request, peer);
        }
        if let Some(id) = path.strip_prefix("/result/") {
            return match *request.method() {
                Method::GET | Method::HEAD => {
                    let (id, headers) = (id.to_owned(), request.into_parts().0.headers);
                    Box::pin(async move { self.result(&id, &headers, peer).await })
                }
                _ => at_once(problem::wrong_method("GET, HEAD", "results are told by GET /result/{id}")),
            };
        }
        if let Some(path) = path.strip_prefix("/trigger/") {
            let path = path.to_owned();
            return Box::pin(async move { self.trigger(&path, request, peer).await });
        }
        at_once(match path {
            "/healthz" if matches!(*request.method(), Method::GET | Method::HEAD) => self.healthz(),
            "/healthz" => problem::wrong_method("GET, HEAD", "health is told by GET /healthz"),
            _ => {
                let detail = "there is nothing here; functions are run with POST /function/{name}";
                Problem::of_request(StatusCode::NOT_FOUND, "unknown-path", "No such path", detail).respond(None)
            }
        })
    }

    /// Whatever is asked of a function. Each has a room of its own, as it would be carried from hand to hand otherwise.
    fn function(&self, request: Request<Incoming>, peer: &Peer) -> BoxFuture<'_, Answer> {
        let arrived = Instant::now();
        if let Err(error) = self.gate.check(peer) {
            return at_once(Problem::of_platform(&error).respond(None));
        }
        let (name, path) = request::name_and_path(request.uri().path());
        let decoded = percent_decode_str(name).decode_utf8_lossy();
        let function = match decoded.parse::<FunctionName>() {
            Ok(function) => function,
            Err(error) => return at_once(Problem::of_platform(&error.into()).respond(None)),
        };
        let is_for_later = request.method() == Method::POST && Preferences::of(request.headers()).respond_async;
        match self.handler.kind(&function) {
            // As a plain call to `/`, whose outcome can be kept.
            Some(Kind::Http) if path.is_none() && is_for_later => {
                Box::pin(self.invoke(function, request, true, arrived))
            }
            Some(Kind::Http) => pass::exchange(self, function, request, arrived),
            _ if path.is_some() => {
                let detail = format!(
                    "{function} is no http function that is deployed, so it has no paths of its own; others are run with POST \
                     /function/{{name}}, and `nigh ls` lists all"
                );
                let problem = Problem::of_request(StatusCode::NOT_FOUND, "unknown-path", "No such path", &detail);
                at_once(problem.respond(None))
            }
            _ if request.method() != Method::POST => {
                at_once(problem::wrong_method("POST", "functions are run with POST /function/{name}"))
            }
            _ => Box::pin(self.invoke(function, request, is_for_later, arrived)),
        }
    }

    async fn invoke(
        &self,
        function: FunctionName,
        request: Request<Incoming>,
        is_for_later: bool,
        arrived: Instant,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        let head = match Head::new(function, &parts, self.gate.limits(), arrived) {
            Ok(head) => head,
            Err(error) => return Problem::of_platform(&error).respond(None),
        };
        if let Some(refused) = cloudevent::refused_batch(&parts.headers) {
            return refused;
        }
        let event = cloudevent::mode_of(&parts.headers);
        let (id, callback, function) = (head.id.clone(), head.callback.clone(), head.function.clone());
        let timeout = head.deadline - arrived;
        let outcome = async {
            let place = self.handler.admit(head.priority)?;
            let bytes_max = self.gate.limits().payload_bytes_max;
            let whole = self.gate.read(&parts.headers, body, bytes_max, head.deadline).await?;
            let mut call = head.into_call(whole.bytes.clone());
            if let Some(mode) = event {
                (call.headers, call.payload) = cloudevent::opened(mode, call.headers, call.payload)?;
            }
            if is_for_later {
                let acceptance = Acceptance { call, timeout, callback: callback.map(Callback::Http) }.checked()?;
                return self.handler.accept_in(place, acceptance).await.map(|accepted| later::accepted(&accepted.id));
            }
            let reply = self.handler.handle_in(place, call, arrived).await?;
            Ok(match event {
                None => answer::respond(reply),
                Some(mode) => answer::respond_to_event(reply, mode, &function),
            })
        };
        match outcome.await {
            Ok(answer) => answer,
            Err(error) => Problem::of_platform(&error).respond(Some(&id)),
        }
    }

    /// What came of a call that was accepted before.
    async fn result(&self, id: &str, headers: &HeaderMap, peer: &Peer) -> Answer {
        let outcome = async {
            self.gate.check(peer)?;
            let id: CallId = percent_decode_str(id).decode_utf8_lossy().parse()?;
            let known = self.handler.result(&id, Preferences::of(headers).wait).await?;
            Ok(known.map_or_else(|| later::pending(&id), |settled| later::settled(settled, &id)))
        };
        outcome.await.unwrap_or_else(|error: PlatformError| Problem::of_platform(&error).respond(None))
    }

    fn healthz(&self) -> Answer {
        let wrong = if self.stop.is_cancelled() {
            "this role is stopping".to_owned()
        } else {
            match self.handler.readiness() {
                Ok(()) => {
                    let mut answer = Response::new(AnswerBody::whole(Bytes::from_static(b"ok\n")));
                    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
                    answer.headers_mut().insert(header::CONTENT_TYPE, text);
                    return answer;
                }
                Err(wrong) => wrong,
            }
        };
        Problem::of_platform(&PlatformError::new(Reason::NotServing, wrong)).respond(None)
    }
}
