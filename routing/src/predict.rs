//! When a call would be answered: the network's part, the wait in the computer's queue, and the run, which grows with the
//! payload. Learnt from what computers tell with every answer.

use std::time::Duration;

use crate::outcome::Report;
use crate::peer::Peer;

/// How fast what was measured of a destination is forgotten, in seconds: after so long it weighs 1/e.
const TAU: f64 = 5.0;
/// Samples' weight after which an old one counts by time alone.
const NEWEST_SHARE_MIN: f64 = 1.0 / 64.0;
/// The least run that is assumed before anything is known, in seconds …
const RUN_ASSUMED_MIN: f64 = 1.0;
/// … and how many times longer than the longest of late it is.
const RUN_ASSUMED_FACTOR: f64 = 2.0;

/// What is known of one destination for one function. Its size does not depend on how much was learnt.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    run: SizeFit,
    /// Seconds on the wire and in transports.
    network: f64,
    /// Calls that it runs at once, as it told this function's calls.
    workers: f64,
    at: f64,
    samples: u32,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { run: SizeFit::default(), network: 0.0, workers: 1.0, at: 0.0, samples: 0 }
    }

    /// Takes in an answer to a call with so many bytes.
    pub(crate) fn learn(&mut self, bytes: f64, latency: Duration, report: &Report, now: Duration) {
        let now = now.as_secs_f64();
        let since = (now - self.at).max(0.0);
        self.samples = self.samples.saturating_add(1);
        let share = (1.0 - (-since / TAU).exp()).max(NEWEST_SHARE_MIN).max(1.0 / f64::from(self.samples));
        let run = run_of(latency, report);
        let network = (latency.as_secs_f64() - report.queue.as_secs_f64() - run).max(0.0);
        self.network += (network - self.network) * share;
        self.run.learn(bytes, run, share);
        if report.workers > 0 {
            self.workers = f64::from(report.workers);
        }
        self.at = now;
    }

    /// Takes in a call that took at least so long without being answered; says nothing where that is less than expected.
    pub(crate) fn learn_at_least(&mut self, bytes: f64, elapsed: Duration, now: Duration) {
        let expected = if self.samples == 0 { 0.0 } else { self.network + self.run.at(bytes) };
        if elapsed.as_secs_f64() > expected {
            self.learn(bytes, elapsed, &Report::default(), now);
        }
    }

    /// Seconds until the answer to a call of so many bytes, were it sent now.
    pub(crate) fn predict(&self, bytes: f64, assumed: &Assumed, peer: &Peer, now: f64) -> f64 {
        let (run, mean) = match self.samples {
            0 => (assumed.run(), assumed.run()),
            _ => (self.run.at(bytes), self.run.mean().max(RUN_MIN)),
        };
        self.network + run + peer.wait(run, mean, now)
    }

    /// Calls per second that it would answer: how often it is worth looking at.
    pub(crate) fn speed(&self, assumed: &Assumed) -> f64 {
        if self.samples == 0 { 1.0 / assumed.run() } else { self.workers / self.run.mean().max(RUN_MIN) }
    }
}

/// What is assumed of destinations that have not answered a call of a function yet: that they are behind those which have, so that
/// one which only ever fails draws no calls. How they are is found out by calls sent for that.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assumed {
    /// The longest run of late, in seconds.
    slowest: f64,
    at: f64,
}

impl Assumed {
    /// Takes in an answer of any destination.
    pub(crate) fn learn(&mut self, latency: Duration, report: &Report, now: Duration) {
        let (run, now) = (run_of(latency, report), now.as_secs_f64());
        let share = 1.0 - (-(now - self.at).max(0.0) / TAU).exp();
        self.slowest = run.max(self.slowest + (run - self.slowest) * share);
        self.at = now;
    }

    fn run(&self) -> f64 {
        (RUN_ASSUMED_FACTOR * self.slowest).max(RUN_ASSUMED_MIN)
    }
}

/// Seconds that a call ran; where that is not told, it is all run.
fn run_of(latency: Duration, report: &Report) -> f64 {
    if report.run.is_zero() { latency.as_secs_f64() } else { report.run.as_secs_f64() }
}

/// No run counts as less, in seconds.
const RUN_MIN: f64 = 1e-6;

/// Run time by payload size: a line through samples that are forgotten, by least squares.
#[derive(Debug, Clone, Default)]
struct SizeFit {
    /// Means of size, run, and their products.
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    slope: f64,
}

