//! Whether calls of a function are so brief that they may compute where they arrived, on a thread of the network.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A call that will probably compute for no longer than this may do so where it arrived, if its function's were brief before.
pub(super) const AT_ONCE_MAX: Duration = Duration::from_micros(400);
/// Where they were not, or nothing is known of them, only one that will probably compute for no longer than this.
const AT_ONCE_FIRST_MAX: Duration = Duration::from_micros(200);

/// What calls of one function have shown to be. Where they run tells on how long they take: beside others of the crew, longer
/// than on a thread that nobody interrupts. So what is about as long as is allowed would go from the one to the other and
/// back, and keep the network waiting each time until that is noticed.
///
/// Those in which memory or tables grow are never brief. They change what the process has mapped, for which both wait that
/// do so at the same time, and other cores are interrupted: how long that takes, nobody can expect.
#[derive(Debug, Default)]
pub(crate) struct Brevity {
    were_brief: AtomicBool,
    last_grew: AtomicBool,
}

impl Brevity {
    /// A call has ended, and memory or a table had grown in it or not.
    pub(crate) fn note(&self, has_grown: bool) {
        if self.last_grew.load(Ordering::Relaxed) != has_grown {
            self.last_grew.store(has_grown, Ordering::Relaxed);
        }
    }

    /// Whether a call that will probably compute for so long is brief.
    pub(crate) fn judge(&self, computing: Duration) -> bool {
        if self.last_grew.load(Ordering::Relaxed) {
            return false;
        }
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
        assert!(!judged(400) && !judged(201));
        assert!(judged(200) && judged(400));
        assert!(!judged(401) && !judged(399) && !judged(201));
        assert!(judged(200) && judged(400) && !judged(1000));
    }

    #[test]
    fn calls_in_which_memory_grows_are_not_brief() {
        let brevity = Brevity::default();
        let judged = || brevity.judge(Duration::from_micros(20));
        assert!(judged());
        brevity.note(true);
        assert!(!judged());
        brevity.note(false);
        assert!(judged());
    }
}
