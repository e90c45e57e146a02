//! One function's destinations, and the choice among them.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use rand::Rng;

use crate::choice::{Choice, Situation};
use crate::health::{Cause, DEAD_WAIT_MIN, Health};
use crate::latency::{LATENCY_ASSUMED_MS, Latency};
use crate::outcome::{Demand, Observation, Pick, PickError, Scope, Trial, View};
use crate::peer::Peers;
use crate::policy::Strategy;
use crate::slot::Slot;
use crate::tree::{Least, Tree};

/// A destination is fast if its latency is at most so many times that of the fastest.
const FAST_FACTOR: f64 = 2.0;
/// Choices by the policy between two calls sent to measure what is stale, so that on a quiet edge too most calls go where
/// the policy wants them.
pub const CHOICES_PER_MEASUREMENT: u32 = 8;
/// The key among latencies of a destination not yet measured, in milliseconds: behind every measured one.
const UNKNOWN_MS: f64 = 1e15;

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
    explores: bool,
    slow_start: Duration,
    /// Until when the shares of newcomers change with time alone.
    ramp_ends: Duration,
    ramp_at: Duration,
}

impl<K: Clone + Eq + Hash> Route<K> {
    pub(crate) fn new(strategy: &Strategy) -> Self {
        Self {
            slots: Vec::new(),
            positions: HashMap::new(),
            due: Tree::new(0),
            stale: Tree::new(0),
            choices_since_measurement: 0,
            latencies: Tree::new(0),
            choice: Choice::new(strategy),
            explores: strategy.explores(),
            slow_start: strategy.slow_start,
            ramp_ends: Duration::ZERO,
            ramp_at: Duration::ZERO,
        }
    }

    /// Puts these destinations in place of those there; what was learnt of those that stay is kept.
    pub(crate) fn set(
        &mut self,
        keys: impl IntoIterator<Item = K>,
        next_id: &mut u64,
        peers: &mut Peers<K>,
        now: Duration,
    ) {
        let assumed_ms = self.fastest().unwrap_or(LATENCY_ASSUMED_MS);
        let is_first = self.slots.is_empty();
        let mut old: HashMap<K, (usize, Slot<K>)> =
            self.slots.drain(..).enumerate().map(|(at, slot)| (slot.key.clone(), (at, slot))).collect();
        self.positions.clear();
        let mut from = Vec::with_capacity(old.len());
        for key in keys {
            if self.positions.contains_key(&key) {
                continue;
            }
            let (old_at, slot) = match old.remove(&key) {
                Some((at, slot)) => (Some(at), slot),
                None => {
                    *next_id += 1;
                    let mut slot =
                        Slot::new(key.clone(), *next_id, peers.enter(&key), Latency::assumed(assumed_ms), now);
                    if !is_first {
                        slot.start_slowly(now, self.slow_start);
                        self.ramp_ends = now + self.slow_start;
                    }
                    (None, slot)
                }
            };
            from.push(old_at);
            self.positions.insert(key, self.slots.len());
            self.slots.push(slot);
        }
        old.into_values().for_each(|(_, slot)| peers.leave(&slot.key, slot.peer));
        let count = self.slots.len();
        (self.due, self.stale, self.latencies) = (Tree::new(count), Tree::new(count), Tree::new(count));
        self.choice.reorder(&from, now);
        (0..count).for_each(|at| self.refresh(at, now));
    }

    /// Gives up all destinations.
    pub(crate) fn leave(self, peers: &mut Peers<K>) {
        self.slots.iter().for_each(|slot| peers.leave(&slot.key, slot.peer));
    }

