//! One destination of one function: its health, its latency, its turn, and when it is to be tried.

use std::time::Duration;

use crate::health::Health;
use crate::latency::Latency;
use crate::outcome::{Observation, Pick, State, Trial, View};

/// A latency older than this is measured anew; doubles with every measurement that finds the destination slow still, up
/// to [`STALE_AFTER_MAX`].
pub const STALE_AFTER_MIN: Duration = Duration::from_secs(1);
/// The longest that a latency goes without being measured anew.
pub const STALE_AFTER_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(crate) struct Slot<K> {
    pub(crate) key: K,
    pub(crate) id: u64,
    pub(crate) health: Health,
    pub(crate) latency: Latency,
    /// Round robin: the sum of latencies spent in turns.
    pub(crate) spent: f64,
    /// Round robin: among those that take turns.
    pub(crate) takes_turns: bool,
    /// When its latency is to be measured, if no call does so by itself before.
    measure_at: Duration,
    stale_after: Duration,
    pub(crate) in_flight: u32,
    calls: u64,
    failures: u64,
}

impl<K: Clone> Slot<K> {
    pub(crate) fn new(key: K, id: u64, latency: Latency, now: Duration) -> Self {
        Self {
            key,
            id,
            health: Health::InUse { since: now },
            latency,
            spent: 0.0,
            takes_turns: false,
            measure_at: Duration::ZERO,
            stale_after: STALE_AFTER_MIN,
            in_flight: 0,
            calls: 0,
            failures: 0,
        }
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

    pub(crate) fn pick(&mut self, position: usize, trial: Trial, now: Duration) -> Pick<K> {
        match trial {
            Trial::Probe => self.health = self.health.probe(now),
            // One at a time; should its answer be lost, there will be another.
            Trial::Measurement => self.measure_at = now + self.stale_after,
            Trial::None => {}
        }
        self.in_flight = self.in_flight.saturating_add(1);
        self.calls += 1;
        Pick { destination: self.key.clone(), trial, at: now, slot: self.id, position }
    }

    /// Takes in what became of a call.
    pub(crate) fn observe(&mut self, pick: &Pick<K>, observation: Observation, now: Duration) {
        let by_probe = pick.is_probe();
        self.in_flight = self.in_flight.saturating_sub(1);
        match observation {
            Observation::Answered { latency } => {
                self.latency.learn(latency, now);
                self.health = self.health.answered(by_probe, now);
            }
            Observation::Unmeasured => self.health = self.health.answered(by_probe, now),
            Observation::Unfinished { elapsed } => {
                self.latency.learn_at_least(elapsed, now);
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

    pub(crate) fn view(&self) -> View<'_, K> {
        View {
            destination: &self.key,
            latency_ms: self.latency.is_known().then(|| self.latency.ms()),
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
