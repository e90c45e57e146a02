//! The open loop: calls are made when they are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::{Run, Target, Timer};
use crate::sample::Ending;

/// The longest that the pacing thread sleeps without looking whether it should stop.
const NAP_MAX: Duration = Duration::from_millis(20);

pub(super) async fn run<T: Target>(run: &Arc<Run<T>>) {
    let tracker = TaskTracker::new();
    match run.plan.timer {
        Timer::Runtime => pace(run, &tracker, &Handle::current()).await,
        Timer::Thread => {
            let (run, tracker, handle) = (run.clone(), tracker.clone(), Handle::current());
            let (done, ended) = oneshot::channel();
            let thread = std::thread::Builder::new().name("nigh-load-pace".into()).spawn(move || {
                handle.block_on(pace(&run, &tracker, &handle));
                // Whoever waits for it may have been given up.
                let _ = done.send(());
            });
            if thread.is_ok() {
                // An error is a thread that panicked: what it has started ends all the same.
                let _ = ended.await;
            }
        }
    }
    tracker.close();
    tracker.wait().await;
}

async fn pace<T: Target>(run: &Arc<Run<T>>, tracker: &TaskTracker, handle: &Handle) {
    let in_flight = Arc::new(AtomicUsize::new(0));
    let mut persistence = run.brokers.draws(run.plan.workload.seed, run.plan.workload.clients);
    for due in run.plan.workload.merged() {
        wait(run, due.at).await;
        if !run.takes(due.at) {
            break;
        }
        let also = persistence.draw(due.client);
        if in_flight.load(Ordering::Relaxed) >= run.plan.bounds.in_flight_max {
            run.leave_out(due, Ending::Overflow).await;
            continue;
        }
        let under_way = UnderWay::new(&in_flight);
        let run = run.clone();
        let call = async move {
            run.make(due, also).await;
            drop(under_way);
        };
        tracker.spawn_on(call, handle);
    }
}

async fn wait<T: Target>(run: &Run<T>, at: Duration) {
    match run.plan.timer {
        Timer::Runtime => {
            tokio::select! {
                () = tokio::time::sleep_until(run.begin + at) => {}
                () = run.stop.cancelled() => {}
            }
        }
        Timer::Thread => {
            while let Some(left) = at.checked_sub(run.now()).filter(|left| !left.is_zero()) {
                if run.stop.is_cancelled() || run.plan.bounds.horizon().is_some_and(|horizon| run.now() >= horizon) {
                    return;
                }
                std::thread::sleep(left.min(NAP_MAX));
            }
        }
    }
}

/// One call among those under way.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
