//! The door: may this call wait here for its turn? Refusals are made at once, say why, and when to come again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nigh_proto::exchange::{Body, RequestHead};
use nigh_proto::{Call, Deployment, Estimate, FunctionName, Load, Outcome, PlatformError, Reason, Reply};
use nigh_state::Session;
use tokio::sync::oneshot;

use crate::crew::{Crew, Expected, Taken};
use crate::estimate::Expectation;
use crate::function::{Callee, Code, Function};
use crate::http::{self, Answered, Incoming};
use crate::metrics::Meters;
use crate::schedule::{Claim, Full};
use crate::threads::Handle;

/// Calls that a prediction must rest on before a call is refused because of it.
pub(crate) const SAMPLES_MIN: u64 = 8;
/// The shortest and the longest time that a refused caller is told to wait.
const RETRY_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);
/// When to come again for a function that is being prepared.
const RETRY_NOT_READY: Duration = Duration::from_millis(100);

/// What a worker sends back.
pub(crate) type Answer = Result<Reply, PlatformError>;

/// A call that was let in.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) call: Call,
    pub(crate) arrived: Instant,
    pub(crate) callee: Arc<Callee>,
    /// The request, for an http function.
    pub(crate) incoming: Option<Box<Incoming>>,
    /// The states that are leased to it, where its function has any.
    pub(crate) states: Option<Box<Session>>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// A call's place: dropped, it cancels the call, wherever that is.
#[derive(Debug)]
pub(crate) struct Place {
    crew: Handle<Crew>,
    claim: Claim,
    /// When it has waited for its turn for as long as its function allows.
    wait_until: Instant,
    queue_wait: Duration,
    taken: Taken,
    meters: Arc<Meters>,
    answer: oneshot::Receiver<Answer>,
}

/// What becomes of a call at the door.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It was over at once.
    Answered(Answer),
    /// It waits for its turn, or runs.
    Waits(Place),
    /// The same for an http function, which begins to answer before it has ended.
    Answers(Place, oneshot::Receiver<Answered>, http::About),
}

/// What a call brings for its function.
pub(crate) enum Brought {
    /// Its payload.
    Payload,
    /// An HTTP request.
    Request(RequestHead, Body),
}

/// Lets a call in, or says why not.
pub(crate) fn admit(
    callee: &Arc<Callee>,
    call: Call,
    brought: Brought,
    states: Option<Box<Session>>,
    arrived: Instant,
) -> Result<Admitted, PlatformError> {
    let admitted = submit(callee, call, brought, states, arrived);
    if let Err(error) = &admitted {
        refused(&callee.function, error);
    }
    admitted
}

/// Counts a call that was not let in.
pub(crate) fn refused(function: &Function, error: &PlatformError) {
    function.measures.lock().record_refused();
    function.meters.record_refused(error.reason);
}

/// What a call would probably take, and how busy the computer is. Nothing runs.
pub(crate) fn estimate(
    crew: &Crew,
    function: &Function,
    deployment: &Deployment,
    call: &Call,
) -> Result<(Estimate, Load), PlatformError> {
    check_payload(deployment, call)?;
    crew.settle_measures();
    let (claim, _) = claim(crew, function, deployment, call, Instant::now());
    let (queue, load) = crew.forecast(&claim);
    let estimate = function.measures.lock().estimator().estimate(claim.payload_bytes);
    Ok((Estimate { queue, ..estimate }, load))
}

fn submit(
    callee: &Arc<Callee>,
    mut call: Call,
    brought: Brought,
    states: Option<Box<Session>>,
    arrived: Instant,
) -> Result<Admitted, PlatformError> {
    let Callee { function, version, crew, .. } = &**callee;
    check_payload(&version.deployment, &call)?;
    let now = Instant::now();
    let (claim, expected) = claim(crew, function, &version.deployment, &call, now);
    let left = call.time_left(now);
    if left.is_zero() {
        return Err(late_arriving());
    }
    let is_known = expected.samples >= SAMPLES_MIN;
    let is_brief = is_known && !function.conduct.is_held_back() && function.brevity.judge(expected.computing);
    let queue_wait = version.deployment.limits.queue_wait;
    let patience = if is_known { left.min(queue_wait) } else { Duration::MAX };
    let (sender, mut answer) = oneshot::channel();
    let (incoming, answering) = match take_in(callee, &mut call, brought)? {
        Some((incoming, answered, about)) => (Some(Box::new(incoming)), Some((answered, about))),
        None => (None, None),
    };
    let job = Job { call, arrived, callee: callee.clone(), incoming, states, answer: sender };
    let taken = Crew::submit(crew, claim, job, patience, is_brief, now).map_err(|refusal| match refusal {
        Refusal::WaitTooLong(wait) => too_busy(wait, left, queue_wait),
        refusal => refusal.into_error(function, &claim),
    })?;
    // A brief call mostly has been answered by now, and needs neither a place nor a timer.
    if answering.is_none()
        && let Ok(answer) = answer.try_recv()
    {
        return Ok(Admitted::Answered(answer));
    }
    let (wait_until, meters) = (arrived + queue_wait, function.meters.clone());
    let place = Place { crew: crew.clone(), claim, wait_until, queue_wait, taken, meters, answer };
    Ok(match answering {
        Some((answered, about)) => Admitted::Answers(place, answered, about),
        None => Admitted::Waits(place),
    })
}

