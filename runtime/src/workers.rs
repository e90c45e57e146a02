//! The threads that guests run on. Each takes the next call from the schedule, runs it to its end, and answers; async
//! threads never run a guest, nor wait for one.

use std::hint;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nigh_proto::{Load, NodeName, Reply, Timing};
use parking_lot::{Condvar, Mutex};

use crate::admission::{self, Job, Refusal};
use crate::epoch::Ticker;
use crate::error::Error;
use crate::function::Functions;
use crate::host::Service;
use crate::instance::{self, Ended, Instance, Life};
use crate::logs::CallLog;
use crate::pool::{self, Pool};
use crate::probe;
use crate::schedule::{Budgets, Claim, LaneId, Next, Schedule};

/// Stack of a worker's thread: the guest's share and the host's own.
const STACK_BYTES: usize = crate::engine::STACK_BYTES + (1 << 20);
/// How long one worker without work looks out for a call before it rests: about what a wake-up costs.
const LOOK_OUT: Duration = Duration::from_micros(50);

/// The workers and what they share.
#[derive(Debug)]
pub(crate) struct Crew {
    computer: NodeName,
    engine: wasmtime::Engine,
    functions: Arc<Functions>,
    pool: Pool,
    ticker: Ticker,
    desk: Mutex<Desk>,
    work: Condvar,
    /// Counts calls submitted, for the worker that looks out for them.
    submitted: AtomicUsize,
    /// Guests are to end.
    stopping: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Desk {
    schedule: Schedule<Job>,
    resting: usize,
    is_looked_after: bool,
    is_closed: bool,
    is_over: bool,
}

impl Crew {
    /// Starts so many workers as the budgets allow calls at once.
    pub(crate) fn start(
        computer: NodeName,
        engine: wasmtime::Engine,
        functions: Arc<Functions>,
        budgets: Budgets,
        instances_max: usize,
    ) -> Result<Arc<Self>, Error> {
        let workers = budgets.workers;
        let desk = Desk {
            schedule: Schedule::new(budgets, probe::cores(), Instant::now()),
            resting: 0,
            is_looked_after: false,
            is_closed: false,
            is_over: false,
        };
        let crew = Arc::new(Self {
            computer,
            ticker: Ticker::start(engine.clone())?,
            engine,
            functions,
            pool: Pool::new(instances_max.saturating_sub(workers)),
            desk: Mutex::new(desk),
            work: Condvar::new(),
            submitted: AtomicUsize::new(0),
            stopping: Arc::default(),
        });
        for number in 0..workers {
            let worker = crew.clone();
            let thread = thread::Builder::new().name(format!("nigh-guest-{number}")).stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn(move || worker.work()) {
                crew.end();
                return Err(Error::Thread(error));
            }
        }
        Ok(crew)
    }

    /// Lets a call wait for a worker, if that will probably take no longer than its patience.
    pub(crate) fn submit(&self, claim: Claim, job: Job, patience: Duration) -> Result<u64, Refusal> {
        let mut desk = self.desk.lock();
        if desk.is_closed {
            return Err(Refusal::Stopping);
        }
        if patience < Duration::MAX {
            let wait = desk.schedule.expected_wait(claim.lane, claim.concurrency);
            if wait > patience {
                return Err(Refusal::WaitTooLong(wait));
            }
        }
        let number = desk.schedule.submit(claim, job).map_err(Refusal::Full)?;
        self.submitted.fetch_add(1, Ordering::Release);
        let must_wake = desk.resting > 0 && !desk.is_looked_after;
        drop(desk);
        if must_wake {
            self.work.notify_one();
        }
        Ok(number)
    }

    /// Takes a waiting call out.
    pub(crate) fn cancel(&self, lane: LaneId, number: u64) -> Option<Job> {
        self.desk.lock().schedule.cancel(lane, number)
    }

    /// How long such a call would probably wait, and how busy the computer is.
    pub(crate) fn forecast(&self, claim: &Claim) -> (Duration, Load) {
        let mut desk = self.desk.lock();
        (desk.schedule.expected_wait(claim.lane, claim.concurrency), desk.schedule.load(Instant::now()))
    }

    /// How busy the computer is.
    pub(crate) fn load(&self) -> Load {
        self.desk.lock().schedule.load(Instant::now())
    }

    /// How many calls of a function run and wait.
    pub(crate) fn counts(&self, lane: LaneId) -> (u32, u32) {
        self.desk.lock().schedule.counts(lane)
    }

    /// Calls that wait or run.
    pub(crate) fn under_way(&self) -> usize {
        self.desk.lock().schedule.under_way()
    }

    /// Drops the instances kept of a version no longer in use.
    pub(crate) fn retire(&self, version: &crate::function::Version) {
        self.drop_kept(self.pool.retire(version));
    }

    /// Takes no more calls; those that wait or run go on.
    pub(crate) fn close(&self) {
        self.desk.lock().is_closed = true;
    }

    /// Ends everything: waiting calls are refused, running guests stopped, threads end.
    pub(crate) fn end(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let mut desk = self.desk.lock();
        desk.is_closed = true;
        desk.is_over = true;
        let waiting = desk.schedule.cancel_all();
        drop(desk);
        self.work.notify_all();
        for job in waiting {
            // Fails only where the caller is gone.
            let _ = job.answer.send(Err(admission::stopping()));
        }
    }

    fn work(&self) {
        // WASI's file functions need some runtime to be entered; everything that they do is done on this very thread.
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let _entered = runtime.as_ref().ok().map(tokio::runtime::Runtime::enter);
        while let Some((claim, job)) = self.next() {
            let turn = Turn { crew: self, claim };
            if panic::catch_unwind(AssertUnwindSafe(|| self.serve(turn, job))).is_err() {
                tracing::error!("a worker panicked; its caller was told of an internal error. Please report this");
            }
        }
    }

