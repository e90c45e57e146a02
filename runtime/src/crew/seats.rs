//! Seats: where threads that bring calls run the brief ones themselves, without going to the desk. Each thread has a seat
//! with a lock of its own, so such calls share nothing that others write to.
//!
//! The desk stays in charge. A gate says which functions' calls may be seated, and how much memory each may claim: so much
//! that all seats together never take what the schedule could give away. Whoever is about to give something away closes the
//! gate and takes over all calls that are seated; from then on they are calls as any other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nigh_proto::Load;
use parking_lot::Mutex;

use super::ledger::{Expected, Ledger, Record};
use crate::schedule::{Claim, Gate, LaneId, Number, SEAT_PAYLOAD_MAX, Seated};
use crate::threads::{self, Apart};

/// Marks the numbers of calls that were seated; the schedule's own stay far below.
const SEATED: Number = 1 << 63;
/// Bits of such a number that count the calls of one seat.
const COUNT_BITS: u32 = 48;
/// How old a load may be that such calls tell of.
const LOAD_AGE_MAX: Duration = Duration::from_millis(1);

/// The seats of one crew.
#[derive(Debug)]
pub(super) struct Seats {
    gate: OpenGate,
    seats: Box<[Apart<Mutex<Sitting>>]>,
}

/// Who may be seated. Read by every call and seldom written to, so it has a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct OpenGate {
    closed_lanes: AtomicU64,
    memory_bytes: AtomicU64,
}

/// What is at one seat.
#[derive(Debug, Default)]
struct Sitting {
    call: Option<Seated>,
    count: u64,
    /// Calls that ended here, and what they computed, of which the schedule is still to learn.
    ended: Ended,
    load: Load,
    load_at: Option<Instant>,
    ledger: Ledger,
}

/// Calls that ended at seats.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Ended {
    pub(super) calls: u32,
    pub(super) computed: Duration,
    /// Spent on instances between calls.
    pub(super) renewing: Duration,
}

/// Whether a call began at a seat.
pub(super) fn is_seated(number: Number) -> bool {
    number & SEATED != 0
}

