//! Where guests run. A guest is a task that computes in slices, none longer than a tick of the epoch where others wait.
//! A call that is expected to be over within a slice runs it on the thread that brought it, with no hand-over; every
//! other slice is run by a crew of threads, one for each core, that step back behind those that serve the network. A brief
//! call that finds long ones on every core has them make way at once.

mod priority;
mod turn;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use async_task::{Runnable, ScheduleInfo, Task, WithInfo};
use nigh_proto::{Load, NodeName};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::admission::{Job, Refusal};
use crate::epoch::Ticker;
use crate::error::Error;
use crate::function::Version;
use crate::http::Outgoing;
use crate::pool::{Pool, Reusable};
use crate::probe;
use crate::run;
use crate::schedule::{Budgets, Claim, Class, Demand, LaneId, Next, Number, Schedule};
use turn::{Kind, SLICE, Slice};
pub(crate) use turn::{Turn, has_yielded};

/// Stack of a thread of the crew; guests have stacks of their own.
const STACK_BYTES: usize = 1 << 20;
/// A call that will probably compute for no longer than this may do so where it arrived.
const AT_ONCE_MAX: Duration = Duration::from_micros(400);

/// A guest, ready to compute. Carries its number in the schedule.
pub(crate) type Ready = Runnable<Number>;

/// The threads, and what they share with those that bring calls.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) computer: NodeName,
    pub(crate) engine: wasmtime::Engine,
    /// Guests are held to their limits, as they are everywhere but in a bench.
    pub(crate) is_limited: bool,
    pub(crate) pool: Pool,
    /// Requests that guests send.
    pub(crate) outgoing: Outgoing,
    /// Memory of kept instances that were taken or dropped, of which the schedule is still to learn.
    released_bytes: AtomicU64,
    /// A call waits for the memory of kept instances, and there were none to drop.
    is_memory_wanted: AtomicBool,
    /// A task looks after what is kept.
    is_looked_after: AtomicBool,
    ticker: Ticker,
    desk: Mutex<Desk>,
    work: Condvar,
    /// Who waits to compute, as guests ask at each tick.
    demand: AtomicU8,
    /// Guests are to end.
    pub(crate) stopping: CancellationToken,
    runtime: Handle,
    this: Weak<Self>,
}

#[derive(Debug)]
struct Desk {
    schedule: Schedule<Ready>,
    resting: usize,
    is_closed: bool,
    is_over: bool,
}

/// A call taken in: where it stands, and what ends it when dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) number: Number,
    _task: Task<(), Number>,
}

