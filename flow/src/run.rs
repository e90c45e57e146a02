//! Bringing a flow to its end: what runs next, and what it is given.

use std::future::Future;
use std::ops::AddAssign;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use nigh_proto::{Flow, Headers, Outcome, PlatformError, Reason, Reply, StepRan, Timing};

use crate::parts::joined;

/// What a flow, or one of its steps, is given or gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    /// The bytes.
    pub payload: Bytes,
    /// The headers.
    pub headers: Headers,
}

/// Steps that may run at one place without coming back in between: the first is to be run, the others may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The step to run.
    pub step: usize,
    /// Steps that follow it and nothing else.
    pub then: Vec<usize>,
    /// What the step is given.
    pub input: Input,
}

/// A flow that came to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// What its last step answered; of several last steps the answers stand one after the other, as for a step that comes
    /// after them.
    pub answer: Input,
    /// What ran, in the order in which it ended.
    pub steps: Vec<StepRan>,
    /// Reply of the step that ended last.
    pub last: Reply,
    /// Roles that passed on what runs through it, computers between steps included, along the way with most of them.
    pub hops: u32,
    /// Where the time of its steps went, along the way that took longest.
    pub timing: Timing,
}

impl Finished {
    /// The one reply for all its steps.
    #[must_use]
    pub fn into_reply(self) -> Reply {
        let Self { answer: Input { payload, headers }, steps, last, hops, timing } = self;
        Reply { outcome: Outcome::Answer { payload, headers }, hops, timing, steps, ..last }
    }
}

/// A flow that failed, once: its other steps are given up.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// A function failed.
    Function {
        /// Steps from the beginning to the one that failed.
        way: String,
        /// The function's word for it.
        kind: String,
        /// The function's message.
        message: String,
        /// The reply that said so.
        reply: Box<Reply>,
    },
    /// The platform failed.
    Platform {
        /// Steps from the beginning to the one that failed.
        way: String,
        /// Why.
        error: PlatformError,
        /// Steps that had ended before.
        ran: usize,
    },
}

/// Runs a flow: `call` runs a [`Segment`], all of it or at least its first step, and tells in the reply's `steps` how far it
/// came (without any, the first step alone ran). Dropping the future drops the calls under way.
///
/// No answers are joined into more than `bytes_max`.
///
/// # Errors
/// [`Failure`], of the first step that fails.
pub async fn run<C>(
    flow: &Flow,
    input: Input,
    bytes_max: usize,
    call: impl Fn(Segment) -> C,
) -> Result<Finished, Failure>
where
    C: Future<Output = Result<Reply, PlatformError>>,
{
    let mut progress = Progress::new(flow, input, bytes_max);
    let mut under_way = FuturesUnordered::new();
    let start = |segment: Segment| {
        let (step, then) = (segment.step, segment.then.clone());
        let called = call(segment);
        async move { (step, then, called.await) }
    };
    for step in (0..flow.steps().len()).filter(|&step| flow.steps()[step].after.is_empty()) {
        under_way.push(start(progress.segment(step)?));
    }
    let mut last = None;
    while let Some((step, then, replied)) = under_way.next().await {
        let reply = replied.map_err(|error| progress.platform(step, error))?;
        for next in progress.take(step, &then, &reply)? {
            under_way.push(start(progress.segment(next)?));
        }
        last = Some(reply);
    }
    progress.finish(last)
}

struct Progress<'a> {
    flow: &'a Flow,
    input: Input,
    bytes_max: usize,
    /// Of each step its answer, until nobody needs it any more.
    answers: Vec<Option<Input>>,
    /// Of each step how many that it comes after are still to end.
    missing: Vec<usize>,
    /// Of each step how many that come after it have not been given its answer.
    wanted: Vec<usize>,
    steps: Vec<StepRan>,
    /// Of each step the time it took.
    timings: Vec<Timing>,
    /// Of each step how many roles had to do with it.
    roles: Vec<u32>,
}

impl<'a> Progress<'a> {
    fn new(flow: &'a Flow, input: Input, bytes_max: usize) -> Self {
        let steps = flow.steps();
        Self {
            flow,
            input,
            bytes_max,
            answers: vec![None; steps.len()],
            missing: steps.iter().map(|step| step.after.len()).collect(),
            wanted: (0..steps.len()).map(|step| flow.successors(step).len()).collect(),
            steps: Vec::with_capacity(steps.len()),
            timings: vec![Timing::default(); steps.len()],
            roles: vec![0; steps.len()],
        }
    }

    /// What is to run from this step on.
    fn segment(&mut self, step: usize) -> Result<Segment, Failure> {
        let after = &self.flow.steps()[step].after;
        let input = match after[..] {
            [] => self.input.clone(),
            [before] => self.answers[before].clone().unwrap_or_default(),
            [..] => self.join(after).map_err(|error| self.platform(step, error))?,
        };
        for &before in after {
            self.wanted[before] -= 1;
            if self.wanted[before] == 0 {
                self.answers[before] = None;
            }
        }
        Ok(Segment { step, then: self.flow.straight_on(step), input })
    }