impl Seats {
    pub(super) fn new(seats: usize) -> Self {
        let gate = OpenGate { closed_lanes: AtomicU64::new(u64::MAX), memory_bytes: AtomicU64::new(0) };
        Self { gate, seats: (0..seats.max(1)).map(|_| Apart::default()).collect() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.seats.len()
    }

    /// Seats a call that begins now; nothing where it has to go to the desk.
    pub(super) fn sit(&self, claim: &Claim, now: Instant) -> Option<Number> {
        let at = self.own();
        let mut sitting = self.seats[at].lock();
        // Read with the seat locked: whoever closes the gate then looks at each seat.
        if sitting.call.is_some() || !self.gate.lets(claim) || !self.has_turn(at, claim) {
            return None;
        }
        sitting.count += 1;
        let number = SEATED | (at as u64) << COUNT_BITS | (sitting.count & ((1 << COUNT_BITS) - 1));
        sitting.call = Some(Seated { number, claim: *claim, began: now });
        Some(number)
    }

    /// The call gets up, being over; says whether it was still seated.
    pub(super) fn get_up(&self, number: Number, now: Instant) -> bool {
        let mut sitting = self.of(number).lock();
        let Some(call) = sitting.call.take_if(|call| call.number == number) else { return false };
        sitting.ended.calls += 1;
        sitting.ended.computed += now.saturating_duration_since(call.began);
        true
    }

    /// How long a seated call has computed, and the load if it is known well enough; nothing where it is seated no more.
    pub(super) fn report(&self, number: Number, now: Instant) -> Option<(Duration, Option<Load>)> {
        let sitting = self.of(number).lock();
        let call = sitting.call.as_ref().filter(|call| call.number == number)?;
        let is_known = sitting.load_at.is_some_and(|at| now.saturating_duration_since(at) < LOAD_AGE_MAX);
        Some((now.saturating_duration_since(call.began), is_known.then_some(sitting.load)))
    }

    /// What the next calls of this seat tell of the load.
    pub(super) fn set_load(&self, number: Number, load: Load, now: Instant) {
        let mut sitting = self.of(number).lock();
        (sitting.load, sitting.load_at) = (load, Some(now));
    }

    /// What ended since the last time, and how many calls are seated.
    pub(super) fn take_ended(&self) -> (Ended, u32) {
        let mut all = Ended::default();
        let mut seated = 0;
        for seat in &self.seats {
            let mut sitting = seat.lock();
            let Ended { calls, computed, renewing } = std::mem::take(&mut sitting.ended);
            all.calls += calls;
            all.computed += computed;
            all.renewing += renewing;
            seated += u32::from(sitting.call.is_some());
        }
        (all, seated)
    }

    /// Notes time that this thread has spent on instances between calls.
    pub(super) fn note_renewing(&self, spent: Duration) {
        self.seats[self.own()].lock().ended.renewing += spent;
    }

    /// Whether the gate is closed for all, and so nobody is seated but who was when it closed.
    pub(super) fn is_closed(&self) -> bool {
        self.gate.closed_lanes.load(Ordering::Relaxed) == u64::MAX
    }

    /// Closes the gate and has all calls get up that are seated.
    pub(super) fn clear(&self, each: impl FnMut(Seated)) {
        self.gate.closed_lanes.store(u64::MAX, Ordering::SeqCst);
        self.seats.iter().filter_map(|seat| seat.lock().call.take()).for_each(each);
    }

    /// Opens the gate as far as the schedule allows.
    pub(super) fn open(&self, gate: Gate) {
        if self.gate.memory_bytes.load(Ordering::Relaxed) != gate.memory_bytes {
            self.gate.memory_bytes.store(gate.memory_bytes, Ordering::Relaxed);
        }
        if self.gate.closed_lanes.load(Ordering::Relaxed) != gate.closed_lanes {
            self.gate.closed_lanes.store(gate.closed_lanes, Ordering::SeqCst);
        }
    }

    /// What calls of a function with such a payload were expected to take a moment ago.
    pub(super) fn expected(&self, lane: LaneId, payload_bytes: u64, now: Instant) -> Option<Expected> {
        self.seats[self.own()].lock().ledger.expected(lane, payload_bytes, now)
    }

    /// Remembers what such calls are expected to take.
    pub(super) fn expect(&self, expected: Expected) {
        self.seats[self.own()].lock().ledger.expect(expected);
    }

    /// Notes a seated call, to be counted with others of its kind; gives it back where it is seated no more, or would hold
    /// code that is to leave memory.
    pub(super) fn note(&self, number: Number, record: Record) -> Option<Record> {
        let mut sitting = self.of(number).lock();
        if sitting.call.as_ref().is_none_or(|call| call.number != number) || record.callee.version.is_retired() {
            return Some(record);
        }
        let due = sitting.ledger.note(record);
        drop(sitting);
        if let Some(mut due) = due {
            due.drain(..).for_each(Record::count);
            self.of(number).lock().ledger.reuse(due);
        }
        None
    }

    /// Counts all calls noted.
    pub(super) fn settle(&self) {
        for seat in &self.seats {
            let due = seat.lock().ledger.take();
            due.into_iter().for_each(Record::count);
        }
    }

    fn of(&self, number: Number) -> &Mutex<Sitting> {
        let at = usize::try_from((number & !SEATED) >> COUNT_BITS).unwrap_or(0);
        &self.seats[at % self.seats.len()]
    }

    /// The number of this thread's seat.
    fn own(&self) -> usize {
        threads::number() % self.seats.len()
    }

    /// Whether another call of the function may run beside those seated elsewhere. A seat that somebody is just at counts as
    /// taken by one.
    fn has_turn(&self, own: usize, claim: &Claim) -> bool {
        let concurrency = claim.concurrency as usize;
        if concurrency >= self.seats.len() {
            return true;
        }
        let others = self.seats.iter().enumerate().filter(|(at, _)| *at != own);
        let is_of_function = |(_, seat): &(usize, &Apart<Mutex<Sitting>>)| {
            seat.try_lock()
                .is_none_or(|sitting| sitting.call.as_ref().is_some_and(|call| call.claim.lane == claim.lane))
        };
        others.filter(is_of_function).count() < concurrency
    }
}

impl OpenGate {
    fn lets(&self, claim: &Claim) -> bool {
        // What the schedule has published before it opened the gate is seen after this.
        let closed_lanes = self.closed_lanes.load(Ordering::SeqCst);
        closed_lanes & Gate::lane_bit(claim.lane) == 0
            && claim.memory_bytes <= self.memory_bytes.load(Ordering::Relaxed)
            && claim.payload_bytes <= SEAT_PAYLOAD_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::thread;

    use super::*;

    const OPEN: Gate = Gate { closed_lanes: 0, memory_bytes: 1 << 20 };

    fn claim(lane: LaneId, concurrency: u32) -> Claim {
        let (expected, computing) = (Duration::from_micros(10), Duration::from_micros(10));
        let deadline = Instant::now() + Duration::from_secs(1);
        Claim { lane, concurrency, queue: 1, memory_bytes: 1, payload_bytes: 1, expected, computing, deadline }
    }

    /// Threads sit and get up while the desk clears the seats now and then: no more calls of a function run at once than may,
    /// those that were taken over included, and none is lost.
    #[test]
    fn no_more_calls_run_at_once_than_may() {
        let (seats, is_over) = (Seats::new(8), AtomicBool::new(false));
        seats.open(OPEN);
        let (running, taken_over) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            let caller = || {
                for _ in 0..20_000 {
                    let Some(number) = seats.sit(&claim(1, 1), Instant::now()) else { continue };
                    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "another runs");
                    std::hint::spin_loop();
                    running.fetch_sub(1, Ordering::SeqCst);
                    if !seats.get_up(number, Instant::now()) {
                        taken_over.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            };
            let callers: Vec<_> = (0..3).map(|_| scope.spawn(caller)).collect();
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    seats.clear(|_| {
                        taken_over.fetch_add(1, Ordering::SeqCst);
                    });
                    // The schedule keeps the gate closed to the function until they have ended.
                    while taken_over.load(Ordering::SeqCst) > 0 {
                        thread::yield_now();
                    }
                    seats.open(OPEN);
                    thread::yield_now();
                }
            });
            callers.into_iter().for_each(|caller| caller.join().unwrap());
            is_over.store(true, Ordering::SeqCst);
        });
        assert_eq!(taken_over.load(Ordering::SeqCst), 0);
        let (ended, seated) = seats.take_ended();
        assert!(ended.calls > 0 && seated == 0);
    }

    #[test]
    fn the_gate_says_who_may_sit() {
        let seats = Seats::new(4);
        let now = Instant::now();
        assert!(seats.sit(&claim(1, 1), now).is_none(), "it begins closed");
        seats.open(Gate { closed_lanes: Gate::lane_bit(1), ..OPEN });
        assert!(seats.sit(&claim(1, 1), now).is_none());
        assert!(seats.sit(&Claim { memory_bytes: 2 << 20, ..claim(2, 1) }, now).is_none());
        assert!(seats.sit(&Claim { payload_bytes: SEAT_PAYLOAD_MAX + 1, ..claim(2, 1) }, now).is_none());
        let number = seats.sit(&claim(2, 1), now).unwrap();
        assert!(seats.sit(&claim(3, 1), now).is_none(), "a thread runs one at a time");
        assert!(is_seated(number) && seats.report(number, now).is_some());
        assert!(seats.get_up(number, now) && !seats.get_up(number, now));
        let number = seats.sit(&claim(2, 1), now).unwrap();
        let mut taken_over = Vec::new();
        seats.clear(|seated| taken_over.push(seated.number));
        assert_eq!(taken_over, [number]);
        assert!(!seats.get_up(number, now) && seats.report(number, now).is_none() && seats.is_closed());
    }
}
