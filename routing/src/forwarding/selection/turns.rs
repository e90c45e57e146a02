//! Weighted deficit round robin over an active set: each turn costs a destination its weight, and the one that has spent
//! least is next. Those more than twice as heavy as the lightest are left out, and tried again after a while that doubles
//! with each vain try.
//!
//! Only differences of what was spent matter, so nothing is ever subtracted, and no rounding adds up.

use std::time::Duration;

use crate::tree::{Least, Tree};

/// A destination is good if its weight is at most so many times the least.
const GOOD_FACTOR: f64 = 2.0;
/// How long a destination that is not good is left out at first.
const STALE_MIN: Duration = Duration::from_secs(1);
/// The longest that one is.
const STALE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Turns {
    entries: Vec<Turn>,
    /// The weights of those available.
    weights: Tree<Least>,
    /// What each in the active set has spent.
    spent: Tree<Least>,
    /// When each that is left out is to be tried again, in seconds.
    due: Tree<Least>,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    weight: f64,
    spent: f64,
    /// When its weight was last set, unless that is too long ago or never was.
    updated: Option<Duration>,
    is_probing: bool,
    stale: Duration,
    is_available: bool,
    is_active: bool,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), weights: Tree::new(0), spent: Tree::new(0), due: Tree::new(0) }
    }

    pub(super) fn reorder(&mut self, from: &[Option<usize>], weight: f64, now: Duration) {
        let spent = self.least_spent();
        let new = Turn {
            weight,
            spent,
            updated: None,
            is_probing: false,
            stale: STALE_MIN,
            is_available: true,
            is_active: true,
        };
        let old = std::mem::take(&mut self.entries);
        self.entries = from.iter().map(|from| from.map_or(new, |at| old[at])).collect();
        let count = self.entries.len();
        (self.weights, self.spent, self.due) = (Tree::new(count), Tree::new(count), Tree::new(count));
        (0..count).for_each(|at| self.refresh(at));
        self.judge_all(now);
    }

    pub(super) fn set_weight(&mut self, at: usize, weight: f64, now: Duration) {
        let lightest = self.lightest();
        self.entries[at].weight = weight;
        self.entries[at].updated = Some(now);
        self.refresh(at);
        self.judge_after(at, lightest, now);
    }

    pub(super) fn set_available(&mut self, at: usize, is_available: bool, now: Duration) {
        if self.entries[at].is_available == is_available {
            return;
        }
        let lightest = self.lightest();
        self.entries[at].is_available = is_available;
        self.refresh(at);
        self.judge_after(at, lightest, now);
    }

    pub(super) fn weight(&self, at: usize) -> f64 {
        self.entries[at].weight
    }

    pub(super) fn select(&mut self, excluded: Option<usize>, now: Duration) -> Option<usize> {
        // Also where no weight changes any more, one left out is tried again when its time has come.
        while let Some(at) = self.due.root().position_by(now.as_secs_f64()) {
            self.judge(at, now);
        }
        let chosen = self.spent.least_but(excluded).or_else(|| self.lightest_but(excluded))?;
        self.entries[chosen].spent += self.entries[chosen].weight;
        self.refresh(chosen);
        Some(chosen)
    }

    /// Where the only one in turn is excluded, another will do.
    fn lightest_but(&self, excluded: Option<usize>) -> Option<usize> {
        let others = self.entries.iter().enumerate().filter(|&(at, turn)| turn.is_available && Some(at) != excluded);
        others.min_by(|(_, one), (_, other)| one.weight.total_cmp(&other.weight)).map(|(at, _)| at)
    }

    fn lightest(&self) -> f64 {
        self.weights.root().key
    }

    /// What the one next in turn has spent.
    fn least_spent(&self) -> f64 {
        let least = self.spent.root().key;
        if least.is_finite() { least } else { 0.0 }
    }

    /// Judges this one anew, and all others too if the least weight is another.
    fn judge_after(&mut self, at: usize, lightest: f64, now: Duration) {
        #[expect(clippy::float_cmp, reason = "any change at all counts")]
        if self.lightest() == lightest {
            self.judge(at, now);
        } else {
            self.judge_all(now);
        }
    }

    fn judge_all(&mut self, now: Duration) {
        // Those in the set come first, so that whoever joins joins those that stay.
        for is_active in [true, false] {
            for at in 0..self.entries.len() {
                if self.entries[at].is_active == is_active {
                    self.judge(at, now);
                }
            }
        }
    }

    fn is_good(&self, at: usize) -> bool {
        self.entries.len() == 1 || self.entries[at].weight <= GOOD_FACTOR * self.lightest()
    }

    /// Decides whether one is in the active set.
    fn judge(&mut self, at: usize, now: Duration) {
        let is_good = self.is_good(at);
        let least_spent = self.spent.root().key;
        let turn = &mut self.entries[at];
        let was_active = turn.is_active;
        if !turn.is_available {
            turn.is_active = false;
        } else if is_good {
            if turn.is_probing {
                (turn.is_probing, turn.stale) = (false, STALE_MIN);
            }
            turn.is_active = true;
        } else if let Some(updated) = turn.updated {
            if turn.is_probing {
                (turn.is_probing, turn.stale) = (false, (turn.stale * 2).min(STALE_MAX));
            }
            turn.is_active = now.saturating_sub(updated) >= turn.stale;
            if turn.is_active {
                (turn.updated, turn.is_probing) = (None, true);
            }
        } else {
            turn.is_active = true;
        }
        if turn.is_active && !was_active && least_spent.is_finite() {
            // Time away earns nobody a run of turns; one that is tried again is next.
            turn.spent = if turn.is_probing { least_spent } else { turn.spent.max(least_spent) };
        }
        self.refresh(at);
    }

    fn refresh(&mut self, at: usize) {
        let turn = &self.entries[at];
        self.weights.set(at, Least::leaf(at, turn.is_available.then_some(turn.weight), 0));
        self.spent.set(at, Least::leaf(at, (turn.is_active && turn.is_available).then_some(turn.spent), 0));
        let left_out = turn.is_available && !turn.is_active;
        let due = turn.updated.filter(|_| left_out).map(|updated| (updated + turn.stale).as_secs_f64());
        self.due.set(at, Least::leaf(at, due, 0));
    }
}