impl SizeFit {
    fn learn(&mut self, x: f64, y: f64, share: f64) {
        self.x += (x - self.x) * share;
        self.y += (y - self.y) * share;
        self.xx += (x * x - self.xx) * share;
        self.xy += (x * y - self.xy) * share;
        let variance = self.xx - self.x * self.x;
        // Sizes that hardly differ say nothing of a slope; time never shrinks with size.
        let tells = variance > 1e-6 * self.xx.max(1.0);
        self.slope = if tells { ((self.xy - self.x * self.y) / variance).max(0.0) } else { 0.0 };
    }

    fn mean(&self) -> f64 {
        self.y
    }

    fn at(&self, x: f64) -> f64 {
        // Far below the sizes seen the line may lead below what any run takes.
        (self.y + self.slope * (x - self.x)).max(self.y * RUN_SHARE_MIN).max(RUN_MIN)
    }
}

/// The least part of the mean run that is predicted for small payloads.
const RUN_SHARE_MIN: f64 = 0.02;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::peer::{Peers, Place};

    const MS: Duration = Duration::from_millis(1);

    fn report(queue: Duration, run: Duration, running: u32, queued: u32) -> Report {
        Report { queue, run, running, queued, workers: 2, service: 10 * MS, load_percent: 0 }
    }

    /// A model and the destination that it is of.
    struct World {
        model: Model,
        peers: Peers<()>,
        place: Place,
    }

    impl World {
        fn new() -> Self {
            let mut peers = Peers::default();
            let place = peers.enter(&());
            Self { model: Model::new(), peers, place }
        }

        fn learn(&mut self, bytes: f64, latency: Duration, report: &Report, now: Duration) {
            self.peers.begin(self.place);
            self.peers.end(self.place, Some(report), now);
            self.model.learn(bytes, latency, report, now);
        }

        fn predict(&self, bytes: f64, now: f64) -> f64 {
            self.model.predict(bytes, &Assumed::default(), self.peers.at(self.place), now)
        }
    }

    #[test]
    fn the_run_grows_with_the_payload() {
        let mut world = World::new();
        for n in 0..200u32 {
            let size = 1000 * (n % 10 + 1);
            let run = MS + Duration::from_micros(size.into());
            world.learn(size.into(), run + 2 * MS, &report(Duration::ZERO, run, 0, 0), MS * n);
        }
        for (bytes, expected) in [(1000.0, 4e-3), (5000.0, 8e-3), (20_000.0, 23e-3)] {
            let predicted = world.predict(bytes, 0.2);
            assert!((predicted - expected).abs() < 0.1 * expected, "{bytes}: {predicted}");
        }
    }

    #[test]
    fn the_wait_counts_own_calls_at_once_and_others_as_reported() {
        let mut world = World::new();
        (0..4).for_each(|_| world.peers.begin(world.place));
        for n in 0..50 {
            world.learn(0.0, 11 * MS, &report(Duration::ZERO, 10 * MS, 1, 3), MS * n);
        }
        (0..4).for_each(|_| world.peers.end(world.place, None, 50 * MS));
        let idle = world.predict(0.0, 0.05);
        assert!((idle - 11e-3).abs() < 1e-4, "all that was there was ours: {idle}");
        (0..5).for_each(|_| world.peers.begin(world.place));
        let busy = world.predict(0.0, 0.05);
        assert!((busy - idle - 20e-3).abs() < 1e-4, "four ahead of it for two workers: {busy}");
        (0..5).for_each(|_| world.peers.end(world.place, None, 50 * MS));
        world.learn(0.0, 11 * MS, &report(Duration::ZERO, 10 * MS, 2, 8), 51 * MS);
        let crowded = world.predict(0.0, 0.051);
        assert!(crowded > idle + 40e-3, "{crowded}");
        assert!(world.predict(0.0, 60.0) < crowded, "an old report says less");
    }

    proptest! {
        #[test]
        fn predictions_are_finite_and_positive(
            samples in prop::collection::vec((0u64..1 << 30, 0u64..10_000_000, 0u32..1000, 0u32..1000, 0u64..1_000_000), 0..60),
            bytes in 0u64..1 << 30,
            in_flight in 0u32..1000,
        ) {
            let mut world = World::new();
            let mut now = Duration::ZERO;
            for (bytes, us, running, queued, step_us) in samples {
                now += Duration::from_micros(step_us);
                let run = Duration::from_micros(us);
                world.learn(bytes as f64, run, &report(run / 4, run / 2, running, queued), now);
            }
            (0..in_flight).for_each(|_| world.peers.begin(world.place));
            let predicted = world.predict(bytes as f64, now.as_secs_f64() + 1.0);
            prop_assert!(predicted.is_finite() && predicted > 0.0, "{predicted}");
            prop_assert!((f64::MIN_POSITIVE..f64::MAX).contains(&world.model.speed(&Assumed::default())));
        }
    }
}
