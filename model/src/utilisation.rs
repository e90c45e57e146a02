//! How busy a processor has been: one sample each second, as the older system takes them.

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// Samples kept.
const SAMPLES: usize = 30;
/// The windows, in samples.
const WINDOWS: [usize; 3] = [1, 10, 30];

/// Busy time of a processor.
#[derive(Debug, Clone)]
pub(crate) struct Utilisation {
    cores: u32,
    /// What is busy: cores, or what runs.
    busy: u32,
    /// Up to when everything is counted.
    counted: u64,
    /// Busy nanoseconds of the second that has begun.
    filling: u128,
    /// Samples of the last whole seconds, by second modulo their number.
    samples: [f32; SAMPLES],
}

impl Utilisation {
    pub(crate) fn new(cores: u32) -> Self {
        Self { cores, busy: 0, counted: 0, filling: 0, samples: [0.0; SAMPLES] }
    }

    /// From now on so many are busy.
    pub(crate) fn set_busy(&mut self, busy: u32, now: u64) {
        self.advance(now);
        self.busy = busy;
    }

    /// The last sample, and the means of the last 10 and 30, or of those that there are. In the first second: the share so far.
    pub(crate) fn shares(&mut self, now: u64) -> [f32; 3] {
        self.advance(now);
        let seconds = self.counted / SECOND;
        if seconds == 0 {
            return [self.share(self.filling, self.counted); 3];
        }
        WINDOWS.map(|window| {
            let count = seconds.min(window as u64);
            let sum: f32 = (1..=count).map(|before| self.samples[slot(seconds - before)]).sum();
            #[expect(clippy::cast_precision_loss, reason = "at most 30")]
            let count = count as f32;
            sum / count
        })
    }

    fn advance(&mut self, now: u64) {
        // After a longer gap than what is kept, only its end matters, and all of it was the same.
        let gap = (SAMPLES as u64 + 1) * SECOND;
        let from = (now / SECOND * SECOND).saturating_sub(gap);
        if self.counted < from {
            self.counted = from;
            self.filling = 0;
        }
        while self.counted < now {
            let end = (self.counted / SECOND + 1).saturating_mul(SECOND);
            let until = end.min(now);
            self.filling += u128::from(self.busy) * u128::from(until - self.counted);
            if until == end {
                self.samples[slot(self.counted / SECOND)] = self.share(self.filling, SECOND);
                self.filling = 0;
            }
            self.counted = until;
        }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a share for people and policies")]
    fn share(&self, busy: u128, elapsed: u64) -> f32 {
        let all = u128::from(self.cores) * u128::from(elapsed);
        if all == 0 { 0.0 } else { (busy as f64 / all as f64).min(1.0) as f32 }
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % SAMPLES as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn one_of_two_cores_for_half_a_second_of_two() {
        let mut utilisation = Utilisation::new(2);
        assert_eq!(utilisation.shares(0), [0.0; 3]);
        utilisation.set_busy(1, 0);
        utilisation.set_busy(0, 500 * MS);
        assert_eq!(utilisation.shares(500 * MS), [0.5; 3]);
        assert_eq!(utilisation.shares(1000 * MS), [0.25; 3]);
        assert_eq!(utilisation.shares(1999 * MS), [0.25; 3], "until the next sample");
        assert_eq!(utilisation.shares(2000 * MS), [0.0, 0.125, 0.125]);
    }

    #[test]
    fn the_windows_are_of_their_lengths_and_a_long_gap_is_as_what_ran() {
        let mut utilisation = Utilisation::new(1);
        utilisation.set_busy(1, 0);
        utilisation.set_busy(0, 100_000 * MS);
        assert_eq!(utilisation.shares(100_000 * MS), [1.0; 3]);
        assert_eq!(utilisation.shares(105_000 * MS), [0.0, 0.5, 25.0 / 30.0]);
        assert_eq!(utilisation.shares(u64::MAX), [0.0; 3]);
    }

    #[test]
    fn more_than_there_are_cores_are_still_one() {
        let mut utilisation = Utilisation::new(2);
        utilisation.set_busy(8, 0);
        assert_eq!(utilisation.shares(3000 * MS), [1.0; 3]);
    }
}
