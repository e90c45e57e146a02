//! How busy the cores have been with guests: exact sums over a ring of tenths of a second. Time is an argument.

use std::time::{Duration, Instant};

/// A tenth of a second.
const BUCKET_NS: u64 = 100_000_000;
/// The windows in buckets: 1, 10 and 30 s.
const WINDOWS: [usize; 3] = [10, 100, 300];
/// One more than the longest window, for the bucket that is still filling.
const BUCKETS: usize = 301;

/// Busy time of guests on this many cores.
#[derive(Debug)]
pub(crate) struct Utilisation {
    origin: Instant,
    cores: usize,
    running: u64,
    /// Nanoseconds since the origin up to which everything is counted.
    counted_ns: u64,
    /// Busy nanoseconds of each bucket, by bucket number modulo the ring's length.
    busy_ns: [u64; BUCKETS],
    /// Busy nanoseconds of the last full buckets of each window.
    sums_ns: [u64; 3],
}

impl Utilisation {
    /// Nothing has run before `now`.
    pub(crate) fn new(cores: usize, now: Instant) -> Self {
        Self { origin: now, cores: cores.max(1), running: 0, counted_ns: 0, busy_ns: [0; BUCKETS], sums_ns: [0; 3] }
    }

    /// From now on so many guests run.
    pub(crate) fn set_running(&mut self, running: usize, now: Instant) {
        self.advance(now);
        self.running = running as u64;
    }

    /// Guests that were not counted as running were busy for so long in all, until now.
    pub(crate) fn add_busy(&mut self, busy: Duration, now: Instant) {
        self.advance(now);
        self.busy_ns[self.slot(0)] += ns(busy);
    }

    /// Shares of the cores that guests took over the last 1, 10 and 30 s, from 0 to 1.
    pub(crate) fn shares(&mut self, now: Instant) -> [f32; 3] {
        self.advance(now);
        let filling_ns = self.counted_ns % BUCKET_NS;
        let filling_busy = self.busy_ns[self.slot(0)];
        std::array::from_fn(|window| {
            let span = WINDOWS[window] as u64 * BUCKET_NS + filling_ns;
            let busy = self.sums_ns[window] + filling_busy;
            share(busy, span.saturating_mul(self.cores as u64))
        })
    }

    /// Where the bucket lies that is so many before the one still filling.
    fn slot(&self, before: usize) -> usize {
        let bucket = self.counted_ns / BUCKET_NS + (BUCKETS - before) as u64;
        usize::try_from(bucket % BUCKETS as u64).unwrap_or(0)
    }

    fn advance(&mut self, now: Instant) {
        let now_ns = ns(now.saturating_duration_since(self.origin));
        // After a longer gap than the ring holds, only its last part can still matter.
        let gap_max = BUCKETS as u64 * BUCKET_NS;
        if now_ns.saturating_sub(self.counted_ns) > gap_max {
            self.busy_ns = [0; BUCKETS];
            self.sums_ns = [0; 3];
            self.counted_ns = now_ns - gap_max;
        }
        while self.counted_ns < now_ns {
            let bucket_end = (self.counted_ns / BUCKET_NS + 1) * BUCKET_NS;
            let until = bucket_end.min(now_ns);
            let slot = self.slot(0);
            self.busy_ns[slot] += self.running * (until - self.counted_ns);
            if until == bucket_end {
                for (sum, window) in self.sums_ns.iter_mut().zip(WINDOWS) {
                    // The full bucket enters the window, the one that is now too old leaves it.
                    let bucket = self.counted_ns / BUCKET_NS + (BUCKETS - window) as u64;
                    let old = usize::try_from(bucket % BUCKETS as u64).unwrap_or(0);
                    *sum = *sum + self.busy_ns[slot] - self.busy_ns[old];
                }
            }
            self.counted_ns = until;
            if until == bucket_end {
                let fresh = self.slot(0);
                self.busy_ns[fresh] = 0;
            }
        }
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a share for people and policies")]
fn share(part: u64, whole: u64) -> f32 {
    (part as f64 / whole.max(1) as f64).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(have: f32, want: f64) -> bool {
        (f64::from(have) - want).abs() < 0.02
    }

    #[test]
    fn one_of_two_cores_busy_for_half_of_each_window() {
        let start = Instant::now();
        let mut utilisation = Utilisation::new(2, start);
        utilisation.set_running(1, start);
        utilisation.set_running(0, start + Duration::from_millis(500));
        let [one, ten, thirty] = utilisation.shares(start + Duration::from_secs(1));
        assert!(close(one, 0.25), "{one}");
        assert!(close(ten, 0.025), "{ten}");
        assert!(close(thirty, 0.25 / 30.0), "{thirty}");
    }

    #[test]
    fn what_is_long_past_is_forgotten_and_what_still_runs_counts() {
        let start = Instant::now();
        let mut utilisation = Utilisation::new(1, start);
        utilisation.set_running(1, start);
        let [one, ten, thirty] = utilisation.shares(start + Duration::from_secs(5));
        assert!(close(one, 1.0) && close(ten, 0.5) && close(thirty, 1.0 / 6.0));
        utilisation.set_running(0, start + Duration::from_secs(5));
        assert_eq!(utilisation.shares(start + Duration::from_secs(3600)), [0.0; 3]);
    }

    #[test]
    fn more_guests_than_cores_are_still_one() {
        let start = Instant::now();
        let mut utilisation = Utilisation::new(2, start);
        utilisation.set_running(8, start);
        assert_eq!(utilisation.shares(start + Duration::from_secs(2))[0], 1.0);
        assert_eq!(utilisation.shares(start + Duration::from_secs(1000)), [1.0; 3]);
    }

    proptest! {
        #[test]
        fn the_ring_agrees_with_counting_by_hand(steps in prop::collection::vec((0u64..4_000, 0usize..4), 1..60)) {
            let start = Instant::now();
            let mut utilisation = Utilisation::new(4, start);
            let (mut at, mut running, mut spans) = (0u64, 0usize, Vec::new());
            for (ms, next) in steps {
                spans.push((at, at + ms, running));
                at += ms;
                utilisation.set_running(next, start + Duration::from_millis(at));
                running = next;
                let shares = utilisation.shares(start + Duration::from_millis(at));
                for (share, window) in shares.into_iter().zip(WINDOWS) {
                    let span = window as u64 * 100 + at % 100;
                    let from = at.saturating_sub(span);
                    let busy: u64 = spans.iter().map(|&(a, b, n)| b.saturating_sub(a.max(from)) * n as u64).sum();
                    prop_assert!(close(share, (busy as f64 / (span * 4) as f64).min(1.0)));
                }
            }
        }
    }
}
