//! What an http function's caller gets to see while the function runs: the head of its answer, the body in parts, and in
//! the end what became of the call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use nigh_proto::exchange::{
    Exchanged, Gathered, Part, Parts, ResponseHead, broken_off, check_headers, remove_hop_by_hop,
};
use nigh_proto::{CallId, Digest, Headers, NodeName, Outcome, PlatformError, Reply};
use tokio::sync::oneshot;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::body::{Flow, Next};
use crate::admission::{Answer, Place};
use crate::outcome;

/// Bytes of an error page that become part of an error's message.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// What a guest answers with; the body is still on its way.
pub(crate) type Answered = http::Response<Arc<Flow>>;

/// What every reply to one call says of who ran it.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) computer: NodeName,
    pub(crate) version: Digest,
    pub(crate) call: CallId,
    pub(crate) hops: u32,
    pub(crate) payload_bytes_max: u64,
    /// The caller wants to know how the call ended, beyond the end of the body.
    pub(crate) waits_for_end: bool,
}

/// Waits until the function begins to answer, or has ended without an answer.
pub(crate) async fn begin(
    mut place: Place,
    mut answered: oneshot::Receiver<Answered>,
    about: About,
    deadline: Instant,
) -> Result<Exchanged, PlatformError> {
    let answered = tokio::select! {
        biased;
        // Where it was asked before, it may have told already that nothing comes.
        Ok(answered) = &mut answered, if !answered.is_terminated() => answered,
        ended = place.answer(deadline) => return match ended? {
            // The function answered in the very moment in which it ended.
            reply if matches!(reply.outcome, Outcome::Answer { .. }) => match answered.try_recv() {
                Ok(answered) => answering(answered, None, Some(Ok(reply)), about),
                Err(_) => Err(broken_off()),
            },
            reply => Ok(Exchanged::Failed(reply)),
        },
    };
    answering(answered, Some(place), None, about)
}

/// The answer of a function that has begun to: in its `place` as long as it runs, or `ended` already.
pub(crate) fn answering(
    answered: Answered,
    place: Option<Place>,
    ended: Option<Answer>,
    about: About,
) -> Result<Exchanged, PlatformError> {
    let (parts, body) = answered.into_parts();
    let mut headers = parts.headers;
    remove_hop_by_hop(&mut headers);
    if let Err(error) = check_headers(&headers) {
        return Ok(Exchanged::Failed(about.reply(outcome::error("answer-too-large", error.message))));
    }
    let head = ResponseHead { status: parts.status, headers, computer: about.computer.clone(), version: about.version };
    let left = about.payload_bytes_max;
    Ok(Exchanged::Answer(head, Box::pin(Answering { body: Some(body), place, ended, left, about })))
}

/// The answer, made one: for callers that want it whole. A status of an error is an error of the function then.
pub(crate) async fn whole(exchanged: Exchanged) -> Result<Reply, PlatformError> {
    let (head, mut parts) = match exchanged {
        Exchanged::Answer(head, parts) => (head, parts),
        Exchanged::Failed(reply) => return Ok(reply),
    };
    let (payload, mut reply) = collect(&mut parts).await?;
    if matches!(reply.outcome, Outcome::Answer { .. }) {
        reply.outcome = if head.status.is_client_error() || head.status.is_server_error() {
            let text = String::from_utf8_lossy(&payload[..payload.len().min(TEXT_BYTES_MAX)]);
            let message = format!("the function answered {}: {}", head.status, text.trim());
            outcome::function_error(format!("http-{}", head.status.as_u16()).as_bytes(), message.as_bytes())
        } else {
            let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            };
            Outcome::Answer { payload, headers: Headers::new(head.headers.iter().filter_map(text).collect())? }
        };
    }
    Ok(reply)
}

async fn collect(parts: &mut Parts) -> Result<(Bytes, Reply), PlatformError> {
    let mut gathered = Gathered::default();
    while let Some(part) = parts.next().await {
        match part? {
            Part::Body(bytes) => gathered.push(bytes),
            Part::End(reply) => return Ok((gathered.into_bytes(), *reply)),
        }
    }
    Err(broken_off())
}

