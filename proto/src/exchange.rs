//! A call of an http function: a request and an answer whose bodies travel in parts, as they come.
//!
//! On the wire each such call has a stream of its own (`nigh.v1.Functions/Exchange`), so HTTP/2 bounds what is under way
//! in either direction, and dropping either side's end resets the stream and ends the call.

mod arriving;
mod at_once;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tonic::{Request, Status, Streaming};

use self::arriving::{ArrivingAnswer, ArrivingBody};
pub(crate) use self::at_once::whole_at_once;
use crate::call::{Call, CallLimits, HEADERS_BYTES_MAX, HEADERS_MAX};
use crate::intake::announced_bytes;
use crate::name::{Digest, NodeName};
use crate::reply::Reply;
use crate::status::{PlatformError, Reason};
use crate::{stall, v1};

/// Bytes of a body in one message; a longer part is cut.
pub(crate) const PART_BYTES_MAX: usize = 256 << 10;
/// Bytes of a request's path and query, at most.
pub(crate) const PATH_BYTES_MAX: usize = 8 << 10;
/// Bytes of the host that a request names, at most.
const AUTHORITY_BYTES_MAX: usize = 300;

/// Headers about one connection rather than what travels on it (RFC 9110, section 7.6.1).
static HOP_BY_HOP: [HeaderName; 9] = [
    http::header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    http::header::TE,
    http::header::TRAILER,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
];

/// What an http function is asked.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Path and query, as the function sees them.
    pub path: PathAndQuery,
    /// The host that the caller asked, perhaps with a port.
    pub authority: String,
    /// End-to-end headers.
    pub headers: HeaderMap,
}

impl RequestHead {
    /// Bytes that the body will have, where its sender says so.
    pub fn announced_bytes(&self) -> Option<u64> {
        announced_bytes(&self.headers)
    }
}

/// A request's body, in parts as they come.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, PlatformError>> + Send>>;

/// A call of an http function. The payload and headers of `call` are of no account.
pub struct Exchange {
    /// Which function, until when, and how it is named in logs.
    pub call: Call,
    /// What is asked of it.
    pub head: RequestHead,
    /// The rest of the request.
    pub body: Body,
}

/// The beginning of an http function's answer.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// End-to-end headers.
    pub headers: HeaderMap,
    /// Who runs it.
    pub computer: NodeName,
    /// Which version runs.
    pub version: Digest,
}

/// The next piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// The body goes on.
    Body(Bytes),
    /// The call has ended, and this is what became of it: an answer without payload, or an error of the function that left
    /// the body cut off. Nothing follows.
    End(Box<Reply>),
}

/// The rest of an answer. One that ends without [`Part::End`] broke off. Dropping it means that the caller no longer wants
/// the answer.
pub type Parts = Pin<Box<dyn Stream<Item = Result<Part, PlatformError>> + Send>>;

/// What an http function does with a call.
#[expect(clippy::large_enum_variant, reason = "there is one for each call, and it is moved once")]
pub enum Exchanged {
    /// It answers.
    Answer(ResponseHead, Parts),
    /// It ended without an answer, so the outcome is an error.
    Failed(Reply),
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("call", &self.call).field("head", &self.head).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Exchanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answer(head, _) => f.debug_tuple("Answer").field(head).finish_non_exhaustive(),
            Self::Failed(reply) => f.debug_tuple("Failed").field(reply).finish(),
        }
    }
}

/// Bytes that come in parts, to be had as one. Those that come at once are not copied.
#[derive(Debug, Default)]
pub struct Gathered {
    first: Bytes,
    /// All of them, once there are several.
    all: BytesMut,
}

