//! Times of a schedule as a source. The time that was due last is in the store, so that a broker that takes over, or is started
//! again, knows which times were missed; and a call's id follows from its time, so that none gets two.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nigh_proto::time::{ms_of, time_of_ms};
use nigh_proto::trigger::{MissedTicks, State};
use nigh_store::{Key, StoreError};

use super::deliver::Message;
use super::schedule::Schedule;
use super::{Active, Triggers};

/// The clock of the system may be set; so often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What a schedule's calls are made of.
#[derive(Debug)]
pub(super) struct Cron<'a> {
    pub(super) schedule: &'a str,
    pub(super) zone: &'a str,
    pub(super) missed: MissedTicks,
    pub(super) payload: &'a Bytes,
}

impl Cron<'_> {
    /// Makes calls when they are due; returns why that cannot go on.
    pub(super) async fn run(&self, triggers: &Triggers, active: &Active) -> String {
        self.try_run(triggers, active).await.unwrap_or_else(|why| why)
    }

    async fn try_run(&self, triggers: &Triggers, active: &Active) -> Result<String, String> {
        let schedule = Schedule::new(self.schedule, self.zone)?;
        let states = &triggers.shelves().map_err(|error| error.message)?.states;
        let key = tick_key(&active.definition.id).map_err(|error| error.to_string())?;
        let kept = states.get(&key).await.map_err(|error| error.to_string())?;
        let last = kept.and_then(|entry| entry.value.as_ref().try_into().ok()).map(u64::from_be_bytes);
        let last = last.map_or(active.definition.added, time_of_ms);
        active.record.is(State::Listening);
        let fire = |tick: SystemTime| {
            let key = &key;
            async move {
                let message = Message {
                    id: Some(format!("tick {}", ms_of(tick))),
                    payload: self.payload.clone(),
                    headers: vec![("cron-time".to_owned(), told(tick))],
                };
                // One that can be no call is counted as such, and the next may be.
                let _ = triggers.deliver(active, message).await;
                let value = Bytes::copy_from_slice(&ms_of(tick).to_be_bytes());
                if let Err(error) = states.put(key, value).await {
                    // It is due again after a crash, and then known by its id.
                    tracing::debug!(%error, "when a schedule was due last is not kept");
                }
            }
        };
        Ok(keep(&schedule, self.missed, last, SystemTime::now, fire).await)
    }
}

/// Where the time is kept at which a schedule was due last.
pub(super) fn tick_key(id: &str) -> Result<Key, StoreError> {
    format!("tick/{id}").parse()
}

fn told(tick: SystemTime) -> String {
    jiff::Timestamp::try_from(tick).map(|tick| tick.to_string()).unwrap_or_default()
}

/// Has each time of a schedule fired, those missed since `last` as `missed` says; returns why that cannot go on.
async fn keep<F: Future<Output = ()>>(
    schedule: &Schedule,
    missed: MissedTicks,
    mut last: SystemTime,
    now: impl Fn() -> SystemTime,
    mut fire: impl FnMut(SystemTime) -> F,
) -> String {
    loop {
        last = Schedule::counted(last, now());
        for tick in schedule.due(last, now(), missed) {
            fire(tick).await;
            last = tick;
        }
        let at = now();
        let Some(next) = schedule.after(last.max(at)) else { return "the schedule is never due again".to_owned() };
        // What has become due meanwhile is at once.
        if schedule.due(last, at, missed).is_empty() {
            tokio::time::sleep(next.duration_since(at).unwrap_or_default().min(LOOK_EVERY)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    /// The times fired from this one on, within so long, where each call takes so long; the clock is the paused one of tokio.
    async fn fired(
        schedule: &str,
        missed: MissedTicks,
        last: &str,
        start: &str,
        within: u64,
        takes: u64,
    ) -> Vec<String> {
        let schedule = Schedule::new(schedule, "UTC").unwrap();
        let (began, start) = (Instant::now(), at(start));
        let now = || start + began.elapsed();
        let fired = RefCell::new(Vec::new());
        let fire = |tick| {
            let fired = &fired;
            async move {
                tokio::time::sleep(Duration::from_secs(takes)).await;
                fired.borrow_mut().push(told(tick));
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(within), keep(&schedule, missed, at(last), now, fire)).await;
        fired.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn each_time_gets_one_call() {
        let start = "2026-01-10T00:00:30Z";
        let told = fired("*/5 * * * *", MissedTicks::Once, start, start, 900, 0).await;
        assert_eq!(told, ["2026-01-10T00:05:00Z", "2026-01-10T00:10:00Z", "2026-01-10T00:15:00Z"]);
    }

    #[tokio::test(start_paused = true)]
    async fn times_that_nobody_was_there_for_are_made_up_for_as_was_asked() {
        let run = |missed| fired("0 * * * *", missed, "2026-01-10T00:00:00Z", "2026-01-10T03:20:00Z", 2401, 0);
        assert_eq!(run(MissedTicks::Once).await, ["2026-01-10T03:00:00Z", "2026-01-10T04:00:00Z"]);
        assert_eq!(run(MissedTicks::Skip).await, ["2026-01-10T04:00:00Z"]);
        assert_eq!(run(MissedTicks::All).await.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn times_that_come_while_a_call_is_held_are_not_lost() {
        let start = "2026-01-10T00:00:30Z";
        let all = fired("* * * * *", MissedTicks::All, start, start, 60 * 12, 100).await;
        let minutes: Vec<_> = all.iter().map(|told| told[14..16].parse::<usize>().unwrap()).collect();
        assert_eq!(minutes, (1..=all.len()).collect::<Vec<_>>());
        assert!(all.len() >= 6, "{all:?}");
    }
}
