//! A processor at work: what runs on it, what waits at its containers, and who of these may start.

use std::collections::VecDeque;

use crate::hardware::{Container, Demand, Formulas, Processor};
use crate::memory::Memory;
use crate::model::{Completion, ContainerId, Estimate, OpId};
use crate::sharing::{Key, Sharing};
use crate::utilisation::Utilisation;

/// How often an operation that waits for memory is overtaken by later ones that need less of it. Then they wait for it.
pub const OVERTAKEN_MAX: u32 = 64;

/// A processor at work. Times are in nanoseconds, and never go back.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    processor: Processor,
    formulas: Formulas,
    sharing: Sharing<Running>,
    memory: Memory,
    /// One for each container on it.
    queues: Vec<Queue>,
    utilisation: Utilisation,
    started: u64,
}

/// A container: its workers, and what waits for one.
#[derive(Debug, Clone)]
struct Queue {
    container: ContainerId,
    workers: u32,
    running: u32,
    /// In the order of arrival.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: OpId,
    demand: Demand,
    submitted: u64,
    /// Operations that came later, and started while this one waited for memory.
    overtaken: u32,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    id: OpId,
    queue: usize,
    memory_bytes: u64,
    submitted: u64,
    started: u64,
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the container with this number on its processor.
    Waiting(usize),
    /// It runs.
    Running(Key),
}

/// An operation has started, and is no longer found where it waited.
pub(crate) type Started = (OpId, Place);

impl Machine {
    pub(crate) fn new(processor: Processor, formulas: Formulas) -> Self {
        Self {
            sharing: Sharing::new(processor.cores, processor.speed),
            memory: Memory::new(processor.memory_bytes),
            queues: Vec::new(),
            utilisation: Utilisation::new(processor.cores),
            started: 0,
            processor,
            formulas,
        }
    }

    /// Puts a container on it; returns its number here.
    pub(crate) fn add(&mut self, id: ContainerId, container: &Container) -> usize {
        self.queues.push(Queue { container: id, workers: container.workers, running: 0, waiting: VecDeque::new() });
        self.queues.len() - 1
    }

    pub(crate) fn processor(&self) -> &Processor {
        &self.processor
    }

    pub(crate) fn memory_total(&self) -> u64 {
        self.memory.total()
    }

    /// Operations that run and wait at a container.
    pub(crate) fn counts(&self, queue: usize) -> (u32, u32) {
        let queue = &self.queues[queue];
        (queue.running, u32::try_from(queue.waiting.len()).unwrap_or(u32::MAX))
    }

    pub(crate) fn shares(&mut self, now: u64) -> [f32; 3] {
        self.utilisation.shares(now)
    }

    /// When the next operation is done.
    pub(crate) fn next(&self) -> Option<u64> {
        self.sharing.next()
    }

    /// Takes an operation that arrives. It starts if there is a worker and memory, else it waits.
    pub(crate) fn submit(&mut self, id: OpId, queue: usize, demand: Demand, now: u64) -> Place {
        let arriving = Waiting { id, demand, submitted: now, overtaken: 0 };
        if self.may_start(queue, &arriving) {
            return self.start(queue, arriving, now).1;
        }
        self.queues[queue].waiting.push_back(arriving);
        Place::Waiting(queue)
    }

    /// Whether an operation that arrived now would start at once.
    pub(crate) fn could_start(&self, id: OpId, queue: usize, demand: Demand) -> bool {
        self.may_start(queue, &Waiting { id, demand, submitted: 0, overtaken: 0 })
    }

    /// Lets the operation end that is done `now`, and others start in its place.
    pub(crate) fn finish(&mut self, now: u64, started: &mut Vec<Started>) -> Option<Completion> {
        let done = self.sharing.finish(now)?;
        let completion = Completion::new(done.id, self.queues[done.queue].container, done.submitted, done.started, now);
        self.leave(done, now, started);
        Some(completion)
    }

    /// Ends an operation that nobody wants any more, and lets others start in its place.
    pub(crate) fn cancel(&mut self, id: OpId, place: &Place, now: u64, started: &mut Vec<Started>) {
        match place {
            Place::Running(key) => {
                if let Some(running) = self.sharing.stop(key, now) {
                    self.leave(running, now, started);
                }
            }
            Place::Waiting(queue) => {
                let waiting = &mut self.queues[*queue].waiting;
                if let Ok(at) = waiting.binary_search_by_key(&id, |waiting| waiting.id) {
                    waiting.remove(at);
                }
                // It may have been the one that others waited for.
                self.start_waiting(now, started);
            }
        }
    }

    /// What an operation would take that arrived now.
    pub(crate) fn estimate(&self, id: OpId, queue: usize, demand: Demand, now: u64) -> Estimate {
        match self.formulas {
            Formulas::Exact => self.foresee(id, queue, demand, now),
            Formulas::Older => self.sum_up(queue, demand, now),
        }
    }

