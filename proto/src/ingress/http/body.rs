//! The body of an answer: all there, or an http function's on its way.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::{Body, Frame, SizeHint};

use crate::call::CallId;
use crate::connections::BusyGuard;
use crate::exchange::{Part, Parts};
use crate::reply::Outcome;
use crate::status::{PlatformError, Reason};

/// What a caller is sent after the head.
#[derive(Debug)]
pub struct AnswerBody {
    content: Content,
    /// Until the last byte is handed over.
    busy: Option<BusyGuard>,
}

enum Content {
    Whole(Bytes),
    Passing(Parts, CallId),
    Ended,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Passing(_, call) => write!(f, "parts of {call}"),
            Self::Ended => f.write_str("nothing"),
        }
    }
}

impl AnswerBody {
    /// One that is all there.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { content: if bytes.is_empty() { Content::Ended } else { Content::Whole(bytes) }, busy: None }
    }

    /// One of which further parts are to come.
    pub(super) fn passing(parts: Parts, call: CallId) -> Self {
        Self { content: Content::Passing(parts, call), busy: None }
    }

    /// The same, that holds its connection busy.
    pub fn holding(self, busy: BusyGuard) -> Self {
        Self { busy: Some(busy), ..self }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = PlatformError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PlatformError>>> {
        let frame = match &mut self.content {
            Content::Passing(parts, call) => {
                let part = ready!(parts.poll_next_unpin(context));
                match part.and_then(|part| frame(part, call)) {
                    Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                    ended => ended,
                }
            }
            Content::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Content::Ended => None,
        };
        self.content = Content::Ended;
        self.busy = None;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Passing(..) => SizeHint::default(),
            Content::Ended => SizeHint::with_exact(0),
        }
    }
}

/// The next piece of the body; nothing at a good end. An error cuts the connection, which is how HTTP tells a caller that
/// a body is not whole.
fn frame(part: Result<Part, PlatformError>, call: &CallId) -> Option<Result<Frame<Bytes>, PlatformError>> {
    let error = match part {
        Ok(Part::Body(bytes)) => return Some(Ok(Frame::data(bytes))),
        Ok(Part::End(reply)) => match reply.outcome {
            Outcome::Error { kind, message } => {
                PlatformError::new(Reason::Disconnected, format!("the function failed, {kind}: {message}"))
            }
            Outcome::Answer { .. } | Outcome::Estimate(_) => return None,
        },
        Err(error) => error,
    };
    tracing::debug!(%call, %error, "an answer was cut off");
    Some(Err(error))
}
