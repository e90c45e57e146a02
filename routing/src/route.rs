//! One function's destinations, and the choice among them.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::health::{Cause, DEAD_WAIT_MIN, Health};
use crate::latency::{LATENCY_ASSUMED_MS, Latency};
use crate::outcome::{Observation, Pick, PickError, Trial, View};
use crate::policy::PolicyKind;
use crate::slot::Slot;
use crate::tree::{Least, Node as _, Share, Tree};

/// A destination is fast if its latency is at most so many times that of the fastest.
const FAST_FACTOR: f64 = 2.0;
/// Choices by the policy between two calls sent to measure what is stale, so that on a quiet edge too most calls go where
/// the policy wants them.
pub const CHOICES_PER_MEASUREMENT: u32 = 8;
/// The key among latencies of a destination not yet measured, in milliseconds: behind every measured one.
const UNKNOWN_MS: f64 = 1e15;

/// What the policy keeps up to date with every change of a destination.
#[derive(Debug)]
enum Choice {
    /// The inverses of latencies.
    Random(Tree<Share>),
    /// What each that takes turns has spent, and the fastest latency when it was last told who takes turns.
    RoundRobin { turns: Tree<Least>, fastest: f64 },
    /// The latencies themselves, which every policy keeps.
    LeastLatency,
}

/// One function's destinations.
#[derive(Debug)]
pub(crate) struct Route<K> {
    slots: Vec<Slot<K>>,
    positions: HashMap<K, usize>,
    /// When each is due to be tried, in seconds.
    due: Tree<Least>,
    /// When what is known of each gets stale, in seconds.
    stale: Tree<Least>,
    choices_since_measurement: u32,
    /// The latencies of those in use, in milliseconds, ties broken by calls in flight.
    latencies: Tree<Least>,
    choice: Choice,
}

impl<K: Clone + Eq + Hash> Route<K> {
    pub(crate) fn new(policy: PolicyKind) -> Self {
        let choice = match policy {
            PolicyKind::Random => Choice::Random(Tree::new(0)),
            PolicyKind::RoundRobin => Choice::RoundRobin { turns: Tree::new(0), fastest: f64::INFINITY },
            PolicyKind::LeastLatency => Choice::LeastLatency,
        };
        Self {
            slots: Vec::new(),
            positions: HashMap::new(),
            due: Tree::new(0),
            stale: Tree::new(0),
            choices_since_measurement: 0,
            latencies: Tree::new(0),
            choice,
        }
    }

    /// Puts these destinations in place of those there; what was learnt of those that stay is kept.
    pub(crate) fn set(&mut self, keys: impl IntoIterator<Item = K>, next_id: &mut u64, now: Duration) {
        let assumed_ms = self.fastest().unwrap_or(LATENCY_ASSUMED_MS);
        let mut old: HashMap<K, Slot<K>> = self.slots.drain(..).map(|slot| (slot.key.clone(), slot)).collect();
        self.positions.clear();
        for key in keys {
            if self.positions.contains_key(&key) {
                continue;
            }
            let slot = old.remove(&key).unwrap_or_else(|| {
                *next_id += 1;
                Slot::new(key.clone(), *next_id, Latency::assumed(assumed_ms), now)
            });
            self.positions.insert(key, self.slots.len());
            self.slots.push(slot);
        }
        self.rebuild();
    }

    /// Whether these, in this order, are the destinations.
    pub(crate) fn is(&self, keys: &[K]) -> bool {
        self.slots.len() == keys.len() && self.slots.iter().zip(keys).all(|(slot, key)| slot.key == *key)
    }

    /// Sets a latency by hand; false where the destination is not there.
    pub(crate) fn set_latency(&mut self, key: &K, ms: f64) -> bool {
        let Some(&at) = self.positions.get(key) else { return false };
        self.slots[at].latency = Latency::set(ms);
        self.refresh(at);
        self.recompute_turns();
        true
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = View<'_, K>> {
        self.slots.iter().map(Slot::view)
    }

