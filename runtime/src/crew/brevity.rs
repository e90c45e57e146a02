//! Whether calls of a function are so brief that they may compute where they arrived, on a thread of the network.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A call that will probably compute for no longer than this may do so where it arrived, if its function's were brief before.
pub(super) const AT_ONCE_MAX: Duration = Duration::from_micros(250);
/// Where they were not, or nothing is known of them, only one that will probably compute for no longer than this.
const AT_ONCE_FIRST_MAX: Duration = Duration::from_micros(150);

/// What calls of one function have shown to be. Where they run tells on how long they take: beside others of the crew, longer
/// than on a thread that nobody interrupts. So what is about as long as is allowed would go from the one to the other and
/// back, and keep the network waiting each time until that is noticed.
#[derive(Debug, Default)]
pub(crate) struct Brevity {
    were_brief: AtomicBool,
}

impl Brevity {
    /// Whether a call that will probably compute for so long is brief.
    pub(crate) fn judge(&self, computing: Duration) -> bool {
        let were_brief = self.were_brief.load(Ordering::Relaxed);
        let is_brief = computing <= if were_brief { AT_ONCE_MAX } else { AT_ONCE_FIRST_MAX };
        if is_brief != were_brief {
            self.were_brief.store(is_brief, Ordering::Relaxed);
        }
        is_brief
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_not_brief_has_to_be_much_briefer_to_be_so_than_to_stay_so() {
        let brevity = Brevity::default();
        let judged = |us: u64| brevity.judge(Duration::from_micros(us));
        assert!(!judged(250) && !judged(151));
        assert!(judged(150) && judged(250));
        assert!(!judged(251) && !judged(249) && !judged(151));
        assert!(judged(150) && judged(250) && !judged(1000));
    }
}
