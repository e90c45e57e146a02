//! How a function keeps to its limits. One that breaks them in nearly all of its calls is held back: its calls run one at a
//! time and on the crew, and the longer that goes on, the longer it rests between them. So whatever they cost the computer
//! beside their own time, others hardly notice.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nigh_proto::Outcome;

use crate::outcome;

/// Breaches from which a function is held back. Each call that breaks a limit adds one; each other call halves them, having
/// made no more than these of them first.
const HELD_BACK_FROM: u32 = 16;
/// From fewer than this on it no longer is: after two calls in a row that break none.
const HELD_BACK_TO: u32 = HELD_BACK_FROM / 2;
/// Breaches after which a function rests: so many that hardly any is among them which works now and then.
const RESTS_FROM: u32 = 128;
/// How long it rests after the first breach beyond those; each further one doubles it.
const REST_FIRST: Duration = Duration::from_millis(1);
/// How long it rests at most.
const REST_MAX: Duration = Duration::from_millis(100);
/// Breaches that are counted, at most: as many as it takes to rest for so long.
const BREACHES_MAX: u32 = RESTS_FROM + 8;

/// One function's.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    breaches: AtomicU32,
    is_held_back: AtomicBool,
}

impl Conduct {
    /// Whether its calls are to run one at a time.
    pub(crate) fn is_held_back(&self) -> bool {
        self.is_held_back.load(Ordering::Relaxed)
    }

    /// How long it rests, as things stand, after each call.
    pub(crate) fn rest(&self) -> Duration {
        rest_after(self.breaches.load(Ordering::Relaxed))
    }

    /// Notes how a call ended. Says whether the function is held back now, where that has changed, and how long it is to rest.
    pub(crate) fn note(&self, outcome: &Outcome) -> (Option<bool>, Duration) {
        let breaches = self.breaches.load(Ordering::Relaxed);
        // Calls that end at the same moment may count for one.
        let (breaches, rest) = match outcome {
            Outcome::Error { kind, .. } if outcome::BREACHES.contains(&kind.as_str()) => {
                let breaches = BREACHES_MAX.min(breaches + 1);
                (breaches, rest_after(breaches))
            }
            // Written only where it changes: all threads read it.
            _ if breaches == 0 => return (None, Duration::ZERO),
            _ => (breaches.min(HELD_BACK_FROM) / 2, Duration::ZERO),
        };
        self.breaches.store(breaches, Ordering::Relaxed);
        let was = self.is_held_back();
        let is = breaches >= if was { HELD_BACK_TO } else { HELD_BACK_FROM };
        if is == was {
            return (None, rest);
        }
        self.is_held_back.store(is, Ordering::Relaxed);
        (Some(is), rest)
    }

    /// Another version is in use.
    pub(crate) fn forget(&self) {
        self.breaches.store(0, Ordering::Relaxed);
        self.is_held_back.store(false, Ordering::Relaxed);
    }
}

fn rest_after(breaches: u32) -> Duration {
    match breaches.saturating_sub(RESTS_FROM) {
        0 => Duration::ZERO,
        beyond => REST_MAX.min(REST_FIRST * (1 << (beyond - 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breach() -> Outcome {
        outcome::answer_too_large(1)
    }

    fn fine() -> Outcome {
        outcome::error("not-found", "an error of its own, as it may have")
    }

    #[test]
    fn who_only_breaks_limits_is_held_back_until_two_calls_do_not() {
        let conduct = Conduct::default();
        for _ in 1..HELD_BACK_FROM {
            assert_eq!(conduct.note(&breach()).0, None);
        }
        assert!(!conduct.is_held_back());
        assert_eq!((conduct.note(&breach()).0, conduct.is_held_back()), (Some(true), true));
        for _ in 0..1000 {
            assert_eq!(conduct.note(&breach()).0, None);
        }
        assert_eq!(conduct.note(&fine()).0, None);
        assert_eq!((conduct.note(&fine()).0, conduct.is_held_back()), (Some(false), false));
        assert_eq!(conduct.note(&breach()).0, None, "it has to do so again and again");
    }

    #[test]
    fn who_goes_on_breaking_them_rests_ever_longer() {
        let conduct = Conduct::default();
        let rests = |breaches: u32| {
            let rest = |_| {
                let (_, rest) = conduct.note(&breach());
                assert_eq!(rest, conduct.rest());
                rest.as_millis()
            };
            (0..breaches).map(rest).collect::<Vec<_>>()
        };
        assert_eq!(rests(RESTS_FROM), [0; RESTS_FROM as usize]);
        assert_eq!(rests(10), [1, 2, 4, 8, 16, 32, 64, 100, 100, 100]);
        assert_eq!(conduct.note(&fine()), (None, Duration::ZERO));
        assert_eq!((conduct.rest(), conduct.is_held_back()), (Duration::ZERO, true));
        assert_eq!(rests(RESTS_FROM / 2), [0; RESTS_FROM as usize / 2], "one that does not ends that for long");
    }

    #[test]
    fn who_mostly_keeps_to_them_is_not_held_back() {
        let conduct = Conduct::default();
        for call in 0..10_000 {
            let outcome = if call % 4 == 0 { fine() } else { breach() };
            assert_eq!(conduct.note(&outcome).0, None);
        }
    }

    #[test]
    fn another_version_begins_anew() {
        let conduct = Conduct::default();
        (0..BREACHES_MAX).for_each(|_| {
            conduct.note(&breach());
        });
        conduct.forget();
        assert!(!conduct.is_held_back());
        assert_eq!((conduct.note(&breach()).0, conduct.rest()), (None, Duration::ZERO));
    }
}
