//! Clients that have one call under way at a time: on a timetable of their own, or thinking in between.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::{Run, Target};
use crate::dice::{self, Purpose};
use crate::sample::Ending;
use crate::workload::{ClientCalls, Due, Gaps};

/// Clients with calls due at certain times. Those of one timetable take its calls in turn.
pub(super) async fn serial<T: Target>(run: &Arc<Run<T>>) {
    let workload = &run.plan.workload;
    let streams: Vec<Arc<Mutex<ClientCalls>>> =
        (0..workload.streams()).map(|client| Arc::new(Mutex::new(workload.client(client)))).collect();
    let tracker = TaskTracker::new();
    for (client, calls) in (0..workload.clients).zip(streams.iter().cycle()) {
        tracker.spawn(serial_client(run.clone(), client, calls.clone()));
    }
    tracker.close();
    tracker.wait().await;
}

async fn serial_client<T: Target>(run: Arc<Run<T>>, client: u32, calls: Arc<Mutex<ClientCalls>>) {
    let mut persistence = run.brokers.draws_of(run.plan.workload.seed, client);
    loop {
        let next = calls.lock().next();
        let Some(due) = next else { return };
        if !wait(&run, due.at).await || !run.takes(due.at) {
            return;
        }
        let due = Due { client, ..due };
        if due.expires.is_some_and(|expires| run.now() > expires) {
            run.leave_out(due, Ending::Expired).await;
        } else {
            run.make(due, persistence.draw()).await;
        }
    }
}

/// Clients that call again once they have been answered.
pub(super) async fn closed<T: Target>(run: &Arc<Run<T>>, gaps: Gaps, think: Duration) {
    let tracker = TaskTracker::new();
    for client in 0..run.plan.workload.clients {
        tracker.spawn(closed_client(run.clone(), client, gaps, think));
    }
    tracker.close();
    tracker.wait().await;
}

async fn closed_client<T: Target>(run: Arc<Run<T>>, client: u32, gaps: Gaps, think: Duration) {
    let workload = &run.plan.workload;
    let mut choices = workload.choices(client);
    let mut persistence = run.brokers.draws_of(workload.seed, client);
    let mut dice = dice::stream(workload.seed, client, Purpose::Think);
    loop {
        if !think.is_zero() {
            let until = run.now() + gaps.draw(think, &mut dice);
            if !wait(&run, until).await {
                return;
            }
        }
        let at = run.now();
        if !run.takes(at) {
            return;
        }
        let (function, body) = choices.draw();
        let due = Due { at, expires: None, client, function, body, broker: None };
        run.make(due, persistence.draw()).await;
    }
}

/// Waits until this time, or tells that the run ends before.
async fn wait<T: Target>(run: &Run<T>, at: Duration) -> bool {
    if run.plan.bounds.horizon().is_some_and(|horizon| at >= horizon) {
        return false;
    }
    tokio::select! {
        () = tokio::time::sleep_until(run.begin + at) => true,
        () = run.stop.cancelled() => false,
    }
}
