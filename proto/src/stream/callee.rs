//! The callee's side: one stream and all its calls are polled by whoever sends its answers, so that a call costs no task and
//! no channel, and answers that are there together leave together.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::future::{AbortHandle, AbortRegistration, Abortable, BoxFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, Streaming};

use self::answers::Answers;
use self::watch::{Sign, Watch};
use crate::call::{Call, CallLimits, check_payload};
use crate::connections::ServerLimits;
use crate::deadline;
use crate::ingress::Handler;
use crate::intake::{Intake, Share};
use crate::reply::Reply;
use crate::status::{PlatformError, Reason};
use crate::time::asked;
use crate::v1;
use crate::v1::invoke_frame::Frame;

mod answers;
mod watch;

/// Calls under way on one stream, at most, those whose payload is still arriving included.
const CALLS_MAX: usize = 1024;
/// Bytes of all payloads still arriving on one stream, in multiples of the largest payload.
const ARRIVING_PAYLOADS_MAX: usize = 4;
/// Frames taken in before others have their turn on the thread.
const FRAMES_AT_ONCE_MAX: usize = 64;
/// Times that frames are looked for before that.
const TURNS_MAX: usize = 4;

/// What a stream's callee accepts, and until when it serves.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) calls: CallLimits,
    /// Time that a stream may have no calls.
    pub(crate) idle_max: Duration,
    /// Time for a payload to come whole.
    pub(crate) intake_timeout: Duration,
    /// No more calls are taken then, and each stream ends with the last of its calls.
    pub(crate) stop: CancellationToken,
}

impl Serving {
    pub(crate) fn new(calls: CallLimits, server: &ServerLimits, stop: CancellationToken) -> Self {
        Self { calls, idle_max: server.idle_max, intake_timeout: server.intake_timeout, stop }
    }
}

/// A call whose payload is still arriving.
struct Arriving {
    request: v1::InvokeRequest,
    timeout: Option<Duration>,
    /// When its time began to run.
    opened: tokio::time::Instant,
    payload: BytesMut,
    share: Share,
}

/// A call whose payload is there.
struct Whole {
    request: v1::InvokeRequest,
    timeout: Option<Duration>,
    opened: tokio::time::Instant,
    share: Share,
}

/// A call on its way to its outcome.
type Handling = BoxFuture<'static, (u64, Result<Reply, PlatformError>)>;

struct Newest {
    id: u64,
    handling: Handling,
    registration: AbortRegistration,
}

/// One stream, served until its caller ends it and all calls have been answered. Dropped, as when its caller goes away, it
/// cancels them.
pub struct Session<H> {
    handler: Arc<H>,
    serving: Serving,
    /// What all requests at this door hold.
    intake: Intake,
    /// Nothing once the caller has sent its last frame.
    frames: Option<Streaming<v1::InvokeFrame>>,
    arriving: HashMap<u64, Arriving>,
    arriving_bytes: usize,
    running: FuturesUnordered<Abortable<Handling>>,
    /// The call that began last, of those that came together.
    newest: Option<Newest>,
    handles: HashMap<u64, AbortHandle>,
    answers: Answers,
    watch: Watch,
    /// A call has come since the watch looked last.
    is_used: bool,
    /// The caller has been told to make no more calls on it.
    is_leaving: bool,
    /// No more calls are taken.
    is_closed: bool,
}

impl<H> fmt::Debug for Session<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("calls", &self.handles.len()).finish_non_exhaustive()
    }
}

impl<H: Handler> Session<H> {
    pub(crate) fn new(handler: Arc<H>, serving: Serving, request: Request<Streaming<v1::InvokeFrame>>) -> Self {
        let intake = request.extensions().get().cloned().unwrap_or_else(|| Intake::new(&ServerLimits::default()));
        Self {
            handler,
            intake,
            frames: Some(request.into_inner()),
            arriving: HashMap::new(),
            arriving_bytes: 0,
            running: FuturesUnordered::new(),
            newest: None,
            handles: HashMap::new(),
            answers: Answers::default(),
            watch: Watch::begin(serving.stop.clone(), serving.idle_max),
            is_used: true,
            is_leaving: false,
            is_closed: false,
            serving,
        }
    }

    fn has_calls(&self) -> bool {
        !self.arriving.is_empty() || !self.handles.is_empty()
    }

