//! Bodies within bounds, and the body of an answer on its way from the guest to its caller.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// A body of at most so many bytes; one more, and it fails with `too_large`. Holds on to something until it has ended.
pub(super) struct Bounded<B, G> {
    body: B,
    left: u64,
    too_large: fn() -> Error,
    _guard: G,
}

impl<B, G> Bounded<B, G> {
    pub(super) fn new(body: B, bytes_max: u64, too_large: fn() -> Error, guard: G) -> Self {
        Self { body, left: bytes_max, too_large, _guard: guard }
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin, G: Unpin> Body for Bounded<B, G> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err((self.too_large)()))),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body between the guest that writes it and the caller that reads it.
#[derive(Debug)]
pub(crate) struct Flow(Mutex<State>);

#[derive(Debug)]
enum State {
    /// The guest may write on.
    Open(HyperOutgoingBody),
    /// The guest has ended: what is left to read, and whether it finished the body.
    Sealed(VecDeque<Result<Bytes, Error>>, bool),
}

/// What comes next of a body.
pub(super) enum Next {
    Bytes(Bytes),
    /// The guest wrote its last. The body is whole only if the guest did not vanish.
    End,
    /// The guest returned without finishing the body.
    Unfinished,
    Failed(Error),
}

impl Flow {
    pub(super) fn new(body: HyperOutgoingBody) -> Self {
        Self(Mutex::new(State::Open(body)))
    }

    /// The guest has returned; what it holds of the body is of no account any more.
    pub(super) fn seal(&self) {
        let mut state = self.0.lock();
        let State::Open(body) = &mut *state else { return };
        let mut left = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        let is_finished = loop {
            match poll_bytes(body, &mut context) {
                Poll::Ready(Some(part)) => left.push_back(part),
                Poll::Ready(None) => break true,
                Poll::Pending => break false,
            }
        };
        *state = State::Sealed(left, is_finished);
    }

    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Next> {
        let part = match &mut *self.0.lock() {
            State::Open(body) => ready!(poll_bytes(body, context)),
            State::Sealed(left, is_finished) => match left.pop_front() {
                None if !*is_finished => return Poll::Ready(Next::Unfinished),
                part => part,
            },
        };
        Poll::Ready(match part {
            Some(Ok(bytes)) => Next::Bytes(bytes),
            Some(Err(error)) => Next::Failed(error),
            None => Next::End,
        })
    }
}

/// Trailers go no further.
fn poll_bytes(body: &mut HyperOutgoingBody, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(context)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => return Poll::Ready(Some(Ok(bytes))),
                Ok(_) | Err(_) => {}
            },
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    fn bounded(bytes_max: u64) -> impl Body<Data = Bytes, Error = Error> {
        let body = Full::new(Bytes::from_static(b"1234")).map_err(Error::from);
        Bounded::new(body, bytes_max, || Error::HttpResponseBodySize(None), ())
    }

    #[tokio::test]
    async fn a_body_ends_where_its_bound_is() {
        assert_eq!(bounded(4).collect().await.unwrap().to_bytes(), "1234");
        assert!(matches!(bounded(3).collect().await.unwrap_err(), Error::HttpResponseBodySize(None)));
    }
}
