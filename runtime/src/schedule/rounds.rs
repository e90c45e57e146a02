//! Calls that are ready for their next slice. Each function has one slice in each round, however many of its calls are
//! ready; within a round, and within a function, the earliest deadline goes first.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{LaneId, Number};
use crate::number::NumberMap;

/// The ready calls of one class.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    functions: NumberMap<Function>,
    /// The functions with ready calls, each in its place.
    order: BTreeSet<(u64, Instant, LaneId)>,
    /// The round of the last slice.
    round: u64,
}

#[derive(Debug, Default)]
struct Function {
    calls: BTreeSet<(Instant, Number)>,
    /// The round of its next slice.
    round: u64,
}

impl Rounds {
    /// A call is ready.
    pub(super) fn push(&mut self, id: LaneId, deadline: Instant, number: Number) {
        let round = self.round;
        self.change(id, |function| {
            // One that comes late has missed the rounds before, but not had two slices in this one.
            function.round = function.round.max(round);
            function.calls.insert((deadline, number));
        });
    }

    /// Takes out the call that goes first.
    pub(super) fn pop(&mut self) -> Option<Number> {
        let (round, _, id) = self.order.pop_first()?;
        self.round = round;
        let mut first = None;
        self.change(id, |function| {
            first = function.calls.pop_first();
            function.round = round + 1;
        });
        first.map(|(_, number)| number)
    }

    /// Takes a call out.
    pub(super) fn remove(&mut self, id: LaneId, deadline: Instant, number: Number) {
        self.change(id, |function| {
            function.calls.remove(&(deadline, number));
        });
    }

    /// Whether nobody is ready.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many functions have ready calls.
    pub(super) fn functions(&self) -> usize {
        self.order.len()
    }

    /// The functions that have ready calls.
    pub(super) fn iter(&self) -> impl Iterator<Item = LaneId> {
        self.order.iter().map(|(_, _, id)| *id)
    }

    /// How many ready calls a function has.
    pub(super) fn calls_of(&self, id: LaneId) -> usize {
        self.functions.get(&id).map_or(0, |function| function.calls.len())
    }

    /// A function has no calls any more.
    pub(super) fn forget(&mut self, id: LaneId) {
        self.functions.remove(&id);
    }

    /// Changes a function and then its place accordingly.
    fn change(&mut self, id: LaneId, change: impl FnOnce(&mut Function)) {
        let function = self.functions.entry(id).or_default();
        let place = |function: &Function| function.calls.first().map(|(deadline, _)| (function.round, *deadline, id));
        let before = place(function);
        change(function);
        let after = place(function);
        if before != after {
            if let Some(before) = before {
                self.order.remove(&before);
            }
            self.order.extend(after);
        }
    }
}
