//! Which waiting call runs next: first come first served within a function, functions in turn, all within the
//! computer's budgets. Pure: no threads, no clock of its own.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use nigh_proto::Load;

use crate::utilisation::Utilisation;

/// Times that others may go before a call that waits for memory; then all wait until it fits.
const PASSED_OVER_MAX: u32 = 64;

/// A function's place in the schedule.
pub(crate) type LaneId = u64;

/// The computer's budgets.
#[derive(Debug, Clone)]
pub(crate) struct Budgets {
    /// Calls that run at once.
    pub(crate) workers: usize,
    /// Calls that wait.
    pub(crate) queue_max: usize,
    /// Bytes of payloads of calls that wait or run.
    pub(crate) payload_bytes_max: u64,
    /// Sum of the memory limits of all instances.
    pub(crate) memory_bytes_max: u64,
}

/// What a call asks of the schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    /// Its function.
    pub(crate) lane: LaneId,
    /// Calls of the function that may run at once.
    pub(crate) concurrency: u32,
    /// Calls of the function that may wait.
    pub(crate) queue: u32,
    /// The memory limit of its instance.
    pub(crate) memory_bytes: u64,
    /// The size of its payload.
    pub(crate) payload_bytes: u64,
    /// How long it will probably run.
    pub(crate) expected: Duration,
}

/// Why a call cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Its function's queue is full.
    Function,
    /// The computer's queue is full.
    Computer,
    /// Too many bytes of payload wait or run.
    Payloads,
}

/// What a worker is to do.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// Run this call.
    Run(Claim, T),
    /// Drop a kept instance, then ask again: a call waits for the memory.
    Evict,
    /// Wait.
    Nothing,
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    claim: Claim,
    job: T,
}

/// The calls of one function. Exists only while some wait or run.
#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<Waiting<T>>,
    running: u32,
    concurrency: u32,
    waiting_expected: Duration,
    running_expected: Duration,
    is_listed: bool,
    passed_over: u32,
}

/// Calls that wait, and the count of those that run.
#[derive(Debug)]
pub(crate) struct Schedule<T> {
    budgets: Budgets,
    lanes: HashMap<LaneId, Lane<T>>,
    /// Lanes that may run their next call, in turn; each at most once.
    turn: VecDeque<LaneId>,
    waiting: usize,
    running: usize,
    payload_bytes: u64,
    running_memory_bytes: u64,
    kept_memory_bytes: u64,
    next_number: u64,
    utilisation: Utilisation,
}

impl<T> Schedule<T> {
    /// An empty schedule on a host of so many cores.
    pub(crate) fn new(budgets: Budgets, cores: usize, now: Instant) -> Self {
        Self {
            budgets,
            lanes: HashMap::new(),
            turn: VecDeque::new(),
            waiting: 0,
            running: 0,
            payload_bytes: 0,
            running_memory_bytes: 0,
            kept_memory_bytes: 0,
            next_number: 0,
            utilisation: Utilisation::new(cores, now),
        }
    }

