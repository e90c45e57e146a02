//! How a trigger is, as this broker sees it. Written to the store a while after it changes.

use std::time::SystemTime;

use nigh_proto::time::ms_of;
use nigh_proto::trigger::State;
use nigh_proto::v1::TriggerRecord;
use parking_lot::Mutex;

/// Bytes of what is told of a failure, at most.
const ERROR_BYTES_MAX: usize = 512;

/// How a trigger is.
#[derive(Debug)]
pub(super) struct Record(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    record: TriggerRecord,
    has_changed: bool,
}

impl Record {
    /// Goes on from what was kept before; nobody runs it at first.
    pub(super) fn new(mut before: TriggerRecord, broker: &str) -> Self {
        before.set_state(State::Waiting);
        broker.clone_into(&mut before.broker);
        Self(Mutex::new(Kept { record: before, has_changed: false }))
    }

    fn change(&self, change: impl FnOnce(&mut TriggerRecord)) {
        let mut kept = self.0.lock();
        change(&mut kept.record);
        kept.record.updated_ms = ms_of(SystemTime::now());
        kept.has_changed = true;
    }

    /// It is so now.
    pub(super) fn is(&self, state: State) {
        if self.0.lock().record.state() != state {
            self.change(|record| record.set_state(state));
        }
    }

    /// It has failed, and is so now.
    pub(super) fn failed(&self, why: &str, state: State) {
        self.change(|record| {
            record.set_state(state);
            record.error = shortened(why);
            record.error_ms = ms_of(SystemTime::now());
        });
    }

    /// A message has become a call.
    pub(super) fn delivered(&self) {
        self.change(|record| {
            record.delivered += 1;
            record.delivered_ms = ms_of(SystemTime::now());
        });
    }

    /// Messages can be no calls.
    pub(super) fn refused(&self, messages: u64, why: &str) {
        self.change(|record| {
            record.refused += messages;
            record.error = shortened(why);
            record.error_ms = ms_of(SystemTime::now());
        });
    }

    /// What is to be written, if anything has changed since this was asked last.
    pub(super) fn take_changed(&self) -> Option<TriggerRecord> {
        let mut kept = self.0.lock();
        std::mem::take(&mut kept.has_changed).then(|| kept.record.clone())
    }

    /// It could not be written.
    pub(super) fn put_back(&self) {
        self.0.lock().has_changed = true;
    }
}

/// How a trigger is, from what all brokers have kept of it: whoever was heard of last runs it, and all have counted.
pub(super) fn together(records: &[TriggerRecord]) -> TriggerRecord {
    let running =
        records.iter().filter(|record| record.state() != State::Waiting).max_by_key(|record| record.updated_ms);
    let told = running.or_else(|| records.iter().max_by_key(|record| record.updated_ms)).cloned().unwrap_or_default();
    let last_failed = records.iter().max_by_key(|record| record.error_ms);
    TriggerRecord {
        broker: if running.is_some() { told.broker.clone() } else { String::new() },
        delivered: records.iter().map(|record| record.delivered).sum(),
        refused: records.iter().map(|record| record.refused).sum(),
        delivered_ms: records.iter().map(|record| record.delivered_ms).max().unwrap_or_default(),
        error: last_failed.map(|record| record.error.clone()).unwrap_or_default(),
        error_ms: last_failed.map_or(0, |record| record.error_ms),
        ..told
    }
}

fn shortened(why: &str) -> String {
    why.chars().take(ERROR_BYTES_MAX / 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_brokers_who_runs_it_tells_how_it_is_and_all_have_counted() {
        let one = Record::new(TriggerRecord { delivered: 5, ..TriggerRecord::default() }, "one");
        one.is(State::Listening);
        one.delivered();
        one.is(State::Waiting);
        let other = Record::new(TriggerRecord::default(), "other");
        other.failed("refused", State::Retrying);
        other.refused(2, "too large");
        let records = [one.take_changed().unwrap(), other.take_changed().unwrap()];
        assert!(one.take_changed().is_none());
        let all = together(&records);
        assert_eq!((all.delivered, all.refused, all.state(), all.broker.as_str()), (6, 2, State::Retrying, "other"));
        assert_eq!(all.error, "too large");
        assert_eq!(together(&[]).state(), State::Waiting);
    }
}
