//! Calls that run without asking the schedule: how many of them it has room for, and how it takes them over.

use std::time::{Duration, Instant};

use super::{Begun, Claim, Class, Lane, LaneId, Number, Schedule, State};
use crate::number::NumberMap;

/// Bytes that the payload of a call may have that runs without asking.
pub(crate) const SEAT_PAYLOAD_MAX: u64 = 64 << 10;

/// Which calls need not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gate {
    /// Has the bits set of all functions that have calls in the schedule, which has to know of further ones.
    pub(crate) closed_lanes: u64,
    /// The memory that each may claim.
    pub(crate) memory_bytes: u64,
}

/// A call that runs without having asked.
#[derive(Debug, Clone)]
pub(crate) struct Seated {
    pub(crate) number: Number,
    pub(crate) claim: Claim,
    pub(crate) began: Instant,
}

impl Gate {
    /// For nobody.
    pub(crate) const CLOSED: Self = Self { closed_lanes: u64::MAX, memory_bytes: 0 };

    /// The bit of a function; it may share that with others.
    pub(crate) fn lane_bit(lane: LaneId) -> u64 {
        1 << (lane % u64::from(u64::BITS))
    }
}

impl<T> Schedule<T> {
    /// Who need not ask, where there are so many seats: nobody where somebody waits for more than a slot, or where the calls
    /// of all seats could take more than is left.
    pub(crate) fn gate(&self, seats: usize) -> Gate {
        let [brief, long] = [Class::Brief as usize, Class::Long as usize];
        let waits_for_more = !self.turns[long].is_empty() && self.slots(Class::Long) > 0;
        let is_anyone_passed_over = !self.ready[brief].is_empty() || !self.turns[brief].is_empty() || waits_for_more;
        let seats_bytes = SEAT_PAYLOAD_MAX.saturating_mul(seats as u64);
        let held = self.begun_memory_bytes.saturating_add(self.kept_memory_bytes);
        let memory_bytes = self.budgets.memory_bytes_max.saturating_sub(held) / seats.max(1) as u64;
        if is_anyone_passed_over
            || self.starving.is_some()
            || self.begun.len() + 2 * seats > self.budgets.instances_max
            || self.payload_bytes.saturating_add(seats_bytes) > self.budgets.payload_bytes_max
            || memory_bytes == 0
        {
            return Gate::CLOSED;
        }
        // Rounded down, so that it changes seldom.
        Gate { closed_lanes: self.lanes_present.mask(), memory_bytes: 1 << memory_bytes.ilog2() }
    }

    /// Takes over a call that runs: from now on it is one that has begun as any other.
    pub(crate) fn take_over(&mut self, seated: Seated, now: Instant) {
        let Seated { number, claim, began } = seated;
        self.payload_bytes = self.payload_bytes.saturating_add(claim.payload_bytes);
        self.begun_memory_bytes = self.begun_memory_bytes.saturating_add(claim.memory_bytes);
        lane_of(&mut self.lanes, &mut self.lanes_present, claim.lane).take_over(&claim);
        self.count_active(claim.lane, Class::Brief, 1);
        self.count_computing(1, now);
        let (class, state, used, slice) = (Class::Brief, State::Computing, Duration::ZERO, 0);
        self.begun.insert(number, Begun { claim, class, state, used, slice, slice_began: began, job: None });
    }

    /// Learns of calls that were never taken over, and of time spent on instances between calls.
    pub(crate) fn learn(&mut self, calls: u32, computed: Duration, renewing: Duration, now: Instant) {
        let busy = computed + renewing;
        if !busy.is_zero() {
            self.utilisation.add_busy(busy, now);
        }
        if calls > 0 {
            self.service.add_many(computed / calls, calls);
        }
    }
}

/// The lane of a function, made if there is none.
pub(super) fn lane_of<'a, T>(lanes: &'a mut NumberMap<Lane<T>>, present: &mut Present, id: LaneId) -> &'a mut Lane<T> {
    lanes.entry(id).or_insert_with(|| {
        present.add(id);
        Lane::new()
    })
}

/// Which bits of functions are taken.
#[derive(Debug, Clone)]
pub(super) struct Present {
    counts: [u32; u64::BITS as usize],
    mask: u64,
}

impl Default for Present {
    fn default() -> Self {
        Self { counts: [0; u64::BITS as usize], mask: 0 }
    }
}

impl Present {
    fn mask(&self) -> u64 {
        self.mask
    }

    fn add(&mut self, lane: LaneId) {
        let bit = Gate::lane_bit(lane);
        self.counts[bit.trailing_zeros() as usize] += 1;
        self.mask |= bit;
    }

    pub(super) fn remove(&mut self, lane: LaneId) {
        let bit = Gate::lane_bit(lane);
        let count = &mut self.counts[bit.trailing_zeros() as usize];
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.mask &= !bit;
        }
    }
}
