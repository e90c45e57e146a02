//! The door: may this call wait here for its turn? Refusals are made at once, say why, and when to come again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{Call, Estimate, FunctionName, Load, Outcome, PlatformError, Reason, Reply, Timing};
use tokio::sync::oneshot;

use crate::crew::{Crew, Taken};
use crate::function::{Function, Functions, Known, Version};
use crate::metrics::Meters;
use crate::schedule::{Claim, Full, LaneId};

/// Calls that a prediction must rest on before a call is refused because of it.
const SAMPLES_MIN: u64 = 8;
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
    pub(crate) function: Arc<Function>,
    pub(crate) version: Arc<Version>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// A call's place: dropped, it cancels the call, wherever that is.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    crew: &'a Crew,
    lane: LaneId,
    taken: Taken,
    meters: Arc<Meters>,
    answer: oneshot::Receiver<Answer>,
}

/// What becomes of a call at the door.
#[derive(Debug)]
pub(crate) enum Admitted<'a> {
    /// It waits for its turn, or runs.
    Waits(Place<'a>),
    /// It was a dry run: this is the estimate, and how busy the computer is.
    Estimated(Arc<Version>, Call, Estimate, Load),
}

/// Lets a call in, or says why not.
pub(crate) fn admit<'a>(
    functions: &Functions,
    crew: &'a Arc<Crew>,
    call: Call,
    arrived: Instant,
) -> Result<Admitted<'a>, PlatformError> {
    let Known { function, version, problem } =
        functions.get(&call.function).ok_or_else(|| PlatformError::unknown_function(&call.function))?;
    let admitted = match version {
        Some(version) => submit(crew, &function, version, call, arrived),
        None => Err(not_ready(&call.function, problem.map(|(_, message)| message))),
    };
    if let Err(error) = &admitted {
        function.measures.lock().record_refused();
        function.meters.record_refused(error.reason);
    }
    admitted
}

fn submit<'a>(
    crew: &'a Arc<Crew>,
    function: &Arc<Function>,
    version: Arc<Version>,
    call: Call,
    arrived: Instant,
) -> Result<Admitted<'a>, PlatformError> {
    let limits = &version.deployment.limits;
    if call.payload.len() as u64 > limits.payload_bytes {
        let message = format!(
            "a payload of {} bytes; {} takes at most {}; deploy it with a larger payload limit",
            call.payload.len(),
            call.function,
            limits.payload_bytes
        );
        return Err(PlatformError::new(Reason::TooLarge, message));
    }
    let (estimate, computing) = {
        let measures = function.measures.lock();
        (measures.estimate(), measures.computing())
    };
    let claim = Claim {
        lane: function.lane,
        concurrency: limits.concurrency,
        queue: limits.queue,
        memory_bytes: limits.memory_bytes,
        payload_bytes: call.payload.len() as u64,
        expected: estimate.init + estimate.run,
        computing,
        deadline: call.deadline,
    };
    if call.dry_run {
        let (queue, load) = crew.forecast(&claim);
        return Ok(Admitted::Estimated(version, call, Estimate { queue, ..estimate }, load));
    }
    let left = call.time_left(Instant::now());
    if left.is_zero() {
        return Err(PlatformError::new(
            Reason::Late,
            "the deadline had passed when the call arrived; give it more time",
        ));
    }
    let is_known = estimate.samples >= SAMPLES_MIN;
    let patience = if is_known { left } else { Duration::MAX };
    let (sender, answer) = oneshot::channel();
    let job = Job { call, arrived, function: function.clone(), version, answer: sender };
    match crew.submit(claim, job, patience, is_known) {
        Ok(taken) => {
            Ok(Admitted::Waits(Place { crew, lane: claim.lane, taken, meters: function.meters.clone(), answer }))
        }
        Err(refusal) => Err(refusal.into_error(function, &claim)),
    }
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
        let (reason, message) = match self {
            Self::Full(Full::Function) => (
                Reason::QueueFull,
                format!(
                    "{name} has {} calls running and {} waiting here, its limits; try again later, or deploy it with more --concurrency",
                    claim.concurrency, claim.queue
                ),
            ),
            Self::Full(Full::Computer) => {
                (Reason::QueueFull, "the computer's queue is full; try again later, or another computer".to_owned())
            }
            Self::Full(Full::Payloads) => (
                Reason::OutOfBudget,
                "the computer holds as many bytes of payload as it may; try again later, or another computer"
                    .to_owned(),
            ),
            Self::Full(Full::Share) => (
                Reason::QueueFull,
                format!(
                    "{name} has taken its share of this computer's queue, the rest is for other functions; try again later, or another computer"
                ),
            ),
            Self::WaitTooLong(wait) => {
                let message = format!(
                    "the call would wait for about {} ms, longer than its deadline allows; give it more time, or try another computer",
                    wait.as_millis()
                );
                return PlatformError::new(Reason::Late, message);
            }
            Self::Stopping => return stopping(),
        };
        // One place comes free when one of the calls running ends.
        let wait = claim.expected / claim.concurrency.max(1);
        PlatformError::new(reason, message).retry_after(wait.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end()))
    }
}

/// The computer takes no more calls.
pub(crate) fn stopping() -> PlatformError {
    PlatformError::new(Reason::NotServing, "this computer is stopping and takes no more calls; try another")
}

fn not_ready(name: &FunctionName, problem: Option<String>) -> PlatformError {
    match problem {
        Some(problem) => PlatformError::new(Reason::NotReady, format!("this computer cannot run {name}: {problem}")),
        None => {
            PlatformError::new(Reason::NotReady, format!("{name} is being prepared on this computer; try again soon"))
                .retry_after(RETRY_NOT_READY)
        }
    }
}

impl Place<'_> {
    /// Waits for the answer until `deadline`.
    pub(crate) async fn answer(mut self, deadline: Instant) -> Answer {
        match tokio::time::timeout_at(deadline.into(), &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) if self.crew.stopping.is_cancelled() => Err(stopping()),
            Ok(Err(_)) => Err(PlatformError::new(Reason::Internal, "the computer lost the call; please report this")),
            Err(_) if self.crew.cancel(self.lane, self.taken.number) => {
                self.meters.record_ended(Reason::Late);
                Err(late_waiting())
            }
            Err(_) => Err(crate::outcome::late_running()),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // A waiting call gives up its place; a guest that computes notices at the next tick that nobody listens any more,
        // and one that waits for its host is ended by the drop of its task.
        let is_open = self.answer.try_recv() == Err(oneshot::error::TryRecvError::Empty);
        if is_open && self.crew.cancel(self.lane, self.taken.number) {
            self.meters.record_ended(Reason::Cancelled);
        }
    }
}

/// The deadline passed before a worker was free.
pub(crate) fn late_waiting() -> PlatformError {
    PlatformError::new(Reason::Late, "the deadline passed while the call waited for its turn; give it more time")
}

/// A dry run's reply.
pub(crate) fn estimated(
    computer: &nigh_proto::NodeName,
    version: &Version,
    call: Call,
    estimate: Estimate,
    load: Load,
) -> Reply {
    Reply {
        outcome: Outcome::Estimate(estimate),
        computer: computer.clone(),
        responder: None,
        version: Some(version.deployment.version),
        call: call.id,
        hops: call.hops,
        load,
        timing: Timing::default(),
    }
}
