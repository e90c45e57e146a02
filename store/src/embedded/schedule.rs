//! Which items of a queue may be taken, and whose they are. Pure: time is an argument, counted from when the queue was opened.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// The live items of one queue, by number. Lower numbers came first.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    items: HashMap<u64, Item>,
    /// Those that wait, by when they may be taken.
    waiting: BTreeSet<(Duration, u64)>,
    /// Those that are taken, by when their leases lapse.
    taken: BTreeSet<(Duration, u64)>,
    last_token: u64,
}

#[derive(Debug)]
struct Item {
    /// When it may be taken, or when its lease lapses.
    at: Duration,
    /// Of its lease; none where it waits.
    token: Option<u64>,
    attempts: u32,
}

/// An item that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lent {
    pub(super) number: u64,
    pub(super) token: u64,
    pub(super) attempt: u32,
}

impl Schedule {
    /// Lets an item wait that has been taken so often before.
    pub(super) fn add(&mut self, number: u64, at: Duration, attempts: u32) {
        self.items.insert(number, Item { at, token: None, attempts });
        self.waiting.insert((at, number));
    }

    /// Takes up to so many of those whose time has come, the longest due first.
    pub(super) fn take(&mut self, most: usize, now: Duration, lease: Duration) -> Vec<Lent> {
        self.lapse(now);
        let due: Vec<_> = self.waiting.range(..=(now, u64::MAX)).take(most).copied().collect();
        let mut lent = Vec::with_capacity(due.len());
        for (at, number) in due {
            self.waiting.remove(&(at, number));
            let Some(item) = self.items.get_mut(&number) else { continue };
            self.last_token += 1;
            item.token = Some(self.last_token);
            item.attempts = item.attempts.saturating_add(1);
            item.at = now + lease;
            self.taken.insert((item.at, number));
            lent.push(Lent { number, token: self.last_token, attempt: item.attempts });
        }
        lent
    }

    /// Keeps an item for one more lease; false where it is not of this token any more.
    pub(super) fn extend(&mut self, number: u64, token: u64, now: Duration, lease: Duration) -> bool {
        let Some(item) = self.items.get_mut(&number).filter(|item| item.token == Some(token)) else { return false };
        self.taken.remove(&(item.at, number));
        item.at = now + lease;
        self.taken.insert((item.at, number));
        true
    }

    /// Takes an item out, to be done with or added again; how often it was taken, or nothing where it is not of this token
    /// any more.
    pub(super) fn end(&mut self, number: u64, token: u64) -> Option<u32> {
        let item = self.items.get(&number).filter(|item| item.token == Some(token))?;
        let attempts = item.attempts;
        self.taken.remove(&(item.at, number));
        self.items.remove(&number);
        Some(attempts)
    }

    /// When something can be taken next, if nothing is done before.
    pub(super) fn next(&self) -> Option<Duration> {
        let first = |set: &BTreeSet<(Duration, u64)>| set.first().map(|(at, _)| *at);
        first(&self.waiting).into_iter().chain(first(&self.taken)).min()
    }

    /// Items that wait, and items taken.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.waiting.len() as u64, self.taken.len() as u64)
    }

    /// Whose leases have lapsed wait again, as they did before.
    fn lapse(&mut self, now: Duration) {
        while let Some(&(at, number)) = self.taken.first().filter(|(at, _)| *at <= now) {
            self.taken.remove(&(at, number));
            if let Some(item) = self.items.get_mut(&number) {
                item.token = None;
                self.waiting.insert((at, number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_put_off_later() {
        let mut schedule = Schedule::default();
        schedule.add(1, s(0), 0);
        schedule.add(2, s(5), 0);
        schedule.add(3, s(1), 0);
        let numbers = |lent: Vec<Lent>| lent.into_iter().map(|lent| lent.number).collect::<Vec<_>>();
        assert_eq!(numbers(schedule.take(9, s(1), LEASE)), [1, 3]);
        assert_eq!(schedule.next(), Some(s(5)));
        assert_eq!(numbers(schedule.take(9, s(4), LEASE)), [0; 0]);
        assert_eq!(numbers(schedule.take(9, s(5), LEASE)), [2]);
    }

    #[test]
    fn a_lease_that_lapses_makes_room_for_another_and_is_of_no_use_any_more() {
        let mut schedule = Schedule::default();
        schedule.add(1, s(0), 0);
        let first = schedule.take(1, s(0), LEASE)[0];
        assert!(schedule.extend(1, first.token, s(5), LEASE));
        assert_eq!(schedule.take(1, s(14), LEASE), []);
        let second = schedule.take(1, s(15), LEASE)[0];
        assert_eq!((second.number, second.attempt), (1, 2));
        assert!(!schedule.extend(1, first.token, s(16), LEASE));
        assert_eq!(schedule.end(1, first.token), None);
        assert_eq!(schedule.end(1, second.token), Some(2));
        assert_eq!((schedule.next(), schedule.counts()), (None, (0, 0)));
    }

    proptest! {
        /// Whatever is done in whatever order: an item is held by one at a time, none is lost, none comes back once ended.
        #[test]
        fn every_item_is_with_one_at_a_time(steps in prop::collection::vec((0u8..5, 0usize..8, 0u64..30), 1..200)) {
            let mut schedule = Schedule::default();
            let (mut now, mut alive) = (Duration::ZERO, BTreeSet::new());
            let mut held: HashMap<u64, (u64, Duration)> = HashMap::new();
            for (number, (step, which, by)) in steps.into_iter().enumerate() {
                let number = number as u64 + 100;
                match step {
                    0 => { schedule.add(number, now + s(by), 0); alive.insert(number); }
                    1 => for lent in schedule.take(which, now, LEASE) {
                        if let Some((_, until)) = held.get(&lent.number) { prop_assert!(*until <= now); }
                        held.insert(lent.number, (lent.token, now + LEASE));
                    },
                    2 => now += s(by),
                    3 => if let Some((&of, &(token, _))) = held.iter().nth(which) {
                        if schedule.end(of, token).is_some() { alive.remove(&of); }
                        held.remove(&of);
                    },
                    _ => if let Some((&of, entry)) = held.iter_mut().nth(which)
                        && schedule.extend(of, entry.0, now, LEASE) { entry.1 = now + LEASE; },
                }
                let (waiting, taken) = schedule.counts();
                prop_assert_eq!(waiting + taken, alive.len() as u64);
            }
            now += s(1000);
            let rest: BTreeSet<u64> = schedule.take(usize::MAX, now, LEASE).into_iter().map(|lent| lent.number).collect();
            prop_assert_eq!(rest, alive);
        }
    }
}
