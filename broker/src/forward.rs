//! Passing a call on: a destination with its kept connection, and what can go wrong between here and there.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use nigh_proto::exchange::RequestHead;
use nigh_proto::older::{self, rpc};
use nigh_proto::stream::Pipeline;
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::{
    Call, CallLimits, Endpoint, Exchange, Exchanged, PlatformError, Reason, Remote, Reply, Role, channel, status,
};
use tonic::transport::Channel;

use crate::metrics::Meters;
use crate::rewind::Rewound;

/// What a destination must prove to be, over TLS.
const CALLEES: &[Role] = &[Role::Computer, Role::Broker];

/// A computer or broker that calls of one function can be passed on to. All of one endpoint share one connection, which is
/// made when first used, made again when lost, and closed when the last of them is gone. Two are equal if their endpoints
/// are.
#[derive(Clone)]
pub(crate) struct Destination {
    connection: Arc<Connection>,
    /// Where calls of the function are counted, at hand wherever the function's calls go.
    meters: Arc<Meters>,
}

struct Connection {
    endpoint: Endpoint,
    pipeline: Pipeline,
    older: rpc::edge_server_client::EdgeServerClient<Channel>,
    /// It speaks the older system's protocol only, as it was found when last asked.
    is_older: AtomicBool,
    /// Somebody looks out for its return.
    is_watched: AtomicBool,
}

/// Looks out for a destination's return; while it is there, nobody else does.
pub(crate) struct Watched(WeakConnection);

impl Watched {
    pub(crate) fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(connection) = self.0.0.upgrade() {
            connection.is_watched.store(false, Ordering::Relaxed);
        }
    }
}

/// A connection that is not kept alive.
pub(crate) struct WeakConnection(Weak<Connection>);

/// A call that brought no reply.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: PlatformError,
    pub(crate) origin: Origin,
}

/// What came instead of a reply.
enum Refused {
    /// The peer does not know the service.
    Unknown(tonic::Status),
    /// Any other status.
    Status(tonic::Status),
    /// A response that makes no sense.
    Nonsense(PlatformError),
}

impl From<tonic::Status> for Refused {
    fn from(status: tonic::Status) -> Self {
        let is_unknown = status.code() == tonic::Code::Unimplemented && !status::names_reason(&status);
        if is_unknown { Self::Unknown(status) } else { Self::Status(status) }
    }
}

/// Who says that a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The destination itself, by name of a reason.
    Peer,
    /// The connection to it.
    Connection,
    /// This side: the time is over, or the reply makes no sense.
    Here,
}

impl Destination {
    /// A destination whose connection is yet to be made. Must be called from within a runtime.
    pub(crate) fn new(remote: Remote, limits: &CallLimits, meters: Arc<Meters>) -> Self {
        let endpoint = remote.endpoint.clone();
        let channel = channel::connect_lazy(remote.expecting(CALLEES));
        let bytes_max = channel::message_bytes_max(limits.payload_bytes_max);
        let client = FunctionsClient::new(channel.clone())
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(usize::MAX);
        let older = rpc::edge_server_client::EdgeServerClient::new(channel)
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(usize::MAX);
        let connection = Arc::new(Connection {
            endpoint,
            pipeline: Pipeline::new(client, limits.payload_bytes_max),
            older,
            is_older: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
        });
        Self { connection, meters }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.connection.endpoint
    }

    /// Where calls of its function are counted.
    pub(crate) fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// Begins to look out for its return, unless somebody does already.
    pub(crate) fn watch_once(&self) -> Option<Watched> {
        let is_watched = self.connection.is_watched.swap(true, Ordering::Relaxed);
        (!is_watched).then(|| Watched(self.downgrade()))
    }

    pub(crate) fn downgrade(&self) -> WeakConnection {
        WeakConnection(Arc::downgrade(&self.connection))
    }

    /// Passes a call on with the time it has left, in the protocol that is understood there. Dropping the future cancels
    /// the call over there.
    pub(crate) async fn invoke(&self, call: &Call, now: Instant) -> Result<Reply, Failure> {
        match tokio::time::timeout_at(call.deadline.into(), self.ask(call, now)).await {
            Ok(Ok(mut reply)) => {
                reply.responder.get_or_insert_with(|| self.endpoint().clone());
                Ok(reply)
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure { error: self.late(), origin: Origin::Here }),
        }
    }

