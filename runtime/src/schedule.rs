//! Which call runs next, and for how long: calls wait in their function's lane, functions take turns, all within the
//! computer's budgets, of which no function gets all. Calls that have begun run in slices: brief ones before long ones,
//! functions in rounds, the earliest deadline first. Long ones get a share that no crowd of brief ones can take, and
//! whoever has nothing that computes gets its turn whatever the others hold. Pure: no threads, no clock of its own.

mod at_once;
mod claim;
mod lane;
mod report;
mod rounds;
mod seated;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::measure::Mean;
use crate::number::NumberMap;
use crate::utilisation::Utilisation;
pub(crate) use claim::{Budgets, Claim, Class, Demand, Full, Next};
use lane::{Lane, Waiting};
use rounds::Rounds;
pub(crate) use seated::{Gate, SEAT_PAYLOAD_MAX, Seated};
use seated::{Present, lane_of};

/// Computing for longer than this makes a call a long one.
pub(crate) const LONG: Duration = Duration::from_millis(10);
/// One slice in so many goes to a long call, if there is one.
const LONG_SHARE: u32 = 4;
/// A long call that has computed for so long in one slice has had its share.
pub(crate) const SHARE_SLICE: Duration = Duration::from_millis(1);
/// Times that others may go before a call that waits for memory; then other functions have one call at a time until it fits.
const PASSED_OVER_MAX: u32 = 64;
/// What one function may hold of a budget, in multiples of what is left for others: 4 leave a fifth.
const SHARE: u64 = 4;

/// A function's place in the schedule.
pub(crate) type LaneId = u64;
/// A call's number in the schedule.
pub(crate) type Number = u64;

/// What a call that has begun is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a slice.
    Computing,
    /// Waits for its next slice.
    Ready,
    /// Waits for its host: a timer, a file.
    Blocked,
}

/// Whether a lane's first call may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// It may.
    Now,
    /// It may once kept instances are dropped.
    Evict,
    /// It waits for memory that calls of other functions hold.
    NoMemory,
    /// It waits for a slot, or for its own function's calls.
    Later,
    /// Calls of its function have shown to be of the other class meanwhile.
    OtherClass,
    /// There is none.
    Nobody,
}

#[derive(Debug)]
struct Begun<T> {
    claim: Claim,
    class: Class,
    state: State,
    /// Computed in slices that are over.
    used: Duration,
    /// The number and begin of its last slice.
    slice: u32,
    slice_began: Instant,
    /// Present while it is ready.
    job: Option<T>,
}

/// Calls that wait for their turn, and those that have begun.
#[derive(Debug)]
pub(crate) struct Schedule<T> {
    budgets: Budgets,
    lanes: NumberMap<Lane<T>>,
    lanes_present: Present,
    /// By class, the lanes that may begin their next call, in turn; each at most once.
    turns: [VecDeque<LaneId>; 2],
    begun: NumberMap<Begun<T>>,
    /// By class, calls ready for their next slice.
    ready: [Rounds; 2],
    /// By class, calls that compute or are ready to.
    active: [usize; 2],
    waiting: usize,
    computing: usize,
    /// Slices since one of a long call.
    slices_since_long: u32,
    picks_of: [u32; 2],
    payload_bytes: u64,
    begun_memory_bytes: u64,
    kept_memory_bytes: u64,
    /// The function whose call has waited for memory for too long.
    starving: Option<LaneId>,
    next_number: Number,
    utilisation: Utilisation,
    service: Mean,
}

impl<T> Schedule<T> {
    /// An empty schedule on a host of so many cores.
    pub(crate) fn new(budgets: Budgets, cores: usize, now: Instant) -> Self {
        Self {
            budgets,
            lanes: NumberMap::default(),
            lanes_present: Present::default(),
            turns: Default::default(),
            begun: NumberMap::default(),
            ready: Default::default(),
            active: [0; 2],
            waiting: 0,
            computing: 0,
            slices_since_long: 0,
            picks_of: [0; 2],
            payload_bytes: 0,
            begun_memory_bytes: 0,
            kept_memory_bytes: 0,
            starving: None,
            next_number: 0,
            utilisation: Utilisation::new(cores, now),
            service: Mean::default(),
        }
    }

