//! Whether a destination is given calls: in use, set aside after a failure, or probed by one call to see if it is back.
//!
//! ```text
//!           dead or refusing                 its time has come, one call
//!  in use ───────────────────▶ set aside ──────────────────────────────▶ probing
//!    ▲                             ▲           dead or refusing again        │
//!    │                             └─────────────────────────────────────────┤
//!    └───────────────────────────────────────────────────────────────────────┘
//!                   the probe was answered, or has not failed for long enough
//! ```

use std::fmt;
use std::time::Duration;

/// How long a dead destination is set aside at first; doubles with every probe that fails, up to [`DEAD_WAIT_MAX`].
pub const DEAD_WAIT_MIN: Duration = Duration::from_millis(100);
/// The longest that a dead destination is set aside.
pub const DEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a refusing destination is set aside where it does not say for how long it refuses.
pub const REFUSING_WAIT_DEFAULT: Duration = Duration::from_millis(100);
/// The longest that a refusing destination is set aside, whatever it says.
pub const REFUSING_WAIT_MAX: Duration = Duration::from_secs(10);
/// A probe of a dead destination that has not failed within this time has found it alive: the call may take long, the
/// connection does not.
pub const DEAD_PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// A probe of a refusing destination that has not been refused within this time has been accepted.
pub const REFUSING_PROBE_PATIENCE: Duration = Duration::from_millis(100);

/// Why a destination is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It cannot be connected to, or the connection broke.
    Dead,
    /// It is alive and takes no calls of this function for now.
    Refusing,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead => "dead",
            Self::Refusing => "refusing",
        })
    }
}

/// The state of one destination for one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Given calls. What calls made before `since` report is old news.
    InUse { since: Duration },
    /// Given none until `until`; `wait` is what the next failed probe doubles.
    SetAside { cause: Cause, until: Duration, wait: Duration },
    /// One call finds out. It began at `since`, and counts as answered at `until`; the time was ripe at `due`.
    Probing { cause: Cause, since: Duration, until: Duration, due: Duration, wait: Duration },
}

impl Health {
    pub(crate) fn is_in_use(self) -> bool {
        matches!(self, Self::InUse { .. })
    }

    /// Why it is not in use.
    pub(crate) fn cause(self) -> Option<Cause> {
        match self {
            Self::InUse { .. } => None,
            Self::SetAside { cause, .. } | Self::Probing { cause, .. } => Some(cause),
        }
    }

    fn is_dead(self) -> bool {
        self.cause() == Some(Cause::Dead)
    }

    /// A call to find out, early if it is the last resort.
    pub(crate) fn probe(self, now: Duration) -> Self {
        let Self::SetAside { cause, until: due, wait } = self else { return self };
        let patience = match cause {
            Cause::Dead => DEAD_PROBE_PATIENCE,
            Cause::Refusing => REFUSING_PROBE_PATIENCE,
        };
        Self::Probing { cause, since: now, until: now + patience, due, wait }
    }

    /// There is reason to think that a dead destination is back: the next call may probe at once.
    pub(crate) fn may_be_back(self, now: Duration) -> Self {
        match self {
            Self::SetAside { cause: Cause::Dead, until, .. } => {
                Self::SetAside { cause: Cause::Dead, until: until.min(now), wait: DEAD_WAIT_MIN }
            }
            Self::InUse { .. } | Self::SetAside { .. } | Self::Probing { .. } => self,
        }
    }

    /// A probe's patience is over.
    pub(crate) fn outlasted(self) -> Self {
        match self {
            Self::Probing { since, .. } => Self::InUse { since },
            Self::InUse { .. } | Self::SetAside { .. } => self,
        }
    }

    /// A call was answered, so the destination is alive; only a probe's answer says that it refuses no longer.
    pub(crate) fn answered(self, by_probe: bool, now: Duration) -> Self {
        match self {
            Self::SetAside { cause: Cause::Dead, .. } | Self::Probing { cause: Cause::Dead, .. } => {
                Self::InUse { since: now }
            }
            Self::Probing { since, .. } if by_probe => Self::InUse { since },
            Self::InUse { .. } | Self::SetAside { .. } | Self::Probing { .. } => self,
        }
    }

    /// A call made at `picked` found nobody there.
    pub(crate) fn found_dead(self, by_probe: bool, picked: Duration, now: Duration) -> Self {
        let first = Self::SetAside { cause: Cause::Dead, until: now + DEAD_WAIT_MIN, wait: DEAD_WAIT_MIN };
        match self {
            Self::InUse { since } if picked < since => self,
            Self::InUse { .. }
            | Self::SetAside { cause: Cause::Refusing, .. }
            | Self::Probing { cause: Cause::Refusing, .. } => first,
            // A last resort that came before its time says nothing new.
            Self::Probing { cause, due, wait, .. } if by_probe && now < due => {
                Self::SetAside { cause, until: due, wait }
            }
            Self::Probing { cause, wait, .. } if by_probe => {
                let wait = (wait * 2).min(DEAD_WAIT_MAX);
                Self::SetAside { cause, until: now + wait, wait }
            }
            // One death fails many calls at once; it is one death.
            Self::SetAside { .. } | Self::Probing { .. } => self,
        }
    }

