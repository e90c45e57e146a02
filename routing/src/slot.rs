//! One destination of one function: its health, its latency, its turn, and when it is to be tried.

use std::time::Duration;

use crate::health::Health;
use crate::latency::Latency;
use crate::outcome::{Observation, Pick, Scope, State, Trial, View};
use crate::peak::Peak;
use crate::peer::Place;
use crate::predict::Model;

/// A latency older than this is measured anew; doubles with every measurement that finds the destination slow still, up
/// to [`STALE_AFTER_MAX`].
pub const STALE_AFTER_MIN: Duration = Duration::from_secs(1);
/// The longest that a latency goes without being measured anew.
pub const STALE_AFTER_MAX: Duration = Duration::from_secs(30);

/// What share of its calls a newcomer gets at first.
const RAMP_MIN: f64 = 0.1;

#[derive(Debug, Clone, Copy)]
struct SlowStart {
    began: Duration,
    takes: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Slot<K> {
    pub(crate) key: K,
    pub(crate) id: u64,
    /// The destination among those of all functions.
    pub(crate) peer: Place,
    pub(crate) health: Health,
    pub(crate) latency: Latency,
    /// What its computer has told.
    pub(crate) model: Model,
    /// Its latency with peaks.
    pub(crate) peak: Peak,
    /// Since when it has been given more and more calls, until it has its full share.
    slow_start: Option<SlowStart>,
    /// When its latency is to be measured, if no call does so by itself before.
    measure_at: Duration,
    stale_after: Duration,
    pub(crate) in_flight: u32,
    calls: u64,
    failures: u64,
}

impl<K: Clone> Slot<K> {
    pub(crate) fn new(key: K, id: u64, peer: Place, latency: Latency, now: Duration) -> Self {
        Self {
            key,
            id,
            peer,
            health: Health::InUse { since: now },
            latency,
            model: Model::new(),
            peak: Peak::new(),
            slow_start: None,
            measure_at: Duration::ZERO,
            stale_after: STALE_AFTER_MIN,
            in_flight: 0,
            calls: 0,
            failures: 0,
        }
    }

    /// From now on it gets its full share step by step.
    pub(crate) fn start_slowly(&mut self, now: Duration, takes: Duration) {
        self.slow_start = (!takes.is_zero()).then_some(SlowStart { began: now, takes });
    }

    /// What part of its full share it is to get now.
    pub(crate) fn ramp(&self, now: Duration) -> f64 {
        let Some(SlowStart { began, takes }) = self.slow_start else { return 1.0 };
        (now.saturating_sub(began).as_secs_f64() / takes.as_secs_f64()).clamp(RAMP_MIN, 1.0)
    }

    /// When a call should be sent here to find something out, whatever the policy says: never measured, or set aside.
    pub(crate) fn due(&self) -> Option<Duration> {
        match self.health {
            Health::InUse { .. } => (!self.latency.is_known()).then_some(self.measure_at),
            Health::SetAside { until, .. } | Health::Probing { until, .. } => Some(until),
        }
    }

    /// When what is known of its latency is too old to be relied on.
    pub(crate) fn stale(&self) -> Option<Duration> {
        (self.health.is_in_use() && self.latency.is_known()).then_some(self.measure_at)
    }

    pub(crate) fn pick(&mut self, scope: Scope, position: usize, trial: Trial, bytes: f64, now: Duration) -> Pick<K> {
        match trial {
            Trial::Probe => self.health = self.health.probe(now),
            // One at a time; should its answer be lost, there will be another.
            Trial::Measurement => self.measure_at = now + self.stale_after,
            Trial::None => {}
        }
        self.in_flight = self.in_flight.saturating_add(1);
        self.calls += 1;
        Pick { destination: self.key.clone(), scope, trial, bytes, at: now, slot: self.id, peer: self.peer, position }
    }

    /// Takes in what became of a call.
    pub(crate) fn observe(&mut self, pick: &Pick<K>, observation: Observation, now: Duration) {
        let by_probe = pick.is_probe();
        self.in_flight = self.in_flight.saturating_sub(1);
        match observation {
            Observation::Answered { latency, report } => {
                self.latency.learn(latency, now);
                self.model.learn(pick.bytes, latency, &report, now);
                self.health = self.health.answered(by_probe, now);
            }
            Observation::Unmeasured => self.health = self.health.answered(by_probe, now),
            Observation::Unfinished { elapsed } => {
                self.latency.learn_at_least(elapsed, now);
                self.model.learn_at_least(pick.bytes, elapsed, now);
                if by_probe {
                    self.health = self.health.probe_handed_back(now);
                }
            }
            Observation::Refused { retry_after } => {
                self.failures += 1;
                self.health = self.health.refused(by_probe, pick.at, retry_after, now);
            }
            Observation::Dead => {
                self.failures += 1;
                self.health = self.health.found_dead(by_probe, pick.at, now);
            }
        }
    }

    /// Decides when to measure next, now that a call has measured or was meant to. `fast`: as the best are.
    pub(crate) fn plan_measurement(&mut self, pick: &Pick<K>, observation: Observation, fast: bool, now: Duration) {
        let measured = matches!(observation, Observation::Answered { .. });
        if measured && fast {
            self.stale_after = STALE_AFTER_MIN;
        } else if pick.trial == Trial::Measurement {
            self.stale_after = (self.stale_after * 2).min(STALE_AFTER_MAX);
        }
        if measured || pick.trial == Trial::Measurement {
            self.measure_at = now + self.stale_after;
        }
    }

    pub(crate) fn view(&self, weight: Option<f64>) -> View<'_, K> {
        View {
            destination: &self.key,
            latency_ms: weight.or_else(|| self.latency.is_known().then(|| self.latency.ms())),
            state: match self.health {
                Health::InUse { .. } => State::InUse,
                Health::SetAside { cause, .. } => State::SetAside(cause),
                Health::Probing { cause, .. } => State::Probing(cause),
            },
            in_flight: self.in_flight,
            calls: self.calls,
            failures: self.failures,
        }
    }
}