/// What of a call an http function is given, and where its answer will appear; nothing for other kinds.
fn take_in(
    callee: &Callee,
    call: &mut Call,
    brought: Brought,
) -> Result<Option<(Incoming, oneshot::Receiver<Answered>, http::About)>, PlatformError> {
    let Callee { version, computer, .. } = callee;
    let kind = version.deployment.kind;
    // An instance that is kept is to be there for the caller's next call.
    let waits_for_end = matches!(brought, Brought::Payload) || version.deployment.limits.reuse > 1;
    let (head, body) = match (&version.code, brought) {
        (Code::Http(_), Brought::Request(head, body)) => (head, body),
        (Code::Http(_), Brought::Payload) => http::request_of(call)?,
        (Code::Native(_) | Code::Command(_), Brought::Payload) => return Ok(None),
        (Code::Native(_) | Code::Command(_), Brought::Request(..)) => {
            let message = format!(
                "{} is of kind {kind}: it takes a payload, and no requests with other methods or further paths; use POST /function/{}",
                call.function, call.function
            );
            return Err(PlatformError::malformed(message));
        }
    };
    let payload_bytes_max = version.deployment.limits.payload_bytes;
    http::check_length(&head, payload_bytes_max)?;
    let about = http::About {
        computer: computer.clone(),
        version: version.deployment.version,
        call: call.id.clone(),
        hops: call.hops,
        payload_bytes_max,
        waits_for_end,
    };
    let (answer, answered) = oneshot::channel();
    Ok(Some((Incoming { head, body, answer }, answered, about)))
}

/// The call would wait too long. Whoever has more patience may be let in, so the delay is what is missing.
pub(crate) fn too_busy(wait: Duration, left: Duration, queue_wait: Duration) -> PlatformError {
    let (patience, whose) = if left <= queue_wait {
        (left, "its deadline allows; give it more time, or try another computer")
    } else {
        (queue_wait, "its function allows; try another computer, or deploy it with a longer --queue-wait")
    };
    let message = format!("the call would wait for about {} ms, longer than {whose}", wait.as_millis());
    PlatformError::new(Reason::TooBusy, message).retry_after(retry_delay(wait.saturating_sub(patience)))
}

/// When a refused caller is to come again.
pub(crate) fn retry_delay(wait: Duration) -> Duration {
    wait.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end())
}

fn check_payload(deployment: &Deployment, call: &Call) -> Result<(), PlatformError> {
    let (bytes, limit) = (call.payload.len(), deployment.limits.payload_bytes);
    if bytes as u64 <= limit {
        return Ok(());
    }
    let message = format!(
        "a payload of {bytes} bytes; {} takes at most {limit}; deploy it with a larger payload limit",
        call.function
    );
    Err(PlatformError::new(Reason::TooLarge, message))
}

/// What a call asks of the schedule, and what that rests on.
fn claim(crew: &Crew, function: &Function, deployment: &Deployment, call: &Call, now: Instant) -> (Claim, Expectation) {
    let limits = &deployment.limits;
    let payload_bytes = call.payload.len() as u64;
    let known = crew.expected(function.lane, payload_bytes, now).map(|expected| expected.of);
    let expected = known.unwrap_or_else(|| {
        let of = function.measures.lock().estimator().expected(payload_bytes);
        if of.samples >= SAMPLES_MIN {
            crew.expect(Expected { lane: function.lane, payload_bytes, of, at: now });
        }
        of
    });
    let claim = Claim {
        lane: function.lane,
        concurrency: if function.conduct.is_held_back() { 1 } else { limits.concurrency },
        queue: limits.queue,
        memory_bytes: limits.memory_bytes,
        payload_bytes,
        expected: expected.whole + function.conduct.rest(),
        computing: expected.computing,
        deadline: call.deadline,
    };
    (claim, expected)
}

/// Why the crew takes no call.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A queue or budget is full.
    Full(Full),
    /// The wait would probably be this long, over the call's patience.
    WaitTooLong(Duration),
    /// The computer stops.
    Stopping,
}

impl Refusal {
    fn into_error(self, function: &Function, claim: &Claim) -> PlatformError {
        let name = &function.name;
        let queue_is_full = |message: String| PlatformError::new(Reason::QueueFull, message);
        let error = match self {
            Self::Full(Full::Function) if function.conduct.is_held_back() => queue_is_full(format!(
                "{name} has broken its limits in call after call, so it runs one at a time here until they end well, and {} wait; see the errors of its calls, and deploy it with higher limits",
                claim.queue
            )),
            Self::Full(Full::Function) => queue_is_full(format!(
                "{name} has {} calls running and {} waiting here, its limits; try again later, or deploy it with more --concurrency",
                claim.concurrency, claim.queue
            )),
            Self::Full(Full::Computer) => queue_full(),
            Self::Full(Full::Payloads) => payloads_full(),
            Self::Full(Full::Share) => queue_is_full(format!(
                "{name} has taken its share of this computer's queue, the rest is for other functions; try again later, or another computer"
            )),
            Self::WaitTooLong(wait) => return too_busy(wait, Duration::ZERO, Duration::ZERO),
            Self::Stopping => return stopping(),
        };
        // One place comes free when one of the calls running ends.
        let wait = claim.expected / claim.concurrency.max(1);
        error.retry_after(retry_delay(wait))
    }
}

