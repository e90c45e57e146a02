//! Times as messages tell them: in whole microseconds, where 0 stands for a time that nobody asked for.

use std::time::Duration;

/// A time as a message tells it.
pub fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The time that a message asks for, if it does.
pub(crate) fn asked(timeout_us: u64) -> Option<Duration> {
    (timeout_us > 0).then(|| Duration::from_micros(timeout_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_longer_than_can_be_told_is_told_as_the_longest() {
        assert_eq!(us(Duration::from_nanos(1_999)), 1);
        assert_eq!(us(Duration::MAX), u64::MAX);
        assert_eq!((asked(0), asked(us(Duration::from_millis(2)))), (None, Some(Duration::from_millis(2))));
    }
}