    /// Lets a call wait for its turn. Returns the number to cancel it by.
    pub(crate) fn submit(&mut self, claim: Claim, job: T) -> Result<u64, Full> {
        let free = self.budgets.workers.saturating_sub(self.running);
        if self.waiting >= self.budgets.queue_max.saturating_add(free) {
            return Err(Full::Computer);
        }
        let payload_bytes = self.payload_bytes.saturating_add(claim.payload_bytes);
        if payload_bytes > self.budgets.payload_bytes_max {
            return Err(Full::Payloads);
        }
        let lane = self.lanes.entry(claim.lane).or_insert_with(Lane::new);
        // A call that can begin at once does not wait, so it needs no place among those that do.
        let at_once = free.min(claim.concurrency.saturating_sub(lane.running) as usize);
        if lane.waiting.len() >= (claim.queue as usize).saturating_add(at_once) {
            return Err(Full::Function);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.waiting += 1;
        self.payload_bytes = payload_bytes;
        lane.concurrency = claim.concurrency;
        lane.waiting_expected += claim.expected;
        lane.waiting.push_back(Waiting { number, claim, job });
        lane.list(claim.lane, &mut self.turn);
        Ok(number)
    }

    /// The next call to run; the caller is a worker that is free.
    pub(crate) fn next(&mut self, now: Instant) -> Next<T> {
        for _ in 0..self.turn.len() {
            let Some(id) = self.turn.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            lane.is_listed = false;
            let Some(head) = lane.waiting.front() else {
                self.forget_if_empty(id);
                continue;
            };
            let held = self.running_memory_bytes + self.kept_memory_bytes;
            if held.saturating_add(head.claim.memory_bytes) > self.budgets.memory_bytes_max {
                lane.is_listed = true;
                if self.kept_memory_bytes > 0 {
                    self.turn.push_front(id);
                    return Next::Evict;
                }
                lane.passed_over += 1;
                if lane.passed_over > PASSED_OVER_MAX {
                    self.turn.push_front(id);
                    return Next::Nothing;
                }
                self.turn.push_back(id);
                continue;
            }
            if let Some(Waiting { claim, job, .. }) = lane.waiting.pop_front() {
                self.waiting -= 1;
                self.running += 1;
                self.running_memory_bytes += claim.memory_bytes;
                lane.start(&claim);
                lane.list(id, &mut self.turn);
                self.utilisation.set_running(self.running, now);
                return Next::Run(claim, job);
            }
        }
        Next::Nothing
    }

    /// A call has ended.
    pub(crate) fn finish(&mut self, claim: &Claim, now: Instant) {
        self.running = self.running.saturating_sub(1);
        self.payload_bytes = self.payload_bytes.saturating_sub(claim.payload_bytes);
        self.running_memory_bytes = self.running_memory_bytes.saturating_sub(claim.memory_bytes);
        self.utilisation.set_running(self.running, now);
        if let Some(lane) = self.lanes.get_mut(&claim.lane) {
            lane.running = lane.running.saturating_sub(1);
            lane.running_expected = lane.running_expected.saturating_sub(claim.expected);
            lane.list(claim.lane, &mut self.turn);
            self.forget_if_empty(claim.lane);
        }
    }

    /// Takes a waiting call out; nothing if it runs already or has ended.
    pub(crate) fn cancel(&mut self, id: LaneId, number: u64) -> Option<T> {
        let lane = self.lanes.get_mut(&id)?;
        let at = lane.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        let Waiting { claim, job, .. } = lane.waiting.remove(at)?;
        lane.waiting_expected = lane.waiting_expected.saturating_sub(claim.expected);
        self.waiting -= 1;
        self.payload_bytes = self.payload_bytes.saturating_sub(claim.payload_bytes);
        self.forget_if_empty(id);
        Some(job)
    }

    /// Takes all waiting calls out.
    pub(crate) fn cancel_all(&mut self) -> Vec<T> {
        let mut jobs = Vec::with_capacity(self.waiting);
        for lane in self.lanes.values_mut() {
            lane.waiting_expected = Duration::ZERO;
            for Waiting { claim, job, .. } in lane.waiting.drain(..) {
                self.payload_bytes = self.payload_bytes.saturating_sub(claim.payload_bytes);
                jobs.push(job);
            }
        }
        self.waiting = 0;
        jobs
    }

    /// An instance with this memory limit is kept for later calls, if the budget allows it.
    pub(crate) fn keep(&mut self, memory_bytes: u64) -> bool {
        let held = self.running_memory_bytes + self.kept_memory_bytes;
        let fits = held.saturating_add(memory_bytes) <= self.budgets.memory_bytes_max;
        self.kept_memory_bytes += if fits { memory_bytes } else { 0 };
        fits
    }

    /// A kept instance with this memory limit has been taken or dropped.
    pub(crate) fn release_kept(&mut self, memory_bytes: u64) {
        self.kept_memory_bytes = self.kept_memory_bytes.saturating_sub(memory_bytes);
    }

    /// How long a further call of this function would probably wait, functions taking turns.
    pub(crate) fn expected_wait(&self, id: LaneId, concurrency: u32) -> Duration {
        let own = self.lanes.get(&id);
        let ahead = own.map_or(0, |lane| lane.waiting.len());
        let by_function = own.map_or(Duration::ZERO, |lane| {
            let is_room = (lane.running as usize) + ahead < concurrency as usize;
            if is_room { Duration::ZERO } else { lane.work_ahead(usize::MAX) / concurrency.max(1) }
        });
        if self.running + self.waiting < self.budgets.workers {
            return by_function;
        }
        let work: Duration = self.lanes.values().map(|lane| lane.work_ahead(ahead + 1)).sum();
        by_function.max(work / u32::try_from(self.budgets.workers).unwrap_or(u32::MAX).max(1))
    }

    /// Whether a call could begin now if a worker were free.
    pub(crate) fn has_turn(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Calls that wait or run.
    pub(crate) fn under_way(&self) -> usize {
        self.waiting + self.running
    }

    /// How many calls of one function run and wait.
    pub(crate) fn counts(&self, id: LaneId) -> (u32, u32) {
        let lane = self.lanes.get(&id);
        lane.map_or((0, 0), |lane| (lane.running, u32::try_from(lane.waiting.len()).unwrap_or(u32::MAX)))
    }

    /// How busy the computer is.
    pub(crate) fn load(&mut self, now: Instant) -> Load {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Load {
            running: count(self.running),
            queued: count(self.waiting),
            workers: count(self.budgets.workers),
            utilisation: self.utilisation.shares(now),
        }
    }

    fn forget_if_empty(&mut self, id: LaneId) {
        let is_empty = |lane: &Lane<T>| lane.waiting.is_empty() && lane.running == 0 && !lane.is_listed;
        if self.lanes.get(&id).is_some_and(is_empty) {
            self.lanes.remove(&id);
        }
    }
}

impl<T> Lane<T> {
    fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            running: 0,
            concurrency: 1,
            waiting_expected: Duration::ZERO,
            running_expected: Duration::ZERO,
            is_listed: false,
            passed_over: 0,
        }
    }

    /// Takes its place in turn, if it has a call that may run.
    fn list(&mut self, id: LaneId, turn: &mut VecDeque<LaneId>) {
        if !self.is_listed && !self.waiting.is_empty() && self.running < self.concurrency {
            self.is_listed = true;
            turn.push_back(id);
        }
    }

    fn start(&mut self, claim: &Claim) {
        self.running += 1;
        self.passed_over = 0;
        self.waiting_expected = self.waiting_expected.saturating_sub(claim.expected);
        self.running_expected += claim.expected;
    }

    /// The work left in running calls (half of each, on average) and in the first `calls` of those that wait.
    fn work_ahead(&self, calls: usize) -> Duration {
        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let counted = u32::try_from(calls).unwrap_or(u32::MAX).min(waiting);
        let each = self.waiting_expected / waiting.max(1);
        self.running_expected / 2 + each.saturating_mul(counted)
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
