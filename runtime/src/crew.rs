//! Where guests run. A guest is a task that computes in slices, none longer than a tick of the epoch where others wait.
//! A call that is expected to be over within a slice runs it on the thread that brought it, with no hand-over, and mostly
//! without going to the desk, where the schedule lies (`seats`); every
//! other slice is run by a crew of threads, one for each core, that step back behind those that serve the network. A brief
//! call that finds long ones on every core has them make way at once.

mod brevity;
mod keep;
mod ledger;
mod priority;
mod seats;
mod turn;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use async_task::{Runnable, ScheduleInfo, Task, WithInfo};
use nigh_proto::{Load, NodeName};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::admission::{Job, Refusal};
use crate::epoch::{Alarm, Ticker};
use crate::error::Error;
use crate::http::Outgoing;
use crate::pool::Pool;
use crate::probe;
use crate::run;
use crate::schedule::{Budgets, Claim, Class, Demand, Gate, LaneId, Next, Number, Schedule};
use crate::threads::Handle;
pub(crate) use brevity::Brevity;
pub(crate) use ledger::{Expected, Record};
use seats::{Seats, is_seated};
use turn::{Kind, SLICE, Slice};
pub(crate) use turn::{Turn, has_yielded, is_lent};

/// Stack of a thread of the crew; guests have stacks of their own.
const STACK_BYTES: usize = 1 << 20;

/// A guest, ready to compute. Carries its number in the schedule.
pub(crate) type Ready = Runnable<Number>;

