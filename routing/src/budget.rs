//! A budget for calls made twice: a share of all calls, so that retries and hedges can never multiply the load of an edge
//! that is failing or slow already.

use std::time::Duration;

/// Extra calls a second that are allowed however few calls there are.
const PER_SECOND: f64 = 10.0;
/// Extra calls saved up, at most.
const SAVED_MAX: f64 = 100.0;

/// What is left for calls made twice. Time is counted from an arbitrary start.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    share: f64,
    left: f64,
    at: Duration,
}

impl RetryBudget {
    /// The share of calls that may be made twice, by default.
    pub const SHARE: f64 = 0.2;

    /// A budget of this share of calls (0 to 1), full at first. With a share of 0 no call is ever made twice.
    pub fn new(share: f64) -> Self {
        let share = share.clamp(0.0, 1.0);
        Self { share, left: if share > 0.0 { SAVED_MAX } else { 0.0 }, at: Duration::ZERO }
    }

    /// A call begins.
    pub fn count(&mut self, now: Duration) {
        if self.share > 0.0 {
            let since = now.saturating_sub(self.at).as_secs_f64();
            self.at = self.at.max(now);
            self.left = (self.left + self.share + PER_SECOND * since).min(SAVED_MAX);
        }
    }

    /// Takes one more call out of the budget; false where it is used up.
    pub fn spend(&mut self) -> bool {
        let has_left = self.left >= 1.0;
        if has_left {
            self.left -= 1.0;
        }
        has_left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn without_a_share_no_call_is_made_twice() {
        let mut budget = RetryBudget::new(0.0);
        (0..1000).for_each(|n| budget.count(MS * n));
        assert!(!budget.spend());
    }

    #[test]
    fn a_quiet_broker_may_always_retry() {
        let mut budget = RetryBudget::new(0.1);
        for n in 1..200 {
            budget.count(MS * 1000 * n);
            assert!(budget.spend());
        }
    }

    proptest! {
        /// Where every call fails, no more than the share is made twice, beside what was saved and what time allows.
        #[test]
        fn extra_calls_are_a_share_of_all(share in 0.01f64..1.0, calls in 1u32..20_000) {
            let mut budget = RetryBudget::new(share);
            let mut extra = 0u32;
            for n in 0..calls {
                budget.count(MS * n);
                extra += u32::from(budget.spend());
            }
            let allowed = SAVED_MAX + f64::from(calls) * (share + PER_SECOND / 1000.0);
            prop_assert!(f64::from(extra) <= allowed, "{extra} of {calls}");
        }
    }
}
