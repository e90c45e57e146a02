//! The clock that guests are interrupted by: one thread that advances the engines' epochs each millisecond while guests
//! run, and wakes those that wait for a moment.

mod alarms;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::probe;
use crate::threads::{self, Apart};
pub(crate) use alarms::Alarm;
use alarms::Alarms;

/// The resolution of time limits and cancellation.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a guest before the thread rests, so that neither a busy nor an idle computer pays for waking it.
const IDLE_TICKS: u32 = 100;

/// The ticking thread's handle; the thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    engines: Vec<wasmtime::Engine>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Guests that run, each counted where its thread does: threads share no counter as long as there are enough.
    running: Box<[Apart<AtomicUsize>]>,
    alarms: Alarms,
    thread: OnceLock<Thread>,
    resting: AtomicBool,
    stopping: AtomicBool,
}

impl Ticker {
    /// Starts ticking `engines`.
    pub(crate) fn start(engines: Vec<wasmtime::Engine>) -> Result<Self, Error> {
        let running = (0..2 * probe::cores() + 1).map(|_| Apart::default()).collect();
        let state = Arc::new(State {
            running,
            alarms: Alarms::default(),
            thread: OnceLock::new(),
            resting: AtomicBool::default(),
            stopping: AtomicBool::default(),
        });
        let (ticking, ticked) = (state.clone(), engines.clone());
        let name = "nigh-epoch".to_owned();
        let started = thread::Builder::new().name(name).spawn(move || ticking.tick(&ticked)).map_err(Error::Thread)?;
        state.thread.get_or_init(|| started.thread().clone());
        Ok(Self { engines, state })
    }

    /// Waits for a moment, and up to a tick more.
    pub(crate) fn sleep_until(&self, at: Instant) -> Alarm {
        Alarm::new(at, self.state.clone())
    }

    /// Has all guests look up at once, before the next tick is due.
    pub(crate) fn tick(&self) {
        self.engines.iter().for_each(wasmtime::Engine::increment_epoch);
    }

    /// Keeps the epoch advancing until the guard is dropped.
    pub(crate) fn guest_runs(&self) -> Running<'_> {
        let running = &self.state.running[threads::number() % self.state.running.len()];
        running.fetch_add(1, Ordering::SeqCst);
        self.state.rouse();
        Running(running)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        self.state.rouse();
    }
}

/// A guest runs as long as this lives.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    fn tick(&self, engines: &[wasmtime::Engine]) {
        let mut idle = 0;
        while !self.stopping.load(Ordering::SeqCst) {
            idle = if self.is_any_running() { 0 } else { idle + 1 };
            if idle > IDLE_TICKS {
                self.rest();
                self.alarms.ring(Instant::now());
                idle = 0;
            }
            thread::sleep(TICK);
            engines.iter().for_each(wasmtime::Engine::increment_epoch);
            self.alarms.ring(Instant::now());
        }
    }

    /// Tells the thread, where it rests, that a guest runs, an alarm was set, or it is to end.
    fn rouse(&self) {
        // Sequentially consistent with `rest`: either this sees that the thread rests, or the thread sees what is new.
        if self.resting.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn is_any_running(&self) -> bool {
        self.running.iter().any(|running| running.load(Ordering::SeqCst) > 0)
    }

    /// Until a guest runs, or an alarm is due.
    fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while !self.is_any_running() && !self.stopping.load(Ordering::SeqCst) {
            match self.alarms.next().map(|at| at.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => break,
                Some(left) => thread::park_timeout(left),
            }
        }
        self.resting.store(false, Ordering::SeqCst);
    }
}
