//! Calls that begin where they arrived, on the thread that brought them.

use std::time::Instant;

use super::{Class, LaneId, Next, Number, Schedule};

impl<T> Schedule<T> {
    /// Begins the call just submitted, if it is brief and nobody who waits would be passed over. Where slots are taken or others are first,
    /// that is so for a function of which nothing computes, beside functions of which something does.
    pub(crate) fn begin_at_once(&mut self, id: LaneId, number: Number, now: Instant) -> Option<(Number, T)> {
        let brief = Class::Brief as usize;
        let lane = self.lanes.get(&id)?;
        if lane.waiting.front()?.number != number || lane.class() != Class::Brief {
            return None;
        }
        let is_first = self.turns[brief].front() == Some(&id) && self.ready[brief].is_empty();
        if !is_first || self.slots(Class::Brief) == 0 {
            if lane.active > 0 || self.is_anyone_left_out(id) {
                return None;
            }
            self.turns[brief].retain(|listed| *listed != id);
            self.turns[brief].push_front(id);
        }
        match self.begin(Class::Brief, now) {
            Next::Run(number, job) => Some((number, job)),
            Next::Evict | Next::Nothing => None,
        }
    }

    /// Whether another function has brief calls that wait, and none that computes.
    fn is_anyone_left_out(&self, id: LaneId) -> bool {
        let (turns, ready) = (&self.turns[Class::Brief as usize], &self.ready[Class::Brief as usize]);
        // Where more functions wait than calls compute, one of them has none; so no more are looked at than there are cores, about.
        if turns.len() > self.computing + 1 || ready.functions() > self.computing {
            return true;
        }
        let computing = |lane: LaneId| {
            let active = self.lanes.get(&lane).map_or(0, |lane| lane.active);
            active.saturating_sub(ready.calls_of(lane))
        };
        turns.iter().copied().filter(|listed| *listed != id).chain(ready.iter()).any(|lane| computing(lane) == 0)
    }
}