    /// The next call, waiting for it; nothing when all is over.
    fn next(&self) -> Option<(Claim, Job)> {
        let mut desk = self.desk.lock();
        let mut has_looked_out = false;
        loop {
            if desk.is_over {
                return None;
            }
            match desk.schedule.next(Instant::now()) {
                Next::Run(claim, job) => {
                    // A submission wakes one worker at most; if there is more to do, the next one is woken from here.
                    let must_wake = desk.resting > 0 && !desk.is_looked_after && desk.schedule.has_turn();
                    drop(desk);
                    if must_wake {
                        self.work.notify_one();
                    }
                    return Some((claim, job));
                }
                Next::Evict if !self.pool.is_empty() => {
                    drop(desk);
                    self.drop_kept(self.pool.evict());
                    desk = self.desk.lock();
                }
                Next::Evict | Next::Nothing if !has_looked_out && !desk.is_looked_after => {
                    desk.is_looked_after = true;
                    let submitted = self.submitted.load(Ordering::Acquire);
                    drop(desk);
                    self.look_out(submitted);
                    desk = self.desk.lock();
                    desk.is_looked_after = false;
                    has_looked_out = true;
                }
                Next::Evict | Next::Nothing => {
                    has_looked_out = false;
                    desk.resting += 1;
                    let timed_out = if self.pool.is_empty() {
                        self.work.wait(&mut desk);
                        false
                    } else {
                        self.work.wait_for(&mut desk, pool::IDLE_MAX / 4).timed_out()
                    };
                    desk.resting -= 1;
                    if timed_out {
                        drop(desk);
                        self.drop_kept(self.pool.expire(Instant::now()));
                        desk = self.desk.lock();
                    }
                }
            }
        }
    }

    fn look_out(&self, submitted: usize) {
        let until = Instant::now() + LOOK_OUT;
        while self.submitted.load(Ordering::Acquire) == submitted && Instant::now() < until {
            (0..32).for_each(|_| hint::spin_loop());
        }
    }

    /// Runs a call and answers it.
    fn serve(&self, turn: Turn<'_>, job: Job) {
        let Job { call, arrived, function, version, answer } = job;
        let started = Instant::now();
        if answer.is_closed() {
            return;
        }
        if started >= call.deadline {
            // Fails only where the caller is gone.
            let _ = answer.send(Err(admission::late_waiting()));
            return;
        }
        let limits = &version.deployment.limits;
        let service = Service {
            answer,
            deadline: call.deadline,
            time_limit: started + limits.timeout,
            stopping: self.stopping.clone(),
            log: CallLog::new(function.log.clone(), call.id.clone(), limits.log_bytes),
        };
        let running = self.ticker.guest_runs();
        let Ended { outcome, service, entered, instance } = match self.pool.take(&version) {
            Some(kept) => {
                self.desk.lock().schedule.release_kept(turn.claim.memory_bytes);
                kept.run_again(&call, service)
            }
            None => instance::run_fresh(&self.engine, &version, &call, service),
        };
        drop(running);
        let ended = Instant::now();
        let entered = entered.unwrap_or(ended);
        let timing = Timing {
            queue: started.saturating_duration_since(arrived),
            init: entered.saturating_duration_since(started),
            run: ended.saturating_duration_since(entered),
            ..Timing::default()
        };
        if let Ok(outcome) = &outcome {
            function.measures.lock().record(outcome, &timing);
        }
        let reply = outcome.map(|outcome| {
            let mut load = self.load();
            // This call is as good as over.
            load.running = load.running.saturating_sub(1);
            let version = version.deployment.version;
            Reply { outcome, computer: self.computer.clone(), version, call: call.id, hops: call.hops, load, timing }
        });
        let may_keep =
            |instance: &Instance| limits.reuse > 1 && instance.life() == Life::Idle && self.is_in_use(instance);
        // An instance that is kept is there before the caller's next call; one that is not is taken down only after the
        // caller has its answer.
        let (kept, spent) = match instance {
            Some(instance) if may_keep(&instance) => (Some(instance), None),
            other => (None, other),
        };
        let turn = match kept {
            Some(instance) => {
                turn.keep(instance);
                None
            }
            None => Some(turn),
        };
        // Fails only where the caller is gone.
        service.and_then(|service| service.answer.send(reply).ok());
        drop(spent);
        drop(turn);
    }

    /// Whether calls still go to the instance's version.
    fn is_in_use(&self, instance: &Instance) -> bool {
        let version = instance.version();
        let known = self.functions.get(&version.deployment.name);
        known.and_then(|known| known.version).is_some_and(|used| used.id == version.id)
    }

    /// Drops instances that the schedule counts as kept.
    fn drop_kept(&self, instances: impl IntoIterator<Item = Instance>) {
        for instance in instances {
            let memory_bytes = instance.version().deployment.limits.memory_bytes;
            drop(instance);
            self.desk.lock().schedule.release_kept(memory_bytes);
        }
    }
}

/// A call's time on a worker; the schedule learns of its end when this is dropped.
struct Turn<'a> {
    crew: &'a Crew,
    claim: Claim,
}

impl Turn<'_> {
    /// Ends the turn and keeps the instance for a later call, if there is room.
    fn keep(self, instance: Instance) {
        let (crew, memory_bytes) = (self.crew, self.claim.memory_bytes);
        drop(self);
        if crew.desk.lock().schedule.keep(memory_bytes) {
            crew.drop_kept(crew.pool.keep(instance, Instant::now()));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.crew.desk.lock().schedule.finish(&self.claim, Instant::now());
    }
}