    fn take(&mut self, frame: v1::InvokeFrame) {
        let id = frame.id;
        let taken = match frame.frame {
            Some(Frame::Open(open)) => self.open(id, open),
            Some(Frame::Part(part)) => self.part(id, &part),
            Some(Frame::Cancel(v1::CancelCall {})) => {
                self.forget(id);
                Ok(())
            }
            Some(Frame::Reply(_) | Frame::Failure(_) | Frame::Leave(_)) | None => {
                Err(PlatformError::malformed("a frame that callers do not send; open, part and cancel are theirs"))
            }
        };
        if let Err(error) = taken {
            self.forget(id);
            self.answers.fail(id, &error);
        }
    }

    fn open(&mut self, id: u64, open: v1::OpenCall) -> Result<(), PlatformError> {
        self.is_used = true;
        if self.is_closed {
            return Err(closed());
        }
        if self.arriving.contains_key(&id) || self.handles.contains_key(&id) {
            return Err(PlatformError::malformed(format!("call {id} is already under way on this stream")));
        }
        if self.arriving.len() + self.handles.len() >= CALLS_MAX {
            return Err(PlatformError::new(
                Reason::QueueFull,
                format!("over {CALLS_MAX} calls on one stream; wait for answers or open another"),
            ));
        }
        let share = self.intake.share();
        let mut request = open.request.ok_or_else(|| PlatformError::malformed("an open frame without a request"))?;
        let timeout = asked(open.timeout_us);
        let opened = tokio::time::Instant::now();
        // As a request by itself counts: with all that it brings.
        share.take(request.encoded_len() as u64)?;
        if !open.more {
            return self.start(id, Whole { request, timeout, opened, share });
        }
        let payload = BytesMut::from(std::mem::take(&mut request.payload));
        self.arriving_bytes += payload.len();
        self.arriving.insert(id, Arriving { request, timeout, opened, payload, share });
        self.check_arriving(id)
    }

    fn part(&mut self, id: u64, part: &v1::PayloadPart) -> Result<(), PlatformError> {
        // A call that was refused or cancelled may have parts under way still; they are of no use and no fault.
        let Some(arriving) = self.arriving.get_mut(&id) else { return Ok(()) };
        arriving.share.take(part.data.len() as u64)?;
        arriving.payload.extend_from_slice(&part.data);
        self.arriving_bytes += part.data.len();
        self.check_arriving(id)?;
        if part.more {
            return Ok(());
        }
        let Some(arrived) = self.arriving.remove(&id) else { return Ok(()) };
        self.arriving_bytes -= arrived.payload.len();
        let Arriving { request, timeout, opened, payload, share } = arrived;
        let request = v1::InvokeRequest { payload: payload.freeze(), ..request };
        self.start(id, Whole { request, timeout, opened, share })
    }

    fn check_arriving(&self, id: u64) -> Result<(), PlatformError> {
        let limits = &self.serving.calls;
        check_payload(self.arriving.get(&id).map_or(0, |arriving| arriving.payload.len()), limits)?;
        if self.arriving_bytes > ARRIVING_PAYLOADS_MAX * limits.payload_bytes_max {
            return Err(PlatformError::new(
                Reason::OutOfBudget,
                "too many payloads arriving at once on one stream; send them one after the other",
            ));
        }
        Ok(())
    }

    fn start(&mut self, id: u64, whole: Whole) -> Result<(), PlatformError> {
        let Whole { request, timeout, opened, share } = whole;
        let arrived = Instant::now();
        let timeout = timeout.map(|timeout| deadline::left_to_answer(timeout, opened.into_std(), arrived));
        let call = Call::from_wire(request, timeout, &self.serving.calls, arrived)?;
        let handler = self.handler.clone();
        let handling = async move {
            let _share = share;
            let deadline = tokio::time::Instant::from_std(call.deadline);
            // A defect that one call meets is no end of the others.
            let handled = AssertUnwindSafe(handler.handle(call, arrived)).catch_unwind();
            let outcome = match tokio::time::timeout_at(deadline, handled).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(PlatformError::new(Reason::Internal, "a defect ended this call; the log tells more")),
                Err(_) => Err(PlatformError::new(Reason::Late, "the deadline passed while the call was under way")),
            };
            (id, outcome)
        };
        let (handle, registration) = AbortHandle::new_pair();
        self.handles.insert(id, handle);
        let newest = Newest { id, handling: handling.boxed(), registration };
        if let Some(Newest { id, handling, registration }) = self.newest.replace(newest) {
            let handling = if H::COMPUTES { elsewhere(id, handling) } else { handling };
            self.running.push(Abortable::new(handling, registration));
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        if let Some(arriving) = self.arriving.remove(&id) {
            self.arriving_bytes -= arriving.payload.len();
        }
        if let Some(running) = self.handles.remove(&id) {
            running.abort();
        }
        self.answers.forget(id);
    }