    /// A peer that does not know a service has not looked at the call, so the other protocol may be tried at once.
    async fn ask(&self, call: &Call, now: Instant) -> Result<Reply, Failure> {
        let is_older = self.connection.is_older.load(Ordering::Relaxed);
        let first = if is_older { self.ask_older(call, now).await } else { self.ask_current(call).await };
        let answer = match first {
            Err(Refused::Unknown(_)) => {
                let second = if is_older { self.ask_current(call).await } else { self.ask_older(call, now).await };
                if !matches!(second, Err(Refused::Unknown(_))) {
                    tracing::info!(destination = %self.endpoint(), older_protocol = !is_older, "speaks");
                    self.connection.is_older.store(!is_older, Ordering::Relaxed);
                }
                second
            }
            answer => answer,
        };
        answer.map_err(|refused| match refused {
            Refused::Unknown(status) | Refused::Status(status) => self.failure(status),
            Refused::Nonsense(error) => self.nonsense(error),
        })
    }

    async fn ask_current(&self, call: &Call) -> Result<Reply, Refused> {
        let response = self.connection.pipeline.invoke(call).await.map_err(Refused::from)?;
        Reply::from_wire(response).map_err(Refused::Nonsense)
    }

    async fn ask_older(&self, call: &Call, now: Instant) -> Result<Reply, Refused> {
        let mut request = tonic::Request::new(older::request(call));
        request.set_timeout(call.time_left(now));
        let response = self.connection.older.clone().run_lambda(request).await.map_err(Refused::from)?;
        older::reply(response.into_inner(), call, self.endpoint()).map_err(Refused::Nonsense)
    }

    /// The same for a call of an http function, up to the head of its answer. Dropping the answer's parts cancels the call
    /// over there.
    pub(crate) async fn exchange(
        &self,
        call: &Call,
        head: &RequestHead,
        body: Rewound,
        now: Instant,
    ) -> Result<Exchanged, Failure> {
        let mut client = self.connection.pipeline.client().clone();
        let destination = self.clone();
        let answer = async {
            let answer = client.exchange(Exchange::to_request(call, head, body, now)).await;
            let messages = answer.map_err(|status| self.failure(status))?.into_inner();
            let exchanged = Exchanged::from_wire(messages, move |status| destination.failure(status).error).await;
            exchanged.map_err(|error| Failure { error, origin: Origin::Peer })
        };
        match tokio::time::timeout_at(call.deadline.into(), answer).await {
            Ok(exchanged) => exchanged,
            Err(_) => Err(Failure { error: self.late(), origin: Origin::Here }),
        }
    }

    /// Tells the peer's own verdict from a connection's.
    fn failure(&self, answer: tonic::Status) -> Failure {
        if status::names_reason(&answer) {
            let error = PlatformError::from(answer);
            if error.reason == Reason::Unauthenticated {
                // It is this broker that could not prove itself: of the destination that makes one out of reach, and the
                // caller can do nothing about it.
                let message = format!("{} does not take this broker's calls: {}", self.endpoint(), error.message);
                let error = PlatformError::new(Reason::Unreachable, message);
                return Failure { error, origin: Origin::Connection };
            }
            return Failure { error, origin: Origin::Peer };
        }
        let cause = status::innermost_cause(&answer).unwrap_or_else(|| answer.message().to_owned());
        let mut error = PlatformError::from(answer);
        let endpoint = self.endpoint();
        error.message = match error.reason {
            Reason::Unreachable => format!("cannot connect to {endpoint}: {cause}"),
            Reason::Disconnected => format!(
                "the connection to {endpoint} broke under the call, which may have run ({cause}); \
                 retry where running it twice does no harm"
            ),
            Reason::Late => return Failure { error: self.late(), origin: Origin::Here },
            _ => format!("{endpoint} answers as no role of nigh does: {cause}"),
        };
        Failure { error, origin: Origin::Connection }
    }

    fn late(&self) -> PlatformError {
        let message = format!("no answer from {} before the deadline; give the call more time", self.endpoint());
        PlatformError::new(Reason::Late, message)
    }

    fn nonsense(&self, error: PlatformError) -> Failure {
        let message = format!("{}: {}", self.endpoint(), error.message);
        Failure { error: PlatformError { message, ..error }, origin: Origin::Here }
    }
}

impl WeakConnection {
    /// A destination over this connection, if it is still there.
    pub(crate) fn upgrade(&self, meters: &Arc<Meters>) -> Option<Destination> {
        Some(Destination { connection: self.0.upgrade()?, meters: meters.clone() })
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection) || self.endpoint() == other.endpoint()
    }
}

impl Eq for Destination {}

impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.endpoint().hash(state);
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.endpoint(), f)
    }
}