    /// Whether these, in this order, are the destinations.
    pub(crate) fn is<'a>(&self, keys: impl Iterator<Item = &'a K>) -> bool
    where
        K: 'a,
    {
        self.slots.iter().map(|slot| &slot.key).eq(keys)
    }

    /// Sets a latency by hand; false where the destination is not there.
    pub(crate) fn set_latency(&mut self, key: &K, ms: f64, now: Duration) -> bool {
        let Some(&at) = self.positions.get(key) else { return false };
        self.slots[at].latency = Latency::set(ms);
        self.choice.set_weight(at, ms, now);
        self.refresh(at, now);
        true
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = View<'_, K>> {
        self.slots.iter().enumerate().map(|(at, slot)| slot.view(self.choice.weight(at)))
    }

    /// Chooses, and tells what the choice says to the destination's other functions.
    pub(crate) fn pick(
        &mut self,
        demand: Demand<'_, K>,
        peers: &mut Peers<K>,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Result<(Pick<K>, Option<Health>), PickError> {
        let excluded = demand.exclude.and_then(|key| self.positions.get(key).copied());
        let bytes = float(demand.payload_bytes);
        // A call that has failed once already is not for finding things out.
        self.advance(now);
        let found = if demand.exclude.is_none() { self.take_due(now).or_else(|| self.take_stale(now)) } else { None };
        let (at, trial) = match found {
            Some(found) => found,
            None => self.choose(excluded, bytes, peers, now, rng)?,
        };
        Ok(self.take(at, trial, demand.scope, bytes, peers, now))
    }

    /// Takes this destination, if it is in use.
    pub(crate) fn pick_one(
        &mut self,
        destination: &K,
        demand: Demand<'_, K>,
        peers: &mut Peers<K>,
        now: Duration,
    ) -> Option<Pick<K>> {
        let &at = self.positions.get(destination)?;
        let is_in_use = self.slots[at].health.is_in_use();
        is_in_use.then(|| self.take(at, Trial::None, demand.scope, float(demand.payload_bytes), peers, now).0)
    }

    /// The destinations in use but the excluded one.
    pub(crate) fn in_use<'a>(&'a self, excluded: Option<&'a K>) -> impl Iterator<Item = &'a K> {
        let slots = self.slots.iter().filter(move |slot| slot.health.is_in_use() && Some(&slot.key) != excluded);
        slots.map(|slot| &slot.key)
    }

    fn take(
        &mut self,
        at: usize,
        trial: Trial,
        scope: Scope,
        bytes: f64,
        peers: &mut Peers<K>,
        now: Duration,
    ) -> (Pick<K>, Option<Health>) {
        let slot = &mut self.slots[at];
        let before = slot.health;
        let pick = slot.pick(scope, at, trial, bytes, now);
        peers.begin(slot.peer);
        let news = slot.health.news(before, now);
        if trial != Trial::None || self.choice.counts_picks() {
            self.refresh(at, now);
        }
        (pick, news)
    }

    /// The destination in use that would answer soonest, as far as the policy knows; changes nothing.
    pub(crate) fn cheapest(&self, demand: Demand<'_, K>, peers: &Peers<K>, now: Duration) -> Result<K, PickError> {
        let excluded = demand.exclude.and_then(|key| self.positions.get(key).copied());
        let bytes = float(demand.payload_bytes);
        let Self { slots, latencies, .. } = self;
        match self.choice.cheapest(&Situation { slots, peers, latencies, excluded, bytes, now }) {
            Some(at) => Ok(self.slots[at].key.clone()),
            None => self.last_resort(excluded, now).map(|(at, _)| self.slots[at].key.clone()),
        }
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
        if let Observation::Answered { latency, report } = observation {
            self.choice.learn(at, pick.bytes, latency, &report, now);
            if let Some(decay) = self.choice.peak_decay() {
                self.slots[at].peak.learn(latency, decay, now);
            }
        }
        if let Observation::Unfinished { elapsed } = observation
            && let Some(decay) = self.choice.peak_decay()
        {
            self.slots[at].peak.learn_at_least(elapsed, decay, now);
        }
        if observation == Observation::Unmeasured {
            let fastest = self.fastest().filter(|_| !self.slots[at].latency.is_known());
            self.choice.learn_nothing(at, fastest, now);
        }
        self.return_slowly(at, before, now);
        let fast = self.is_fast(at);
        self.slots[at].plan_measurement(pick, observation, fast, now);
        self.refresh(at, now);
        self.slots[at].health.news(before, now)
    }

    /// Takes over what another function's calls have found out about a destination.
    pub(crate) fn hear(&mut self, key: &K, news: Health, now: Duration) {
        if let Some(&at) = self.positions.get(key) {
            let before = self.slots[at].health;
            self.slots[at].health = before.hear(news);
            self.return_slowly(at, before, now);
            self.refresh(at, now);
        }
    }

    /// There is reason to think that a dead destination is back.
    pub(crate) fn may_be_back(&mut self, key: &K, now: Duration) {
        if let Some(&at) = self.positions.get(key) {
            self.slots[at].health = self.slots[at].health.may_be_back(now);
            self.refresh(at, now);
        }
    }

    /// One that was dead gets its full share step by step: what it had in memory is gone.
    fn return_slowly(&mut self, at: usize, before: Health, now: Duration) {
        if before.cause() == Some(Cause::Dead) && self.slots[at].health.is_in_use() {
            self.slots[at].start_slowly(now, self.slow_start);
            self.ramp_ends = now + self.slow_start;
        }
    }

    fn choose(
        &mut self,
        excluded: Option<usize>,
        bytes: f64,
        peers: &Peers<K>,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Result<(usize, Trial), PickError> {
        let Self { slots, latencies, choice, .. } = self;
        if let Some(at) = choice.choose(&Situation { slots, peers, latencies, excluded, bytes, now }, rng) {
            self.choices_since_measurement = self.choices_since_measurement.saturating_add(1);
            return Ok((at, Trial::None));
        }
        match self.take_due(now) {
            Some((at, trial)) if Some(at) != excluded => Ok((at, trial)),
            Some(_) | None => self.last_resort(excluded, now),
        }
    }

    /// What changes with time alone: weights at the end of a period, the shares of newcomers.
    fn advance(&mut self, now: Duration) {
        self.choice.advance(now);
        if self.ramp_at < self.ramp_ends && now >= self.ramp_at + self.slow_start / RAMP_STEPS {
            self.ramp_at = now;
            (0..self.slots.len()).for_each(|at| self.refresh(at, now));
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
                    self.refresh(at, now);
                }
            }
        }
    }

    /// The destination that has been stale for longest, if it is time to measure one.
    fn take_stale(&mut self, now: Duration) -> Option<(usize, Trial)> {
        if !self.explores || self.choices_since_measurement < CHOICES_PER_MEASUREMENT {
            return None;
        }
        let at = self.stale.root().position_by(now.as_secs_f64())?;
        self.choices_since_measurement = 0;
        Some((at, Trial::Measurement))
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
    fn refresh(&mut self, at: usize, now: Duration) {
        let slot = &self.slots[at];
        let seconds = |time: Duration| time.as_secs_f64();
        let due = slot.due().filter(|_| self.explores || !slot.health.is_in_use());
        self.due.set(at, Least::leaf(at, due.map(seconds), 0));
        if self.explores {
            self.stale.set(at, Least::leaf(at, slot.stale().map(seconds), 0));
        }
        let latency = if slot.latency.is_known() { slot.latency.ms() } else { UNKNOWN_MS };
        self.latencies.set(at, Least::leaf(at, slot.health.is_in_use().then_some(latency), slot.in_flight));
        self.choice.refresh(at, slot, now);
    }
}

/// Steps in which a newcomer comes to its full share.
const RAMP_STEPS: u32 = 20;

#[expect(clippy::cast_precision_loss, reason = "a size to predict by")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// The longest time that a caller is told to wait: a probe of the dead ends sooner than its patience.
fn retry_after_max(cause: Cause) -> Duration {
    match cause {
        Cause::Dead => DEAD_WAIT_MIN,
        Cause::Refusing => crate::health::REFUSING_WAIT_MAX,
    }
}
