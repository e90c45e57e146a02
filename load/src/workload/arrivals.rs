//! When the calls of one client are due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution as _, Poisson};

use super::gaps::{Gaps, between, exponential};
use super::timetable::Timetable;
use super::{WorkloadError, dice};
use crate::dice::Purpose;

/// Calls of one burst, at most.
const BURST_MAX: usize = 1_000_000;
/// Phases without a call that are passed over in search of the next call; after these the next phase has one.
const EMPTY_PHASES_MAX: u32 = 1_000_000;

/// When calls are due.
#[derive(Debug, Clone)]
pub enum Arrivals {
    /// One after another, each client by itself.
    Steady {
        /// How gaps vary.
        gaps: Gaps,
        /// The mean gap of one client.
        every: Duration,
    },
    /// Phases with calls and phases without, of exponential length.
    OnOff {
        /// Mean length of the phases with calls.
        on: Duration,
        /// Mean length of the phases without.
        off: Duration,
        /// What happens in those with calls.
        within: Within,
    },
    /// Bursts after exponential times, each of a Poisson number of calls.
    Bursts {
        /// Mean time between the beginnings of bursts.
        period: Duration,
        /// Mean number of calls in one.
        calls: f64,
        /// The shortest time between two calls of a burst.
        gap_min: Duration,
        /// The longest.
        gap_max: Duration,
    },
    /// As it is written.
    Timetable(Arc<Timetable>),
}

/// Calls within a phase with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// At random with this mean gap: together an interrupted Poisson process.
    Poisson(Duration),
    /// The first at the beginning, further ones after a uniform time.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
}

impl Arrivals {
    pub(super) fn check(&self) -> Result<(), WorkloadError> {
        let wrong = |what: &str| Err(WorkloadError::new(what));
        let within_bounds = |min: Duration, max: Duration| min <= max && !max.is_zero();
        match self {
            Self::Steady { every, .. } if every.is_zero() => wrong("the time between calls must be over zero"),
            Self::OnOff { on, off, .. } if on.is_zero() || off.is_zero() => {
                wrong("phases with and without calls must last longer than nothing")
            }
            Self::OnOff { within: Within::Poisson(mean), .. } if mean.is_zero() => wrong("the rate is too high"),
            Self::OnOff { within: Within::Uniform { min, max }, .. } if !within_bounds(*min, *max) => {
                wrong("between calls of a phase: the longest time must be over zero and no shorter than the shortest")
            }
            Self::Bursts { period, .. } if period.is_zero() => wrong("the time between bursts must be over zero"),
            Self::Bursts { calls, .. } if !(*calls > 0.0 && *calls <= 100_000.0) => {
                wrong("calls in a burst: use a mean over 0 and up to 100000")
            }
            Self::Bursts { gap_min, gap_max, .. } if gap_min > gap_max => {
                wrong("between calls of a burst: the longest time must be no shorter than the shortest")
            }
            Self::Steady { .. } | Self::OnOff { .. } | Self::Bursts { .. } | Self::Timetable(_) => Ok(()),
        }
    }

    pub(super) fn instants(&self, seed: u64, client: u32, clients: u32) -> Instants {
        let mut dice = dice::stream(seed, client, Purpose::Arrival);
        let process = match self {
            Self::Timetable(timetable) => return Instants::Timetable(timetable.clone(), 0),
            Self::Steady { gaps, every } => {
                // Clients that all keep the same beat take turns, the first of several beginning with a part of its gap.
                let offset = match gaps {
                    Gaps::Constant => *every - every.mul_f64(f64::from(client + 1) / f64::from(clients.max(1))),
                    Gaps::Uniform | Gaps::Poisson => Duration::ZERO,
                };
                Process::Steady { gaps: *gaps, every: *every, offset }
            }
            Self::OnOff { on, off, within } => {
                let (first_on, first_off) = (exponential(*on, &mut dice), exponential(*off, &mut dice));
                let passed = between(Duration::ZERO, first_on + first_off, &mut dice);
                // The run begins somewhere within a phase.
                let (begins, ends) = match first_on.checked_sub(passed) {
                    Some(left) => (Duration::ZERO, left),
                    None => {
                        let begins = first_on + first_off - passed;
                        (begins, begins + exponential(*on, &mut dice))
                    }
                };
                Process::OnOff { on: *on, off: *off, within: *within, at: begins, ends, is_first: true }
            }
            Self::Bursts { period, calls, gap_min, gap_max } => {
                // As if the run began in the middle of a period.
                let begins = exponential(*period, &mut dice) / 2;
                Process::Bursts {
                    period: *period,
                    calls: *calls,
                    gaps: (*gap_min, *gap_max),
                    begins,
                    burst: VecDeque::new(),
                }
            }
        };
        Instants::Drawn(Box::new(Drawn { dice, now: Duration::ZERO, process }))
    }
}

/// The instants of one client's calls.
#[derive(Debug)]
pub(super) enum Instants {
    /// With the place of the next entry.
    Timetable(Arc<Timetable>, usize),
    Drawn(Box<Drawn>),
}

#[derive(Debug)]
pub(super) struct Drawn {
    dice: ChaCha8Rng,
    now: Duration,
    process: Process,
}

#[derive(Debug)]
enum Process {
    Steady {
        gaps: Gaps,
        every: Duration,
        /// Taken from the first gap.
        offset: Duration,
    },
    OnOff {
        on: Duration,
        off: Duration,
        within: Within,
        at: Duration,
        ends: Duration,
        is_first: bool,
    },
    Bursts {
        period: Duration,
        calls: f64,
        gaps: (Duration, Duration),
        begins: Duration,
        burst: VecDeque<Duration>,
    },
}

impl Drawn {
    /// The next instant, and from when on a call of it is of no use.
    pub(super) fn next(&mut self) -> (Duration, Option<Duration>) {
        let Self { dice, now, process } = self;
        match process {
            Process::Steady { gaps, every, offset } => {
                *now += gaps.draw(*every, dice).saturating_sub(std::mem::take(offset));
                (*now, None)
            }
            Process::OnOff { on, off, within, at, ends, is_first } => {
                for _ in 0..EMPTY_PHASES_MAX {
                    *at += match within {
                        Within::Poisson(mean) => exponential(*mean, dice),
                        Within::Uniform { .. } if *is_first => Duration::ZERO,
                        Within::Uniform { min, max } => between(*min, *max, dice),
                    };
                    *is_first = false;
                    if *at <= *ends {
                        break;
                    }
                    *at = *ends + exponential(*off, dice);
                    *ends = *at + exponential(*on, dice);
                    *is_first = true;
                }
                (*at, Some(*ends))
            }
            Process::Bursts { period, calls, gaps: (min, max), begins, burst } => {
                while burst.is_empty() {
                    let mut at = *begins;
                    for place in 0..burst_size(*calls, dice) {
                        if place > 0 {
                            at += between(*min, *max, dice);
                        }
                        burst.push_back(at);
                    }
                    // The next burst waits for the end of a long one.
                    *begins = (*begins + exponential(*period, dice)).max(at);
                }
                (burst.pop_front().unwrap_or(*begins), None)
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a drawn number of calls, made to fit")]
fn burst_size(mean: f64, dice: &mut ChaCha8Rng) -> usize {
    let drawn = Poisson::new(mean).map_or(mean, |poisson| poisson.sample(dice));
    (drawn as usize).min(BURST_MAX)
}
