//! One call, from its first slice to its answer: take an instance, run the guest in it, measure, answer, make the instance
//! as new and keep it, or make another in its stead, or drop it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{Call, Outcome, Reason, Reply, Timing};
use tokio::sync::oneshot;

use crate::admission::{self, Answer, Job};
use crate::crew::{self, Crew, Record, Turn};
use crate::function::{Code, Version};
use crate::host::Service;
use crate::http::{self, Incoming};
use crate::instance::{self, Ended, Life};
use crate::logs::CallLog;
use crate::metrics::Counted;
use crate::pool::Reusable;
use crate::states;

/// Runs a call and answers it. Dropped before it is over, it ends the guest; the caller is gone then.
pub(crate) async fn call(mut turn: Turn, job: Job) {
    let Job { call, arrived, callee, incoming, states, answer } = job;
    let version = &callee.version;
    let (crew, number) = (turn.crew.clone(), turn.number);
    // However the task ends, the call is counted.
    let counted = Counted::new(callee.clone());
    let began = Instant::now();
    if answer.is_closed() {
        return;
    }
    if began >= call.deadline {
        // Fails only where the caller is gone.
        counted.end(Reason::Late);
        let _ = answer.send(Err(admission::late_waiting()));
        return;
    }
    let limits = &version.deployment.limits;
    let kept = turn.take_kept(version, began);
    let service = Service {
        answer,
        deadline: call.deadline,
        time_limit: began + limits.timeout,
        log: CallLog::new(callee.log.clone(), call.id.clone(), limits.log_bytes, limits.log_bytes_per_second),
        turn,
        states,
    };
    let entering = enter(&crew, version, &call, kept, incoming, service);
    let Ended { outcome, mut service, entered, reset, instance } = entering.await;
    let (outcome, states) = match service.as_mut().and_then(|service| service.states.take()) {
        Some(session) => Box::pin(states::settle(outcome, session)).await,
        None => (outcome, Vec::new()),
    };
    let ended = Instant::now();
    let entered = entered.unwrap_or(ended);
    let timing = Timing {
        queue: began.saturating_duration_since(arrived),
        init: entered.saturating_duration_since(began),
        run: ended.saturating_duration_since(entered),
        reset,
        ..Timing::default()
    };
    let (load, computed) = crew.report(number, ended);
    let payload_bytes = call.payload.len() as u64;
    let rest = outcome.as_ref().map_or(Duration::ZERO, |outcome| callee.function.note_conduct(outcome));
    match &outcome {
        Ok(Outcome::Answer { .. }) => {
            let callee = counted.take();
            crew.count(number, Record { callee, payload_bytes, timing, computed, ended });
        }
        other => counted.measure(other.as_ref(), payload_bytes, &timing, computed, ended),
    }
    let reply = outcome.map(|outcome| {
        let reply = Reply::new(outcome, callee.computer.clone(), call.id);
        Reply { version: Some(version.deployment.version), hops: call.hops, load, timing, states, ..reply }
    });
    let Some(Service { answer, turn, .. }) = service else { return };
    if rest.is_zero() {
        answer_and_keep(version, answer, reply, turn, instance);
    } else {
        // Its caller's next call finds the place taken.
        drop(instance);
        turn.end_after(rest);
        let _ = answer.send(reply);
    }
}

/// Answers a call, and keeps the instance that it ran in where that may serve another.
fn answer_and_keep(
    version: &Version,
    answer: oneshot::Sender<Answer>,
    reply: Answer,
    turn: Turn,
    mut instance: Option<Reusable>,
) {
    if let Some(idle) = instance.take_if(|instance| instance.life() == Life::Idle) {
        // One that is kept as it is is there before the caller's next call.
        turn.end_and_keep(idle);
        // Fails only where the caller is gone.
        let _ = answer.send(reply);
        return;
    }
    // One that is made as new, or taken down, does not keep its caller waiting.
    let _ = answer.send(reply);
    let Some(used) = instance else { return };
    if used.life() != Life::Worn || version.is_retired() {
        // It is dropped before the call's place is given up.
        drop(used);
        return;
    }
    match used {
        Reusable::Module(mut worn) => {
            worn.reset();
            if worn.life() == Life::Idle {
                turn.end_and_keep(Reusable::Module(worn));
            }
        }
        Reusable::Component(mut worn) => {
            // Making another takes longer, and here the answer still has to be sent, by this very thread.
            if worn.reset(version) || crew::is_lent() {
                turn.end_and_keep(Reusable::Component(worn));
            } else if let Some(renewed) = turn.crew.renew_at_once(worn) {
                turn.end_and_keep(Reusable::Component(renewed));
            }
        }
    }
}

/// Runs the call in an instance kept, or in one newly made.
async fn enter(
    crew: &Crew,
    version: &Arc<Version>,
    call: &Call,
    kept: Option<Reusable>,
    incoming: Option<Box<Incoming>>,
    service: Service,
) -> Ended<Reusable> {
    match (&version.code, incoming, kept) {
        (Code::Http(_), Some(incoming), Some(Reusable::Component(kept))) => {
            Box::pin(kept.run_again(*incoming, service)).await.map(Reusable::Component)
        }
        (Code::Http(code), Some(incoming), _) => {
            Box::pin(http::run_fresh(code, version, crew, *incoming, service)).await.map(Reusable::Component)
        }
        (_, _, Some(Reusable::Module(kept))) => kept.run_again(call, service).await.map(Reusable::Module),
        // Most calls find an instance, so only those that do not have room made for what it takes to make one.
        _ => {
            let run = instance::run_fresh(&crew.engine, version, call, service, || crew.evict());
            Box::pin(run).await.map(Reusable::Module)
        }
    }
}