/// As many calls wait as may.
pub(crate) fn queue_full() -> PlatformError {
    PlatformError::new(Reason::QueueFull, "the computer's queue is full; try again later, or another computer")
}

/// As many bytes of payload are there as may be.
pub(crate) fn payloads_full() -> PlatformError {
    let message = "the computer holds as many bytes of payload as it may; try again later, or another computer";
    PlatformError::new(Reason::OutOfBudget, message)
}

/// The computer takes no more calls.
pub(crate) fn stopping() -> PlatformError {
    PlatformError::new(Reason::NotServing, "this computer is stopping and takes no more calls; try another")
}

/// The function has no version in use.
pub(crate) fn not_ready(name: &FunctionName, problem: Option<String>) -> PlatformError {
    match problem {
        Some(problem) => PlatformError::new(Reason::NotReady, format!("this computer cannot run {name}: {problem}")),
        None => {
            PlatformError::new(Reason::NotReady, format!("{name} is being prepared on this computer; try again soon"))
                .retry_after(RETRY_NOT_READY)
        }
    }
}

impl Place {
    /// Waits for the answer until `deadline`, and for its turn no longer than its function allows.
    pub(crate) async fn answer(&mut self, deadline: Instant) -> Answer {
        if self.wait_until < deadline {
            match tokio::time::timeout_at(self.wait_until.into(), &mut self.answer).await {
                Ok(answered) => return self.unpack(answered),
                Err(_) if self.crew.cancel(self.claim.lane, self.taken.number) => {
                    self.meters.record_ended(Reason::TooBusy);
                    return Err(self.waited_in_vain());
                }
                // It has had its turn in time.
                Err(_) => {}
            }
        }
        match tokio::time::timeout_at(deadline.into(), &mut self.answer).await {
            Ok(answered) => self.unpack(answered),
            Err(_) if self.crew.cancel(self.claim.lane, self.taken.number) => {
                self.meters.record_ended(Reason::Late);
                Err(late_waiting())
            }
            Err(_) => Err(crate::outcome::late_running()),
        }
    }

    /// The answer, once it is there.
    pub(crate) fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        Pin::new(&mut self.answer).poll(context).map(|answered| self.unpack(answered))
    }

    /// Lets the guest come to its end although nobody waits for that.
    pub(crate) fn let_finish(mut self) {
        tokio::spawn(async move {
            // The guest is under its own limits.
            let _ = (&mut self.answer).await;
        });
    }

    fn unpack(&self, answered: Result<Answer, oneshot::error::RecvError>) -> Answer {
        match answered {
            Ok(answer) => answer,
            Err(_) if self.crew.stopping.is_cancelled() => Err(stopping()),
            Err(_) => Err(PlatformError::new(Reason::Internal, "the computer lost the call; please report this")),
        }
    }

    fn waited_in_vain(&self) -> PlatformError {
        let (wait, _) = self.crew.forecast(&self.claim);
        let message = format!(
            "the call has waited for its turn for {} ms, as long as its function allows; another would wait for about {} ms more. Try another computer, or deploy it with a longer --queue-wait",
            self.queue_wait.as_millis(),
            wait.as_millis()
        );
        PlatformError::new(Reason::TooBusy, message).retry_after(retry_delay(wait))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A waiting call gives up its place; a guest that computes notices at the next tick that nobody listens any more,
        // and one that waits for its host is ended by the drop of its task.
        let is_open = self.answer.try_recv() == Err(oneshot::error::TryRecvError::Empty);
        if is_open && self.crew.cancel(self.claim.lane, self.taken.number) {
            self.meters.record_ended(Reason::Cancelled);
        }
    }
}

/// The deadline passed on the way here.
pub(crate) fn late_arriving() -> PlatformError {
    PlatformError::new(Reason::Late, "the deadline had passed when the call arrived; give it more time")
}

/// The deadline passed before a worker was free.
pub(crate) fn late_waiting() -> PlatformError {
    PlatformError::new(Reason::Late, "the deadline passed while the call waited for its turn; give it more time")
}

/// A dry run's reply.
pub(crate) fn estimated(
    computer: &nigh_proto::NodeName,
    deployment: &Deployment,
    call: Call,
    estimate: Estimate,
    load: Load,
) -> Reply {
    let reply = Reply::new(Outcome::Estimate(estimate), computer.clone(), call.id);
    Reply { version: Some(deployment.version), hops: call.hops, load, ..reply }
}