    /// Chooses, and tells what the choice says to the destination's other functions.
    pub(crate) fn pick(
        &mut self,
        exclude: Option<&K>,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Result<(Pick<K>, Option<Health>), PickError> {
        let excluded = exclude.and_then(|key| self.positions.get(key).copied());
        if let Some(at) = excluded {
            self.hide(at);
        }
        // A call that has failed once already is not for finding things out.
        let chosen = self.choose(exclude.is_none(), excluded, now, rng);
        if let Some(at) = excluded {
            self.refresh(at);
        }
        let (at, trial) = chosen?;
        let slot = &mut self.slots[at];
        let before = slot.health;
        let pick = slot.pick(at, trial, now);
        if matches!(self.choice, Choice::RoundRobin { .. }) {
            // A double holds microseconds exactly for longer than any broker runs.
            slot.spent += slot.latency.ms();
        }
        let news = slot.health.news(before, now);
        self.refresh(at);
        Ok((pick, news))
    }

    /// Takes in what became of a call, and tells what it says to the destination's other functions.
    pub(crate) fn observe(&mut self, pick: &Pick<K>, observation: Observation, now: Duration) -> Option<Health> {
        let at = match self.slots.get(pick.position) {
            Some(slot) if slot.id == pick.slot => pick.position,
            // The destinations have changed since.
            Some(_) | None => *self.positions.get(&pick.destination)?,
        };
        if self.slots[at].id != pick.slot {
            return None;
        }
        let before = self.slots[at].health;
        self.slots[at].observe(pick, observation, now);
        self.refresh(at);
        let fast = self.is_fast(at);
        self.slots[at].plan_measurement(pick, observation, fast, now);
        self.refresh(at);
        self.recompute_turns();
        self.slots[at].health.news(before, now)
    }

    /// Takes over what another function's calls have found out about a destination.
    pub(crate) fn hear(&mut self, key: &K, news: Health) {
        if let Some(&at) = self.positions.get(key) {
            self.slots[at].health = self.slots[at].health.hear(news);
            self.refresh(at);
            self.recompute_turns();
        }
    }

    fn choose(
        &mut self,
        is_first_try: bool,
        excluded: Option<usize>,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Result<(usize, Trial), PickError> {
        if is_first_try && let Some(trial) = self.take_due(now).or_else(|| self.take_stale(now)) {
            return Ok(trial);
        }
        if let Some(at) = self.by_policy(rng) {
            self.choices_since_measurement = self.choices_since_measurement.saturating_add(1);
            return Ok((at, Trial::None));
        }
        match self.take_due(now) {
            Some(trial) => Ok(trial),
            None => self.last_resort(excluded, now),
        }
    }

    /// The destination that has been due for longest. On the way, probes that have lasted long enough have succeeded.
    fn take_due(&mut self, now: Duration) -> Option<(usize, Trial)> {
        loop {
            let at = self.due.root().position_by(now.as_secs_f64())?;
            match self.slots[at].health {
                Health::InUse { .. } => return Some((at, Trial::Measurement)),
                Health::SetAside { .. } => return Some((at, Trial::Probe)),
                Health::Probing { .. } => {
                    self.slots[at].health = self.slots[at].health.outlasted();
                    self.refresh(at);
                    self.recompute_turns();
                }
            }
        }
    }

    /// The destination that has been stale for longest, if it is time to measure one.
    fn take_stale(&mut self, now: Duration) -> Option<(usize, Trial)> {
        if self.choices_since_measurement < CHOICES_PER_MEASUREMENT {
            return None;
        }
        let at = self.stale.root().position_by(now.as_secs_f64())?;
        self.choices_since_measurement = 0;
        Some((at, Trial::Measurement))
    }

    fn by_policy(&self, rng: &mut impl Rng) -> Option<usize> {
        match &self.choice {
            Choice::Random(shares) => shares.draw(rng.random()),
            Choice::RoundRobin { turns, .. } => turns.root().position(),
            Choice::LeastLatency => self.latencies.root().position(),
        }
    }

    /// Nobody is in use. Where all are dead, the one next due is probed before its time rather than failing the call:
    /// it may just have come back. Where one refuses, it has said when to come again.
    fn last_resort(&self, excluded: Option<usize>, now: Duration) -> Result<(usize, Trial), PickError> {
        let mut next = None;
        let mut all_dead_and_idle = true;
        let mut cause = Cause::Dead;
        for (at, slot) in self.slots.iter().enumerate().filter(|&(at, _)| Some(at) != excluded) {
            let until = match slot.health {
                Health::InUse { .. } => continue,
                Health::SetAside { until, .. } | Health::Probing { until, .. } => until,
            };
            if slot.health.cause() == Some(Cause::Refusing) {
                (all_dead_and_idle, cause) = (false, Cause::Refusing);
            }
            all_dead_and_idle &= !matches!(slot.health, Health::Probing { .. });
            if next.is_none_or(|(due, _)| until < due) {
                next = Some((until, at));
            }
        }
        match next {
            None if excluded.is_some() => Err(PickError::NoOther),
            None => Err(PickError::NoDestination),
            Some((_, at)) if all_dead_and_idle => Ok((at, Trial::Probe)),
            // A probe under way will tell sooner than its patience ends.
            Some((due, _)) => Err(PickError::AllSetAside {
                retry_after: due.saturating_sub(now).clamp(Duration::from_millis(1), retry_after_max(cause)),
                cause,
            }),
        }
    }

    fn fastest(&self) -> Option<f64> {
        let fastest = self.latencies.root().key;
        (fastest < UNKNOWN_MS).then_some(fastest)
    }

    fn is_fast(&self, at: usize) -> bool {
        self.fastest().is_none_or(|fastest| self.slots[at].latency.ms() <= FAST_FACTOR * fastest)
    }

    /// Brings the trees up to date with one destination.
    fn refresh(&mut self, at: usize) {
        let in_use = self.slots[at].health.is_in_use();
        let slot = &self.slots[at];
        let (ms, known) = (slot.latency.ms(), slot.latency.is_known());
        let seconds = |time: Duration| time.as_secs_f64();
        self.due.set(at, Least::leaf(at, slot.due().map(seconds), 0));
        self.stale.set(at, Least::leaf(at, slot.stale().map(seconds), 0));
        let latency = if known { ms } else { UNKNOWN_MS };
        self.latencies.set(at, Least::leaf(at, in_use.then_some(latency), slot.in_flight));
        let takes_turns = in_use && (!known || self.is_fast(at));
        let slot = &mut self.slots[at];
        match &mut self.choice {
            Choice::Random(shares) => shares.set(at, if in_use { Share(1.0 / ms) } else { Share::ABSENT }),
            Choice::RoundRobin { turns, .. } => {
                let least_spent = turns.root().key;
                if takes_turns && !slot.takes_turns && least_spent < f64::INFINITY {
                    // Time away earns nobody a run of turns.
                    slot.spent = slot.spent.max(least_spent);
                }
                slot.takes_turns = takes_turns;
                turns.set(at, Least::leaf(at, takes_turns.then_some(slot.spent), 0));
            }
            Choice::LeastLatency => {}
        }
    }

    /// Takes one destination out of the trees until it is refreshed.
    fn hide(&mut self, at: usize) {
        self.due.set(at, Least::ABSENT);
        self.stale.set(at, Least::ABSENT);
        self.latencies.set(at, Least::ABSENT);
        match &mut self.choice {
            Choice::Random(shares) => shares.set(at, Share::ABSENT),
            Choice::RoundRobin { turns, .. } => turns.set(at, Least::ABSENT),
            Choice::LeastLatency => {}
        }
    }

    /// Round robin: tells anew who is fast enough to take turns, where the fastest latency has changed.
    fn recompute_turns(&mut self) {
        let now_fastest = self.fastest().unwrap_or(f64::INFINITY);
        let Choice::RoundRobin { fastest, .. } = &mut self.choice else { return };
        #[expect(clippy::float_cmp, reason = "any change at all counts")]
        if *fastest != now_fastest {
            *fastest = now_fastest;
            (0..self.slots.len()).for_each(|at| self.refresh(at));
        }
    }

    fn rebuild(&mut self) {
        let count = self.slots.len();
        (self.due, self.stale, self.latencies) = (Tree::new(count), Tree::new(count), Tree::new(count));
        match &mut self.choice {
            Choice::Random(shares) => *shares = Tree::new(count),
            Choice::RoundRobin { turns, fastest } => (*turns, *fastest) = (Tree::new(count), f64::NAN),
            Choice::LeastLatency => {}
        }
        (0..count).for_each(|at| self.refresh(at));
        self.recompute_turns();
    }
}

/// The longest time that a caller is told to wait: a probe of the dead ends sooner than its patience.
fn retry_after_max(cause: Cause) -> Duration {
    match cause {
        Cause::Dead => DEAD_WAIT_MIN,
        Cause::Refusing => crate::health::REFUSING_WAIT_MAX,
    }
}
