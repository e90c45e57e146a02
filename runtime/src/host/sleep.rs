//! WASI's `poll_oneoff`: sleeping, with nobody's thread held.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nigh_proto::module::abi;
use wasmtime::{Caller, Extern};

use super::{Guest, range};
use crate::epoch::TICK;

/// Subscriptions of one call of `poll_oneoff`, at most.
const SUBSCRIPTIONS_MAX: u32 = 1024;

// Sizes and offsets of the records, and values, as in the witx of `wasi_snapshot_preview1`.
const SUBSCRIPTION_BYTES: u32 = 48;
const EVENT_BYTES: u32 = 32;
const TAG_CLOCK: u8 = 0;
const TAG_WRITE: u8 = 2;
const CLOCK_REALTIME: u32 = 0;
const CLOCK_MONOTONIC: u32 = 1;
const FLAG_ABSOLUTE: u16 = 1;
const SUCCESS: i32 = 0;
const FAULT: i32 = 21;
const INVALID: i32 = 28;

/// Sleeps of less than a tick that a call has; further ones last longer.
const NAPS_MAX: u32 = 64;
/// How long those last at least: whoever only looks around at each tick would have others woken as often, for nothing.
const LONG_NAP: Duration = TICK.saturating_mul(4);

/// How often a call has slept for less than a tick.
#[derive(Debug, Default)]
pub(super) struct Naps(u32);

impl Naps {
    /// How long one more sleep lasts at least.
    fn lasting(&mut self, wait: Duration) -> Duration {
        if wait >= TICK {
            return wait;
        }
        self.0 = self.0.saturating_add(1);
        if self.0 > NAPS_MAX { LONG_NAP } else { wait }
    }
}

/// One thing waited for.
#[derive(Debug, Clone, Copy)]
struct Subscription {
    userdata: [u8; 8],
    tag: u8,
    /// How long, for a clock.
    wait: Duration,
}

/// `poll_oneoff(subscriptions, events, count, events_written) -> errno`. Files and standard streams are always ready
/// here, so only clocks make a guest wait.
pub(super) async fn poll_oneoff(
    mut caller: Caller<'_, Guest>,
    (subscriptions, events, count, written): (u32, u32, u32, u32),
) -> wasmtime::Result<i32> {
    let Some(Extern::Memory(memory)) = caller.get_export(abi::MEMORY) else { return Ok(FAULT) };
    if count == 0 || count > SUBSCRIPTIONS_MAX {
        return Ok(INVALID);
    }
    let Some(records) = range(memory.data(&caller), subscriptions, count * SUBSCRIPTION_BYTES) else {
        return Ok(FAULT);
    };
    let (records, _) = records.as_chunks::<{ SUBSCRIPTION_BYTES as usize }>();
    let Some(waited_for) = records.iter().map(parse).collect::<Option<Vec<_>>>() else { return Ok(INVALID) };
    let least = waited_for.iter().map(|subscription| subscription.wait).min().unwrap_or_default();
    if !least.is_zero() {
        // A wait beyond any time limit may as well be the longest one.
        let least = caller.data_mut().naps.lasting(least);
        let until = Instant::now() + least.min(nigh_proto::Limits::MAX.timeout * 2);
        let alarm = caller.data().crew().map(|crew| crew.sleep_until(until));
        if let Some(alarm) = alarm {
            alarm.await;
        }
    }
    caller.data_mut().look_in()?;
    let ready = waited_for.iter().filter(|subscription| subscription.wait <= least);
    let bytes: Vec<u8> = ready.clone().flat_map(event).collect();
    let ready = u32::try_from(ready.count()).unwrap_or(count);
    let memory = memory.data_mut(&mut caller);
    Ok(write(memory, events, &bytes)
        .and_then(|()| write(memory, written, &ready.to_le_bytes()))
        .map_or(FAULT, |()| SUCCESS))
}

fn parse(record: &[u8; SUBSCRIPTION_BYTES as usize]) -> Option<Subscription> {
    let userdata = *record.first_chunk()?;
    let tag = record[8];
    if tag > TAG_WRITE {
        return None;
    }
    let mut wait = Duration::ZERO;
    if tag == TAG_CLOCK {
        let clock = u32::from_le_bytes(*record[16..].first_chunk()?);
        let ns = u64::from_le_bytes(*record[24..].first_chunk()?);
        let flags = u16::from_le_bytes(*record[40..].first_chunk()?);
        let now = match clock {
            CLOCK_REALTIME => now_realtime(),
            CLOCK_MONOTONIC => now_monotonic(),
            _ => return None,
        };
        wait = Duration::from_nanos(if flags & FLAG_ABSOLUTE == 0 { ns } else { ns.saturating_sub(now) });
    }
    Some(Subscription { userdata, tag, wait })
}

fn event(subscription: &Subscription) -> [u8; EVENT_BYTES as usize] {
    let mut event = [0; EVENT_BYTES as usize];
    event[..8].copy_from_slice(&subscription.userdata);
    event[10] = subscription.tag;
    event
}

fn write(memory: &mut [u8], address: u32, bytes: &[u8]) -> Option<()> {
    let start = usize::try_from(address).ok()?;
    memory.get_mut(start..start.checked_add(bytes.len())?)?.copy_from_slice(bytes);
    Some(())
}

/// Nanoseconds on the clock that guests see as monotonic.
pub(super) fn now_monotonic() -> u64 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Not from zero, which some programs take for "never".
    1_000_000_000 + u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
}

fn now_realtime() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clock(clock: u32, ns: u64, flags: u16) -> [u8; 48] {
        let mut record = [0; 48];
        record[..8].copy_from_slice(&7u64.to_le_bytes());
        record[16..20].copy_from_slice(&clock.to_le_bytes());
        record[24..32].copy_from_slice(&ns.to_le_bytes());
        record[40..42].copy_from_slice(&flags.to_le_bytes());
        record
    }

    #[test]
    fn relative_and_absolute_waits_are_told_apart() {
        assert_eq!(parse(&clock(CLOCK_MONOTONIC, 5, 0)).unwrap().wait, Duration::from_nanos(5));
        assert_eq!(parse(&clock(CLOCK_REALTIME, 5, FLAG_ABSOLUTE)).unwrap().wait, Duration::ZERO);
        let second = 1_000_000_000;
        let later = parse(&clock(CLOCK_MONOTONIC, now_monotonic() + second, FLAG_ABSOLUTE)).unwrap().wait;
        assert!(later > Duration::from_millis(500) && later <= Duration::from_secs(1));
        assert!(parse(&clock(9, 5, 0)).is_none());
    }

    #[test]
    fn a_call_naps_so_often_and_then_for_longer() {
        let mut naps = Naps::default();
        let (short, tick) = (Duration::from_nanos(1), TICK);
        for _ in 0..NAPS_MAX {
            assert_eq!((naps.lasting(short), naps.lasting(tick)), (short, tick));
        }
        assert_eq!((naps.lasting(short), naps.lasting(tick)), (LONG_NAP, tick), "other sleeps are as they were");
    }

    #[test]
    fn an_event_carries_its_subscriptions_data() {
        let event = event(&parse(&clock(CLOCK_MONOTONIC, 0, 0)).unwrap());
        assert_eq!(event[..8], 7u64.to_le_bytes());
        assert_eq!(event[10], TAG_CLOCK);
    }

    proptest! {
        #[test]
        fn any_record_is_judged_without_panic(record: [u8; 32], rest: [u8; 16]) {
            let mut whole = [0; 48];
            whole[..32].copy_from_slice(&record);
            whole[32..].copy_from_slice(&rest);
            let _ = parse(&whole);
        }
    }
}
