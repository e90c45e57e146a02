//! Calls that wait for their outcome, by their ids.

use std::collections::HashMap;

use bytes::BytesMut;
use tokio::sync::oneshot;
use tonic::Status;

use crate::status::{PlatformError, Reason};
use crate::v1;
use crate::v1::invoke_frame::Frame;

/// How a call ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) outcome: Result<v1::InvokeResponse, Status>,
    pub(super) by: By,
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The callee, or the end of the stream.
    Callee,
    /// The callee, which closed the stream before it looked at the call.
    CalleeUnseen,
    /// This side, and the callee is to be told.
    Caller,
}

impl Ended {
    pub(super) fn failed(by: By, status: Status) -> Self {
        Self { outcome: Err(status), by }
    }
}

#[derive(Debug)]
pub(super) struct Pending {
    next_id: u64,
    calls: HashMap<u64, Waiting>,
    arriving_bytes: usize,
    answer_bytes_max: usize,
    arriving_bytes_max: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Waiting {
    /// Parts of the answer that came before it.
    parts: BytesMut,
    ending: oneshot::Sender<Ended>,
}

impl Pending {
    pub(super) fn new(answer_bytes_max: usize, arriving_bytes_max: usize) -> Self {
        let calls = HashMap::new();
        Self { next_id: 0, calls, arriving_bytes: 0, answer_bytes_max, arriving_bytes_max, is_closed: false }
    }

    /// One more call, unless the stream takes no more.
    pub(super) fn begin(&mut self, ending: oneshot::Sender<Ended>) -> Option<u64> {
        if self.is_closed {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.calls.insert(id, Waiting { parts: BytesMut::new(), ending });
        Some(id)
    }

    /// Takes a frame in. One of a call that nobody waits for any more is of no use and no fault.
    pub(super) fn take(&mut self, frame: v1::InvokeFrame) {
        let id = frame.id;
        match frame.frame {
            Some(Frame::Part(part)) => self.part(id, &part.data),
            Some(Frame::Reply(reply)) => self.reply(id, reply),
            Some(Frame::Failure(failure)) => {
                self.end(id, Ended::failed(By::Callee, PlatformError::of_failure(failure).into()));
            }
            Some(Frame::Leave(_)) => self.is_closed = true,
            Some(Frame::Open(_) | Frame::Cancel(_)) | None => {
                let message = "the peer sent a frame that only callers send; is it of the same release?";
                self.end(id, Ended::failed(By::Caller, PlatformError::new(Reason::Protocol, message).into()));
            }
        }
    }

    fn part(&mut self, id: u64, data: &[u8]) {
        let Some(waiting) = self.calls.get_mut(&id) else { return };
        waiting.parts.extend_from_slice(data);
        let bytes = waiting.parts.len();
        self.arriving_bytes += data.len();
        if bytes > self.answer_bytes_max {
            self.end(id, Ended::failed(By::Caller, too_large(self.answer_bytes_max)));
        } else if self.arriving_bytes > self.arriving_bytes_max {
            let message = format!(
                "answers of over {} bytes are arriving at once on one stream; make fewer calls at once",
                self.arriving_bytes_max
            );
            self.end(id, Ended::failed(By::Caller, PlatformError::new(Reason::OutOfBudget, message).into()));
        }
    }

    fn reply(&mut self, id: u64, mut reply: v1::InvokeResponse) {
        let Some(waiting) = self.calls.get_mut(&id) else { return };
        let (before, limit) = (std::mem::take(&mut waiting.parts), self.answer_bytes_max);
        self.arriving_bytes -= before.len();
        if let Some(v1::invoke_response::Outcome::Answer(answer)) = &mut reply.outcome {
            if before.len() + answer.payload.len() > limit {
                return self.end(id, Ended::failed(By::Callee, too_large(limit)));
            }
            if !before.is_empty() {
                let mut payload = before;
                payload.extend_from_slice(&answer.payload);
                answer.payload = payload.freeze();
            }
        }
        self.end(id, Ended { outcome: Ok(reply), by: By::Callee });
    }

    fn end(&mut self, id: u64, ended: Ended) {
        if let Some(ending) = self.forget(id) {
            // Whoever has stopped waiting has no use for it.
            let _ = ending.send(ended);
        }
    }

    pub(super) fn forget(&mut self, id: u64) -> Option<oneshot::Sender<Ended>> {
        let waiting = self.calls.remove(&id)?;
        self.arriving_bytes -= waiting.parts.len();
        Some(waiting.ending)
    }

    /// It takes no more calls.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// … and none is under way.
    pub(super) fn is_done(&self) -> bool {
        self.is_closed && self.calls.is_empty()
    }

    /// The stream is over, and so are all its calls.
    pub(super) fn end_all(&mut self, ended: &Ended) {
        self.is_closed = true;
        for (_, waiting) in self.calls.drain() {
            let _ = waiting.ending.send(ended.clone());
        }
        self.arriving_bytes = 0;
    }
}

fn too_large(limit: usize) -> Status {
    let message = format!("the answer has over {limit} bytes, the limit of this caller");
    PlatformError::new(Reason::TooLarge, message).into()
}
