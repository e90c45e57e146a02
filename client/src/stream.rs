//! Many calls on one stream: pipelined, their payloads in parts, each cancelled by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::v1::invoke_frame::Frame;
use nigh_proto::{Call, PlatformError, Reason, Reply, parts, v1};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::call::{CallerLimits, with_network};
use crate::peer::Peer;

/// Time to open a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames that wait for the connection before their calls have to.
const FRAMES_QUEUED_MAX: usize = 64;
/// Payloads travelling in parts at once on one stream: one less than a callee takes.
const UPLOADS_MAX: usize = 3;

/// One stream to a broker with many calls under way on it. Once it breaks, every call fails; open another then.
#[derive(Debug)]
pub struct CallStream {
    peer: Peer,
    /// Unbounded, yet never longer than [`FRAMES_QUEUED_MAX`] and one cancellation for each call: whoever puts a frame in
    /// holds a place that is given back when the frame leaves.
    frames: mpsc::UnboundedSender<Outgoing>,
    room: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    uploads: Semaphore,
    pending: Arc<Mutex<Pending>>,
    _reader: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Outgoing {
    frame: v1::InvokeFrame,
    _place: OwnedSemaphorePermit,
}

impl CallStream {
    pub(crate) async fn open(
        peer: Peer,
        mut client: FunctionsClient<Channel>,
        limits: &CallerLimits,
    ) -> Result<Self, PlatformError> {
        let (frames, outgoing) = mpsc::unbounded_channel::<Outgoing>();
        let outgoing = UnboundedReceiverStream::new(outgoing).map(|outgoing| outgoing.frame);
        let incoming = peer.request_within(OPEN_TIMEOUT, client.invoke_stream(outgoing)).await?;
        let pending = Arc::new(Mutex::new(Pending::new(limits)));
        let reader = tokio::spawn(read(incoming, pending.clone(), peer.clone()));
        Ok(Self {
            peer,
            frames,
            room: Arc::new(Semaphore::new(FRAMES_QUEUED_MAX)),
            calls: Arc::new(Semaphore::new(limits.stream_calls_max)),
            uploads: Semaphore::new(UPLOADS_MAX),
            pending,
            _reader: AbortOnDropHandle::new(reader),
        })
    }

    /// Makes one call and waits for its outcome, no longer than its deadline. Dropping the future cancels the call.
    ///
    /// # Errors
    /// As [`Caller::invoke`](crate::Caller::invoke).
    pub async fn invoke(&self, call: Call) -> Result<Reply, PlatformError> {
        let given = call.time_left(Instant::now());
        let deadline = tokio::time::Instant::from_std(call.deadline);
        tokio::time::timeout_at(deadline, self.exchange(call)).await.unwrap_or_else(|_| Err(self.peer.silent(given)))
    }

    async fn exchange(&self, call: Call) -> Result<Reply, PlatformError> {
        let place = place(&self.calls).await;
        let sent = Instant::now();
        let (ending, ended) = oneshot::channel();
        let id = self.pending.lock().begin(ending)?;
        let mut under_way = UnderWay { stream: self, id, place: Some(place), is_ended: false };
        self.send(id, &call).await;
        let Ok(ending) = ended.await else {
            return Err(PlatformError::new(Reason::Internal, "a call was dropped by its own stream"));
        };
        under_way.is_ended = ending.by_callee;
        let reply = Reply::from_wire(ending.outcome?)?;
        Ok(with_network(reply, sent.elapsed()))
    }

    /// Sends one call; a stream that breaks meanwhile is noticed by its reader.
    async fn send(&self, id: u64, call: &Call) {
        let mut parts = parts(call.payload.clone());
        let first = parts.next().unwrap_or_default();
        // The place is kept until the last part is on its way.
        let _upload = if first.more { self.uploads.acquire().await.ok() } else { None };
        let mut request = Call { payload: Bytes::new(), ..call.clone() }.to_wire();
        request.payload = first.data;
        // On the wire, 0 would stand for the callee's default.
        let left = u64::try_from(call.time_left(Instant::now()).as_micros()).unwrap_or(u64::MAX).max(1);
        let open = v1::OpenCall { request: Some(request), timeout_us: left, more: first.more };
        self.enqueue(id, Frame::Open(open)).await;
        for part in parts {
            self.enqueue(id, Frame::Part(part)).await;
        }
    }

    async fn enqueue(&self, id: u64, frame: Frame) {
        let place = place(&self.room).await;
        let _ = self.frames.send(Outgoing { frame: v1::InvokeFrame { id, frame: Some(frame) }, _place: place });
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    places.clone().acquire_owned().await.expect("a stream's semaphores are never closed")
}

/// A call between its first frame and its end; dropped before that, it tells the callee to stop.
struct UnderWay<'a> {
    stream: &'a CallStream,
    id: u64,
    place: Option<OwnedSemaphorePermit>,
    is_ended: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.stream.pending.lock().forget(self.id);
        if let (false, Some(place)) = (self.is_ended, self.place.take()) {
            let frame = v1::InvokeFrame { id: self.id, frame: Some(Frame::Cancel(v1::CancelCall {})) };
            let _ = self.stream.frames.send(Outgoing { frame, _place: place });
        }
    }
}