impl Gathered {
    /// Bytes that have come so far.
    pub fn len(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    /// Whether none have.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes further ones.
    pub fn push(&mut self, bytes: Bytes) {
        if self.first.is_empty() {
            self.first = bytes;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve(self.first.len() + bytes.len());
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&bytes);
    }

    /// All of them.
    pub fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

/// A body without bytes.
pub(crate) fn empty_body() -> Body {
    Box::pin(stream::empty())
}

/// A body that is all there.
pub fn whole_body(bytes: Bytes) -> Body {
    Box::pin(stream::iter((!bytes.is_empty()).then_some(Ok(bytes))))
}

/// Takes out the headers about one connection, those that `connection` names included.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let is_hop_by_hop = |name: &HeaderName| HOP_BY_HOP.contains(name);
    // Mostly there are none, which is seen sooner by looking at the few that there are.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(http::header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// Checks the number and size of headers.
///
/// # Errors
/// [`Reason::TooLarge`].
pub fn check_headers(headers: &HeaderMap) -> Result<(), PlatformError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() <= HEADERS_MAX && bytes <= HEADERS_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("{} headers of {bytes} bytes; send at most {HEADERS_MAX} of {HEADERS_BYTES_MAX} bytes", headers.len());
    Err(PlatformError::new(Reason::TooLarge, message))
}

impl RequestHead {
    /// Checks the sizes of a request's head.
    ///
    /// # Errors
    /// [`Reason::TooLarge`].
    pub fn check(&self) -> Result<(), PlatformError> {
        if self.path.as_str().len() > PATH_BYTES_MAX || self.authority.len() > AUTHORITY_BYTES_MAX {
            let message = format!("the path has over {PATH_BYTES_MAX} bytes, or the host over {AUTHORITY_BYTES_MAX}");
            return Err(PlatformError::new(Reason::TooLarge, message));
        }
        check_headers(&self.headers)
    }
}

impl Exchange {
    fn head_to_wire(call: &Call, head: &RequestHead) -> v1::RequestHead {
        v1::RequestHead {
            function: call.function.as_str().to_owned(),
            call_id: call.id.as_str().to_owned(),
            hops: call.hops,
            retry_safe: call.retry_safe,
            method: head.method.as_str().to_owned(),
            path: head.path.as_str().to_owned(),
            authority: head.authority.clone(),
            headers: headers_to_wire(&head.headers),
            via: call.via.iter().map(ToString::to_string).collect(),
            priority: call.priority.to_wire().into(),
            application: call.application.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// The request for the next role, with the time left as its gRPC time-out. A body that breaks off ends the stream
    /// before its end was told.
    pub fn to_request<S>(call: &Call, head: &RequestHead, body: S, now: Instant) -> Request<WireBody<S>> {
        let head = Self::head_to_wire(call, head);
        let mut request = Request::new(WireBody { head: Some(head), body: Some(body), rest: Bytes::new() });
        request.set_timeout(call.time_left(now));
        request
    }

    /// Checks the first message of a stream and takes the others for the body.
    pub(crate) async fn from_wire(
        mut messages: Streaming<v1::ExchangeRequest>,
        timeout: Option<Duration>,
        limits: &CallLimits,
        arrived: Instant,
    ) -> Result<Self, PlatformError> {
        let within = limits.time(timeout);
        let first = tokio::time::timeout(within, messages.message()).await.map_err(|_| no_head())?;
        let first = first?.ok_or_else(|| PlatformError::malformed("an exchange without a message"))?;
        let wire = first.head.ok_or_else(|| PlatformError::malformed("an exchange whose first message has no head"))?;
        let head = RequestHead {
            method: Method::from_bytes(wire.method.as_bytes()).map_err(PlatformError::malformed)?,
            path: wire.path.parse().map_err(PlatformError::malformed)?,
            authority: wire.authority,
            headers: headers_from_wire(wire.headers)?,
        };
        head.check()?;
        let request = v1::InvokeRequest {
            function: wire.function,
            call_id: wire.call_id,
            hops: wire.hops,
            retry_safe: wire.retry_safe,
            via: wire.via,
            priority: wire.priority,
            application: wire.application,
            ..Default::default()
        };
        let call = Call::from_wire(request, timeout, limits, arrived)?;
        if !first.end {
            let body = Box::pin(ArrivingBody { first: first.body, messages: Some(messages), is_whole: false });
            return Ok(Self { call, head, body });
        }
        // The stream's end follows at once.
        let _ = tokio::time::timeout(within, messages.message()).await;
        let body = if first.body.is_empty() { empty_body() } else { whole_body(first.body) };
        Ok(Self { call, head, body })
    }
}

fn no_head() -> PlatformError {
    PlatformError::new(Reason::Late, "the exchange's head did not arrive before its deadline")
}

/// A request's messages. What is there at once travels in one message.
pub struct WireBody<S> {
    head: Option<v1::RequestHead>,
    /// Nothing once it has ended.
    body: Option<S>,
    /// What is left of a part that was cut.
    rest: Bytes,
}

impl<S> std::fmt::Debug for WireBody<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireBody").finish_non_exhaustive()
    }
}

impl<S: Stream<Item = Result<Bytes, PlatformError>> + Unpin> Stream for WireBody<S> {
    type Item = v1::ExchangeRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.body.is_none() {
            return Poll::Ready(None);
        }
        let mut message = v1::ExchangeRequest { head: this.head.take(), body: Bytes::new(), end: false };
        loop {
            if message.body.is_empty() && !this.rest.is_empty() {
                message.body = this.rest.split_to(this.rest.len().min(PART_BYTES_MAX));
            }
            if !this.rest.is_empty() {
                return Poll::Ready(Some(message));
            }
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            match body.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(bytes))) => this.rest = bytes,
                Poll::Ready(Some(Err(_))) => {
                    this.body = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => {
                    this.body = None;
                    message.end = true;
                    return Poll::Ready(Some(message));
                }
                Poll::Pending if message.head.is_some() || !message.body.is_empty() => {
                    return Poll::Ready(Some(message));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The messages of an answer. What is there at once travels in one message.
pub(crate) struct WireAnswer {
    head: Option<v1::ResponseHead>,
    parts: Option<Parts>,
    rest: Bytes,
    /// What came after the part that is to be sent first.
    ahead: Option<Result<Part, PlatformError>>,
}

impl WireAnswer {
    pub(crate) fn new(exchanged: Exchanged) -> Self {
        let (head, parts, ahead) = match exchanged {
            Exchanged::Answer(head, parts) => (Some(head.into_wire()), Some(parts), None),
            Exchanged::Failed(reply) => (None, None, Some(Ok(Part::End(Box::new(reply))))),
        };
        Self { head, parts, rest: Bytes::new(), ahead }
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Part, PlatformError>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(ahead));
        }
        let Some(parts) = &mut self.parts else { return Poll::Ready(None) };
        let part = ready!(parts.poll_next_unpin(context));
        if !matches!(part, Some(Ok(Part::Body(_)))) {
            self.parts = None;
        }
        Poll::Ready(part)
    }
}

impl Stream for WireAnswer {
    type Item = Result<v1::ExchangeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut message = v1::ExchangeResponse { head: this.head.take(), body: Bytes::new(), end: None };
        let is_empty = |message: &v1::ExchangeResponse| message.head.is_none() && message.body.is_empty();
        loop {
            if message.body.is_empty() && !this.rest.is_empty() {
                message.body = this.rest.split_to(this.rest.len().min(PART_BYTES_MAX));
            }
            if !this.rest.is_empty() {
                return Poll::Ready(Some(Ok(message)));
            }
            match this.poll_part(context) {
                Poll::Ready(Some(Ok(Part::Body(bytes)))) if message.body.is_empty() => this.rest = bytes,
                Poll::Ready(Some(Ok(Part::End(reply)))) => {
                    message.end = Some(reply.into_wire());
                    return Poll::Ready(Some(Ok(message)));
                }
                Poll::Ready(Some(Err(error))) if is_empty(&message) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) if is_empty(&message) => return Poll::Ready(None),
                Poll::Pending if is_empty(&message) => return Poll::Pending,
                later => {
                    if let Poll::Ready(part) = later {
                        this.ahead = part;
                    }
                    return Poll::Ready(Some(Ok(message)));
                }
            }
        }
    }
}

