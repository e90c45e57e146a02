//! The activations of late: bounded in number, bytes and age, in memory, each namespace in a room of its own so that none
//! drives out another's. Also bounded is how many are under way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::CallId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::record::{Record, ms};
use crate::namespace::Namespace;

/// What is kept of activations, of all namespaces together; each has an equal part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationLimits {
    /// Activations under way.
    pub under_way_max: usize,
    /// Activations that are kept once they have ended.
    pub kept_max: usize,
    /// Bytes of them.
    pub kept_bytes_max: usize,
    /// How long one is kept.
    pub keep: Duration,
}

impl Default for ActivationLimits {
    fn default() -> Self {
        Self { under_way_max: 4096, kept_max: 10_000, kept_bytes_max: 64 << 20, keep: Duration::from_secs(3600) }
    }
}

impl ActivationLimits {
    fn part(self, namespaces: usize) -> Self {
        let part = |whole: usize| (whole / namespaces.max(1)).max(1);
        Self {
            under_way_max: part(self.under_way_max).min(Semaphore::MAX_PERMITS),
            kept_max: part(self.kept_max),
            kept_bytes_max: part(self.kept_bytes_max),
            keep: self.keep,
        }
    }
}

/// What is asked of activations.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// `action`, or `package/action`.
    pub(super) name: Option<String>,
    /// Milliseconds since 1970.
    pub(super) since: Option<u64>,
    pub(super) upto: Option<u64>,
}

/// All activations.
#[derive(Debug)]
pub(super) struct Activations {
    limits: ActivationLimits,
    rooms: Mutex<HashMap<Namespace, Arc<Room>>>,
}

/// Those of one namespace.
#[derive(Debug)]
pub(super) struct Room {
    limits: ActivationLimits,
    places: Arc<Semaphore>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// In the order in which they ended.
    records: VecDeque<(Instant, Arc<Record>)>,
    by_id: HashMap<CallId, Arc<Record>>,
    bytes: usize,
}

impl Activations {
    pub(super) fn new(limits: ActivationLimits, namespaces: usize) -> Self {
        Self { limits: limits.part(namespaces), rooms: Mutex::default() }
    }

    /// The room of a namespace. There are as many as there are namespaces with credentials.
    pub(super) fn of(&self, namespace: &Namespace) -> Arc<Room> {
        let mut rooms = self.rooms.lock();
        if let Some(room) = rooms.get(namespace) {
            return room.clone();
        }
        let places = Arc::new(Semaphore::new(self.limits.under_way_max));
        let room = Arc::new(Room { limits: self.limits, places, kept: Mutex::default() });
        rooms.insert(namespace.clone(), room.clone());
        room
    }
}

impl Room {
    /// A place for one more activation, if there is any.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Activations that may be under way at once.
    pub(super) fn under_way_max(&self) -> usize {
        self.limits.under_way_max
    }