/// An answer on its way. Dropped before its end, it ends the guest.
struct Answering {
    /// Nothing once the end was told.
    body: Option<Arc<Flow>>,
    /// The call's, as long as the guest runs.
    place: Option<Place>,
    /// How it ended.
    ended: Option<Answer>,
    /// Bytes that may still come.
    left: u64,
    about: About,
}

impl Stream for Answering {
    type Item = Result<Part, PlatformError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(body) = &this.body else { return Poll::Ready(None) };
            match body.poll_next(context) {
                Poll::Ready(Next::Bytes(bytes)) => {
                    return match this.left.checked_sub(bytes.len() as u64) {
                        Some(left) => {
                            this.left = left;
                            Poll::Ready(Some(Ok(Part::Body(bytes))))
                        }
                        None => this.end_with(outcome::answer_too_large(this.about.payload_bytes_max)),
                    };
                }
                Poll::Ready(Next::Failed(error)) => {
                    let message = format!("the function's answer broke off: {error}");
                    return this.end_with(outcome::error("http-error", message));
                }
                Poll::Ready(Next::End) => return this.end(context),
                Poll::Ready(Next::Unfinished) => return this.end_unfinished(context),
                Poll::Pending => {
                    let had_ended = this.ended.is_some();
                    let ended = ready!(this.poll_ended(context));
                    let has_returned = matches!(ended, Ok(Reply { outcome: Outcome::Answer { .. }, .. }));
                    if had_ended || !has_returned {
                        return this.end(context);
                    }
                    // It has returned, so its body is sealed by now.
                }
            }
        }
    }
}

type Told = Poll<Option<Result<Part, PlatformError>>>;

impl Answering {
    /// How the guest ended.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<&Answer> {
        if self.ended.is_none() {
            let ended = match &mut self.place {
                Some(place) => ready!(place.poll_answer(context)),
                None => Err(broken_off()),
            };
            self.ended = Some(ended);
        }
        Poll::Ready(self.ended.as_ref().expect("set just above"))
    }

    /// The body has ended. A guest that goes on after that may do so, where its caller does not ask how it ends.
    fn end(&mut self, context: &mut Context<'_>) -> Told {
        let is_over = self.poll_ended(context).is_ready();
        if !is_over && self.about.waits_for_end {
            return Poll::Pending;
        }
        let reply = match self.ended.take() {
            Some(ended) => ended,
            None => {
                self.place.take().into_iter().for_each(Place::let_finish);
                Ok(self.about.reply(Outcome::Answer { payload: Bytes::new(), headers: Headers::default() }))
            }
        };
        self.told(reply)
    }

    /// The guest has returned and left the body as it was.
    fn end_unfinished(&mut self, context: &mut Context<'_>) -> Told {
        let message = "the function returned before its answer's body was finished";
        // It is about to tell, if it has not told already.
        let _ = ready!(self.poll_ended(context));
        match self.ended.take() {
            Some(Ok(reply)) if matches!(reply.outcome, Outcome::Answer { .. }) => {
                self.told(Ok(Reply { outcome: outcome::error("http-error", message), ..reply }))
            }
            Some(ended) => self.told(ended),
            None => self.told(Err(broken_off())),
        }
    }

    fn end_with(&mut self, outcome: Outcome) -> Told {
        let reply = self.about.reply(outcome);
        self.told(Ok(reply))
    }

    fn told(&mut self, ended: Answer) -> Told {
        self.body = None;
        self.place = None;
        Poll::Ready(Some(ended.map(|reply| Part::End(Box::new(reply)))))
    }
}

impl About {
    /// A reply that the guest itself did not bring about.
    fn reply(&self, outcome: Outcome) -> Reply {
        let reply = Reply::new(outcome, self.computer.clone(), self.call.clone());
        Reply { version: Some(self.version), hops: self.hops, ..reply }
    }
}

/// What an error code of WASI's HTTP says, for people.
pub(super) fn error_words(code: &ErrorCode) -> String {
    match code {
        ErrorCode::InternalError(Some(message)) => message.clone(),
        other => format!("{other:?}"),
    }
}
