//! What was measured of calls that threads ran at their seats, counted for some of them at a time, so that threads which run
//! the same function seldom meet. Whoever reads has everything counted first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_proto::{Headers, Outcome, Timing};

use crate::estimate::Expectation;
use crate::function::Callee;
use crate::schedule::LaneId;

/// Calls counted at a time.
const RECORDS_MAX: usize = 32;
/// How old the first of them may become, and what is expected of a function's calls.
const AGE_MAX: Duration = Duration::from_millis(1);

/// One thread's.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    records: Vec<Record>,
    expected: Option<Expected>,
}

/// A call that was answered.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) callee: Arc<Callee>,
    pub(crate) payload_bytes: u64,
    pub(crate) timing: Timing,
    pub(crate) computed: Duration,
    pub(crate) ended: Instant,
}

/// What calls of a function with such a payload will probably take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) lane: LaneId,
    pub(crate) payload_bytes: u64,
    pub(crate) of: Expectation,
    /// When it was asked for.
    pub(crate) at: Instant,
}

impl Record {
    /// Counts it.
    pub(crate) fn count(self) {
        let answer = Outcome::Answer { payload: Bytes::new(), headers: Headers::default() };
        let Self { callee, payload_bytes, timing, computed, ended } = self;
        let function = &callee.function;
        function.meters.record(Ok(&answer), &timing);
        function.measures.lock().record(&answer, payload_bytes, &timing, computed, ended);
    }
}

impl Ledger {
    /// Notes a call; gives back those to be counted now, if it is time.
    pub(super) fn note(&mut self, record: Record) -> Option<Vec<Record>> {
        let now = record.ended;
        self.records.push(record);
        let is_old = self.records.first().is_some_and(|first| now.saturating_duration_since(first.ended) >= AGE_MAX);
        (is_old || self.records.len() >= RECORDS_MAX).then(|| std::mem::take(&mut self.records))
    }

    /// Everything noted.
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Uses this room for what is noted next.
    pub(super) fn reuse(&mut self, room: Vec<Record>) {
        if self.records.is_empty() {
            self.records = room;
        }
    }

    /// What was expected of such calls, if that was asked for just before.
    pub(super) fn expected(&self, lane: LaneId, payload_bytes: u64, now: Instant) -> Option<Expected> {
        self.expected.filter(|known| {
            known.lane == lane
                && known.payload_bytes == payload_bytes
                && now.saturating_duration_since(known.at) < AGE_MAX
        })
    }

    /// Remembers it.
    pub(super) fn expect(&mut self, expected: Expected) {
        self.expected = Some(expected);
    }
}
