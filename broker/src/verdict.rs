//! What a failed call says: of its destination, and of whether it may be made again elsewhere. The one place that goes
//! through every reason.

use std::time::Duration;

use nigh_proto::Reason;
use nigh_routing::Observation;

use crate::forward::{Failure, Origin};

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// For the forwarding table.
    pub(crate) observation: Observation,
    /// When another destination may be tried.
    pub(crate) elsewhere: Elsewhere,
}

/// When a failed call may be made again, at another destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// It certainly did not begin to run.
    Always,
    /// It may have run.
    IfRetrySafe,
    /// It would fail again, or there is no time.
    Never,
}

impl Elsewhere {
    pub(crate) fn allows(self, retry_safe: bool) -> bool {
        match self {
            Self::Always => true,
            Self::IfRetrySafe => retry_safe,
            Self::Never => false,
        }
    }
}

/// Judges a failure that came `elapsed` after the call was sent.
pub(crate) fn judge(failure: &Failure, elapsed: Duration) -> Verdict {
    let refused = Observation::Refused { retry_after: failure.error.retry_after };
    let unfinished = Observation::Unfinished { elapsed };
    let (observation, elsewhere) = match (failure.error.reason, failure.origin) {
        (Reason::Unreachable, Origin::Connection) => (Observation::Dead, Elsewhere::Always),
        (Reason::Disconnected, Origin::Connection) => (Observation::Dead, Elsewhere::IfRetrySafe),
        // A reply came, so the call has run, but this side cannot read it.
        (Reason::Protocol, Origin::Here) => (refused, Elsewhere::IfRetrySafe),
        // `UnknownFunction`: the table says that it serves the function, so the table is ahead of it or behind.
        (
            Reason::QueueFull
            | Reason::TooBusy
            | Reason::OutOfBudget
            | Reason::NotServing
            | Reason::NotReady
            | Reason::UnknownFunction
            | Reason::Protocol
            | Reason::Unreachable,
            _,
        ) => (refused, Elsewhere::Always),
        // The state is elsewhere, whichever computer asks for it; another may reach it, and this one is none the worse.
        (Reason::StateUnavailable, _) => (Observation::Unmeasured, Elsewhere::Always),
        // A broker further on lost its computer; it will find another by itself.
        (Reason::Disconnected | Reason::StateConflict | Reason::StateUnsaved, _) => {
            (Observation::Unmeasured, Elsewhere::IfRetrySafe)
        }
        (Reason::Late | Reason::Cancelled, _) => (unfinished, Elsewhere::Never),
        // Trying a circle's other ways would multiply the call at each of its brokers.
        (Reason::LoopDetected | Reason::Internal, _) => (Observation::Unmeasured, Elsewhere::Never),
        (
            Reason::UnknownCall
            | Reason::UnknownTrigger
            | Reason::Malformed
            | Reason::TooLarge
            | Reason::NotAllowed
            | Reason::Unauthenticated,
            _,
        ) => (Observation::Unmeasured, Elsewhere::Never),
    };
    Verdict { observation, elsewhere }
}

#[cfg(test)]
mod tests {
    use nigh_proto::PlatformError;

    use super::*;

    const ELAPSED: Duration = Duration::from_millis(5);

    fn judged(reason: Reason, origin: Origin) -> Verdict {
        judge(&Failure { error: PlatformError::new(reason, ""), origin }, ELAPSED)
    }

    #[test]
    fn a_call_that_may_have_run_is_made_again_only_where_that_is_safe() {
        for &reason in Reason::ALL {
            for origin in [Origin::Peer, Origin::Connection, Origin::Here] {
                let always = judged(reason, origin).elsewhere == Elsewhere::Always;
                assert!(!always || reason.certainly_not_started(), "{reason:?} {origin:?}");
            }
        }
    }

    #[test]
    fn a_call_that_no_retry_helps_is_not_made_again() {
        for &reason in Reason::ALL {
            let again = judged(reason, Origin::Peer).elsewhere != Elsewhere::Never;
            // These two are no fault of the caller where a peer says them: another may know the function or the protocol.
            let by_mismatch = matches!(reason, Reason::UnknownFunction | Reason::Protocol);
            assert_eq!(again, reason.retry_helps() || by_mismatch, "{reason:?}");
        }
    }

    #[test]
    fn only_a_connection_makes_a_destination_look_dead() {
        for &reason in Reason::ALL {
            assert_ne!(judged(reason, Origin::Peer).observation, Observation::Dead, "{reason:?}");
        }
        assert_eq!(judged(Reason::Unreachable, Origin::Connection).observation, Observation::Dead);
        assert_eq!(judged(Reason::Disconnected, Origin::Connection).observation, Observation::Dead);
    }

    #[test]
    fn a_late_call_says_how_long_it_took_at_least() {
        assert_eq!(judged(Reason::Late, Origin::Here).observation, Observation::Unfinished { elapsed: ELAPSED });
    }
}
