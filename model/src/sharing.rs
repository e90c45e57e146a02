//! Processor sharing: all that run on a processor go on at the same speed, that of a core or an even share of all cores.
//!
//! Everything that runs gains the same, so one number tells how far each is: what an operation would have attained that had
//! run since the beginning. One that starts now is done when that number has grown by what it takes. The number is touched
//! only where somebody comes or goes, so it makes no difference how often anybody looks in between.

use std::collections::BTreeMap;

/// Work is counted in parts of an operation, so that speeds need not be whole numbers.
const PARTS: u32 = 1 << 20;
/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

/// What runs on a processor.
#[derive(Debug, Clone)]
pub(crate) struct Sharing<T> {
    cores: u128,
    /// Parts of an operation that a core does in a second.
    speed: u128,
    /// Parts that one that had always run would have attained at `since`.
    attained: u128,
    /// When somebody came or went last, in nanoseconds.
    since: u64,
    running: BTreeMap<Key, T>,
}

/// Where one stands among those that run: who is done first, and of these who started first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    done_at: u128,
    order: u64,
}

impl<T> Sharing<T> {
    pub(crate) fn new(cores: u32, speed: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "speeds are positive, within limits"
        )]
        let speed = ((speed * f64::from(PARTS)).round() as u128).max(1);
        Self { cores: cores.into(), speed, attained: 0, since: 0, running: BTreeMap::new() }
    }

    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// When the first of them is done, if nobody comes or goes before.
    pub(crate) fn next(&self) -> Option<u64> {
        let (first, _) = self.running.first_key_value()?;
        let left = first.done_at.saturating_sub(self.attained);
        // The first nanosecond at which it is done.
        let wait = (left * self.everybody() * SECOND).div_ceil(self.speed_of_all());
        Some(self.since.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    /// Starts one that takes so many operations; `order` is larger than that of any before.
    pub(crate) fn start(&mut self, ops: u64, order: u64, what: T, now: u64) -> Key {
        self.settle(now);
        if self.running.is_empty() {
            self.attained = 0;
        }
        let key = Key { done_at: self.attained + u128::from(ops) * u128::from(PARTS), order };
        self.running.insert(key, what);
        key
    }

    /// Ends one before its time.
    pub(crate) fn stop(&mut self, key: &Key, now: u64) -> Option<T> {
        self.settle(now);
        self.running.remove(key)
    }

    /// Ends the first of them, which is done `now`.
    pub(crate) fn finish(&mut self, now: u64) -> Option<T> {
        self.settle(now);
        self.running.pop_first().map(|(_, what)| what)
    }

    /// Operations that are left of each that runs, who is done first coming first.
    pub(crate) fn left(&self, now: u64) -> impl Iterator<Item = (f64, &T)> {
        let attained = self.attained_at(now);
        self.running.iter().map(move |(key, what)| {
            #[expect(clippy::cast_precision_loss, reason = "for estimates")]
            let parts = key.done_at.saturating_sub(attained) as f64;
            (parts / f64::from(PARTS), what)
        })
    }

    fn everybody(&self) -> u128 {
        self.running.len() as u128
    }

    fn speed_of_all(&self) -> u128 {
        self.cores.min(self.everybody()).max(1) * self.speed
    }

    fn attained_at(&self, now: u64) -> u128 {
        // Nobody lets time pass beyond the next end, so the product is bounded by what is left of the first.
        let elapsed = u128::from(now.saturating_sub(self.since));
        self.attained + self.speed_of_all().saturating_mul(elapsed) / (self.everybody().max(1) * SECOND)
    }

    fn settle(&mut self, now: u64) {
        self.attained = self.attained_at(now);
        self.since = self.since.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs until all are done: who, and when in seconds.
    fn run(sharing: &mut Sharing<char>) -> Vec<(char, f64)> {
        let mut done = Vec::new();
        while let Some(at) = sharing.next() {
            done.push((sharing.finish(at).unwrap(), at as f64 / 1e9));
        }
        done
    }

    #[test]
    fn up_to_as_many_as_there_are_cores_have_one_each() {
        let mut sharing = Sharing::new(2, 100.0);
        sharing.start(100, 0, 'a', 0);
        sharing.start(50, 1, 'b', 0);
        assert_eq!(run(&mut sharing), [('b', 0.5), ('a', 1.0)]);
    }

    #[test]
    fn more_share_the_cores_evenly_and_those_that_stay_go_faster() {
        let mut sharing = Sharing::new(1, 100.0);
        sharing.start(100, 0, 'a', 0);
        // Alone for half a second, then at half the speed.
        sharing.start(10, 1, 'b', 500_000_000);
        assert_eq!(run(&mut sharing), [('b', 0.7), ('a', 1.1)]);
    }

    #[test]
    fn who_takes_the_same_is_done_at_once_in_the_order_of_the_start() {
        let mut sharing = Sharing::new(1, 3.0);
        for (order, name) in ['a', 'b', 'c'].into_iter().enumerate() {
            sharing.start(1, order as u64, name, 0);
        }
        assert_eq!(run(&mut sharing), [('a', 1.0), ('b', 1.0), ('c', 1.0)]);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut sharing = Sharing::new(1 << 20, 1e15);
        sharing.start(1 << 53, 0, 'a', 0);
        sharing.start(1 << 53, 1, 'b', 5_000_000_000);
        assert_eq!(run(&mut sharing).len(), 2);
        let mut slow = Sharing::new(1, 1e-3);
        for order in 0..1000 {
            slow.start(1 << 53, order, 'a', 0);
        }
        assert_eq!(slow.next(), Some(u64::MAX));
        assert_eq!(run(&mut slow).len(), 1000);
    }
}
