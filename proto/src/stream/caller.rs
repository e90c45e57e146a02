//! The caller's side: one stream with many calls under way on it, each of which is cancelled by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use self::pending::{By, Ended, Pending};
use super::parts;
use crate::call::Call;
use crate::status::{self, PlatformError, Reason};
use crate::time::us;
use crate::v1;
use crate::v1::functions_client::FunctionsClient;
use crate::v1::invoke_frame::Frame;

mod pending;

/// Frames of payloads in parts that wait for the connection before their calls have to.
const PARTS_QUEUED_MAX: usize = 64;
/// Payloads travelling in parts at once on one stream: one less than a callee takes.
const UPLOADS_MAX: usize = 3;

/// What a caller has under way on one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLimits {
    /// Calls at once; further ones wait.
    pub calls_max: usize,
    /// Bytes of one answer's payload.
    pub answer_bytes_max: usize,
    /// Bytes of all answers that are arriving in parts.
    pub answers_bytes_max: usize,
}

/// One stream to a callee. Once it breaks, every call fails; open another then.
#[derive(Debug)]
pub struct CallStream {
    line: Arc<Line>,
    calls: Arc<Semaphore>,
    parts: Arc<Semaphore>,
    uploads: Semaphore,
    _reader: AbortOnDropHandle<()>,
}

/// What calls and the reader of their answers share.
#[derive(Debug)]
struct Line {
    /// Unbounded, yet never longer than the calls under way and [`PARTS_QUEUED_MAX`]: whoever puts a frame in holds a place,
    /// which the last frame of a call that is cancelled takes with it.
    frames: mpsc::UnboundedSender<Outgoing>,
    pending: Mutex<Pending>,
    is_over: AtomicBool,
}

#[derive(Debug)]
struct Outgoing {
    /// Nothing: this side of the stream ends.
    frame: Option<v1::InvokeFrame>,
    _place: Option<OwnedSemaphorePermit>,
}

impl CallStream {
    /// Opens a stream to whom this client is connected.
    ///
    /// # Errors
    /// The callee's status, or the connection's.
    pub async fn open(mut client: FunctionsClient<Channel>, limits: &StreamLimits) -> Result<Self, Status> {
        let (frames, outgoing) = mpsc::unbounded_channel::<Outgoing>();
        let outgoing = UnboundedReceiverStream::new(outgoing).map_while(|outgoing| outgoing.frame);
        let incoming = client.invoke_stream(outgoing).await?.into_inner();
        let pending = Mutex::new(Pending::new(limits.answer_bytes_max, limits.answers_bytes_max));
        let line = Arc::new(Line { frames, pending, is_over: AtomicBool::new(false) });
        let reader = tokio::spawn(read(incoming, line.clone()));
        Ok(Self {
            line,
            calls: Arc::new(Semaphore::new(limits.calls_max)),
            parts: Arc::new(Semaphore::new(PARTS_QUEUED_MAX)),
            uploads: Semaphore::new(UPLOADS_MAX),
            _reader: AbortOnDropHandle::new(reader),
        })
    }

    /// No more calls can be made on it.
    pub fn is_over(&self) -> bool {
        self.line.is_over.load(Ordering::Relaxed)
    }

    /// Makes one call and waits for its outcome, however long that takes. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The callee's status for this call, or what ended the stream.
    pub async fn invoke(&self, call: &Call) -> Result<v1::InvokeResponse, Status> {
        let place = self.calls.clone().acquire_owned().await.map_err(|_| over())?;
        match self.begin(place) {
            Some(under_way) => under_way.make(call).await.map_err(Unanswered::into_status),
            None => Err(over()),
        }
    }

    /// Begins a call, if the stream is not over and has room for it now.
    pub(super) fn try_begin(&self) -> Option<UnderWay<'_>> {
        let place = self.calls.clone().try_acquire_owned().ok()?;
        self.begin(place)
    }

    fn begin(&self, place: OwnedSemaphorePermit) -> Option<UnderWay<'_>> {
        let (ending, ended) = oneshot::channel();
        let id = self.line.pending.lock().begin(ending)?;
        Some(UnderWay { stream: self, id, place: Some(place), ended })
    }

    /// Sends one call; a stream that breaks meanwhile is noticed by its reader.
    async fn send(&self, id: u64, call: &Call) {
        let mut parts = parts(call.payload.clone());
        let first = parts.next().unwrap_or_default();
        // The place is kept until the last part is on its way.
        let _upload = if first.more { self.uploads.acquire().await.ok() } else { None };
        let request = v1::InvokeRequest { payload: first.data, ..call.to_wire_without_payload() };
        // On the wire, 0 would stand for the callee's default.
        let left = us(call.time_left(Instant::now())).max(1);
        let open = v1::OpenCall { request: Some(request), timeout_us: left, more: first.more };
        self.line.enqueue(id, Frame::Open(open), None);
        for part in parts {
            let place = self.parts.clone().acquire_owned().await.ok();
            self.line.enqueue(id, Frame::Part(part), place);
        }
    }
}

