//! Times as messages tell them. How long: in whole microseconds, where 0 stands for a time that nobody asked for. When: in milliseconds
//! since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds of a time.
pub fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The time that a message asks for, if it does.
pub(crate) fn asked(timeout_us: u64) -> Option<Duration> {
    (timeout_us > 0).then(|| Duration::from_micros(timeout_us))
}

/// Milliseconds since 1970.
pub fn ms_of(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The time so many milliseconds after 1970.
pub fn time_of_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_longer_than_can_be_told_is_told_as_the_longest() {
        assert_eq!(us(Duration::from_nanos(1_999)), 1);
        assert_eq!(us(Duration::MAX), u64::MAX);
        assert_eq!(ms_of(time_of_ms(1_700_000_000_123)), 1_700_000_000_123);
        assert_eq!(ms_of(UNIX_EPOCH - Duration::from_secs(1)), 0, "a clock before its time");
        assert_eq!((asked(0), asked(us(Duration::from_millis(2)))), (None, Some(Duration::from_millis(2))));
    }
}
