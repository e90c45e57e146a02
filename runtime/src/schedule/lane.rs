//! The calls of one function: those that wait, in order, and how many have begun.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Claim, Class, LaneId, Number};

/// A call that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) number: Number,
    pub(super) claim: Claim,
    pub(super) job: T,
}

/// The calls of one function. Exists only while some wait or have begun.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) waiting: VecDeque<Waiting<T>>,
    /// Calls that have begun and not ended.
    pub(super) begun: u32,
    /// Of these, those that have shown to be long.
    pub(super) long: u32,
    /// Of these, those that compute or are ready to.
    pub(super) active: usize,
    /// Memory limits of those that have begun.
    pub(super) memory_bytes: u64,
    /// Payloads of those that wait or have begun.
    pub(super) payload_bytes: u64,
    /// It stands in one of the queues for turns.
    pub(super) is_listed: bool,
    /// Times that others went before it because it waits for memory.
    pub(super) passed_over: u32,
    concurrency: u32,
    waiting_time: Duration,
    waiting_computing: Duration,
    begun_time: Duration,
    begun_computing: Duration,
}

impl<T> Lane<T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            begun: 0,
            long: 0,
            active: 0,
            memory_bytes: 0,
            payload_bytes: 0,
            is_listed: false,
            passed_over: 0,
            concurrency: 1,
            waiting_time: Duration::ZERO,
            waiting_computing: Duration::ZERO,
            begun_time: Duration::ZERO,
            begun_computing: Duration::ZERO,
        }
    }

    /// What its next call will probably be: one that has not ended yet tells before those that have.
    pub(super) fn class(&self) -> Class {
        self.waiting.front().map_or(Class::Brief, |waiting| self.class_of(&waiting.claim))
    }

    /// What a call of this function will probably be.
    pub(super) fn class_of(&self, claim: &Claim) -> Class {
        if self.long > 0 { Class::Long } else { claim.class() }
    }

    /// Takes a call in.
    pub(super) fn wait(&mut self, waiting: Waiting<T>) {
        self.concurrency = waiting.claim.concurrency;
        self.payload_bytes += waiting.claim.payload_bytes;
        self.waiting_time += waiting.claim.expected;
        self.waiting_computing += waiting.claim.computing;
        self.waiting.push_back(waiting);
    }

    /// Takes its place in turn, if it has a call that may begin.
    pub(super) fn list(&mut self, id: LaneId, turns: &mut [VecDeque<LaneId>; 2]) {
        if !self.is_listed && !self.waiting.is_empty() && self.begun < self.concurrency {
            self.is_listed = true;
            turns[self.class() as usize].push_back(id);
        }
    }

    /// Begins its first call.
    pub(super) fn begin(&mut self, class: Class) -> Option<Waiting<T>> {
        let first = self.waiting.pop_front()?;
        self.leave_queue(&first.claim);
        self.begun += 1;
        self.long += u32::from(class == Class::Long);
        self.passed_over = 0;
        self.memory_bytes += first.claim.memory_bytes;
        self.begun_time += first.claim.expected;
        self.begun_computing += first.claim.computing;
        Some(first)
    }

    /// Takes over a call that has begun elsewhere.
    pub(super) fn take_over(&mut self, claim: &Claim) {
        self.concurrency = claim.concurrency;
        self.payload_bytes += claim.payload_bytes;
        self.begun += 1;
        self.memory_bytes += claim.memory_bytes;
        self.begun_time += claim.expected;
        self.begun_computing += claim.computing;
    }

    /// One of its calls that had begun has ended, being of this class at last.
    pub(super) fn end(&mut self, claim: &Claim, class: Class) {
        self.begun = self.begun.saturating_sub(1);
        self.long = self.long.saturating_sub(u32::from(class == Class::Long));
        self.memory_bytes = self.memory_bytes.saturating_sub(claim.memory_bytes);
        self.payload_bytes = self.payload_bytes.saturating_sub(claim.payload_bytes);
        self.spend(claim.expected, claim.computing);
    }

    /// Its calls that have begun will take so much less.
    pub(super) fn spend(&mut self, time: Duration, computing: Duration) {
        self.begun_time = self.begun_time.saturating_sub(time);
        self.begun_computing = self.begun_computing.saturating_sub(computing);
    }

    /// One of those keeps its place for so long.
    pub(super) fn expect_more(&mut self, time: Duration) {
        self.begun_time += time;
    }

    /// Takes a waiting call out.
    pub(super) fn cancel(&mut self, number: Number) -> Option<Waiting<T>> {
        let at = self.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        let cancelled = self.waiting.remove(at)?;
        self.leave_queue(&cancelled.claim);
        self.payload_bytes = self.payload_bytes.saturating_sub(cancelled.claim.payload_bytes);
        self.passed_over = 0;
        Some(cancelled)
    }

    /// Takes all waiting calls out.
    pub(super) fn cancel_all(&mut self) -> VecDeque<Waiting<T>> {
        (self.waiting_time, self.waiting_computing) = (Duration::ZERO, Duration::ZERO);
        let freed: u64 = self.waiting.iter().map(|waiting| waiting.claim.payload_bytes).sum();
        self.payload_bytes = self.payload_bytes.saturating_sub(freed);
        std::mem::take(&mut self.waiting)
    }

    /// Time that its calls will probably still take: half of each that has begun, on average, and all that wait.
    pub(super) fn time_ahead(&self) -> Duration {
        self.begun_time / 2 + self.waiting_time
    }

    /// Computing left in calls that have begun, and in the first `calls` of those that wait.
    pub(super) fn computing_ahead(&self, calls: usize) -> Duration {
        let waiting = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let counted = u32::try_from(calls).unwrap_or(u32::MAX).min(waiting);
        self.begun_computing / 2 + (self.waiting_computing / waiting.max(1)).saturating_mul(counted)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.begun == 0 && !self.is_listed
    }

    fn leave_queue(&mut self, claim: &Claim) {
        self.waiting_time = self.waiting_time.saturating_sub(claim.expected);
        self.waiting_computing = self.waiting_computing.saturating_sub(claim.computing);
    }
}
