//! What has come of requests that are not whole yet. A message is held in memory until its last byte is there, so all of
//! them together are bounded, and each has to be whole in time: nobody ties up memory by sending slowly, or by sending
//! much and never the end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::connections::ServerLimits;
use crate::deadline::{self, HeadArrived};
use crate::status::{PlatformError, Reason};

/// When to come again where too much is on its way in.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Requests that are held whole in memory. The others come in parts, each of which is dealt with and counted as it comes.
const HELD_WHOLE: [&str; 3] =
    ["/nigh.v1.Functions/Invoke", "/nigh.v1.Controller/Announce", "/uiiit.rpc.EdgeServer/RunLambda"];

/// What all requests at one door may hold, and the time that one has where its caller sets none.
#[derive(Debug, Clone)]
pub struct Intake {
    held: Arc<AtomicU64>,
    bytes_max: u64,
    timeout: Duration,
}

impl Intake {
    /// With the room that these limits give.
    pub fn new(limits: &ServerLimits) -> Self {
        Self { held: Arc::default(), bytes_max: limits.intake_bytes_max, timeout: limits.intake_timeout }
    }

    /// Time for a request to come whole.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The share of one request more.
    pub(crate) fn share(&self) -> Share {
        Share { intake: self.clone(), bytes: AtomicU64::new(0) }
    }
}

impl<S> Layer<S> for Intake {
    type Service = Held<S>;

    fn layer(&self, inner: S) -> Held<S> {
        Held { inner, intake: self.clone() }
    }
}

/// A service whose requests count.
#[derive(Debug, Clone)]
pub struct Held<S> {
    inner: S,
    intake: Intake,
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Held<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let now = Instant::now();
        request.extensions_mut().insert(HeadArrived(now.into_std()));
        if !HELD_WHOLE.contains(&request.uri().path()) {
            // Calls on a stream count one by one.
            request.extensions_mut().insert(self.intake.clone());
            return Answering { inner: self.inner.call(request), _share: None };
        }
        let share = Arc::new(self.intake.share());
        let asked = deadline::answer_time_of(request.headers());
        let until = now + asked.map_or(self.intake.timeout, |asked| asked.min(self.intake.timeout));
        let request = request.map(|body| Body::new(Counted { body, share: share.clone(), until, late: None }));
        Answering { inner: self.inner.call(request), _share: Some(share) }
    }
}

pin_project_lite::pin_project! {
    /// A request being answered: what it brought counts until then.
    #[derive(Debug)]
    pub struct Answering<F> {
        #[pin]
        inner: F,
        _share: Option<Arc<Share>>,
    }
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.project().inner.poll(context)
    }
}

/// Bytes that a body will have, where its sender says so.
pub(crate) fn announced_bytes(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What one request holds of all that may be held.
#[derive(Debug)]
pub(crate) struct Share {
    intake: Intake,
    bytes: AtomicU64,
}

impl Share {
    /// Counts so many more.
    ///
    /// # Errors
    /// [`Reason::OutOfBudget`] where all of them hold too much.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), PlatformError> {
        let before = self.intake.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.intake.bytes_max {
            return Ok(());
        }
        let message = format!(
            "requests on their way in hold {} bytes here, all that they may; try again later, or elsewhere",
            self.intake.bytes_max
        );
        Err(PlatformError::new(Reason::OutOfBudget, message).retry_after(RETRY_AFTER))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.intake.held.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// A request's body that counts.
struct Counted {
    body: Body,
    share: Arc<Share>,
    until: Instant,
    /// Made only where the body does not come at once.
    late: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, share, until, late } = self.get_mut();
        let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else {
            let until = *until;
            ready!(late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until))).as_mut().poll(context));
            let message = "the deadline passed before the whole request had arrived; give it more time";
            return Poll::Ready(Some(Err(PlatformError::new(Reason::Late, message).into())));
        };
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            share.take(frame.data_ref().map_or(0, |data| data.len() as u64))?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn intake(intake_bytes_max: u64) -> Intake {
        Intake::new(&ServerLimits { intake_bytes_max, ..ServerLimits::default() })
    }

    /// A body of these parts, and then nothing more without an end if it has none.
    fn body(parts: &[&'static [u8]], has_end: bool) -> Body {
        let parts: Vec<_> =
            parts.iter().map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from_static(part)))).collect();
        let parts = futures_util::stream::iter(parts);
        if has_end {
            return Body::new(StreamBody::new(parts));
        }
        Body::new(StreamBody::new(futures_util::StreamExt::chain(parts, futures_util::stream::pending())))
    }

    /// Reads a request whole, as a service does before it answers.
    async fn send(intake: &Intake, path: &str, body: Body) -> Result<usize, Status> {
        let read = tower::service_fn(|request: http::Request<Body>| async move {
            request.into_body().collect().await.map(|whole| whole.to_bytes().len())
        });
        let request = http::Request::post(path).body(body).unwrap();
        intake.layer(read).call(request).await
    }

    const INVOKE: &str = "/nigh.v1.Functions/Invoke";

    #[tokio::test]
    async fn what_all_requests_hold_is_bounded_and_given_back() {
        let intake = intake(10);
        assert_eq!(send(&intake, INVOKE, body(&[b"12345", b"67890"], true)).await.unwrap(), 10);
        assert_eq!(intake.held.load(Ordering::Relaxed), 0);
        let refused = send(&intake, INVOKE, body(&[b"12345", b"678901"], true)).await.unwrap_err();
        let refused = PlatformError::from(refused);
        assert!(refused.reason == Reason::OutOfBudget && refused.retry_after.is_some(), "{refused:?}");
        assert_eq!(intake.held.load(Ordering::Relaxed), 0);
        // What comes in parts is dealt with part by part, and bounded where that is done.
        let stream = send(&intake, "/nigh.v1.Functions/InvokeStream", body(&[b"12345", b"678901"], true));
        assert_eq!(stream.await.unwrap(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_request_is_not_waited_for_for_ever() {
        let intake = intake(10);
        let began = Instant::now();
        let refused = send(&intake, INVOKE, body(&[b"12345"], false)).await.unwrap_err();
        assert_eq!(PlatformError::from(refused).reason, Reason::Late);
        assert_eq!(began.elapsed(), ServerLimits::default().intake_timeout);
        assert_eq!(intake.held.load(Ordering::Relaxed), 0);
    }
}
