//! When a schedule is due. Times are arguments, but for whether one that is read is ever due again.

use std::time::{Duration, SystemTime};

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use nigh_proto::trigger::MissedTicks;

/// Times missed of which each gets a call, at most; the newest.
const MISSED_MAX: usize = 1000;
/// What is no longer ago than this was not missed but is late.
const LATE_MAX: Duration = Duration::from_secs(60);
/// A time due last that is so far ahead comes from a clock that was wrong.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Times of a schedule, as cron writes it, in a time zone.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads a schedule; why it is none.
    pub(super) fn new(schedule: &str, zone: &str) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(schedule).map_err(|error| {
            format!(
                "schedule {schedule:?}: {error}; write minute hour day month weekday, as in \"*/5 8-18 * * MON-FRI\""
            )
        })?;
        let zone = TimeZone::get(zone)
            .map_err(|_| format!("time zone {zone:?} is not known here; write it as Europe/Rome or UTC"))?;
        let schedule_read = Self { cron, zone };
        match schedule_read.after(SystemTime::now()) {
            Some(_) => Ok(schedule_read),
            None => Err(format!("schedule {schedule:?} is never due")),
        }
    }

    /// The first time after this one.
    pub(super) fn after(&self, time: SystemTime) -> Option<SystemTime> {
        let next = self.cron.find_next_occurrence(&self.zoned(time)?, false).ok()?;
        Some(next.timestamp().into())
    }

    /// The times that get a call now, where the last one was that: oldest first.
    pub(super) fn due(&self, last: SystemTime, now: SystemTime, missed: MissedTicks) -> Vec<SystemTime> {
        let most = if missed == MissedTicks::All { MISSED_MAX } else { 1 };
        let mut due = Vec::new();
        let mut inclusive = true;
        let mut before = self.zoned(now);
        while let Some(from) = before.take().filter(|_| due.len() < most) {
            let Ok(found) = self.cron.find_previous_occurrence(&from, inclusive) else { break };
            let tick: SystemTime = found.timestamp().into();
            let is_late = now.duration_since(tick).unwrap_or_default() > LATE_MAX;
            if tick <= last || (missed == MissedTicks::Skip && is_late) {
                break;
            }
            due.push(tick);
            (before, inclusive) = (Some(found), false);
        }
        due.reverse();
        due
    }

    /// The time due last as it counts now: one that only a wrong clock can have told would keep a schedule silent.
    pub(super) fn counted(last: SystemTime, now: SystemTime) -> SystemTime {
        if last > now + AHEAD_MAX { now } else { last }
    }

    fn zoned(&self, time: SystemTime) -> Option<Zoned> {
        Some(Timestamp::try_from(time).ok()?.to_zoned(self.zone.clone()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn times(ticks: &[SystemTime]) -> Vec<String> {
        ticks.iter().map(|tick| Timestamp::try_from(*tick).unwrap().to_string()).collect()
    }

    #[test]
    fn a_schedule_is_due_in_its_own_time_zone() {
        let rome = Schedule::new("30 7 * * *", "Europe/Rome").unwrap();
        assert_eq!(rome.after(at("2026-01-10T00:00:00Z")), Some(at("2026-01-10T06:30:00Z")));
        assert_eq!(rome.after(at("2026-07-10T00:00:00Z")), Some(at("2026-07-10T05:30:00Z")));
        let utc = Schedule::new("30 7 * * *", "UTC").unwrap();
        assert_eq!(utc.after(at("2026-07-10T07:30:00Z")), Some(at("2026-07-11T07:30:00Z")));
        let seconds = Schedule::new("*/10 * * * * *", "UTC").unwrap();
        assert_eq!(seconds.after(at("2026-07-10T07:30:01Z")), Some(at("2026-07-10T07:30:10Z")));
        assert!(Schedule::new("@hourly", "UTC").is_ok());
    }

    #[test]
    fn times_that_were_missed_get_one_call_none_or_one_each() {
        let hourly = Schedule::new("0 * * * *", "UTC").unwrap();
        let (last, now) = (at("2026-01-10T00:00:00Z"), at("2026-01-10T03:20:00Z"));
        assert_eq!(times(&hourly.due(last, now, MissedTicks::Once)), ["2026-01-10T03:00:00Z"]);
        assert!(hourly.due(last, now, MissedTicks::Skip).is_empty());
        let all = ["2026-01-10T01:00:00Z", "2026-01-10T02:00:00Z", "2026-01-10T03:00:00Z"];
        assert_eq!(times(&hourly.due(last, now, MissedTicks::All)), all);
        // A moment late, as by a broker that took over, is not missed.
        let late = at("2026-01-10T03:00:30Z");
        assert_eq!(times(&hourly.due(last, late, MissedTicks::Skip)), ["2026-01-10T03:00:00Z"]);
        let years = at("2036-01-10T03:20:00Z");
        assert_eq!(hourly.due(last, years, MissedTicks::All).len(), MISSED_MAX);
    }

    #[test]
    fn a_clock_that_was_wrong_silences_no_schedule() {
        let now = at("2026-01-10T00:00:00Z");
        assert_eq!(Schedule::counted(at("2036-01-10T00:00:00Z"), now), now);
        assert_eq!(Schedule::counted(at("2026-01-09T00:00:00Z"), now), at("2026-01-09T00:00:00Z"));
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panic(schedule in ".{0,40}") {
            let _ = Schedule::new(&schedule, "UTC");
        }

        #[test]
        fn what_is_due_lies_between_the_last_time_and_now(last in 0u64..200_000, passed in 0u64..200_000) {
            let schedule = Schedule::new("7,13 */2 * * *", "UTC").unwrap();
            let last = at("2026-03-28T00:00:00Z") + Duration::from_secs(last);
            let now = last + Duration::from_secs(passed);
            for missed in [MissedTicks::Once, MissedTicks::Skip, MissedTicks::All] {
                let due = schedule.due(last, now, missed);
                prop_assert!(due.is_sorted() && due.iter().all(|tick| *tick > last && *tick <= now));
                prop_assert!(missed == MissedTicks::All || due.len() <= 1);
            }
            // Together they are what is found going forward.
            let mut forward = Vec::new();
            let mut at = last;
            while let Some(next) = schedule.after(at).filter(|next| *next <= now) {
                forward.push(next);
                at = next;
            }
            prop_assert_eq!(schedule.due(last, now, MissedTicks::All), forward);
        }
    }
}