/// The threads, and what they share with those that bring calls.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) computer: NodeName,
    pub(crate) engine: wasmtime::Engine,
    pub(crate) component_engine: wasmtime::Engine,
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
    seats: Seats,
    desk: Mutex<Desk>,
    work: Condvar,
    /// Who waits to compute, as guests ask at each tick.
    demand: AtomicU8,
    /// Guests are to end.
    pub(crate) stopping: CancellationToken,
    runtime: tokio::runtime::Handle,
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
        (engine, component_engine): (wasmtime::Engine, wasmtime::Engine),
        budgets: Budgets,
        is_limited: bool,
        outgoing: Outgoing,
    ) -> Result<Arc<Self>, Error> {
        let workers = budgets.workers;
        let kept_max = budgets.instances_max.saturating_sub(workers);
        let schedule = Schedule::new(budgets, probe::cores(), Instant::now());
        let ticker = Ticker::start(vec![engine.clone(), component_engine.clone()])?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::Runtime)?;
        let crew = Arc::new_cyclic(|this| Self {
            computer,
            ticker,
            engine,
            component_engine,
            is_limited,
            // Calls compute on these threads, and on those that bring them.
            pool: Pool::new(kept_max, workers + probe::cores()),
            outgoing,
            released_bytes: AtomicU64::new(0),
            is_memory_wanted: AtomicBool::new(false),
            is_looked_after: AtomicBool::new(false),
            // Two for each core, as threads take them as they come, and some may have to share.
            seats: Seats::new(2 * probe::cores()),
            desk: Mutex::new(Desk { schedule, resting: 0, is_closed: false, is_over: false }),
            work: Condvar::new(),
            demand: AtomicU8::new(0),
            stopping: CancellationToken::new(),
            runtime,
            this: this.clone(),
        });
        for number in 0..workers {
            let worker = crew.clone();
            // Fewer would leave cores unused that are free, and crowd those that other computers have chosen likewise.
            let core = (workers >= probe::cores()).then_some(number);
            let thread = thread::Builder::new().name(format!("nigh-guest-{number}")).stack_size(STACK_BYTES);
            if let Err(error) = thread.spawn(move || worker.work(core)) {
                crew.end();
                return Err(Error::Thread(error));
            }
        }
        Ok(crew)
    }

    /// Takes a call in, if it will probably wait no longer than its patience. A call that is expected to be brief, where
    /// nobody waits, has its first slice right here, and mostly that is all it takes.
    pub(crate) fn submit(
        this: &Handle<Self>,
        claim: Claim,
        job: Job,
        patience: Duration,
        is_brief: bool,
        now: Instant,
    ) -> Result<Taken, Refusal> {
        let is_brief = is_brief && SLICE.get().is_none();
        if is_brief && let Some(number) = this.seats.sit(&claim, now) {
            let (ready, task) = Self::spawn(this, number, job);
            this.run(number, ready, 0, now, Kind::Lent);
            return Ok(Taken { number, _task: task });
        }
        let mut desk = this.desk();
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
            let (ready, task) = Self::spawn(this, number, job);
            spawned = Some(task);
            ready
        };
        let number = desk.schedule.submit(claim, spawn).map_err(Refusal::Full)?;
        let at_once = is_brief.then(|| desk.schedule.begin_at_once(claim.lane, number, now)).flatten();
        if let Some((number, ready)) = at_once {
            this.leave(desk);
            this.run(number, ready, 0, now, Kind::Lent);
        } else {
            this.leave_for_others(desk);
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
        let mut desk = self.desk();
        let wait = desk.schedule.expected_wait(claim);
        let load = self.load_at(&mut desk);
        self.leave(desk);
        (wait, load)
    }

    /// How busy the computer is.
    pub(crate) fn load(&self) -> Load {
        let mut desk = self.desk();
        let load = self.load_at(&mut desk);
        self.leave(desk);
        load
    }

    fn load_at(&self, desk: &mut Desk) -> Load {
        let now = Instant::now();
        let (ended, _) = self.seats.take_ended();
        desk.schedule.learn(ended.calls, ended.computed, ended.renewing, now);
        desk.schedule.load(now)
    }

    /// How busy the computer is but for this call, which is as good as over, and how long that one has computed.
    pub(crate) fn report(&self, number: Number, now: Instant) -> (Load, Duration) {
        if is_seated(number)
            && let Some((computed, load)) = self.seats.report(number, now)
        {
            return (load.unwrap_or_else(|| self.load_beside(number, now)), computed);
        }
        self.desk.lock().schedule.report(number, now)
    }

    /// How busy the computer is but for a seated call, for that and for those to come at its seat.
    fn load_beside(&self, number: Number, now: Instant) -> Load {
        let (ended, seated) = self.seats.take_ended();
        let mut desk = self.desk.lock();
        desk.schedule.learn(ended.calls, ended.computed, ended.renewing, now);
        let load = desk.schedule.load(now);
        drop(desk);
        let load = Load { running: load.running + seated.saturating_sub(1), ..load };
        self.seats.set_load(number, load, now);
        load
    }

    /// What calls of a function were expected to take a moment ago; nothing where that has to be asked for.
    pub(crate) fn expected(&self, lane: LaneId, payload_bytes: u64, now: Instant) -> Option<Expected> {
        self.seats.expected(lane, payload_bytes, now)
    }

    /// Remembers what calls of a function are expected to take.
    pub(crate) fn expect(&self, expected: Expected) {
        self.seats.expect(expected);
    }

    /// Counts a call that was answered: at once, or with others of its kind.
    pub(crate) fn count(&self, number: Number, record: Record) {
        let left = if is_seated(number) { self.seats.note(number, record) } else { Some(record) };
        if let Some(record) = left {
            record.count();
        }
    }

    /// Has all that was measured counted.
    pub(crate) fn settle_measures(&self) {
        self.seats.settle();
    }

    /// How many calls of a function have begun and wait.
    pub(crate) fn counts(&self, lane: LaneId) -> (u32, u32) {
        let desk = self.desk();
        let counts = desk.schedule.counts(lane);
        self.leave(desk);
        counts
    }

    /// Waits for a moment, on behalf of a guest.
    pub(crate) fn sleep_until(&self, at: Instant) -> Alarm {
        self.ticker.sleep_until(at)
    }

    /// Calls that wait or have begun.
    pub(crate) fn under_way(&self) -> usize {
        let desk = self.desk();
        let under_way = desk.schedule.under_way();
        self.leave(desk);
        under_way
    }

    /// Whether it takes no more calls.
    pub(crate) fn is_closed(&self) -> bool {
        self.desk.lock().is_closed
    }

    /// Takes no more calls; those that wait or run go on.
    pub(crate) fn close(&self) {
        self.desk().is_closed = true;
    }

    /// Ends everything: waiting calls are refused, running guests stopped, threads end.
    pub(crate) fn end(&self) {
        self.stopping.cancel();
        let mut desk = self.desk();
        desk.is_closed = true;
        desk.is_over = true;
        let waiting = desk.schedule.cancel_all();
        drop(desk);
        self.work.notify_all();
        // Calls that were noted hold what holds the crew.
        self.settle_measures();
        // Their callers see that the call was dropped, and that the crew is stopping.
        drop(waiting);
    }

    /// Makes a call the task that it will be; nothing of it runs yet.
    fn spawn(this: &Handle<Self>, number: Number, job: Job) -> (Ready, Task<(), Number>) {
        let turn = Turn::new(this.clone(), number);
        let crew = this.clone();
        let wake = WithInfo(move |ready: Ready, info: ScheduleInfo| crew.wake(ready, info));
        let call = move |_: &Number| run::call(turn, job);
        async_task::Builder::new().metadata(number).spawn(call, wake)
    }

    fn wake(&self, ready: Ready, info: ScheduleInfo) {
        let number = *ready.metadata();
        let mut desk = self.desk();
        let refused = desk.schedule.wake(number, ready, Instant::now());
        // One that yields to the crew is seen by the thread that it leaves.
        if is_lent() || !info.woken_while_running {
            self.leave_for_others(desk);
        } else {
            self.leave(desk);
        }
        if let Some(ended) = refused {
            // A task that was cancelled is run once more, to be dropped.
            ended.run();
        }
    }

    /// Goes to the desk, where the schedule lies, and has it know of all calls. Whoever is to give away what it holds has to
    /// come this way.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        let mut desk = self.desk.lock();
        self.settle(&mut desk);
        desk
    }

    /// Tells the schedule of memory released meanwhile, and of calls that began without it.
    fn settle(&self, desk: &mut Desk) {
        if self.released_bytes.load(Ordering::Relaxed) > 0 {
            desk.schedule.release_kept(self.released_bytes.swap(0, Ordering::Relaxed));
        }
        if !self.seats.is_closed() {
            let now = Instant::now();
            self.seats.clear(|seated| desk.schedule.take_over(seated, now));
        }
    }

    /// Leaves the desk, having changed the schedule.
    fn leave(&self, desk: MutexGuard<'_, Desk>) {
        let demand = desk.schedule.demand();
        self.publish(&desk, demand);
    }

    /// Tells those who do not come to the desk how things stand there.
    fn publish(&self, desk: &Desk, demand: Demand) {
        if self.demand.load(Ordering::Relaxed) != demand as u8 {
            self.demand.store(demand as u8, Ordering::Relaxed);
        }
        let gate = if desk.is_closed { Gate::CLOSED } else { desk.schedule.gate(self.seats.count()) };
        self.seats.open(gate);
    }

    /// Leaves the desk, having brought a call that wants to compute: a thread that rests is woken for it. A brief call need not
    /// wait until that has a core, nor for the next tick: long ones make way at once.
    fn leave_for_others(&self, desk: MutexGuard<'_, Desk>) {
        let demand = desk.schedule.demand();
        self.publish(&desk, demand);
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

    fn work(&self, core: Option<usize>) {
        priority::step_back();
        if let Some(core) = core {
            priority::stay_on_core(core);
        }
        let _entered = self.runtime.enter();
        while let Some((number, ready, slice, kind)) = self.next() {
            self.run(number, ready, slice, Instant::now(), kind);
        }
    }

    /// Runs a guest for a slice.
    fn run(&self, number: Number, ready: Ready, slice: u32, began: Instant, kind: Kind) {
        let running = self.ticker.guest_runs();
        let own = Slice { number, began, kind, was_looked_at: false, has_yielded: false, is_over: false };
        SLICE.set(Some(own));
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
        let mut desk = self.desk();
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
                    self.publish(&desk, demand);
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
                    self.publish(&desk, Demand::None);
                    desk.resting += 1;
                    self.work.wait(&mut desk);
                    desk.resting -= 1;
                    self.settle(&mut desk);
                }
            }
        }
    }
}