/// How a call ended.
#[derive(Debug)]
struct Ending {
    outcome: Result<v1::InvokeResponse, PlatformError>,
    /// The callee knows of it.
    by_callee: bool,
}

/// Calls that wait for their outcome.
#[derive(Debug)]
struct Pending {
    next_id: u64,
    calls: HashMap<u64, Waiting>,
    arriving_bytes: usize,
    answer_bytes_max: usize,
    arriving_bytes_max: usize,
    /// Why the stream is over, once it is.
    over: Option<PlatformError>,
}

#[derive(Debug)]
struct Waiting {
    /// Parts of the answer that came before it.
    parts: BytesMut,
    ending: oneshot::Sender<Ending>,
}

impl Pending {
    fn new(limits: &CallerLimits) -> Self {
        Self {
            next_id: 0,
            calls: HashMap::new(),
            arriving_bytes: 0,
            answer_bytes_max: limits.answer_bytes_max,
            arriving_bytes_max: limits.stream_answer_bytes_max,
            over: None,
        }
    }

    fn begin(&mut self, ending: oneshot::Sender<Ending>) -> Result<u64, PlatformError> {
        if let Some(error) = &self.over {
            // The call was not sent, whatever became of those before it.
            return Err(PlatformError::new(Reason::Unreachable, format!("the stream is over: {error}; open another")));
        }
        let id = self.next_id;
        self.next_id += 1;
        self.calls.insert(id, Waiting { parts: BytesMut::new(), ending });
        Ok(id)
    }

    /// Takes a frame in. One of a call that nobody waits for any more is of no use and no fault.
    fn take(&mut self, frame: v1::InvokeFrame) {
        let id = frame.id;
        match frame.frame {
            Some(Frame::Part(part)) => self.part(id, &part.data),
            Some(Frame::Reply(reply)) => self.reply(id, reply),
            Some(Frame::Failure(failure)) => self.end(id, Err(failed(failure)), true),
            Some(Frame::Open(_) | Frame::Cancel(_)) | None => {
                let message = "the peer sent a frame that only callers send; is it of the same release?";
                self.end(id, Err(PlatformError::new(Reason::Protocol, message)), false);
            }
        }
    }

    fn part(&mut self, id: u64, data: &[u8]) {
        let Some(waiting) = self.calls.get_mut(&id) else { return };
        waiting.parts.extend_from_slice(data);
        let bytes = waiting.parts.len();
        self.arriving_bytes += data.len();
        if bytes > self.answer_bytes_max {
            self.end(id, Err(too_large(self.answer_bytes_max)), false);
        } else if self.arriving_bytes > self.arriving_bytes_max {
            let message = format!(
                "answers of over {} bytes are arriving at once on one stream; make fewer calls at once",
                self.arriving_bytes_max
            );
            self.end(id, Err(PlatformError::new(Reason::OutOfBudget, message)), false);
        }
    }

    fn reply(&mut self, id: u64, mut reply: v1::InvokeResponse) {
        let Some(waiting) = self.calls.get_mut(&id) else { return };
        let (before, limit) = (std::mem::take(&mut waiting.parts), self.answer_bytes_max);
        self.arriving_bytes -= before.len();
        if let Some(v1::invoke_response::Outcome::Answer(answer)) = &mut reply.outcome {
            if before.len() + answer.payload.len() > limit {
                return self.end(id, Err(too_large(limit)), true);
            }
            if !before.is_empty() {
                let mut payload = before;
                payload.extend_from_slice(&answer.payload);
                answer.payload = payload.freeze();
            }
        }
        self.end(id, Ok(reply), true);
    }

    fn end(&mut self, id: u64, outcome: Result<v1::InvokeResponse, PlatformError>, by_callee: bool) {
        if let Some(waiting) = self.forget(id) {
            // Whoever has stopped waiting has no use for it.
            let _ = waiting.ending.send(Ending { outcome, by_callee });
        }
    }

    fn forget(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.calls.remove(&id)?;
        self.arriving_bytes -= waiting.parts.len();
        Some(waiting)
    }

    fn fail_all(&mut self, error: &PlatformError) {
        self.over = Some(error.clone());
        for (_, waiting) in self.calls.drain() {
            let _ = waiting.ending.send(Ending { outcome: Err(error.clone()), by_callee: true });
        }
        self.arriving_bytes = 0;
    }
}

async fn read(mut frames: Streaming<v1::InvokeFrame>, pending: Arc<Mutex<Pending>>, peer: Peer) {
    let error = loop {
        match frames.message().await {
            Ok(Some(frame)) => pending.lock().take(frame),
            Ok(None) => {
                let message = format!("the broker at {} ended the stream; open another", peer.endpoint());
                break PlatformError::new(Reason::Disconnected, message);
            }
            Err(status) => break peer.explain(status),
        }
    };
    pending.lock().fail_all(&error);
}

fn too_large(limit: usize) -> PlatformError {
    PlatformError::new(Reason::TooLarge, format!("the answer has over {limit} bytes, the limit of this caller"))
}

fn failed(failure: v1::CallFailure) -> PlatformError {
    let mut error = match Reason::of_word(&failure.reason) {
        Some(reason) => PlatformError::new(reason, failure.message),
        None => Status::new(Code::from(failure.code), failure.message).into(),
    };
    error.retry_after = (failure.retry_after_ms > 0).then(|| Duration::from_millis(failure.retry_after_ms));
    error
}
