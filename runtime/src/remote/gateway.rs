//! Whether the system elsewhere is there. One that is down is left alone for ever longer, and calls are refused at once
//! meanwhile, so that brokers try others. Time is an argument.

use std::time::{Duration, Instant};

use nigh_proto::{PlatformError, Reason};
use parking_lot::Mutex;

/// Calls in a row that find nobody, after which it counts as down.
const UNCONNECTED_MAX: u32 = 3;
/// Time between two looks at one that is down: the first, and the longest.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// What is known of it.
pub(super) struct Gateway {
    url: String,
    state: Mutex<State>,
}

enum State {
    /// Nobody has looked yet.
    Unknown,
    Up {
        /// Calls since somebody answered that found nobody.
        unconnected: u32,
    },
    Down {
        why: String,
        since: Instant,
        /// Before the next look.
        wait: Duration,
        /// When that is.
        again: Instant,
    },
}

impl Gateway {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), state: Mutex::new(State::Unknown) }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.lock(), State::Up { .. })
    }

    /// Whether calls have a chance; else why not.
    pub(super) fn readiness(&self) -> Result<(), String> {
        match &*self.state.lock() {
            State::Up { .. } => Ok(()),
            State::Unknown => Err(format!("{} has not answered yet", self.url)),
            State::Down { why, .. } => Err(format!("{}: {why}", self.url)),
        }
    }

    /// Refuses a call that would find nobody.
    pub(super) fn admit(&self, now: Instant) -> Result<(), PlatformError> {
        let State::Down { why, since, again, .. } = &*self.state.lock() else { return Ok(()) };
        let seconds = now.saturating_duration_since(*since).as_secs();
        let message = format!(
            "the gateway has not been of use for {seconds} s: {why}; try another computer, its operator may see to it"
        );
        let wait = again.saturating_duration_since(now).max(Duration::from_millis(1));
        Err(PlatformError::new(Reason::Unreachable, message).retry_after(wait))
    }

    /// A call found somebody. Whether a system that is down is up again is found by looking, as only that tells all of it.
    pub(super) fn answered(&self) {
        if let State::Up { unconnected } = &mut *self.state.lock() {
            *unconnected = 0;
        }
    }

    /// A call found nobody. Whether the system counts as down now, and did not before.
    pub(super) fn unconnected(&self, why: &str, now: Instant) -> bool {
        let mut state = self.state.lock();
        let State::Up { unconnected } = &mut *state else { return false };
        *unconnected += 1;
        let is_down = *unconnected >= UNCONNECTED_MAX;
        if is_down {
            let (wait, _) = LOOK_AGAIN;
            *state = State::Down { why: why.to_owned(), since: now, wait, again: now + wait };
        }
        is_down
    }

    /// Somebody looked, and all was well. Whether that is news.
    pub(super) fn looked_well(&self) -> bool {
        let before = std::mem::replace(&mut *self.state.lock(), State::Up { unconnected: 0 });
        !matches!(before, State::Up { .. })
    }

    /// Somebody looked in vain: how long to wait before another look, and whether it is news.
    pub(super) fn looked_in_vain(&self, why: &str, now: Instant) -> (Duration, bool) {
        let mut state = self.state.lock();
        let (first, longest) = LOOK_AGAIN;
        let (since, wait, is_news) = match &*state {
            State::Down { since, wait, why: before, .. } => (*since, (*wait * 2).min(longest), before != why),
            State::Up { .. } | State::Unknown => (now, first, true),
        };
        *state = State::Down { why: why.to_owned(), since, wait, again: now + wait };
        (wait, is_news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_down_is_left_alone_for_ever_longer() {
        let gateway = Gateway::new("http://gw");
        let now = Instant::now();
        assert!(gateway.readiness().unwrap_err().contains("not answered yet") && gateway.admit(now).is_ok());
        let waits: Vec<_> = (0..10).map(|_| gateway.looked_in_vain("refused", now).0.as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        let refusal = gateway.admit(now).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::Unreachable, Some(Duration::from_secs(30))));
        assert!(gateway.looked_well() && !gateway.looked_well());
        assert!(gateway.readiness().is_ok() && gateway.admit(now).is_ok());
        assert_eq!(gateway.looked_in_vain("refused", now), (Duration::from_millis(250), true), "anew");
    }

    #[test]
    fn a_few_calls_that_find_nobody_make_it_down() {
        let gateway = Gateway::new("http://gw");
        let now = Instant::now();
        gateway.looked_well();
        assert!(!gateway.unconnected("refused", now) && !gateway.unconnected("refused", now));
        gateway.answered();
        let downs: Vec<_> = (0..4).map(|_| gateway.unconnected("refused", now)).collect();
        assert_eq!(downs, [false, false, true, false]);
        gateway.answered();
        assert!(!gateway.is_up(), "only a look tells");
    }
}
