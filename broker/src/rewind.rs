//! A request's body on its way through the broker: kept for as long as it is small, so that a call that certainly did not
//! start can be sent elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use nigh_proto::PlatformError;
use nigh_proto::exchange::Body;
use parking_lot::Mutex;

use crate::exchange::cut_off;

/// Bytes of a body that are kept so that it can be sent once more.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// A request's body that can be sent once more from its start, as long as little of it has been sent. Dropped, it cuts
/// off whoever still sends it.
pub(crate) struct Rewindable(Arc<Mutex<Sent>>);

/// The body as one attempt sends it.
pub(crate) struct Rewound {
    sent: Arc<Mutex<Sent>>,
    attempt: u32,
    /// Parts kept that this attempt has sent.
    at: usize,
}

struct Sent {
    /// Nothing once it has ended.
    body: Option<Body>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// Some of what was sent is gone.
    is_forgotten: bool,
    /// The attempt that may send; an earlier one may not notice at once that it is over.
    attempt: u32,
    waker: Option<Waker>,
}

impl Rewindable {
    pub(crate) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Sent {
            body: Some(body),
            kept: Vec::new(),
            kept_bytes: 0,
            is_forgotten: false,
            attempt: 0,
            waker: None,
        })))
    }

    pub(crate) fn can_rewind(&self) -> bool {
        !self.0.lock().is_forgotten
    }

    pub(crate) fn rewound(&self) -> Rewound {
        let mut sent = self.0.lock();
        sent.attempt += 1;
        Rewound { sent: self.0.clone(), attempt: sent.attempt, at: 0 }
    }
}

impl Drop for Rewindable {
    fn drop(&mut self) {
        let mut sent = self.0.lock();
        sent.attempt += 1;
        let (body, waker) = (sent.body.take(), sent.waker.take());
        drop(sent);
        drop(body);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Stream for Rewound {
    type Item = Result<Bytes, PlatformError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut sent = this.sent.lock();
        let sent = &mut *sent;
        if sent.attempt != this.attempt {
            return Poll::Ready(Some(Err(cut_off())));
        }
        if let Some(again) = sent.kept.get(this.at) {
            this.at += 1;
            return Poll::Ready(Some(Ok(again.clone())));
        }
        let Some(body) = &mut sent.body else { return Poll::Ready(None) };
        match body.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(bytes))) => {
                sent.keep(&bytes);
                this.at = sent.kept.len();
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => {
                sent.body = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                sent.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Sent {
    fn keep(&mut self, bytes: &Bytes) {
        if self.is_forgotten {
            return;
        }
        self.kept_bytes += bytes.len();
        if self.kept_bytes <= KEPT_BYTES_MAX {
            self.kept.push(bytes.clone());
        } else {
            self.is_forgotten = true;
            self.kept = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(parts: &[&'static str]) -> Body {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
        Box::pin(futures_util::stream::iter(parts))
    }

    async fn all(sent: &mut Rewound) -> Vec<Result<Bytes, PlatformError>> {
        sent.collect().await
    }

    #[tokio::test]
    async fn a_little_body_can_be_sent_again_from_its_start() {
        let body = Rewindable::new(body(&["one", "two", "three"]));
        let mut first = body.rewound();
        assert_eq!(first.next().await.unwrap().unwrap(), "one");
        let mut second = body.rewound();
        assert!(first.next().await.unwrap().is_err(), "the first attempt may send no more");
        let sent: Vec<_> = all(&mut second).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(sent, ["one", "two", "three"]);
        assert!(body.can_rewind());
    }

    #[tokio::test]
    async fn of_a_large_body_nothing_is_kept() {
        let large = Bytes::from(vec![0; KEPT_BYTES_MAX]);
        let parts = vec![Ok(large), Ok(Bytes::from_static(b"more"))];
        let body = Rewindable::new(Box::pin(futures_util::stream::iter(parts)));
        let mut sent = body.rewound();
        assert!(sent.next().await.unwrap().is_ok() && body.can_rewind());
        assert!(sent.next().await.unwrap().is_ok() && !body.can_rewind());
        assert_eq!(body.0.lock().kept.len(), 0);
    }

    #[tokio::test]
    async fn an_abandoned_body_breaks_off() {
        let body = Rewindable::new(Box::pin(futures_util::stream::pending()));
        let mut sent = body.rewound();
        let waiting = tokio::spawn(async move { sent.next().await });
        tokio::task::yield_now().await;
        drop(body);
        assert!(waiting.await.unwrap().unwrap().is_err());
    }
}
