//! The model in real time: a thread that wakes whenever something ends there, and tells whoever waits for it.
//!
//! A thread rather than a timer of the async runtime, whose resolution is a millisecond: what is modelled may take less.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nigh_model::{Completion, ContainerId, Estimate, Model, OpId, Operation, Refusal};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::error::Error;

/// Limits of all containers together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Calls that wait.
    pub(super) queue_max: usize,
    /// Bytes of the payloads of all calls that wait or run.
    pub(super) payload_bytes_max: u64,
}

/// The model and its clock. Once told to end, it ends all its calls.
pub(super) struct Pace(Arc<Shared>);

struct Shared {
    origin: Instant,
    limits: Limits,
    desk: Mutex<Desk>,
    work: Condvar,
}

struct Desk {
    model: Model,
    callers: HashMap<OpId, Caller>,
    payload_bytes: u64,
    /// When the thread wakes by itself.
    alarm: Option<Duration>,
    is_closed: bool,
    is_over: bool,
}

/// Who waits for an operation's end.
struct Caller {
    payload_bytes: u64,
    done: oneshot::Sender<Completion>,
}

/// Why a call is not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// Its container does not take it.
    Model(Refusal),
    /// As many wait at all containers as may.
    QueueFull,
    /// As many bytes of payload are held as may be.
    PayloadsFull,
    /// It would wait so long, longer than it can.
    WaitTooLong(Duration),
    /// The computer stops.
    Stopping,
}

/// The place of a call that was taken. Dropped before its end, it cancels the call.
pub(crate) struct Place {
    shared: Arc<Shared>,
    id: OpId,
    /// When it has ended; never, where the computer stops before.
    pub(super) done: oneshot::Receiver<Completion>,
}

/// How busy a processor is.
pub(super) struct Sample {
    pub(super) processor: String,
    pub(super) cores: u32,
    pub(super) shares: [f32; 3],
}

impl Pace {
    /// Starts the thread.
    pub(super) fn start(model: Model, limits: Limits) -> Result<Self, Error> {
        let desk =
            Desk { model, callers: HashMap::new(), payload_bytes: 0, alarm: None, is_closed: false, is_over: false };
        let shared = Arc::new(Shared { origin: Instant::now(), limits, desk: Mutex::new(desk), work: Condvar::new() });
        let running = shared.clone();
        thread::Builder::new().name("nigh-model".into()).spawn(move || running.run()).map_err(Error::Thread)?;
        Ok(Self(shared))
    }

    /// Takes a call with a payload of this size, unless it would wait for longer than `patience`.
    pub(super) fn submit(
        &self,
        operation: Operation,
        payload_bytes: u64,
        patience: Duration,
    ) -> Result<Place, Refused> {
        let Shared { limits, desk, .. } = &*self.0;
        let mut desk = desk.lock();
        if desk.is_closed {
            return Err(Refused::Stopping);
        }
        if desk.payload_bytes.saturating_add(payload_bytes) > limits.payload_bytes_max {
            return Err(Refused::PayloadsFull);
        }
        let now = self.0.now();
        if desk.model.would_wait(operation, now) {
            let wait = desk.model.foresee(operation, now)?.wait;
            if wait > patience {
                return Err(Refused::WaitTooLong(wait));
            }
            if desk.totals().1 >= limits.queue_max {
                return Err(Refused::QueueFull);
            }
        }
        let id = desk.model.submit(operation, now)?;
        let (sender, done) = oneshot::channel();
        desk.callers.insert(id, Caller { payload_bytes, done: sender });
        desk.payload_bytes += payload_bytes;
        self.0.settle(&mut desk, now);
        Ok(Place { shared: self.0.clone(), id, done })
    }

    /// What a call would take that came now.
    pub(super) fn estimate(&self, operation: Operation) -> Result<Estimate, Refused> {
        let mut desk = self.0.desk.lock();
        Ok(desk.model.estimate(operation, self.0.now())?)
    }

    /// When the next operation ends, from now on.
    pub(super) fn next_end(&self) -> Duration {
        let desk = self.0.desk.lock();
        desk.model.next_event().unwrap_or_default().saturating_sub(self.0.now())
    }

    /// How many run and wait at a container, and how busy its processor is.
    pub(super) fn look(&self, container: ContainerId) -> (u32, u32, [f32; 3]) {
        let mut desk = self.0.desk.lock();
        let shares = desk.model.utilisation_of(container, self.0.now());
        let (running, waiting) = desk.model.counts(container);
        (running, waiting, shares)
    }

    /// How many run and wait at all containers.
    pub(super) fn totals(&self) -> (usize, usize) {
        self.0.desk.lock().totals()
    }

    /// How busy every processor is.
    pub(super) fn utilisation(&self) -> Vec<Sample> {
        let mut desk = self.0.desk.lock();
        let samples = desk.model.utilisation(self.0.now());
        let sample = |(processor, shares): (&nigh_model::Processor, _)| Sample {
            processor: processor.name.clone(),
            cores: processor.cores,
            shares,
        };
        samples.map(sample).collect()
    }

    /// Takes no more calls; those that wait or run go on.
    pub(super) fn close(&self) {
        self.0.desk.lock().is_closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.desk.lock().is_closed
    }

    /// Calls that wait or run.
    pub(super) fn under_way(&self) -> usize {
        self.0.desk.lock().callers.len()
    }

    /// Ends everything at once.
    pub(super) fn end(&self) {
        let mut desk = self.0.desk.lock();
        (desk.is_closed, desk.is_over) = (true, true);
        desk.callers.clear();
        self.0.work.notify_all();
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn run(&self) {
        let mut desk = self.desk.lock();
        while !desk.is_over {
            self.settle(&mut desk, self.now());
            desk.alarm = desk.model.next_event();
            match desk.alarm.and_then(|at| self.origin.checked_add(at)) {
                Some(at) => drop(self.work.wait_until(&mut desk, at)),
                None => self.work.wait(&mut desk),
            }
        }
    }

    /// Tells everybody whose operation has ended, and has the thread wake in time for the next.
    fn settle(&self, desk: &mut Desk, now: Duration) {
        let Desk { model, callers, payload_bytes, .. } = desk;
        for done in model.advance(now) {
            if let Some(caller) = callers.remove(&done.id) {
                *payload_bytes -= caller.payload_bytes;
                // Whoever is gone does not want to know.
                let _ = caller.done.send(done);
            }
        }
        let next = desk.model.next_event();
        if next.is_some_and(|next| desk.alarm.is_none_or(|alarm| next < alarm)) {
            self.work.notify_one();
        }
    }
}

impl Desk {
    fn totals(&self) -> (usize, usize) {
        let counts = self.model.containers().map(|(container, _)| self.model.counts(container));
        counts.fold((0, 0), |(running, waiting), one| (running + one.0 as usize, waiting + one.1 as usize))
    }
}

impl Place {
    /// Whether it has begun to run; false where it has ended.
    pub(super) fn is_running(&self) -> bool {
        self.shared.desk.lock().model.is_running(self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut desk = self.shared.desk.lock();
        if let Some(caller) = desk.callers.remove(&self.id) {
            desk.payload_bytes -= caller.payload_bytes;
            let now = self.shared.now();
            desk.model.cancel(self.id, now);
            self.shared.settle(&mut desk, now);
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Model(refusal)
    }
}
