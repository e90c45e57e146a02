//! Flows: their steps are calls of their own, each made where the step before ran as long as that serves it. The broker
//! that a flow reaches holds its answers in between, so branches join here, whichever computers ran them.

use std::time::Instant;

use futures_util::future::try_join_all;
use nigh_flow::{Failure, Input, Segment};
use nigh_proto::state::update_carried;
use nigh_proto::{Call, CarriedState, Flow, Outcome, PlatformError, Reason, Reply};
use tokio::sync::Mutex;

use crate::call::Broker;

impl Broker {
    /// Brings a flow to its end: one reply for all its steps.
    pub(crate) async fn run_flow(&self, mut call: Call, flow: &Flow, arrived: Instant) -> Result<Reply, PlatformError> {
        if call.dry_run {
            return self.forecast(call, flow).await;
        }
        let input = Input { payload: std::mem::take(&mut call.payload), headers: std::mem::take(&mut call.headers) };
        // Steps with states that travel along run one after the other, each with what the one before has left.
        let states = Mutex::new(std::mem::take(&mut call.states));
        let step = |segment: Segment| {
            let step = of_step(&call, flow, segment);
            self.call_with(step, &states)
        };
        let ended = nigh_flow::run(flow, input, self.limits().payload_bytes_max, step).await;
        let mut reply = match ended {
            Ok(finished) => Reply { states: states.into_inner(), ..finished.into_reply() },
            Err(Failure::Function { way, kind, message, reply }) => {
                Reply { outcome: Outcome::Error { kind, message: format!("{way}: {message}") }, ..*reply }
            }
            Err(Failure::Platform { way, error, ran }) => return Err(of_the_whole(&way, error, ran)),
        };
        reply.timing.broker += arrived.elapsed().saturating_sub(reply.timing.total());
        Ok(reply)
    }

    /// Makes the call of a step with the states that its functions depend on, and keeps what becomes of them.
    async fn call_with(&self, mut step: Call, states: &Mutex<Vec<CarriedState>>) -> Result<Reply, PlatformError> {
        let mut states = states.lock().await;
        let is_needed = |state: &&CarriedState| {
            state.is_needed_by(&step.function) || step.then.iter().any(|function| state.is_needed_by(function))
        };
        step.states = states.iter().filter(is_needed).cloned().collect();
        if step.states.is_empty() {
            drop(states);
            return self.call(step, Instant::now()).await;
        }
        let reply = self.call(step, Instant::now()).await?;
        update_carried(&mut states, &reply.states);
        Ok(reply)
    }

    /// What the flow would take, from what each step would, given as much as the flow is given.
    async fn forecast(&self, call: Call, flow: &Flow) -> Result<Reply, PlatformError> {
        let of = |step: usize| {
            let (payload, headers) = (call.payload.clone(), call.headers.clone());
            let segment = Segment { step, then: Vec::new(), input: Input { payload, headers } };
            let step = of_step(&call, flow, segment);
            async move { self.call(step, Instant::now()).await }
        };
        let replies = try_join_all((0..flow.steps().len()).map(of)).await?;
        let estimate = |reply: &Reply| match reply.outcome {
            Outcome::Estimate(estimate) => Ok(estimate),
            Outcome::Answer { .. } | Outcome::Error { .. } => {
                Err(PlatformError::new(Reason::Protocol, "an answer came where an estimate was asked for"))
            }
        };
        let estimates = replies.iter().map(estimate).collect::<Result<Vec<_>, _>>()?;
        let last = replies.into_iter().next_back().expect("a flow has steps");
        Ok(Reply { outcome: Outcome::Estimate(nigh_flow::forecast(flow, &estimates)), ..last })
    }
}

/// The call of a step, and of those that may follow it where it runs.
fn of_step(call: &Call, flow: &Flow, segment: Segment) -> Call {
    let function = |step: usize| flow.steps()[step].function.clone();
    let Segment { step, then, input: Input { payload, headers } } = segment;
    Call {
        function: function(step),
        payload,
        headers,
        then: then.into_iter().map(function).collect(),
        flow: None,
        ..call.clone()
    }
}

/// What a failed step means for the flow: where steps have run before, the whole must not look as if nothing had.
fn of_the_whole(way: &str, error: PlatformError, ran: usize) -> PlatformError {
    let PlatformError { reason, message, retry_after } = error;
    let reason =
        if ran > 0 && reason.certainly_not_started() && reason.retry_helps() { Reason::Disconnected } else { reason };
    PlatformError { reason, message: format!("{way}: {message}"), retry_after }
}
