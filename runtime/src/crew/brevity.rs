//! Whether calls of a function are so brief that they may compute where they arrived, on a thread of the network.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A call that will hardly compute for longer than this may do so where it arrived.
pub(super) const AT_ONCE_MAX: Duration = Duration::from_micros(400);
/// Where calls of its function have been longer, only one that will hardly compute for longer than this.
const AT_ONCE_AGAIN_MAX: Duration = Duration::from_micros(200);

/// What calls of one function have shown to be. Where they run tells on how long they take: beside others of the crew, longer
/// than on a thread that nobody interrupts. So what is about as long as is allowed would go from the one to the other and
/// back, and keep the network waiting each time until that is noticed.
#[derive(Debug, Default)]
pub(crate) struct Brevity {
    were_longer: AtomicBool,
}

impl Brevity {
    /// Whether a call of which nine in ten compute for no longer than this is brief.
    pub(crate) fn judge(&self, computing_mostly: Duration) -> bool {
        let were_longer = self.were_longer.load(Ordering::Relaxed);
        let max = if were_longer { AT_ONCE_AGAIN_MAX } else { AT_ONCE_MAX };
        let is_brief = computing_mostly <= max;
        if were_longer == is_brief {
            self.were_longer.store(!is_brief, Ordering::Relaxed);
        }
        is_brief
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_been_longer_has_to_be_much_briefer_to_be_brief_again() {
        let brevity = Brevity::default();
        let judged = |us: u64| brevity.judge(Duration::from_micros(us));
        assert!(judged(300) && judged(400));
        assert!(!judged(401) && !judged(399) && !judged(201));
        assert!(judged(200) && judged(400) && !judged(1000));
    }
}
