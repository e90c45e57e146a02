//! Having functions run, one call at a time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use nigh_proto::exchange::Body;
use nigh_proto::stream::Pipeline;
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::{Call, Endpoint, Exchange, Exchanged, PlatformError, Reason, Remote, Reply, Role, channel};

use crate::peer::Peer;
use crate::stream::CallStream;

/// What a caller accepts and does at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerLimits {
    /// Bytes of an answer's payload, at most.
    pub answer_bytes_max: usize,
    /// Payloads over this many bytes travel in parts, so that they hold up nobody else on the connection.
    pub unary_bytes_max: usize,
    /// Calls under way on one [`CallStream`]; further ones wait, within their deadline.
    pub stream_calls_max: usize,
    /// Bytes of all answers that are arriving in parts on one [`CallStream`].
    pub stream_answer_bytes_max: usize,
}

impl Default for CallerLimits {
    fn default() -> Self {
        Self {
            answer_bytes_max: 64 << 20,
            unary_bytes_max: 1 << 20,
            stream_calls_max: 512,
            stream_answer_bytes_max: 256 << 20,
        }
    }
}

/// Has functions run by one broker (or one computer). Cheap to clone; clones share the connection, and on it a stream for their
/// small calls.
#[derive(Debug, Clone)]
pub struct Caller {
    peer: Peer,
    pipeline: Pipeline,
    limits: CallerLimits,
}

impl Caller {
    /// A caller of this broker; connects with the first call and again whenever the connection is lost.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(broker: impl Into<Remote>, limits: CallerLimits) -> Self {
        let peer = Peer::new("broker", broker.into(), &[Role::Broker, Role::Computer]);
        let client = FunctionsClient::new(peer.channel())
            .max_decoding_message_size(channel::message_bytes_max(limits.answer_bytes_max));
        Self { peer, pipeline: Pipeline::new(client, limits.answer_bytes_max), limits }
    }

    /// Whom it calls.
    pub fn endpoint(&self) -> &Endpoint {
        self.peer.endpoint()
    }

    /// Makes one call and waits for its outcome, no longer than its deadline. Dropping the future cancels the call.
    ///
    /// # Errors
    /// [`PlatformError`]; an error of the function itself is an outcome, not an error.
    pub async fn invoke(&self, call: Call) -> Result<Reply, PlatformError> {
        let started = Instant::now();
        let given = time_given(&call, started)?;
        let answer = tokio::time::timeout_at(call.deadline.into(), self.ask(call, started));
        answer.await.unwrap_or_else(|_| Err(self.peer.silent(given)))
    }

    /// Has an http function answer a request, and waits for the head of its answer, no longer than the call's deadline; the rest
    /// follows in parts. Dropping the future, or the parts, cancels the call.
    ///
    /// # Errors
    /// As [`Caller::invoke`].
    pub async fn exchange(&self, exchange: Exchange) -> Result<Exchanged, PlatformError> {
        let Exchange { call, head, body } = exchange;
        let now = Instant::now();
        let given = time_given(&call, now)?;
        let (mut client, peer) = (self.pipeline.client().clone(), self.peer.clone());
        let answer = async {
            let messages = client.exchange(Exchange::to_request(&call, &head, Upload(body), now)).await;
            let messages = messages.map_err(|status| self.peer.explain(status))?.into_inner();
            Exchanged::from_wire(messages, move |status| peer.explain(status)).await
        };
        tokio::time::timeout_at(call.deadline.into(), answer).await.unwrap_or_else(|_| Err(self.peer.silent(given)))
    }

    /// Opens a stream that many calls share.
    ///
    /// # Errors
    /// [`PlatformError`] where the broker cannot be reached.
    pub async fn open_stream(&self) -> Result<CallStream, PlatformError> {
        CallStream::open(self.peer.clone(), self.pipeline.client().clone(), &self.limits).await
    }

    async fn ask(&self, call: Call, started: Instant) -> Result<Reply, PlatformError> {
        let reply = if call.payload.len() > self.limits.unary_bytes_max {
            self.open_stream().await?.invoke(call).await?
        } else {
            Reply::from_wire(self.pipeline.invoke(&call).await.map_err(|status| self.peer.explain(status))?)?
        };
        Ok(with_network(reply, started.elapsed()))
    }
}

/// The time that a call has, if it has any.
fn time_given(call: &Call, now: Instant) -> Result<Duration, PlatformError> {
    let given = call.time_left(now);
    if given.is_zero() {
        return Err(PlatformError::new(Reason::Late, "the deadline had passed before the call was made"));
    }
    Ok(given)
}

/// A request's body on its way, as a type with a name: compilers cannot tell of a nameless one that it may be sent between threads.
struct Upload(Body);

impl Stream for Upload {
    type Item = Result<Bytes, PlatformError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// Adds what the answer does not account for: the way there and back.
pub(crate) fn with_network(mut reply: Reply, elapsed: Duration) -> Reply {
    reply.timing.network += elapsed.saturating_sub(reply.timing.total());
    reply
}
