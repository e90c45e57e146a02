//! What is known of a destination whatever the function: calls under way there, and what it told of its load. An answer to
//! any function's call tells it for all of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::outcome::Report;

/// How fast the usual number of others' calls is forgotten, in seconds: after so long it weighs 1/e.
const TAU: f64 = 5.0;
/// How fast what a report says of others' calls gives way to their usual number, in seconds.
const REPORT_TAU: f64 = 0.2;
/// A report's weight among those before it, at least.
const NEWEST_SHARE_MIN: f64 = 1.0 / 64.0;
/// The largest load that is told apart from full, in per cent.
const LOAD_MAX: f64 = 99.0;

/// One destination.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Calls from here under way, of all functions.
    in_flight: u32,
    /// Calls of others there: as last reported, and usually.
    others: f64,
    others_mean: f64,
    /// Calls that it runs at once.
    workers: f64,
    /// How long a call keeps a worker, in seconds; 0 where it does not say.
    service: f64,
    /// When it last told, in seconds.
    at: f64,
    reports: u32,
    /// In per cent, as last told, and when.
    load: f64,
    load_at: Option<Duration>,
    /// Tells it from those that had its place before.
    id: u64,
    /// Functions' destinations that it stands for.
    uses: u32,
}

impl Peer {
    fn new(id: u64) -> Self {
        Self {
            in_flight: 0,
            others: 0.0,
            others_mean: 0.0,
            workers: 1.0,
            service: 0.0,
            at: 0.0,
            reports: 0,
            load: 0.0,
            load_at: None,
            id,
            uses: 0,
        }
    }

    fn learn(&mut self, report: &Report, now: Duration) {
        (self.load, self.load_at) = (Self::load_of(report), Some(now));
        if report.workers == 0 {
            return;
        }
        let now = now.as_secs_f64();
        let since = (now - self.at).max(0.0);
        self.reports = self.reports.saturating_add(1);
        let share = (1.0 - (-since / TAU).exp()).max(NEWEST_SHARE_MIN).max(1.0 / f64::from(self.reports));
        self.workers = f64::from(report.workers);
        self.service = report.service.as_secs_f64();
        let there = f64::from(report.running) + f64::from(report.queued);
        self.others = (there - f64::from(self.in_flight)).max(0.0);
        self.others_mean += (self.others - self.others_mean) * share;
        self.at = now;
    }

    /// Seconds that one more call would wait for a worker. Its own run takes so long, those of its function on average
    /// `run_mean`.
    pub(crate) fn wait(&self, run: f64, run_mean: f64, now: f64) -> f64 {
        let age = (now - self.at).max(0.0);
        let others = self.others_mean + (self.others - self.others_mean) * (REPORT_TAU / (REPORT_TAU + age));
        let ahead = others + f64::from(self.in_flight) + 1.0 - self.workers;
        if ahead <= 0.0 {
            return 0.0;
        }
        let service = if self.service > 0.0 { self.service.min(run_mean) } else { run };
        ahead * service / self.workers
    }

    /// How busy it is, in per cent, as far as it has told of late; what is older than the time-out counts as idle.
    pub(crate) fn load(&self, timeout: Duration, now: Duration) -> f64 {
        let is_recent = self.load_at.is_some_and(|at| now.saturating_sub(at) < timeout);
        if is_recent { self.load } else { 0.0 }
    }

    /// The load that a report tells.
    pub(crate) fn load_of(report: &Report) -> f64 {
        f64::from(report.load_percent).min(LOAD_MAX)
    }
}

/// A destination's place among all, by which a function's destination finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    at: usize,
    id: u64,
}

/// All destinations of all functions.
#[derive(Debug)]
pub(crate) struct Peers<K> {
    places: HashMap<K, Place>,
    peers: Vec<Peer>,
    free: Vec<usize>,
    last_id: u64,
}

impl<K> Default for Peers<K> {
    fn default() -> Self {
        Self { places: HashMap::new(), peers: Vec::new(), free: Vec::new(), last_id: 0 }
    }
}

impl<K: Clone + Eq + Hash> Peers<K> {
    /// A function gets this destination.
    pub(crate) fn enter(&mut self, key: &K) -> Place {
        if let Some(&place) = self.places.get(key) {
            self.peers[place.at].uses += 1;
            return place;
        }
        self.last_id += 1;
        let peer = Peer { uses: 1, ..Peer::new(self.last_id) };
        let at = match self.free.pop() {
            Some(at) => {
                self.peers[at] = peer;
                at
            }
            None => {
                self.peers.push(peer);
                self.peers.len() - 1
            }
        };
        let place = Place { at, id: self.last_id };
        self.places.insert(key.clone(), place);
        place
    }

    /// A function no longer has it.
    pub(crate) fn leave(&mut self, key: &K, place: Place) {
        let peer = &mut self.peers[place.at];
        peer.uses -= 1;
        if peer.uses == 0 {
            peer.id = 0;
            self.places.remove(key);
            self.free.push(place.at);
        }
    }

    /// The destination at a place that was entered and not left.
    pub(crate) fn at(&self, place: Place) -> &Peer {
        &self.peers[place.at]
    }

    /// A call is on its way there.
    pub(crate) fn begin(&mut self, place: Place) {
        let peer = &mut self.peers[place.at];
        peer.in_flight = peer.in_flight.saturating_add(1);
    }

    /// A call that went there has ended, with what was told if it was answered. The destination may be gone.
    pub(crate) fn end(&mut self, place: Place, report: Option<&Report>, now: Duration) {
        let Some(peer) = self.peers.get_mut(place.at).filter(|peer| peer.id == place.id) else { return };
        peer.in_flight = peer.in_flight.saturating_sub(1);
        if let Some(report) = report {
            peer.learn(report, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_one_function_learns_serves_all_and_ends_with_the_last() {
        let mut peers: Peers<&str> = Peers::default();
        let (place, again) = (peers.enter(&"a"), peers.enter(&"a"));
        assert_eq!(place, again);
        peers.begin(place);
        let report = Report { running: 3, queued: 2, workers: 2, service: 10 * MS, ..Report::default() };
        peers.end(place, Some(&report), MS);
        assert!(peers.at(again).wait(0.01, 0.01, 0.001) > 0.015, "five ahead for two workers");
        peers.leave(&"a", place);
        assert!(peers.at(again).wait(0.01, 0.01, 0.001) > 0.015);
        peers.leave(&"a", again);
        let anew = peers.enter(&"b");
        peers.end(again, Some(&report), MS);
        assert!(peers.at(anew).wait(0.01, 0.01, 0.001) < 1e-9, "an answer from one that is gone is no news of another");
    }

    #[test]
    fn an_old_load_counts_as_idle() {
        let mut peers: Peers<&str> = Peers::default();
        let place = peers.enter(&"a");
        peers.begin(place);
        peers.end(place, Some(&Report { load_percent: 100, ..Report::default() }), MS);
        let load = |at| peers.at(place).load(10 * MS, at);
        assert!((load(10 * MS) - 99.0).abs() < 1e-9 && load(11 * MS) < 1e-9);
    }
}
