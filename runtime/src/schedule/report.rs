//! What a call that ends tells of the computer.

use std::time::{Duration, Instant};

use nigh_proto::Load;

use super::{Number, Schedule};

impl<T> Schedule<T> {
    /// How busy the computer is but for a call that is as good as over, and how long that one has computed.
    pub(crate) fn report(&mut self, number: Number, now: Instant) -> (Load, Duration) {
        let computed = self.computed(number, now);
        self.service.add(computed);
        let load = self.load(now);
        (Load { running: load.running.saturating_sub(1), ..load }, computed)
    }
}