impl Crew {
    /// Starts so many threads as the budgets allow calls to compute at once.
    pub(crate) fn start(
        computer: NodeName,
        engine: wasmtime::Engine,
        component_engine: wasmtime::Engine,
        budgets: Budgets,
        is_limited: bool,
    ) -> Result<Arc<Self>, Error> {
        let workers = budgets.workers;
        let kept_max = budgets.instances_max.saturating_sub(workers);
        let schedule = Schedule::new(budgets, probe::cores(), Instant::now());
        let ticker = Ticker::start(vec![engine.clone(), component_engine])?;
        let runtime = Handle::try_current().map_err(|_| Error::Runtime)?;
        let crew = Arc::new_cyclic(|this| Self {
            computer,
            ticker,
            engine,
            is_limited,
            // Calls compute on these threads, and on those that bring them.
            pool: Pool::new(kept_max, workers + probe::cores()),
            outgoing: Outgoing::new(),
            released_bytes: AtomicU64::new(0),
            is_memory_wanted: AtomicBool::new(false),
            is_looked_after: AtomicBool::new(false),
            desk: Mutex::new(Desk { schedule, resting: 0, is_closed: false, is_over: false }),
            work: Condvar::new(),
            demand: AtomicU8::new(0),
            stopping: CancellationToken::new(),
            runtime,
            this: this.clone(),
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

    /// Takes a call in, if it will probably wait no longer than its patience. A call that is expected to be brief, where
    /// nobody waits, has its first slice right here, and mostly that is all it takes.
    pub(crate) fn submit(
        self: &Arc<Self>,
        claim: Claim,
        job: Job,
        patience: Duration,
        is_known: bool,
    ) -> Result<Taken, Refusal> {
        let mut desk = self.desk();
        if desk.is_closed {
            return Err(Refusal::Stopping);
        }
        if patience < Duration::MAX {
            let wait = desk.schedule.expected_wait(&claim);
            if wait > patience {
                return Err(Refusal::WaitTooLong(wait));
            }
        }
        let mut spawned = None;
        let spawn = |number| {
            let (ready, task) = self.spawn(number, job);
            spawned = Some(task);
            ready
        };
        let number = desk.schedule.submit(claim, spawn).map_err(Refusal::Full)?;
        let is_brief = is_known && claim.computing <= AT_ONCE_MAX && SLICE.get().is_none();
        let now = Instant::now();
        let at_once = is_brief.then(|| desk.schedule.begin_at_once(claim.lane, number, now)).flatten();
        if let Some((number, ready)) = at_once {
            self.leave(desk);
            self.run(number, ready, 0, now, Kind::Lent);
        } else {
            self.leave_for_others(desk);
        }
        let task = spawned.expect("a call that the schedule took was spawned");
        Ok(Taken { number, _task: task })
    }

    /// Takes a waiting call out.
    pub(crate) fn cancel(&self, lane: LaneId, number: Number) -> bool {
        // Dropped only after the desk is free: that ends the task, which may want to come here.
        let cancelled = self.desk.lock().schedule.cancel(lane, number);
        cancelled.is_some()
    }

    /// How long such a call would probably wait, and how busy the computer is.
    pub(crate) fn forecast(&self, claim: &Claim) -> (Duration, Load) {
        let mut desk = self.desk.lock();
        (desk.schedule.expected_wait(claim), desk.schedule.load(Instant::now()))
    }

    /// How busy the computer is.
    pub(crate) fn load(&self) -> Load {
        self.desk.lock().schedule.load(Instant::now())
    }

    /// How busy the computer is but for this call, which is as good as over, and how long that one has computed.
    pub(crate) fn report(&self, number: Number, now: Instant) -> (Load, Duration) {
        self.desk.lock().schedule.report(number, now)
    }

    /// How many calls of a function have begun and wait.
    pub(crate) fn counts(&self, lane: LaneId) -> (u32, u32) {
        self.desk.lock().schedule.counts(lane)
    }

    /// Calls that wait or have begun.
    pub(crate) fn under_way(&self) -> usize {
        self.desk.lock().schedule.under_way()
    }

    /// Drops the instances kept of a version no longer in use.
    pub(crate) fn retire(&self, version: &Version) {
        self.drop_kept(self.pool.retire(version));
    }

    /// Whether it takes no more calls.
    pub(crate) fn is_closed(&self) -> bool {
        self.desk.lock().is_closed
    }

    /// Takes no more calls; those that wait or run go on.
    pub(crate) fn close(&self) {
        self.desk.lock().is_closed = true;
    }

    /// Ends everything: waiting calls are refused, running guests stopped, threads end.
    pub(crate) fn end(&self) {
        self.stopping.cancel();
        let mut desk = self.desk.lock();
        desk.is_closed = true;
        desk.is_over = true;
        let waiting = desk.schedule.cancel_all();
        drop(desk);
        self.work.notify_all();
        // Their callers see that the call was dropped, and that the crew is stopping.
        drop(waiting);
    }

    /// A kept instance of this version, if there is one.
    pub(crate) fn take_kept(&self, version: &Version, now: Instant) -> Option<Reusable> {
        let instance = self.pool.take(version, now)?;
        self.released_bytes.fetch_add(instance.memory_bytes(), Ordering::Relaxed);
        Some(instance)
    }

    /// Drops a kept instance, the one idle for longest; says whether there was one.
    pub(crate) fn evict(&self) -> bool {
        let evicted = self.pool.evict();
        evicted.map(|instance| self.drop_kept([instance])).is_some()
    }

    /// Keeps an instance for a later call, for which the schedule has found room.
    fn keep(&self, instance: Reusable) {
        self.drop_kept(self.pool.keep(instance, Instant::now()));
        // Sequentially consistent with `next`: either that sees the instance, or this sees that memory is wanted.
        if self.is_memory_wanted.load(Ordering::SeqCst) && self.is_memory_wanted.swap(false, Ordering::SeqCst) {
            drop(self.desk.lock());
            self.work.notify_one();
        }
        if !self.is_looked_after.load(Ordering::SeqCst) && !self.is_looked_after.swap(true, Ordering::SeqCst) {
            self.runtime.spawn(look_after(self.this.clone()));
        }
    }

    /// Makes a call the task that it will be; nothing of it runs yet.
    fn spawn(self: &Arc<Self>, number: Number, job: Job) -> (Ready, Task<(), Number>) {
        let turn = Turn::new(self.clone(), number);
        let crew = self.clone();
        let wake = WithInfo(move |ready: Ready, info: ScheduleInfo| crew.wake(ready, info));
        let call = move |_: &Number| run::call(turn, job);
        async_task::Builder::new().metadata(number).spawn(call, wake)
    }

    fn wake(&self, ready: Ready, info: ScheduleInfo) {
        let number = *ready.metadata();
        let mut desk = self.desk.lock();
        let refused = desk.schedule.wake(number, ready, Instant::now());
        // One that yields to the crew is seen by the thread that it leaves.
        let is_lent = SLICE.get().is_some_and(|slice| slice.kind == Kind::Lent);
        if is_lent || !info.woken_while_running {
            self.leave_for_others(desk);
        } else {
            self.leave(desk);
        }
        if let Some(ended) = refused {
            // A task that was cancelled is run once more, to be dropped.
            ended.run();
        }
    }

    /// Goes to the desk, where the schedule lies.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        let mut desk = self.desk.lock();
        self.settle(&mut desk);
        desk
    }

    /// Tells the schedule of memory released meanwhile.
    fn settle(&self, desk: &mut Desk) {
        if self.released_bytes.load(Ordering::Relaxed) > 0 {
            desk.schedule.release_kept(self.released_bytes.swap(0, Ordering::Relaxed));
        }
    }

    /// Leaves the desk, having changed the schedule.
    fn leave(&self, desk: MutexGuard<'_, Desk>) {
        self.demand.store(desk.schedule.demand() as u8, Ordering::Relaxed);
        drop(desk);
    }

    /// Leaves the desk, having brought a call that wants to compute: a thread that rests is woken for it. A brief call need not
    /// wait until that has a core, nor for the next tick: long ones make way at once.
    fn leave_for_others(&self, desk: MutexGuard<'_, Desk>) {
        let demand = desk.schedule.demand();
        self.demand.store(demand as u8, Ordering::Relaxed);
        let (is_any_resting, has_long) = (desk.resting > 0, desk.schedule.active(Class::Long) > 0);
        drop(desk);
        if is_any_resting {
            self.work.notify_one();
        }
        if demand == Demand::Brief && has_long {
            self.ticker.tick();
        }
    }

    /// Who waits to compute, as of the last change.
    fn demand(&self) -> Demand {
        Demand::ALL[usize::from(self.demand.load(Ordering::Relaxed)).min(Demand::ALL.len() - 1)]
    }

    fn work(&self) {
        priority::step_back();
        let _entered = self.runtime.enter();
        while let Some((number, ready, slice, kind)) = self.next() {
            self.run(number, ready, slice, Instant::now(), kind);
        }
    }

    /// Runs a guest for a slice.
    fn run(&self, number: Number, ready: Ready, slice: u32, began: Instant, kind: Kind) {
        let running = self.ticker.guest_runs();
        SLICE.set(Some(Slice { number, began, kind, has_yielded: false, is_over: false }));
        let result = panic::catch_unwind(AssertUnwindSafe(|| ready.run()));
        let is_over = SLICE.take().is_some_and(|slice| slice.is_over);
        drop(running);
        if result.is_err() {
            tracing::error!("a call panicked; its caller was told of an internal error. Please report this");
        }
        if is_over {
            return;
        }
        let now = Instant::now();
        let mut desk = self.desk.lock();
        desk.schedule.pause(number, slice, now.saturating_duration_since(began), now);
        let must_wake = kind == Kind::Lent && desk.resting > 0 && desk.schedule.demand() > Demand::None;
        self.leave(desk);
        if must_wake {
            self.work.notify_one();
        }
    }

    /// The next slice to run, waiting for it; nothing when all is over.
    fn next(&self) -> Option<(Number, Ready, u32, Kind)> {
        let mut desk = self.desk();
        loop {
            match desk.schedule.next(Instant::now()) {
                Next::Run(number, ready) => {
                    let slice = desk.schedule.slice(number);
                    let demand = desk.schedule.demand();
                    let kind = match desk.schedule.class(number) {
                        Class::Brief => Kind::Brief,
                        Class::Long if demand == Demand::Brief => Kind::Share,
                        Class::Long => Kind::Spare,
                    };
                    // A submission wakes one thread at most; if there is more to do, the next one is woken from here.
                    let must_wake = desk.resting > 0 && demand > Demand::None;
                    self.demand.store(demand as u8, Ordering::Relaxed);
                    drop(desk);
                    if must_wake {
                        self.work.notify_one();
                    }
                    return Some((number, ready, slice, kind));
                }
                Next::Evict if self.may_evict() => {
                    drop(desk);
                    self.evict();
                    desk = self.desk();
                }
                Next::Evict | Next::Nothing if desk.is_over && desk.schedule.begun() == 0 => {
                    self.work.notify_all();
                    return None;
                }
                Next::Evict | Next::Nothing => {
                    self.demand.store(Demand::None as u8, Ordering::Relaxed);
                    desk.resting += 1;
                    self.work.wait(&mut desk);
                    desk.resting -= 1;
                    self.settle(&mut desk);
                }
            }
        }
    }

    /// Whether there may be a kept instance to drop for the memory that a call waits for. Where there is none, whoever
    /// keeps the next one will say so.
    fn may_evict(&self) -> bool {
        self.is_memory_wanted.store(true, Ordering::SeqCst);
        let may_evict = !self.pool.is_empty();
        self.is_memory_wanted.store(!may_evict, Ordering::SeqCst);
        may_evict
    }

    /// Drops instances that the schedule counts as kept.
    fn drop_kept(&self, instances: impl IntoIterator<Item = Reusable>) {
        for instance in instances {
            let memory_bytes = instance.memory_bytes();
            drop(instance);
            self.released_bytes.fetch_add(memory_bytes, Ordering::Relaxed);
        }
    }
}

/// Drops instances that were kept for too long without a call, until none is kept.
async fn look_after(crew: Weak<Crew>) {
    loop {
        let Some(interval) = crew.upgrade().map(|crew| crew.pool.look_interval()) else { return };
        tokio::time::sleep(interval).await;
        let Some(crew) = crew.upgrade() else { return };
        crew.drop_kept(crew.pool.expire(Instant::now()));
        if crew.pool.is_empty() {
            // Whoever keeps one from now on starts another of these; whoever did so just before relied on this one.
            crew.is_looked_after.store(false, Ordering::SeqCst);
            if crew.pool.is_empty() || crew.is_looked_after.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }
}