impl Exchanged {
    /// The same answer, for a reader that is to take something of it at least this often.
    pub(crate) fn read_within(self, stall_max: Duration) -> Self {
        match self {
            Self::Answer(head, parts) => Self::Answer(head, stall::within(stall_max, parts)),
            failed @ Self::Failed(_) => failed,
        }
    }

    /// Reads an answer's messages up to its head. The rest follows in parts.
    ///
    /// # Errors
    /// [`PlatformError`] of the peer or the connection, as the status that `judge` turns into one; [`Reason::Protocol`].
    pub async fn from_wire(
        mut messages: Streaming<v1::ExchangeResponse>,
        judge: impl Fn(Status) -> PlatformError + Send + Unpin + 'static,
    ) -> Result<Self, PlatformError> {
        let first = messages.message().await.map_err(&judge)?.ok_or_else(broken_off)?;
        let Some(head) = first.head else {
            let end = first.end.ok_or_else(|| foreign("neither a head nor an end"))?;
            // The stream's end follows at once; what it says changes nothing.
            let _ = messages.message().await;
            return Ok(Self::Failed(Reply::from_wire(end)?));
        };
        let head = ResponseHead::from_wire(head)?;
        let (body, end) = (first.body, first.end);
        Ok(Self::Answer(head, Box::pin(ArrivingAnswer { body, end, messages: Some(messages), judge })))
    }
}

