//! Bodies that arrive in messages, both ways. Each reads its stream to the stream's own end: one that is left before that is
//! reset, and a connection bears only so many resets.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use super::Part;
use crate::reply::Reply;
use crate::status::{PlatformError, Reason};
use crate::v1;

/// A request's body, of which more messages are to come.
pub(super) struct ArrivingBody {
    pub(super) first: Bytes,
    /// Nothing once the stream has ended.
    pub(super) messages: Option<Streaming<v1::ExchangeRequest>>,
    /// The body has ended. The stream's end is still waited for: one that is left before that is reset, and connections
    /// bear only so many resets.
    pub(super) is_whole: bool,
}

impl Stream for ArrivingBody {
    type Item = Result<Bytes, PlatformError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        loop {
            let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
            let message = match ready!(messages.poll_next_unpin(context)) {
                _ if self.is_whole => {
                    self.messages = None;
                    return Poll::Ready(None);
                }
                Some(Ok(message)) => message,
                Some(Err(status)) => return self.broke_off(status.into()),
                None => {
                    return self.broke_off(PlatformError::new(Reason::Disconnected, "the request's body broke off"));
                }
            };
            self.is_whole = message.end;
            if !message.body.is_empty() {
                return Poll::Ready(Some(Ok(message.body)));
            }
        }
    }
}

impl ArrivingBody {
    fn broke_off(&mut self, error: PlatformError) -> Poll<Option<Result<Bytes, PlatformError>>> {
        self.messages = None;
        Poll::Ready(Some(Err(error)))
    }
}

/// The rest of an answer, of which more messages are to come.
pub(super) struct ArrivingAnswer<J> {
    pub(super) body: Bytes,
    pub(super) end: Option<v1::InvokeResponse>,
    /// Nothing once the stream has ended.
    pub(super) messages: Option<Streaming<v1::ExchangeResponse>>,
    pub(super) judge: J,
}

impl<J: Fn(Status) -> PlatformError + Unpin> Stream for ArrivingAnswer<J> {
    type Item = Result<Part, PlatformError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if !this.body.is_empty() {
                return Poll::Ready(Some(Ok(Part::Body(std::mem::take(&mut this.body)))));
            }
            let Some(messages) = &mut this.messages else {
                let end = this.end.take().map(Reply::from_wire);
                return Poll::Ready(end.map(|reply| Ok(Part::End(Box::new(reply?)))));
            };
            let message = ready!(messages.poll_next_unpin(context));
            // Once the end is told, only the stream's own end is waited for: whoever left before that would reset the stream,
            // and connections bear only so many resets.
            if this.end.is_some() {
                this.messages = None;
                continue;
            }
            match message {
                Some(Ok(message)) => (this.body, this.end) = (message.body, message.end),
                Some(Err(status)) => {
                    this.messages = None;
                    return Poll::Ready(Some(Err((this.judge)(status))));
                }
                None => this.messages = None,
            }
        }
    }
}