impl Line {
    fn enqueue(&self, id: u64, frame: Frame, place: Option<OwnedSemaphorePermit>) {
        // Nobody takes it only where the stream is over, which its reader tells.
        let _ = self.frames.send(Outgoing { frame: Some(v1::InvokeFrame { id, frame: Some(frame) }), _place: place });
    }

    /// Ends this side of the stream where the callee wants it to end and no call is under way.
    fn end_if_done(&self, pending: &Pending) {
        if pending.is_done() {
            let _ = self.frames.send(Outgoing { frame: None, _place: None });
        }
    }
}

/// A call between its beginning and its end; dropped before that, it tells the callee to stop.
#[derive(Debug)]
pub(super) struct UnderWay<'a> {
    stream: &'a CallStream,
    id: u64,
    /// Given back when the callee knows that the call is over.
    place: Option<OwnedSemaphorePermit>,
    ended: oneshot::Receiver<Ended>,
}

/// Why a call has no outcome.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The callee says so, or the stream broke.
    Status(Status),
    /// The callee closed the stream without having looked at the call.
    NotLookedAt(Status),
}

impl Unanswered {
    fn into_status(self) -> Status {
        match self {
            Self::Status(status) | Self::NotLookedAt(status) => status,
        }
    }
}

impl UnderWay<'_> {
    pub(super) async fn make(mut self, call: &Call) -> Result<v1::InvokeResponse, Unanswered> {
        self.stream.send(self.id, call).await;
        let Ok(Ended { outcome, by }) = (&mut self.ended).await else {
            return Err(Unanswered::Status(over()));
        };
        if by != By::Caller {
            self.place = None;
        }
        outcome.map_err(|status| match by {
            By::Callee | By::Caller => Unanswered::Status(status),
            By::CalleeUnseen => Unanswered::NotLookedAt(status),
        })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let line = &self.stream.line;
            let mut pending = line.pending.lock();
            pending.forget(self.id);
            line.enqueue(self.id, Frame::Cancel(v1::CancelCall {}), Some(place));
            line.end_if_done(&pending);
        }
    }
}

async fn read(mut frames: Streaming<v1::InvokeFrame>, line: Arc<Line>) {
    let end = loop {
        match frames.message().await {
            Ok(Some(frame)) => {
                let mut pending = line.pending.lock();
                pending.take(frame);
                if pending.is_closed() {
                    line.is_over.store(true, Ordering::Relaxed);
                    line.end_if_done(&pending);
                }
            }
            Ok(None) => break Ended::failed(By::Callee, broken("the callee ended the stream")),
            Err(status) => break end_of(status),
        }
    };
    line.is_over.store(true, Ordering::Relaxed);
    line.pending.lock().end_all(&end);
}

/// What the end of a stream means for calls without an answer.
fn end_of(status: Status) -> Ended {
    if !status::names_reason(&status) {
        // What the layers below say of a request that was never sent does not hold for the calls on a stream.
        let cause = status::innermost_cause(&status).unwrap_or_else(|| status.message().to_owned());
        return Ended::failed(By::Callee, broken(&cause));
    }
    let by = match PlatformError::from(status.clone()).reason {
        Reason::NotServing => By::CalleeUnseen,
        _ => By::Callee,
    };
    Ended::failed(by, status)
}

/// The connection broke, or whoever is at its other end left: what was sent may have run.
fn broken(cause: &str) -> Status {
    let mut status = Status::unavailable(format!("the stream broke: {cause}"));
    status.set_source(Arc::new(Broken(cause.to_owned())));
    status
}

/// Why a stream broke.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

/// The call was not sent, whatever became of those before it.
fn over() -> Status {
    PlatformError::new(Reason::Unreachable, "the stream is over; open another").into()
}