    /// Looks whether the stream should end, and for payloads that do not come whole.
    fn heed(&mut self, sign: Sign) {
        match sign {
            Sign::None => return,
            Sign::Look if std::mem::take(&mut self.is_used) || self.has_calls() => {}
            Sign::Look if self.is_leaving => self.is_closed = true,
            Sign::Look | Sign::Leave => self.leave(),
            Sign::End => self.is_closed = true,
        }
        if self.arriving.is_empty() {
            return;
        }
        if self.is_closed {
            return self.give_up(Duration::ZERO, &closed());
        }
        let message = "the whole request had not arrived in time; send it faster";
        self.give_up(self.serving.intake_timeout, &PlatformError::new(Reason::Late, message));
    }

    /// Refuses calls whose payloads have been arriving for so long.
    fn give_up(&mut self, age: Duration, error: &PlatformError) {
        let old = self.arriving.iter().filter(|(_, call)| call.opened.elapsed() >= age).map(|(id, _)| *id);
        for id in old.collect::<Vec<_>>() {
            self.forget(id);
            self.answers.fail(id, error);
        }
    }

    /// Tells the caller, once, to make no more calls on this stream.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_leaving, true) {
            self.answers.leave();
        }
    }

    /// The next frame to be sent, as far as calls are under way.
    fn poll_answers(&mut self, context: &mut Context<'_>) -> Poll<v1::InvokeFrame> {
        loop {
            if let Some(frame) = self.answers.next() {
                return Poll::Ready(frame);
            }
            match self.running.poll_next_unpin(context) {
                Poll::Ready(Some(Ok((id, outcome)))) => {
                    self.handles.remove(&id);
                    match outcome {
                        Ok(reply) => self.answers.reply(id, reply),
                        Err(error) => self.answers.fail(id, &error),
                    }
                }
                // It was cancelled.
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes in the frames that are there.
    fn poll_frames(&mut self, context: &mut Context<'_>) -> Taken {
        let mut taken = Taken::Nothing;
        for _ in 0..FRAMES_AT_ONCE_MAX {
            let Some(frames) = &mut self.frames else { break };
            match frames.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.take(frame);
                    taken = Taken::Some;
                }
                Poll::Ready(Some(Err(_))) => return Taken::Broken,
                Poll::Ready(None) => {
                    self.frames = None;
                    self.give_up(Duration::ZERO, &PlatformError::malformed("the stream ended within a payload"));
                    taken = Taken::Some;
                }
                Poll::Pending => break,
            }
        }
        // It runs here and now, while threads that have nothing to do take those before it.
        if let Some(Newest { handling, registration, .. }) = self.newest.take() {
            self.running.push(Abortable::new(handling, registration));
        }
        taken
    }
}

/// What came of looking for frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Nothing,
    Some,
    /// The caller is gone.
    Broken,
}

impl<H: Handler> Stream for Session<H> {
    type Item = Result<v1::InvokeFrame, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let sign = this.watch.look(context);
        this.heed(sign);
        for _ in 0..TURNS_MAX {
            if let Poll::Ready(frame) = this.poll_answers(context) {
                return Poll::Ready(Some(Ok(frame)));
            }
            match this.poll_frames(context) {
                Taken::Some => {}
                Taken::Broken => return Poll::Ready(None),
                Taken::Nothing if this.has_calls() => return Poll::Pending,
                Taken::Nothing if this.frames.is_none() => return Poll::Ready(None),
                // A caller that is told so knows that none of its frames still under way was looked at.
                Taken::Nothing if this.is_closed => {
                    this.frames = None;
                    return Poll::Ready(Some(Err(closed().into())));
                }
                Taken::Nothing => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The same call, on whichever thread has time for it.
fn elsewhere(id: u64, call: Handling) -> Handling {
    let task = AbortOnDropHandle::new(tokio::spawn(call));
    let gone = || PlatformError::new(Reason::Internal, "the runtime ended under this call");
    async move { task.await.unwrap_or_else(|_| (id, Err(gone()))) }.boxed()
}

fn closed() -> PlatformError {
    PlatformError::new(Reason::NotServing, "this stream takes no more calls; open another")
}