    /// A call made at `picked` was refused for `wait`.
    pub(crate) fn refused(self, by_probe: bool, picked: Duration, wait: Option<Duration>, now: Duration) -> Self {
        let wait = wait.unwrap_or(REFUSING_WAIT_DEFAULT).min(REFUSING_WAIT_MAX);
        let refusing = Self::SetAside { cause: Cause::Refusing, until: now + wait, wait };
        match self {
            Self::InUse { since } if picked >= since => refusing,
            Self::Probing { .. } if by_probe => refusing,
            Self::InUse { .. } | Self::SetAside { .. } | Self::Probing { .. } => self,
        }
    }

    /// A probe ended without finding out: the next call may probe at once.
    pub(crate) fn probe_handed_back(self, now: Duration) -> Self {
        match self {
            Self::Probing { cause, wait, .. } => Self::SetAside { cause, until: now, wait },
            Self::InUse { .. } | Self::SetAside { .. } => self,
        }
    }

    /// What a change from `before` to this says of the destination for its other functions too: death and return are
    /// the destination's, a refusal is the function's.
    pub(crate) fn news(self, before: Self, now: Duration) -> Option<Self> {
        if self == before || !(self.is_dead() || before.is_dead()) {
            None
        } else if self.is_dead() {
            Some(self)
        } else {
            Some(Self::InUse { since: now })
        }
    }

    /// Takes over such news.
    pub(crate) fn hear(self, news: Self) -> Self {
        if news.is_dead() || self.is_dead() { news } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FRESH: Health = Health::InUse { since: Duration::ZERO };

    fn set_aside_until(health: Health) -> Duration {
        match health {
            Health::SetAside { until, .. } => until,
            other => panic!("{other:?} is not set aside"),
        }
    }

    #[test]
    fn the_wait_of_the_dead_doubles_with_every_failed_probe_up_to_its_limit() {
        let mut now = MS;
        let mut health = FRESH.found_dead(false, now, now);
        for wait_ms in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            assert_eq!(set_aside_until(health), now + wait_ms * MS);
            now = set_aside_until(health);
            health = health.probe(now);
            now += MS;
            health = health.found_dead(true, now - MS, now);
        }
    }

    #[test]
    fn many_calls_that_fail_by_one_death_count_once() {
        let dead = FRESH.found_dead(false, MS, 5 * MS);
        assert_eq!(dead.found_dead(false, MS, 6 * MS), dead);
        let probing = dead.probe(105 * MS);
        assert_eq!(probing.found_dead(false, MS, 106 * MS), probing);
        let back = probing.answered(true, 110 * MS);
        assert_eq!(back.found_dead(false, MS, 111 * MS), back, "an old call's failure is old news");
        assert_ne!(back.found_dead(false, 112 * MS, 113 * MS), back);
    }

    #[test]
    fn a_last_resort_leaves_the_wait_as_it_was() {
        let dead = FRESH.found_dead(false, MS, MS);
        assert_eq!(dead.probe(10 * MS).found_dead(true, 10 * MS, 11 * MS), dead);
    }

    #[test]
    fn one_that_may_be_back_is_probed_at_once() {
        let dead = FRESH.found_dead(false, MS, MS).probe(101 * MS).found_dead(true, 101 * MS, 102 * MS);
        assert_eq!(set_aside_until(dead), 302 * MS);
        let maybe = dead.may_be_back(150 * MS);
        assert_eq!(set_aside_until(maybe), 150 * MS);
        assert_eq!(set_aside_until(maybe.probe(150 * MS).found_dead(true, 150 * MS, 151 * MS)), 351 * MS);
        assert_eq!(FRESH.may_be_back(MS), FRESH);
        let refusing = FRESH.refused(false, MS, None, MS);
        assert_eq!(refusing.may_be_back(2 * MS), refusing, "it has said when to come again");
    }

    #[test]
    fn a_refusal_ends_with_a_probe_accepted_not_with_an_older_call_answered() {
        let refusing = FRESH.refused(false, MS, Some(40 * MS), 2 * MS);
        assert_eq!(set_aside_until(refusing), 42 * MS);
        assert_eq!(refusing.answered(false, 20 * MS), refusing);
        let probing = refusing.probe(42 * MS);
        assert_eq!(probing.answered(false, 43 * MS), probing);
        assert!(probing.answered(true, 43 * MS).is_in_use());
        assert!(probing.outlasted().is_in_use());
        assert_eq!(set_aside_until(probing.refused(true, 42 * MS, None, 44 * MS)), 44 * MS + REFUSING_WAIT_DEFAULT);
    }

    #[test]
    fn a_refusal_that_comes_after_the_patience_still_counts() {
        let in_use = FRESH.refused(false, MS, None, MS).probe(200 * MS).outlasted();
        assert!(!in_use.refused(true, 200 * MS, None, 500 * MS).is_in_use());
    }

    #[test]
    fn death_is_told_to_other_functions_and_refusal_is_not() {
        let dead = FRESH.found_dead(false, MS, MS);
        assert_eq!(dead.news(FRESH, MS), Some(dead));
        assert_eq!(FRESH.hear(dead), dead);
        let back = dead.answered(false, 7 * MS);
        assert_eq!(dead.hear(back.news(dead, 7 * MS).unwrap()), Health::InUse { since: 7 * MS });
        assert_eq!(FRESH.refused(false, MS, None, MS).news(FRESH, MS), None);
    }
}
