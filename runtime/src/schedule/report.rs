//! What the schedule tells: of those who wait, of how busy the computer is, of how long a further call would wait.

use std::time::{Duration, Instant};

use nigh_proto::Load;

use super::lane::Lane;
use super::{Claim, Class, Demand, LaneId, Leave, Number, Schedule};

impl<T> Schedule<T> {
    /// How busy the computer is but for a call that is as good as over, and how long that one has computed.
    pub(crate) fn report(&mut self, number: Number, now: Instant) -> (Load, Duration) {
        let computed = self.computed(number, now);
        self.service.add(computed);
        self.expect_no_more(number);
        let load = self.load(now);
        (Load { running: load.running.saturating_sub(1), ..load }, computed)
    }

    /// How long a further call like this would probably wait, functions taking turns and brief calls going first.
    pub(crate) fn expected_wait(&self, claim: &Claim) -> Duration {
        let own = self.lanes.get(&claim.lane);
        let ahead = own.map_or(0, |lane| lane.waiting.len());
        let by_function = own.map_or(Duration::ZERO, |lane| {
            let is_room = (lane.begun as usize) + ahead < claim.concurrency as usize;
            if is_room { Duration::ZERO } else { lane.time_ahead() / claim.concurrency.max(1) }
        });
        let class = own.map_or_else(|| claim.class(), |lane| lane.class_of(claim));
        let goes_first = |lane: &&Lane<T>| class == Class::Long || lane.class() == Class::Brief;
        let rivals = || self.lanes.values().filter(goes_first);
        let waiting: usize = rivals().map(|lane| lane.waiting.len()).sum();
        if waiting < self.slots(class) {
            return by_function;
        }
        let work: Duration = rivals().map(|lane| lane.computing_ahead(ahead + 1)).sum();
        by_function.max(work / u32::try_from(self.budgets.workers).unwrap_or(u32::MAX).max(1))
    }

    /// Whoever waits for this call waits no longer for its answer: it gives up its place as soon as its instance is as new.
    fn expect_no_more(&mut self, number: Number) {
        let Some(begun) = self.begun.get_mut(&number) else { return };
        let Claim { lane, expected, computing, .. } = begun.claim;
        (begun.claim.expected, begun.claim.computing) = (Duration::ZERO, Duration::ZERO);
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.spend(expected, computing);
        }
    }

    /// A call that is as good as over keeps its place for so long.
    pub(crate) fn keep_place(&mut self, number: Number, rest: Duration) {
        let Some(begun) = self.begun.get_mut(&number) else { return };
        begun.claim.expected += rest;
        if let Some(lane) = self.lanes.get_mut(&begun.claim.lane) {
            lane.expect_more(rest);
        }
    }

    /// Who would compute if a worker were free.
    pub(crate) fn demand(&self) -> Demand {
        let wants = |class: Class| {
            let may = |id: &LaneId| matches!(self.may_begin(*id, class), Leave::Now | Leave::Evict);
            !self.ready[class as usize].is_empty() || self.turns[class as usize].iter().any(may)
        };
        if wants(Class::Brief) {
            Demand::Brief
        } else if wants(Class::Long) {
            Demand::Long
        } else {
            Demand::None
        }
    }

    /// Calls that wait or have begun.
    pub(crate) fn under_way(&self) -> usize {
        self.waiting + self.begun.len()
    }

    /// How many calls of one function have begun and wait.
    pub(crate) fn counts(&self, id: LaneId) -> (u32, u32) {
        let lane = self.lanes.get(&id);
        lane.map_or((0, 0), |lane| (lane.begun, u32::try_from(lane.waiting.len()).unwrap_or(u32::MAX)))
    }

    /// How busy the computer is.
    pub(crate) fn load(&mut self, now: Instant) -> Load {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Load {
            running: count(self.begun.len()),
            queued: count(self.waiting),
            workers: count(self.budgets.workers),
            utilisation: self.utilisation.shares(now),
            service: self.service.value(),
        }
    }
}
