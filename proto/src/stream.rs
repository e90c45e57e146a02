//! The callee's side of `InvokeStream`: many calls on one stream, payloads in parts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::call::{Call, CallLimits, check_payload};
use crate::deadline;
use crate::ingress::Handler;
use crate::reply::{Outcome, Reply};
use crate::status::{PlatformError, Reason};
use crate::v1;
use crate::v1::invoke_frame::Frame;

/// Calls under way on one stream, at most, those whose payload is still arriving included.
const CALLS_MAX: usize = 1024;
/// Bytes of all payloads still arriving on one stream, in multiples of the largest payload.
const ARRIVING_PAYLOADS_MAX: usize = 4;
/// Frames ready to be sent before their calls have to wait.
const SEND_QUEUE: usize = 64;
/// Bytes of a payload in one frame.
const PART_BYTES: usize = 256 << 10;

/// A call whose payload is still arriving.
struct Arriving {
    request: v1::InvokeRequest,
    timeout: Option<Duration>,
    /// When its time began to run.
    opened: Instant,
    payload: BytesMut,
}

/// The state of one stream: what is arriving, what is running.
struct Session<H> {
    handler: Arc<H>,
    limits: CallLimits,
    arriving: HashMap<u64, Arriving>,
    arriving_bytes: usize,
    running: HashMap<u64, AbortHandle>,
    replies: mpsc::Sender<Result<v1::InvokeFrame, Status>>,
    done: mpsc::UnboundedSender<u64>,
}

/// Serves one stream until its caller ends it and all calls have been answered; a caller that goes away cancels them.
pub(crate) fn serve<H: Handler>(
    handler: Arc<H>,
    limits: CallLimits,
    mut frames: Streaming<v1::InvokeFrame>,
) -> impl Stream<Item = Result<v1::InvokeFrame, Status>> {
    let (replies, outgoing) = mpsc::channel(SEND_QUEUE);
    tokio::spawn(async move {
        // Unbounded, yet never longer than the calls under way, which are.
        let (done, mut ended) = mpsc::unbounded_channel();
        let gone = replies.clone();
        let mut session = Session {
            handler,
            limits,
            arriving: HashMap::new(),
            arriving_bytes: 0,
            running: HashMap::new(),
            replies,
            done,
        };
        loop {
            tokio::select! {
                frame = frames.next() => match frame {
                    Some(Ok(frame)) => session.take(frame).await,
                    Some(Err(_)) => return session.cancel_all(),
                    None => break,
                },
                Some(id) = ended.recv() => { session.running.remove(&id); }
                () = gone.closed() => return session.cancel_all(),
            }
        }
        while !session.running.is_empty() {
            tokio::select! {
                Some(id) = ended.recv() => { session.running.remove(&id); }
                () = gone.closed() => return session.cancel_all(),
            }
        }
    });
    ReceiverStream::new(outgoing)
}

impl<H: Handler> Session<H> {
    async fn take(&mut self, frame: v1::InvokeFrame) {
        let id = frame.id;
        let taken = match frame.frame {
            Some(Frame::Open(open)) => self.open(id, open),
            Some(Frame::Part(part)) => self.part(id, &part),
            Some(Frame::Cancel(v1::CancelCall {})) => {
                self.forget(id);
                Ok(())
            }
            Some(Frame::Reply(_) | Frame::Failure(_)) | None => {
                Err(PlatformError::malformed("a frame that callers do not send; open, part and cancel are theirs"))
            }
        };
        if let Err(error) = taken {
            self.forget(id);
            // A send fails only when the caller is gone, which the session notices by itself.
            let _ = self.replies.send(Ok(failure(id, &error))).await;
        }
    }

    fn open(&mut self, id: u64, open: v1::OpenCall) -> Result<(), PlatformError> {
        if self.arriving.contains_key(&id) || self.running.contains_key(&id) {
            return Err(PlatformError::malformed(format!("call {id} is already under way on this stream")));
        }
        if self.arriving.len() + self.running.len() >= CALLS_MAX {
            return Err(PlatformError::new(
                Reason::QueueFull,
                format!("over {CALLS_MAX} calls on one stream; wait for answers or open another"),
            ));
        }
        let mut request = open.request.ok_or_else(|| PlatformError::malformed("an open frame without a request"))?;
        let timeout = (open.timeout_us > 0).then(|| Duration::from_micros(open.timeout_us));
        let opened = Instant::now();
        if !open.more {
            return self.start(id, request, timeout, opened);
        }
        let payload = BytesMut::from(std::mem::take(&mut request.payload));
        self.arriving_bytes += payload.len();
        self.arriving.insert(id, Arriving { request, timeout, opened, payload });
        self.check_arriving(id)
    }