    /// Lets a copy of everything go on until the operation is done.
    pub(crate) fn foresee(&self, id: OpId, queue: usize, demand: Demand, now: u64) -> Estimate {
        let mut ahead = self.clone();
        ahead.submit(id, queue, demand, now);
        let mut started = Vec::new();
        while let Some(at) = ahead.next() {
            if let Some(done) = ahead.finish(at, &mut started).filter(|done| done.id == id) {
                return Estimate { wait: done.wait(), run: done.run() };
            }
            started.clear();
        }
        Estimate::default()
    }

    /// The older system's sum: all that waits at the container, one after the other, then what ends first, then itself.
    fn sum_up(&self, queue: usize, demand: Demand, now: u64) -> Estimate {
        let all = u32::try_from(self.sharing.len()).unwrap_or(u32::MAX);
        let seconds = |ops: f64, speed: f64| if speed > 0.0 { ops / speed } else { 0.0 };
        let speed = self.processor.speed_of_each(all);
        let Queue { workers, running, waiting, .. } = &self.queues[queue];
        let mut wait: f64 = waiting.iter().map(|waiting| seconds(float(waiting.demand.ops), speed)).sum();
        let mut own = self.processor.speed_of_each(all.saturating_add(1));
        if running >= workers {
            own = speed;
            let first = self.sharing.left(now).find(|(_, running)| running.queue == queue);
            wait += first.map_or(0.0, |(left, _)| seconds(left, speed));
        }
        Estimate { wait: duration(wait), run: duration(seconds(float(demand.ops), own)) }
    }

    fn leave(&mut self, running: Running, now: u64, started: &mut Vec<Started>) {
        self.queues[running.queue].running -= 1;
        self.memory.give_back(running.memory_bytes).expect("it was taken when this started");
        self.note_busy(now);
        self.start_waiting(now, started);
    }

    /// Starts what may start now, in the order of arrival; at each container strictly from the head.
    fn start_waiting(&mut self, now: u64, started: &mut Vec<Started>) {
        while let Some(queue) = self.first_head(|queue, head| self.may_start(queue, head)) {
            if let Some(head) = self.queues[queue].waiting.pop_front() {
                started.push(self.start(queue, head, now));
            }
        }
    }

    fn start(&mut self, queue: usize, what: Waiting, now: u64) -> Started {
        let blocked = self.first_head(|queue, head| self.waits_for_memory(queue, head));
        let blocked = blocked.and_then(|queue| self.queues[queue].waiting.front_mut());
        if let Some(head) = blocked.filter(|head| head.id < what.id) {
            head.overtaken += 1;
        }
        let Waiting { id, demand: Demand { ops, memory_bytes }, submitted, .. } = what;
        self.memory.take(memory_bytes).expect("there was enough for it");
        self.queues[queue].running += 1;
        let running = Running { id, queue, memory_bytes, submitted, started: now };
        let key = self.sharing.start(ops, self.started, running, now);
        self.started += 1;
        self.note_busy(now);
        (id, Place::Running(key))
    }

    fn may_start(&self, queue: usize, what: &Waiting) -> bool {
        let is_free = self.queues[queue].running < self.queues[queue].workers;
        if !is_free || what.demand.memory_bytes > self.memory.free() {
            return false;
        }
        let barrier = self.first_head(|queue, head| self.waits_for_memory(queue, head));
        let barrier = barrier.and_then(|queue| self.queues[queue].waiting.front());
        barrier.is_none_or(|head| head.overtaken < OVERTAKEN_MAX || what.id <= head.id)
    }

    /// Whether the head of a queue could start but for memory.
    fn waits_for_memory(&self, queue: usize, head: &Waiting) -> bool {
        self.queues[queue].running < self.queues[queue].workers && head.demand.memory_bytes > self.memory.free()
    }

    /// The container with the earliest arrival among the heads of which this is true.
    fn first_head(&self, is: impl Fn(usize, &Waiting) -> bool) -> Option<usize> {
        let heads = self.queues.iter().enumerate().filter_map(|(at, queue)| Some((at, queue.waiting.front()?)));
        heads.filter(|(at, head)| is(*at, head)).min_by_key(|(_, head)| head.id).map(|(at, _)| at)
    }

    fn note_busy(&mut self, now: u64) {
        let running = u32::try_from(self.sharing.len()).unwrap_or(u32::MAX);
        let busy = match self.formulas {
            Formulas::Exact => running.min(self.processor.cores),
            Formulas::Older => running,
        };
        self.utilisation.set_busy(busy, now);
    }
}

#[expect(clippy::cast_precision_loss, reason = "for estimates")]
fn float(ops: u64) -> f64 {
    ops as f64
}

fn duration(seconds: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(seconds).unwrap_or(std::time::Duration::MAX)
}
