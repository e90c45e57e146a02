//! Bounds on the connections at a door: how many there are, and how long one may be silent with nothing to wait for, or
//! leave what it was sent unread. Where there are as many as there may be, one more is told so and left.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use crate::status::{PlatformError, Reason};

/// Peers that are being told at once that there is no room; further ones are left without a word.
const REFUSALS_AT_ONCE: usize = 64;
/// Time for one to be told.
const TELLING: Duration = Duration::from_millis(500);
/// When one may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a role accepts of those who connect to one of its doors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// Requests at once on one connection.
    pub requests_per_connection_max: u32,
    /// Silence of a peer that waits for no answer.
    pub idle_max: Duration,
    /// Time in which a peer reads nothing of what it was sent.
    pub stall_max: Duration,
    /// Bytes of all requests whose messages are not whole yet, or are being answered.
    pub intake_bytes_max: u64,
    /// Time for a message to come whole, where its caller's deadline is not earlier.
    pub intake_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            requests_per_connection_max: 4096,
            idle_max: Duration::from_secs(60),
            stall_max: Duration::from_secs(30),
            intake_bytes_max: 1 << 30,
            intake_timeout: Duration::from_secs(120),
        }
    }
}

/// The room at one door.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    connections_max: usize,
    idle_max: Duration,
    stall_max: Duration,
}

impl Room {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        let connections_max = limits.connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(connections_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_AT_ONCE)),
            connections_max,
            idle_max: limits.idle_max,
            stall_max: limits.stall_max,
        }
    }

    /// A place for one more connection, if there is any.
    pub(crate) fn enter(&self) -> Option<Bound> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some(Bound {
            _place: place,
            idle_max: self.idle_max,
            stall_max: self.stall_max,
            busy: Busy::default(),
            moved: Instant::now(),
            stuck: None,
            alarm: None,
        })
    }

    /// Tells a peer that there is no room, in the words of its own protocol, if it speaks plainly.
    pub(crate) fn refuse(&self, stream: TcpStream, is_plain: bool) {
        let Ok(telling) = self.refusals.clone().try_acquire_owned() else { return };
        if !is_plain {
            return;
        }
        let message =
            format!("{} connections are open here, all that there may be; try again later", self.connections_max);
        tokio::spawn(async move {
            let refuse = service_fn(|request: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(refusal(&request, &message)))
            });
            let server = auto::Builder::new(TokioExecutor::new());
            // That it does not listen, or speaks something else, is its own loss.
            let _ = tokio::time::timeout(TELLING, server.serve_connection(TokioIo::new(stream), refuse)).await;
            drop(telling);
        });
    }
}

fn refusal<T>(request: &Request<T>, message: &str) -> Response<Body> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|form| form.as_bytes().starts_with(b"application/grpc")) {
        let error = PlatformError::new(Reason::OutOfBudget, message).retry_after(RETRY_AFTER);
        return Status::from(error).into_http();
    }
    let mut response = Response::new(Body::new(format!("{message}\n")));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
    response
}

/// Requests of a connection that are being answered: while there are any, its silence is patience. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<AtomicUsize>);

impl Busy {
    /// One more, until this is dropped.
    pub fn begin(&self) -> BusyGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        BusyGuard(self.0.clone())
    }

    fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct BusyGuard(Arc<AtomicUsize>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's place, and the watch over its silence.
#[derive(Debug)]
pub(crate) struct Bound {
    _place: OwnedSemaphorePermit,
    idle_max: Duration,
    stall_max: Duration,
    busy: Busy,
    /// When bytes moved last.
    moved: Instant,
    /// Since when the peer has taken nothing of what is to be written.
    stuck: Option<Instant>,
    /// Set while nothing moves; looked at, not moved, when something does.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Bound {
    /// Its requests being answered.
    pub(crate) fn busy(&self) -> &Busy {
        &self.busy
    }

    /// To be told of each attempt to read.
    pub(crate) fn after_read<T>(
        &mut self,
        read: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match read {
            Poll::Ready(read) => {
                self.moved = Instant::now();
                Poll::Ready(read)
            }
            Poll::Pending => self.look_at_alarm(context),
        }
    }

    /// To be told of each attempt to write.
    pub(crate) fn after_write<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(written) => {
                self.moved = Instant::now();
                self.stuck = None;
                Poll::Ready(written)
            }
            Poll::Pending => {
                self.stuck.get_or_insert_with(Instant::now);
                self.look_at_alarm(context)
            }
        }
    }

    fn look_at_alarm<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            let now = Instant::now();
            let stall = self.stuck.map(|since| (since + self.stall_max, "the peer reads nothing of what it is sent"));
            let idle = self.busy.is_idle().then(|| (self.moved + self.idle_max, "the peer is silent"));
            let due = stall.into_iter().chain(idle).min_by_key(|(at, _)| *at);
            if let Some((_, why)) = due.filter(|(at, _)| *at <= now) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            let at = due.map_or(now + self.idle_max, |(at, _)| at);
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            // An alarm that is set too early only means to look once more.
            if alarm.is_elapsed() || alarm.deadline() > at {
                alarm.as_mut().reset(at);
            }
            if alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn room(connections_max: usize) -> Room {
        Room::new(&ServerLimits { connections_max, ..ServerLimits::default() })
    }

    #[test]
    fn places_come_free_again() {
        let room = room(1);
        let first = room.enter().unwrap();
        assert!(room.enter().is_none());
        drop(first);
        assert!(room.enter().is_some());
    }

    async fn silence(bound: &mut Bound) -> io::Error {
        poll_fn(|context| bound.after_read::<()>(Poll::Pending, context)).await.unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_that_waits_for_nothing() {
        let mut bound = room(1).enter().unwrap();
        let began = Instant::now();
        assert_eq!(silence(&mut bound).await.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), ServerLimits::default().idle_max);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_for_an_answer_may_be_silent() {
        let mut bound = room(1).enter().unwrap();
        let answering = bound.busy().begin();
        let patient = tokio::time::timeout(Duration::from_secs(3600), silence(&mut bound)).await;
        assert!(patient.is_err());
        drop(answering);
        assert!(tokio::time::timeout(Duration::from_secs(3600), silence(&mut bound)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_left_though_it_waits_for_an_answer() {
        let mut bound = room(1).enter().unwrap();
        let _answering = bound.busy().begin();
        let began = Instant::now();
        let error = poll_fn(|context| bound.after_write::<()>(Poll::Pending, context)).await.unwrap_err();
        assert!(error.to_string().contains("reads nothing"), "{error}");
        assert_eq!(began.elapsed(), ServerLimits::default().stall_max);
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_stays() {
        let mut bound = room(1).enter().unwrap();
        for _ in 0..100 {
            let some = ServerLimits::default().idle_max / 2;
            assert!(tokio::time::timeout(some, silence(&mut bound)).await.is_err());
            poll_fn(|context| bound.after_read(Poll::Ready(Ok(())), context)).await.unwrap();
        }
    }
}
