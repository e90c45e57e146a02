//! The clock that guests are interrupted by: one thread that advances the engines' epochs each millisecond while guests
//! run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crate::error::Error;
use crate::probe;
use crate::threads::{self, Apart};

/// The resolution of time limits and cancellation.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a guest before the thread rests, so that neither a busy nor an idle computer pays for waking it.
const IDLE_TICKS: u32 = 100;

/// The ticking thread's handle; the thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    engines: Vec<wasmtime::Engine>,
    state: Arc<State>,
    thread: Thread,
}

#[derive(Debug)]
struct State {
    /// Guests that run, each counted where its thread does: threads share no counter as long as there are enough.
    running: Box<[Apart<AtomicUsize>]>,
    resting: AtomicBool,
    stopping: AtomicBool,
}

impl Ticker {
    /// Starts ticking `engines`.
    pub(crate) fn start(engines: Vec<wasmtime::Engine>) -> Result<Self, Error> {
        let running = (0..2 * probe::cores() + 1).map(|_| Apart::default()).collect();
        let state = Arc::new(State { running, resting: AtomicBool::default(), stopping: AtomicBool::default() });
        let (ticking, ticked) = (state.clone(), engines.clone());
        let started: JoinHandle<()> = thread::Builder::new()
            .name("nigh-epoch".into())
            .spawn(move || ticking.tick(&ticked))
            .map_err(Error::Thread)?;
        Ok(Self { engines, state, thread: started.thread().clone() })
    }

    /// Has all guests look up at once, before the next tick is due.
    pub(crate) fn tick(&self) {
        self.engines.iter().for_each(wasmtime::Engine::increment_epoch);
    }

    /// Keeps the epoch advancing until the guard is dropped.
    pub(crate) fn guest_runs(&self) -> Running<'_> {
        // Sequentially consistent with `State::rest`: either this sees that the thread rests, or the thread sees the
        // guest.
        let running = &self.state.running[threads::number() % self.state.running.len()];
        running.fetch_add(1, Ordering::SeqCst);
        if self.state.resting.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(running)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        self.thread.unpark();
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
                idle = 0;
            }
            thread::sleep(TICK);
            engines.iter().for_each(wasmtime::Engine::increment_epoch);
        }
    }

    fn is_any_running(&self) -> bool {
        self.running.iter().any(|running| running.load(Ordering::SeqCst) > 0)
    }

    fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
        while !self.is_any_running() && !self.stopping.load(Ordering::SeqCst) {
            thread::park();
        }
        self.resting.store(false, Ordering::SeqCst);
    }
}