    fn part(&mut self, id: u64, part: &v1::PayloadPart) -> Result<(), PlatformError> {
        // A call that was refused or cancelled may have parts under way still; they are of no use and no fault.
        let Some(arriving) = self.arriving.get_mut(&id) else { return Ok(()) };
        arriving.payload.extend_from_slice(&part.data);
        self.arriving_bytes += part.data.len();
        self.check_arriving(id)?;
        if part.more {
            return Ok(());
        }
        let Some(mut arrived) = self.arriving.remove(&id) else { return Ok(()) };
        self.arriving_bytes -= arrived.payload.len();
        arrived.request.payload = arrived.payload.freeze();
        self.start(id, arrived.request, arrived.timeout, arrived.opened)
    }

    fn check_arriving(&self, id: u64) -> Result<(), PlatformError> {
        check_payload(self.arriving.get(&id).map_or(0, |arriving| arriving.payload.len()), &self.limits)?;
        if self.arriving_bytes > ARRIVING_PAYLOADS_MAX * self.limits.payload_bytes_max {
            return Err(PlatformError::new(
                Reason::OutOfBudget,
                "too many payloads arriving at once on one stream; send them one after the other",
            ));
        }
        Ok(())
    }

    fn start(
        &mut self,
        id: u64,
        request: v1::InvokeRequest,
        timeout: Option<Duration>,
        opened: Instant,
    ) -> Result<(), PlatformError> {
        let arrived = Instant::now();
        let timeout = timeout.map(|timeout| deadline::left_to_answer(timeout, opened, arrived));
        let call = Call::from_wire(request, timeout, &self.limits, arrived)?;
        let (handler, replies, done) = (self.handler.clone(), self.replies.clone(), self.done.clone());
        let task = tokio::spawn(async move {
            let deadline = tokio::time::Instant::from_std(call.deadline);
            let outcome = tokio::time::timeout_at(deadline, handler.handle(call, arrived)).await.unwrap_or_else(|_| {
                Err(PlatformError::new(Reason::Late, "the deadline passed while the call was under way"))
            });
            match outcome {
                Ok(reply) => send_reply(id, reply, &replies).await,
                Err(error) => drop(replies.send(Ok(failure(id, &error))).await),
            }
            let _ = done.send(id);
        });
        self.running.insert(id, task.abort_handle());
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        if let Some(arriving) = self.arriving.remove(&id) {
            self.arriving_bytes -= arriving.payload.len();
        }
        if let Some(running) = self.running.remove(&id) {
            running.abort();
        }
    }

    fn cancel_all(&mut self) {
        self.running.values().for_each(AbortHandle::abort);
    }
}

async fn send_reply(id: u64, mut reply: Reply, replies: &mpsc::Sender<Result<v1::InvokeFrame, Status>>) {
    if let Outcome::Answer { payload, .. } = &mut reply.outcome {
        while payload.len() > PART_BYTES {
            let part = v1::PayloadPart { data: payload.split_to(PART_BYTES), more: true };
            if replies.send(Ok(v1::InvokeFrame { id, frame: Some(Frame::Part(part)) })).await.is_err() {
                return;
            }
        }
    }
    let _ = replies.send(Ok(v1::InvokeFrame { id, frame: Some(Frame::Reply(reply.into_wire())) })).await;
}

fn failure(id: u64, error: &PlatformError) -> v1::InvokeFrame {
    v1::InvokeFrame { id, frame: Some(Frame::Failure(error.to_failure())) }
}

/// Cuts a payload into the parts of a stream, so that no frame is larger than others can pass by.
pub fn parts(mut payload: Bytes) -> impl Iterator<Item = v1::PayloadPart> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let data = payload.split_to(payload.len().min(PART_BYTES));
        ended = payload.is_empty();
        Some(v1::PayloadPart { data, more: !ended })
    })
}