/// An answer's stream ended before its end was told.
pub fn broken_off() -> PlatformError {
    PlatformError::new(Reason::Disconnected, "the answer broke off; the call may have run")
}

fn foreign(what: &str) -> PlatformError {
    PlatformError::new(Reason::Protocol, format!("the peer's answer has {what}; is it of the same release?"))
}

impl ResponseHead {
    fn into_wire(self) -> v1::ResponseHead {
        v1::ResponseHead {
            status: self.status.as_u16().into(),
            headers: headers_to_wire(&self.headers),
            computer: self.computer.as_str().to_owned(),
            version: self.version.to_string(),
        }
    }

    fn from_wire(wire: v1::ResponseHead) -> Result<Self, PlatformError> {
        let status = u16::try_from(wire.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Self {
            status: status.ok_or_else(|| foreign("no valid status"))?,
            headers: headers_from_wire(wire.headers).map_err(|_| foreign("no valid headers"))?,
            computer: wire.computer.parse().map_err(|_| foreign("no valid computer"))?,
            version: wire.version.parse().map_err(|_| foreign("no valid version"))?,
        })
    }
}

fn headers_to_wire(headers: &HeaderMap) -> Vec<v1::HttpHeader> {
    let wire = |(name, value): (&HeaderName, &HeaderValue)| v1::HttpHeader {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    headers.iter().map(wire).collect()
}

fn headers_from_wire(wire: Vec<v1::HttpHeader>) -> Result<HeaderMap, PlatformError> {
    let mut headers = HeaderMap::with_capacity(wire.len().min(HEADERS_MAX));
    if wire.len() > HEADERS_MAX {
        return Err(PlatformError::new(
            Reason::TooLarge,
            format!("{} headers; send at most {HEADERS_MAX}", wire.len()),
        ));
    }
    for v1::HttpHeader { name, value } in wire {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(PlatformError::malformed)?;
        headers.append(name, HeaderValue::from_maybe_shared(value).map_err(PlatformError::malformed)?);
    }
    check_headers(&headers)?;
    Ok(headers)
}