    /// Takes a reply for this step, and perhaps for some that follow it; tells which steps are free to run now.
    fn take(&mut self, step: usize, then: &[usize], reply: &Reply) -> Result<Vec<usize>, Failure> {
        let ran = reply.steps.len().clamp(1, 1 + then.len());
        let ended = if ran == 1 { step } else { then[ran - 2] };
        self.note(step, then, reply);
        let answer = match &reply.outcome {
            Outcome::Answer { payload, headers } => Input { payload: payload.clone(), headers: headers.clone() },
            Outcome::Error { kind, message } => {
                return Err(Failure::Function {
                    way: self.flow.way_to(ended),
                    kind: kind.clone(),
                    message: message.clone(),
                    reply: Box::new(reply.clone()),
                });
            }
            Outcome::Estimate(_) => {
                let error = PlatformError::new(Reason::Protocol, "an estimate came where a step was to run");
                return Err(self.platform(ended, error));
            }
        };
        self.answers[ended] = Some(answer);
        let mut free = Vec::new();
        for &next in self.flow.successors(ended) {
            self.missing[next] -= 1;
            if self.missing[next] == 0 {
                free.push(next);
            }
        }
        Ok(free)
    }

    fn note(&mut self, step: usize, then: &[usize], reply: &Reply) {
        // Those that passed it on, and the one that ran it; what follows in memory has nothing to do with more.
        self.roles[step] = reply.hops.saturating_add(1);
        let alone = [StepRan {
            step: None,
            function: self.flow.steps()[step].function.clone(),
            computer: reply.computer.clone(),
            timing: reply.timing,
        }];
        let ran = if reply.steps.is_empty() { &alone[..] } else { &reply.steps[..] };
        // The way there and back is the first one's.
        let at_computer: Duration = ran.iter().map(|ran| ran.timing.at_computer()).sum();
        for (nth, (&at, ran)) in std::iter::once(&step).chain(then).zip(ran).enumerate() {
            let mut timing = ran.timing;
            if nth == 0 {
                (timing.network, timing.broker) = (reply.timing.network, reply.timing.broker);
                timing.queue += reply.timing.at_computer().saturating_sub(at_computer);
            }
            self.timings[at] = timing;
            self.steps.push(StepRan { step: Some(self.flow.steps()[at].name.clone()), timing, ..ran.clone() });
        }
    }

    fn finish(self, last: Option<Reply>) -> Result<Finished, Failure> {
        let ends: Vec<usize> = self.flow.last().collect();
        let answer = match ends[..] {
            [only] => self.answers[only].clone().unwrap_or_default(),
            [..] => self.join(&ends).map_err(|error| self.failed("the end".to_owned(), error))?,
        };
        let last = last.expect("a flow has steps, and all have ended");
        let timing = longest(self.flow, &self.timings, Timing::total);
        let hops = longest(self.flow, &self.roles, |&roles| roles).saturating_sub(1);
        Ok(Finished { answer, steps: self.steps, last, hops, timing })
    }

    fn join(&self, steps: &[usize]) -> Result<Input, PlatformError> {
        let nothing = Bytes::new();
        let part = |&step: &usize| {
            let payload = self.answers[step].as_ref().map_or(&nothing, |answer| &answer.payload);
            (&self.flow.steps()[step].name, payload)
        };
        let parts: Vec<_> = steps.iter().map(part).collect();
        let bytes: usize = parts.iter().map(|(_, part)| part.len()).sum();
        if bytes > self.bytes_max {
            let message = format!("the answers to join have {bytes} bytes; at most {} are taken here", self.bytes_max);
            return Err(PlatformError::new(Reason::TooLarge, message));
        }
        let (payload, headers) = joined(&parts)?;
        Ok(Input { payload, headers })
    }

    fn platform(&self, step: usize, error: PlatformError) -> Failure {
        self.failed(self.flow.way_to(step), error)
    }

    fn failed(&self, way: String, error: PlatformError) -> Failure {
        Failure::Platform { way, error, ran: self.steps.len() }
    }
}

/// The sum of what the steps took along the way that took most.
fn longest<T, O>(flow: &Flow, took: &[T], size: impl Fn(&T) -> O) -> T
where
    T: Copy + Default + AddAssign,
    O: Ord,
{
    let mut until = took.to_vec();
    for &at in flow.order() {
        let before = flow.steps()[at].after.iter().map(|&before| until[before]).max_by_key(&size);
        until[at] += before.unwrap_or_default();
    }
    flow.last().map(|at| until[at]).max_by_key(&size).unwrap_or_default()
}