    /// Lets a call wait for its turn. Returns its number. `job` is made once there is room.
    pub(crate) fn submit(&mut self, claim: Claim, job: impl FnOnce(Number) -> T) -> Result<Number, Full> {
        let class = self.lanes.get(&claim.lane).map_or_else(|| claim.class(), |lane| lane.class_of(&claim));
        let free = self.slots(class).min(self.budgets.instances_max.saturating_sub(self.begun.len()));
        if self.waiting >= self.budgets.queue_max.saturating_add(free) {
            return Err(Full::Computer);
        }
        let payload_bytes = self.payload_bytes.saturating_add(claim.payload_bytes);
        if payload_bytes > self.budgets.payload_bytes_max {
            return Err(Full::Payloads);
        }
        let lane = lane_of(&mut self.lanes, &mut self.lanes_present, claim.lane);
        // A call that can begin at once does not wait, so it needs no place among those that do.
        let at_once = free.min(claim.concurrency.saturating_sub(lane.begun) as usize);
        if lane.waiting.len() >= (claim.queue as usize).saturating_add(at_once) {
            self.forget_if_empty(claim.lane);
            return Err(Full::Function);
        }
        let waiting = lane.waiting.len().saturating_sub(at_once) as u64;
        let places_left = self.budgets.queue_max.saturating_sub(self.waiting + 1) as u64;
        let bytes_left = self.budgets.payload_bytes_max - payload_bytes;
        if !is_fair(waiting, 1, places_left) || !is_fair(lane.payload_bytes, claim.payload_bytes, bytes_left) {
            return Err(Full::Share);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.waiting += 1;
        self.payload_bytes = payload_bytes;
        lane.wait(Waiting { number, claim, job: job(number) });
        lane.list(claim.lane, &mut self.turns);
        Ok(number)
    }

    /// The next call to run for a slice; the caller is a worker that is free.
    pub(crate) fn next(&mut self, now: Instant) -> Next<T> {
        let is_for_long = self.slices_since_long + 1 >= LONG_SHARE;
        // A function may turn out to be brief again when it would be its turn among the long ones.
        let classes = if is_for_long { [Class::Long, Class::Brief] } else { [Class::Brief, Class::Long] };
        for class in classes.into_iter().chain([Class::Brief]) {
            let next = self.next_of(class, now);
            if matches!(next, Next::Run(..)) {
                self.slices_since_long =
                    if class == Class::Long { 0 } else { self.slices_since_long.saturating_add(1) };
            }
            if !matches!(next, Next::Nothing) {
                return next;
            }
        }
        Next::Nothing
    }

    /// Those that have begun and those that have not go first in turn, so that neither keep the others waiting.
    fn next_of(&mut self, class: Class, now: Instant) -> Next<T> {
        let picks = &mut self.picks_of[class as usize];
        *picks = picks.wrapping_add(1);
        if picks.is_multiple_of(2) {
            match self.begin(class, now) {
                Next::Nothing => self.resume(class, now),
                next => next,
            }
        } else {
            match self.resume(class, now) {
                Next::Nothing => self.begin(class, now),
                next => next,
            }
        }
    }

    /// A call that has begun can go on. Gives back one that has ended: it only has to be dropped.
    pub(crate) fn wake(&mut self, number: Number, job: T, now: Instant) -> Option<T> {
        let computed = self.computed(number, now);
        let Some(begun) = self.begun.get_mut(&number) else { return Some(job) };
        let (claim, class, was) = (begun.claim, begun.class, begun.state);
        begun.state = State::Ready;
        begun.job = Some(job);
        if computed >= LONG {
            begun.class = Class::Long;
        }
        let class_now = begun.class;
        if was != State::Blocked {
            self.count_active(claim.lane, class, -1);
        }
        self.count_active(claim.lane, class_now, 1);
        if class != class_now
            && let Some(lane) = self.lanes.get_mut(&claim.lane)
        {
            lane.long += 1;
        }
        self.ready[class_now as usize].push(claim.lane, claim.deadline, number);
        None
    }

    /// A slice is over. Unless the call was woken since, or has ended, it now waits for its host.
    pub(crate) fn pause(&mut self, number: Number, slice: u32, took: Duration, now: Instant) {
        self.count_computing(-1, now);
        let Some(begun) = self.begun.get_mut(&number) else { return };
        begun.used += took;
        if begun.class == Class::Long && took >= SHARE_SLICE {
            self.slices_since_long = 0;
        }
        // It may have been woken, and be in its next slice on another thread.
        if begun.slice == slice && begun.state == State::Computing {
            begun.state = State::Blocked;
            let (id, class) = (begun.claim.lane, begun.class);
            self.count_active(id, class, -1);
        }
    }

    /// The number of the slice that a call is in.
    pub(crate) fn slice(&self, number: Number) -> u32 {
        self.begun.get(&number).map_or(0, |begun| begun.slice)
    }

    /// What a call that has begun has shown to be.
    pub(crate) fn class(&self, number: Number) -> Class {
        self.begun.get(&number).map_or(Class::Brief, |begun| begun.class)
    }

    /// Calls of a class that compute or are ready to.
    pub(crate) fn active(&self, class: Class) -> usize {
        self.active[class as usize]
    }

    /// A call that has begun has ended. The slice that it ended in is still to be [paused](Self::pause).
    pub(crate) fn finish(&mut self, number: Number) {
        let Some(begun) = self.begun.remove(&number) else { return };
        let Begun { claim, class, state, .. } = begun;
        if state != State::Blocked {
            self.count_active(claim.lane, class, -1);
        }
        if state == State::Ready {
            self.ready[class as usize].remove(claim.lane, claim.deadline, number);
        }
        self.payload_bytes = self.payload_bytes.saturating_sub(claim.payload_bytes);
        self.begun_memory_bytes = self.begun_memory_bytes.saturating_sub(claim.memory_bytes);
        if let Some(lane) = self.lanes.get_mut(&claim.lane) {
            lane.end(&claim, class);
            lane.list(claim.lane, &mut self.turns);
            self.forget_if_empty(claim.lane);
        }
    }

    /// How much a call that has begun has computed.
    pub(crate) fn computed(&self, number: Number, now: Instant) -> Duration {
        let Some(begun) = self.begun.get(&number) else { return Duration::ZERO };
        let is_computing = begun.state == State::Computing;
        begun.used + if is_computing { now.saturating_duration_since(begun.slice_began) } else { Duration::ZERO }
    }

    /// Takes a waiting call out; nothing if it has begun already, or ended.
    pub(crate) fn cancel(&mut self, id: LaneId, number: Number) -> Option<T> {
        let Waiting { claim, job, .. } = self.lanes.get_mut(&id)?.cancel(number)?;
        self.starving = self.starving.filter(|starving| *starving != id);
        self.waiting -= 1;
        self.payload_bytes = self.payload_bytes.saturating_sub(claim.payload_bytes);
        self.forget_if_empty(id);
        Some(job)
    }

    /// Takes all waiting calls out.
    pub(crate) fn cancel_all(&mut self) -> Vec<T> {
        let mut jobs = Vec::with_capacity(self.waiting);
        for lane in self.lanes.values_mut() {
            for Waiting { claim, job, .. } in lane.cancel_all() {
                self.payload_bytes = self.payload_bytes.saturating_sub(claim.payload_bytes);
                jobs.push(job);
            }
        }
        self.waiting = 0;
        jobs
    }

    /// An instance with this memory limit is kept for later calls, if the budget allows it.
    pub(crate) fn keep(&mut self, memory_bytes: u64) -> bool {
        let held = self.begun_memory_bytes + self.kept_memory_bytes;
        let fits = held.saturating_add(memory_bytes) <= self.budgets.memory_bytes_max;
        self.kept_memory_bytes += if fits { memory_bytes } else { 0 };
        fits
    }

    /// A kept instance with this memory limit has been taken or dropped.
    pub(crate) fn release_kept(&mut self, memory_bytes: u64) {
        self.kept_memory_bytes = self.kept_memory_bytes.saturating_sub(memory_bytes);
    }

    /// Calls that have begun and not ended.
    pub(crate) fn begun(&self) -> usize {
        self.begun.len()
    }

    /// Calls of a class that could compute beside those that do.
    fn slots(&self, class: Class) -> usize {
        self.budgets.workers.saturating_sub(self.active[class as usize])
    }

    /// Gives the ready call that goes first its next slice.
    fn resume(&mut self, class: Class, now: Instant) -> Next<T> {
        while let Some(number) = self.ready[class as usize].pop() {
            let Some(begun) = self.begun.get_mut(&number) else { continue };
            let Some(job) = begun.job.take() else { continue };
            begun.state = State::Computing;
            begun.slice += 1;
            begun.slice_began = now;
            self.count_computing(1, now);
            return Next::Run(number, job);
        }
        Next::Nothing
    }

    /// Begins the first call of the lane whose turn it is.
    fn begin(&mut self, class: Class, now: Instant) -> Next<T> {
        for _ in 0..self.turns[class as usize].len() {
            let Some(id) = self.turns[class as usize].pop_front() else { break };
            let leave = self.may_begin(id, class);
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            lane.is_listed = false;
            match leave {
                Leave::Now => {}
                Leave::Nobody => {
                    self.forget_if_empty(id);
                    continue;
                }
                Leave::OtherClass => {
                    lane.list(id, &mut self.turns);
                    continue;
                }
                Leave::Evict => {
                    lane.is_listed = true;
                    self.turns[class as usize].push_front(id);
                    return Next::Evict;
                }
                Leave::Later | Leave::NoMemory => {
                    lane.is_listed = true;
                    lane.passed_over += u32::from(leave == Leave::NoMemory);
                    if lane.passed_over > PASSED_OVER_MAX {
                        self.starving.get_or_insert(id);
                    }
                    self.turns[class as usize].push_back(id);
                    continue;
                }
            }
            if let Some(Waiting { number, claim, job }) = lane.begin(class) {
                lane.list(id, &mut self.turns);
                self.starving = self.starving.filter(|starving| *starving != id);
                self.waiting -= 1;
                self.begun_memory_bytes += claim.memory_bytes;
                self.count_active(id, class, 1);
                self.count_computing(1, now);
                let (state, used, slice) = (State::Computing, Duration::ZERO, 0);
                self.begun.insert(number, Begun { claim, class, state, used, slice, slice_began: now, job: None });
                return Next::Run(number, job);
            }
        }
        Next::Nothing
    }

    /// Whether the first call of a lane may begin.
    fn may_begin(&self, id: LaneId, class: Class) -> Leave {
        let Some(lane) = self.lanes.get(&id) else { return Leave::Nobody };
        let Some(head) = lane.waiting.front() else { return Leave::Nobody };
        if lane.class() != class {
            return Leave::OtherClass;
        }
        let begun = self.begun.len();
        let is_held_back = self.starving.is_some_and(|starving| starving != id) && lane.begun > 0;
        // Whoever has nothing that computes need not wait for a slot: others may hold them for as long as they like.
        if begun >= self.budgets.instances_max || (self.slots(class) == 0 && lane.active > 0) || is_held_back {
            return Leave::Later;
        }
        let held = self.begun_memory_bytes.saturating_add(head.claim.memory_bytes);
        let (memory_max, instances_left) = (self.budgets.memory_bytes_max, self.budgets.instances_max - begun - 1);
        if !is_fair(lane.memory_bytes, head.claim.memory_bytes, memory_max.saturating_sub(held))
            || !is_fair(lane.begun.into(), 1, instances_left as u64)
        {
            return Leave::Later;
        }
        match held.saturating_add(self.kept_memory_bytes) {
            _ if held > memory_max => Leave::NoMemory,
            with_kept if with_kept > memory_max => Leave::Evict,
            _ => Leave::Now,
        }
    }

    fn count_active(&mut self, id: LaneId, class: Class, change: isize) {
        let active = &mut self.active[class as usize];
        *active = active.saturating_add_signed(change);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.active = lane.active.saturating_add_signed(change);
        }
    }

    fn count_computing(&mut self, change: isize, now: Instant) {
        self.computing = self.computing.saturating_add_signed(change);
        self.utilisation.set_running(self.computing, now);
    }

    fn forget_if_empty(&mut self, id: LaneId) {
        if self.lanes.get(&id).is_some_and(Lane::is_empty) {
            self.lanes.remove(&id);
            self.lanes_present.remove(id);
            self.ready.iter_mut().for_each(|ready| ready.forget(id));
            self.starving = self.starving.filter(|starving| *starving != id);
        }
    }
}

/// Whether a function that holds so much of a budget may take more, with so much left for others then. The first that it
/// asks for it always gets.
fn is_fair(held: u64, more: u64, left: u64) -> bool {
    held == 0 || more == 0 || held.saturating_add(more) <= left.saturating_mul(SHARE)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