    /// Keeps one that has ended; the oldest make room.
    pub(super) fn keep(&self, record: Arc<Record>) {
        let mut kept = self.kept.lock();
        let now = Instant::now();
        kept.bytes += record.bytes();
        kept.by_id.insert(record.id().clone(), record.clone());
        kept.records.push_back((now, record));
        kept.drop_old(&self.limits, now);
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Record>> {
        let id: CallId = id.parse().ok()?;
        let mut kept = self.kept.lock();
        kept.drop_old(&self.limits, Instant::now());
        kept.by_id.get(&id).cloned()
    }

    /// Those wanted, the last one begun first.
    pub(super) fn list(&self, wanted: &Wanted) -> Vec<Arc<Record>> {
        let mut kept = self.kept.lock();
        kept.drop_old(&self.limits, Instant::now());
        let matching = kept.records.iter().map(|(_, record)| record).filter(|record| wanted.matches(record));
        let mut found: Vec<_> = matching.cloned().collect();
        drop(kept);
        found.sort_by_key(|record| std::cmp::Reverse(record.ran.start));
        found
    }
}

impl Kept {
    fn drop_old(&mut self, limits: &ActivationLimits, now: Instant) {
        while let Some((since, oldest)) = self.records.front() {
            // The last one stays however large it is: somebody was told its id.
            let is_over = self.records.len() > limits.kept_max || self.bytes > limits.kept_bytes_max;
            let is_old = now.saturating_duration_since(*since) > limits.keep;
            if !(is_old || is_over && self.records.len() > 1) {
                return;
            }
            self.bytes -= oldest.bytes();
            self.by_id.remove(oldest.id());
            self.records.pop_front();
        }
    }
}

impl Wanted {
    fn matches(&self, record: &Record) -> bool {
        let start = ms(record.ran.start);
        let is_named = |name: &String| *name == record.ran.entity.path() || *name == record.ran.entity.name;
        self.name.as_ref().is_none_or(is_named)
            && self.since.is_none_or(|since| start >= since)
            && self.upto.is_none_or(|upto| start <= upto)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{answer, record};
    use super::*;

    fn room(limits: ActivationLimits) -> Arc<Room> {
        Activations::new(limits, 1).of(&Namespace::default())
    }

    fn starts(room: &Room, wanted: &Wanted) -> Vec<u64> {
        room.list(wanted).iter().map(|record| ms(record.ran.start)).collect()
    }

    #[test]
    fn the_last_begun_is_listed_first() {
        let room = room(ActivationLimits::default());
        for (name, start) in [("a", 30), ("math.add", 10), ("b", 20)] {
            room.keep(Arc::new(record(name, start, answer(b"{}"))));
        }
        assert_eq!(starts(&room, &Wanted::default()), [30, 20, 10]);
        let named = |name: &str| Wanted { name: Some(name.into()), ..Wanted::default() };
        assert_eq!(starts(&room, &named("math/add")), [10]);
        assert_eq!(starts(&room, &named("nobody")), [0; 0]);
        assert_eq!(starts(&room, &Wanted { since: Some(20), upto: Some(29), ..Wanted::default() }), [20]);
    }

    #[test]
    fn what_is_kept_has_limits_and_the_last_is_always_there() {
        let room = room(ActivationLimits { kept_max: 3, ..ActivationLimits::default() });
        let ids: Vec<_> = (0..5)
            .map(|start| {
                let record = Arc::new(record("a", start, answer(b"{}")));
                room.keep(record.clone());
                assert!(room.find(record.id().as_str()).is_some());
                record.id().clone()
            })
            .collect();
        assert_eq!(starts(&room, &Wanted::default()), [4, 3, 2]);
        assert!(room.find(ids[1].as_str()).is_none());
        let narrow = self::room(ActivationLimits { kept_bytes_max: 1, ..ActivationLimits::default() });
        narrow.keep(Arc::new(record("a", 1, answer(b"{}"))));
        narrow.keep(Arc::new(record("a", 2, answer(b"{}"))));
        assert_eq!(starts(&narrow, &Wanted::default()), [2]);
        assert_eq!(narrow.kept.lock().by_id.len(), 1);
        let forgetful = self::room(ActivationLimits { keep: Duration::ZERO, ..ActivationLimits::default() });
        forgetful.keep(Arc::new(record("a", 1, answer(b"{}"))));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(starts(&forgetful, &Wanted::default()), [0; 0]);
        assert_eq!(forgetful.kept.lock().bytes, 0);
    }

    #[test]
    fn namespaces_have_rooms_of_their_own() {
        let limits = ActivationLimits { under_way_max: 2, ..ActivationLimits::default() };
        let activations = Activations::new(limits, 2);
        let (guest, acme) = (activations.of(&Namespace::default()), activations.of(&"acme".parse().unwrap()));
        let place = guest.enter();
        assert!(place.is_some() && guest.enter().is_none() && acme.enter().is_some());
        drop(place);
        assert!(guest.enter().is_some());
    }
}
