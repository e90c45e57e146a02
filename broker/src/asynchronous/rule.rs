//! What follows from a try that brought no reply. Pure.

use std::time::Duration;

use nigh_proto::{PlatformError, Reason};

/// The first wait before another try; each further one is twice as long.
const WAIT_MIN: Duration = Duration::from_millis(200);
/// The longest.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is tried again after this time.
    Again(Duration),
    /// It is given up.
    GiveUp,
}

/// What is known of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    /// Running it twice does no harm.
    pub(super) retry_safe: bool,
    /// Tries so far.
    pub(super) tries: u32,
    /// Time since it was accepted.
    pub(super) age: Duration,
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) tries_max: u32,
    pub(super) give_up_after: Duration,
}

/// Judges a failed try. What certainly did not start is tried again for as long as a retry can help; what may have run only
/// where that is safe. `chance`, from 0 to 1, spreads those that failed together.
pub(super) fn judge(error: &PlatformError, tried: Tried, patience: Patience, chance: f64) -> Next {
    let may_again = if error.reason.certainly_not_started() {
        error.reason.retry_helps() && tried.age < patience.give_up_after
    } else {
        // That it took too long says that it may have run; the same again may be quicker.
        let helps = error.reason.retry_helps() || error.reason == Reason::Late;
        helps && tried.retry_safe && tried.tries < patience.tries_max
    };
    if may_again { Next::Again(wait(tried.tries, error.retry_after, chance)) } else { Next::GiveUp }
}

/// Half of the doubled wait is for chance, so that those refused together do not come back together.
fn wait(tries: u32, at_least: Option<Duration>, chance: f64) -> Duration {
    let doubled = WAIT_MIN.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(WAIT_MAX);
    at_least.unwrap_or_default().min(WAIT_MAX) + doubled.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience { tries_max: 3, give_up_after: Duration::from_secs(100) };

    fn judged(reason: Reason, retry_safe: bool, tries: u32, age: u64) -> Next {
        let tried = Tried { retry_safe, tries, age: Duration::from_secs(age) };
        judge(&PlatformError::new(reason, ""), tried, PATIENCE, 0.5)
    }

    #[test]
    fn what_may_have_run_is_tried_again_only_where_that_is_safe() {
        for &reason in Reason::ALL {
            if judged(reason, false, 1, 0) != Next::GiveUp {
                assert!(reason.certainly_not_started() && reason.retry_helps(), "{reason:?}");
            }
        }
        assert!(matches!(judged(Reason::Disconnected, true, 2, 0), Next::Again(_)));
        assert!(matches!(judged(Reason::Late, true, 2, 0), Next::Again(_)));
        assert_eq!(judged(Reason::Disconnected, true, 3, 0), Next::GiveUp);
        assert_eq!(judged(Reason::Disconnected, false, 1, 0), Next::GiveUp);
    }

    #[test]
    fn what_did_not_start_is_tried_until_its_time_is_over() {
        for reason in [Reason::Unreachable, Reason::QueueFull, Reason::NotReady, Reason::NotServing] {
            assert!(matches!(judged(reason, false, 1000, 99), Next::Again(_)), "{reason:?}");
            assert_eq!(judged(reason, true, 1, 100), Next::GiveUp, "{reason:?}");
        }
        assert_eq!(judged(Reason::UnknownFunction, true, 1, 0), Next::GiveUp);
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_no_shorter_than_asked_for(tries in 1u32.., asked_ms in 0u64..100_000, chance in 0.0..=1.0) {
            let asked = Duration::from_millis(asked_ms);
            let wait = wait(tries, Some(asked), chance);
            prop_assert!(wait >= asked.min(WAIT_MAX) + WAIT_MIN / 2 && wait <= 2 * WAIT_MAX);
        }
    }
}
