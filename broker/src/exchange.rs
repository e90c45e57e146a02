//! One http call's life: as a call's, but its bodies pass through in parts, and the destination is watched until the answer
//! has ended.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::{Stream, StreamExt as _};
use nigh_proto::exchange::{Part, Parts, RequestHead};
use nigh_proto::{Call, Exchange, Exchanged, PlatformError, Reason};
use nigh_routing::Demand;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::Instrument as _;

use crate::attempt::Attempt;
use crate::call::{Broker, with_own_time};
use crate::metrics::Counted;
use crate::rewind::Rewindable;

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
        let mut counted = Counted::new(&call, self.routes.meters().unknown(), arrived);
        let span = counted.span();
        let passed = tokio::select! {
            // The drain's end comes once; the call is looked at first.
            biased;
            passed = self.pass_on_exchange(call, &head, &body, &mut counted).instrument(span) => passed,
            () = self.cut.cancelled() => Err(cut_off()),
        };
        match passed {
            Ok((Exchanged::Answer(head, parts), attempt)) => {
                let sent = attempt.sent();
                counted.spent(sent.saturating_duration_since(arrived));
                let cut = Box::pin(self.cut.clone().cancelled_owned());
                let own = Own { arrived, sent, held: Some(Held { counted, attempt, _body: body, _place: place }), cut };
                Ok(Exchanged::Answer(head, Box::pin(Passing { parts, own })))
            }
            Ok((Exchanged::Failed(reply), attempt)) => {
                counted.end(Ok(&reply.outcome));
                Ok(Exchanged::Failed(with_own_time(reply, arrived, attempt.sent())))
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
        let scope = self.count_hop(&mut call, Instant::now())?;
        let demand = Demand { scope, exclude: None, payload_bytes: head.announced_bytes().unwrap_or(0) };
        let first = self.first_attempt(&call, demand, counted).await?;
        match first.exchange(&call, head, body.rewound()).await {
            Err(failed) if body.can_rewind() => {
                let second = self.another_after(&call, demand, failed)?;
                second.exchange(&call, head, body.rewound()).await.map_err(|failed| failed.error)
            }
            outcome => outcome.map_err(|failed| failed.error),
        }
    }
}

/// The drain is over.
pub(crate) fn cut_off() -> PlatformError {
    let message = "the broker stopped before the call ended; it may have run, so retry where that does no harm";
    PlatformError::new(Reason::Disconnected, message)
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
    attempt: Attempt,
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
        if let Some(Held { counted, mut attempt, .. }) = own.held.take() {
            if let Ok(reply) = &ended {
                attempt.learn_of_the_end(reply);
            }
            counted.end(ended.as_ref().map(|reply| &reply.outcome));
        }
        Poll::Ready(Some(ended.map(|reply| Part::End(Box::new(reply)))))
    }
}
