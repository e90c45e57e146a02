//! One http call's life: as a call's, but its bodies pass through in parts, and the destination is watched until the answer
//! has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use nigh_proto::exchange::{Body, Part, Parts, RequestHead};
use nigh_proto::{Call, Exchange, Exchanged, FunctionName, PlatformError, Reason};
use nigh_routing::{Demand, Observation, Pick, Scope};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::call::{Broker, with_own_time};
use crate::forward::Destination;
use crate::metrics::Counted;
use crate::routes::Routes;
use crate::verdict::{Elsewhere, judge};

/// Bytes of a body that are kept so that it can be sent once more.
const KEPT_BYTES_MAX: usize = 64 << 10;

impl Broker {
    /// Brings an admitted call of an http function to the head of its answer; the rest follows in parts.
    pub(crate) async fn pass_exchange(
        &self,
        exchange: Exchange,
        place: OwnedSemaphorePermit,
        arrived: Instant,
    ) -> Result<Exchanged, PlatformError> {
        let Exchange { call, head, body } = exchange;
        let body = Rewindable::new(body);
        let mut counted = Counted::new(self.routes.meters().unknown(), arrived);
        let passed = tokio::select! {
            // The drain's end comes once; the call is looked at first.
            biased;
            passed = self.pass_on_exchange(call, &head, &body, &mut counted) => passed,
            () = self.cut.cancelled() => Err(cut_off()),
        };
        match passed {
            Ok((Exchanged::Answer(head, parts), attempt)) => {
                let sent = attempt.sent;
                counted.spent(sent.saturating_duration_since(arrived));
                let cut = Box::pin(self.cut.clone().cancelled_owned());
                let own = Own {
                    arrived,
                    sent,
                    held: Some(Held { counted, _attempt: attempt, _body: body, _place: place }),
                    cut,
                };
                Ok(Exchanged::Answer(head, Box::pin(Passing { parts, own })))
            }
            Ok((Exchanged::Failed(reply), attempt)) => {
                counted.end(Ok(&reply.outcome));
                Ok(Exchanged::Failed(with_own_time(reply, arrived, attempt.sent)))
            }
            Err(error) => {
                counted.end(Err(&error));
                Err(error)
            }
        }
    }

    async fn pass_on_exchange(
        &self,
        mut call: Call,
        head: &RequestHead,
        body: &Rewindable,
        counted: &mut Counted,
    ) -> Result<(Exchanged, Attempt), PlatformError> {
        let sent = Instant::now();
        let scope = self.count_hop(&mut call, sent)?;
        self.count_call();
        let call = &call;
        let first = Attempt::new(&self.routes, &call.function, scope, None, sent).inspect_err(|_| {
            counted.belongs_to(&self.routes.meters().find(call.function.as_str()));
        })?;
        counted.belongs_to(first.pick.destination.meters());
        match first.make(call, head, body).await {
            Err(failed) if failed.elsewhere.allows(call.retry_safe) && body.can_rewind() => {
                let now = Instant::now();
                if call.time_left(now).is_zero() || !self.may_make_another() {
                    return Err(failed.error);
                }
                match Attempt::new(&self.routes, &call.function, scope, Some(&failed.destination), now) {
                    Ok(second) => {
                        self.counts().count_retry();
                        second.make(call, head, body).await.map_err(|failed| failed.error)
                    }
                    // Nobody else is there, so the first failure is the one to tell.
                    Err(_) => Err(failed.error),
                }
            }
            outcome => outcome.map_err(|failed| failed.error),
        }
    }
}

fn cut_off() -> PlatformError {
    let message = "the broker stopped before the call ended; it may have run, so retry where that does no harm";
    PlatformError::new(Reason::Disconnected, message)
}

/// One try at one destination. Ends with an observation in any case, also when the caller goes away.
struct Attempt {
    routes: Arc<Routes>,
    function: FunctionName,
    pick: Pick<Destination>,
    sent: Instant,
    observation: Option<Observation>,
}

/// A try that brought no answer.
struct Failed {
    error: PlatformError,
    destination: Destination,
    elsewhere: Elsewhere,
}

impl Attempt {
    fn new(
        routes: &Arc<Routes>,
        function: &FunctionName,
        scope: Scope,
        exclude: Option<&Destination>,
        sent: Instant,
    ) -> Result<Self, PlatformError> {
        // How large the body will be is not known yet.
        let pick = routes.pick(function, Demand { scope, exclude, payload_bytes: 0 })?;
        Ok(Self { routes: routes.clone(), function: function.clone(), pick, sent, observation: None })
    }

    async fn make(mut self, call: &Call, head: &RequestHead, body: &Rewindable) -> Result<(Exchanged, Self), Failed> {
        let outcome = self.pick.destination.exchange(call, head, body.rewound(), self.sent).await;
        let elapsed = self.sent.elapsed();
        match outcome {
            Ok(exchanged) => {
                self.observation = Some(match exchanged {
                    Exchanged::Answer(..) => Observation::answered(elapsed),
                    Exchanged::Failed(_) => Observation::Unmeasured,
                });
                Ok((exchanged, self))
            }
            Err(failure) => {
                let verdict = judge(&failure, elapsed);
                self.observation = Some(verdict.observation);
                let destination = self.pick.destination.clone();
                tracing::debug!(
                    call = %call.id, function = %self.function, ?destination,
                    reason = failure.error.reason.word(), error = %failure.error, "no answer"
                );
                Err(Failed { error: failure.error, destination, elsewhere: verdict.elsewhere })
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let observation = self.observation.unwrap_or_else(|| Observation::Unfinished { elapsed: self.sent.elapsed() });
        self.routes.observe(&self.function, &self.pick, observation);
    }
}

/// An answer passing through.
struct Passing {
    parts: Parts,
    own: Own,
}

/// What the broker holds and adds while an answer passes through.
struct Own {
    arrived: Instant,
    sent: Instant,
    /// Nothing once the answer has ended.
    held: Option<Held>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What is given back with the answer's end.
struct Held {
    counted: Counted,
    _attempt: Attempt,
    _body: Rewindable,
    _place: OwnedSemaphorePermit,
}

impl Stream for Passing {
    type Item = Result<Part, PlatformError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { parts, own } = &mut *self;
        if own.held.is_none() {
            return Poll::Ready(None);
        }
        let ended = match parts.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(Part::Body(bytes)))) => return Poll::Ready(Some(Ok(Part::Body(bytes)))),
            Poll::Ready(Some(Ok(Part::End(reply)))) => Ok(with_own_time(*reply, own.arrived, own.sent)),
            Poll::Ready(Some(Err(error))) => Err(error),
            Poll::Ready(None) => Err(nigh_proto::exchange::broken_off()),
            Poll::Pending if own.cut.as_mut().poll(context).is_ready() => Err(cut_off()),
            Poll::Pending => return Poll::Pending,
        };
        if let Some(Held { counted, .. }) = own.held.take() {
            counted.end(ended.as_ref().map(|reply| &reply.outcome));
        }
        Poll::Ready(Some(ended.map(|reply| Part::End(Box::new(reply)))))
    }
}

/// A request's body that can be sent once more from its start, as long as little of it has been sent. Dropped, it cuts
/// off whoever still sends it.
struct Rewindable(Arc<Mutex<Sent>>);

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
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Sent {
            body: Some(body),
            kept: Vec::new(),
            kept_bytes: 0,
            is_forgotten: false,
            attempt: 0,
            waker: None,
        })))
    }

    fn can_rewind(&self) -> bool {
        !self.0.lock().is_forgotten
    }

    fn rewound(&self) -> Rewound {
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
