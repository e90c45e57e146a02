//! Passing a call on: a destination with its kept connection, and what can go wrong between here and there.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Instant;

use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::{Call, CallLimits, Endpoint, PlatformError, Reason, Reply, channel, status};
use tonic::transport::Channel;

use crate::metrics::Meters;

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
    client: FunctionsClient<Channel>,
}

/// A connection that is not kept alive.
pub(crate) struct WeakConnection(Weak<Connection>);

/// A call that brought no reply.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: PlatformError,
    pub(crate) origin: Origin,
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
    pub(crate) fn new(endpoint: Endpoint, limits: &CallLimits, meters: Arc<Meters>) -> Self {
        let client = FunctionsClient::new(channel::connect_lazy(&endpoint))
            .max_decoding_message_size(channel::message_bytes_max(limits.payload_bytes_max))
            .max_encoding_message_size(usize::MAX);
        Self { connection: Arc::new(Connection { endpoint, client }), meters }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.connection.endpoint
    }

    /// Where calls of its function are counted.
    pub(crate) fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    pub(crate) fn downgrade(&self) -> WeakConnection {
        WeakConnection(Arc::downgrade(&self.connection))
    }

    /// Passes a call on with the time it has left. Dropping the future cancels the call over there.
    pub(crate) async fn invoke(&self, call: &Call, now: Instant) -> Result<Reply, Failure> {
        let mut client = self.connection.client.clone();
        let answer = client.invoke(call.to_request(now));
        match tokio::time::timeout_at(call.deadline.into(), answer).await {
            Ok(Ok(response)) => Reply::from_wire(response.into_inner()).map_err(|error| self.nonsense(error)),
            Ok(Err(answer)) => Err(self.failure(answer)),
            Err(_) => Err(Failure { error: self.late(), origin: Origin::Here }),
        }
    }

    /// Tells the peer's own verdict from a connection's.
    fn failure(&self, answer: tonic::Status) -> Failure {
        if status::names_reason(&answer) {
            return Failure { error: answer.into(), origin: Origin::Peer };
        }
        let cause = cause(&answer);
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

/// What is at the bottom of a failed connection; the layers above it say no more than that there is one.
fn cause(answer: &tonic::Status) -> String {
    let mut deepest: Option<&dyn std::error::Error> = None;
    let mut source = std::error::Error::source(answer);
    while let Some(error) = source {
        deepest = Some(error);
        source = error.source();
    }
    deepest.map_or_else(|| answer.message().to_owned(), ToString::to_string)
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
