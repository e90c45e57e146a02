//! Instances kept between calls: as new, made ahead, or, for functions deployed with reuse, as the call before left them.
//! Each thread has a shelf of its own, so that an instance mostly goes on where the caches know it, and looks at those of
//! others only when its own has none. Worn ones lie there too until others have been made in their stead; no call gets one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::function::Version;
use crate::http;
use crate::instance::{Instance, Life};
use crate::number::NumberMap;
use crate::threads::{self, Apart};

/// Bounds for the time between two looks at what has been idle for too long.
const LOOK_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(10);
/// Instances of one component, made ahead or about to be, on one shelf. As many calls in a burst find theirs made.
pub(crate) const AHEAD_MAX: usize = 4;

/// An instance of either form that may serve another call.
#[derive(Debug)]
pub(crate) enum Reusable {
    // Both move from hand to hand in each of their calls, and are made in few of them.
    /// Of a module.
    Module(Box<Instance>),
    /// Of a component.
    Component(Box<http::Instance>),
}

impl Reusable {
    /// What it is at.
    pub(crate) fn life(&self) -> Life {
        match self {
            Self::Module(instance) => instance.life(),
            Self::Component(instance) => instance.life(),
        }
    }

    /// The version that it is an instance of.
    pub(crate) fn version(&self) -> &Arc<Version> {
        match self {
            Self::Module(instance) => instance.version(),
            Self::Component(instance) => instance.version(),
        }
    }

    /// Bytes of its memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        match self {
            Self::Module(instance) => instance.memory_bytes(),
            Self::Component(instance) => instance.memory_bytes(),
        }
    }
}

/// Idle instances by version: one of one version never serves another.
#[derive(Debug)]
pub(crate) struct Pool {
    shelves: Box<[Apart<Mutex<Shelf>>]>,
    /// Places given to shelves, at most as many as there may be instances.
    places: Apart<AtomicUsize>,
    instances_max: usize,
    /// The shortest time that any instance kept so far may be idle.
    shortest_idle_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Those used last stand last.
    by_version: NumberMap<Vec<Idle>>,
    /// Worn ones, those worn first in front.
    worn: Vec<Idle>,
    /// Somebody is about to make others in their stead.
    is_seen_to: bool,
    /// Instances on it, worn ones included.
    kept: usize,
    /// Places that it has. That of an instance taken stays for the next one, so that calls which begin and end on one thread
    /// meet no other at a common count.
    places: usize,
}

#[derive(Debug)]
struct Idle {
    instance: Reusable,
    since: Instant,
}

impl Shelf {
    /// Instances of a component on it, those included that are about to be made.
    fn ahead(&self, version: &Version) -> usize {
        let idle = self.by_version.get(&version.id).map_or(0, Vec::len);
        idle + self.worn.iter().filter(|worn| worn.instance.version().id == version.id).count()
    }

    fn pop_worn(&mut self) -> Option<Reusable> {
        if self.worn.is_empty() {
            return None;
        }
        self.kept -= 1;
        Some(self.worn.remove(0).instance)
    }
}

impl Idle {
    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.instance.version().deployment.limits.idle
    }
}

impl Pool {
    /// Keeps at most so many, on so many shelves.
    pub(crate) fn new(instances_max: usize, shelves: usize) -> Self {
        let shelves = (0..shelves.max(1)).map(|_| Apart::default()).collect();
        Self { shelves, places: Apart::default(), instances_max, shortest_idle_ms: AtomicU64::new(u64::MAX) }
    }

    /// The instance of this version that was used last, on this thread if there is one.
    pub(crate) fn take(&self, version: &Version, now: Instant) -> Option<Reusable> {
        if self.places.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let own = self.own();
        (own..self.shelves.len()).chain(0..own).find_map(|shelf| {
            let mut shelf = self.shelves[shelf].lock();
            // One that is expired stays for the next look; those before it have been idle for longer.
            let idle = shelf.by_version.get_mut(&version.id)?.pop_if(|idle| !idle.is_expired(now))?;
            shelf.kept -= 1;
            Some(idle.instance)
        })
    }

    /// Keeps an idle instance for a later call; gives it back where there is no room, or its version is no longer in use.
    pub(crate) fn keep(&self, instance: Reusable, now: Instant) -> Option<Reusable> {
        self.keep_on(self.own(), instance, now)
    }

    /// The same on a certain shelf.
    pub(crate) fn keep_on(&self, at: usize, instance: Reusable, now: Instant) -> Option<Reusable> {
        let Some(mut shelf) = self.shelf_with_place(at) else { return Some(instance) };
        // Read with the shelf locked: a version is first retired, and then taken from each shelf.
        if instance.version().is_retired() {
            return Some(instance);
        }
        self.note_idle_limit(&instance);
        let version = instance.version().id;
        shelf.by_version.entry(version).or_default().push(Idle { instance, since: now });
        shelf.kept += 1;
        None
    }

    /// Keeps a worn instance on this thread's shelf until another has been made in its stead. Gives the number of the shelf
    /// where somebody has to be sent there, and the instance back where its function has enough of them.
    pub(crate) fn keep_worn(&self, instance: Reusable, now: Instant) -> Result<Option<usize>, Reusable> {
        let at = self.own();
        let Some(mut shelf) = self.shelf_with_place(at) else { return Err(instance) };
        if instance.version().is_retired() || shelf.ahead(instance.version()) >= AHEAD_MAX {
            return Err(instance);
        }
        self.note_idle_limit(&instance);
        shelf.worn.push(Idle { instance, since: now });
        shelf.kept += 1;
        Ok((!std::mem::replace(&mut shelf.is_seen_to, true)).then_some(at))
    }

    /// Takes a worn instance from a shelf. Where there is none, nobody sees to the shelf from now on.
    pub(crate) fn take_worn(&self, at: usize) -> Option<Reusable> {
        let mut shelf = self.shelves[at].lock();
        let worn = shelf.pop_worn();
        shelf.is_seen_to = worn.is_some();
        worn
    }

    /// Whether another instance of a component may be made ahead on this thread.
    pub(crate) fn has_room_ahead(&self, version: &Version) -> bool {
        self.shelves[self.own()].lock().ahead(version) < AHEAD_MAX
    }

    /// Takes out a worn instance or, where there is none, the one that has been idle for longest.
    pub(crate) fn evict(&self) -> Option<Reusable> {
        let worn = self.shelves.iter().find_map(|shelf| {
            let mut shelf = shelf.lock();
            let worn = shelf.pop_worn()?;
            self.give_up_places(&mut shelf);
            Some(worn)
        });
        worn.or_else(|| self.evict_idle())
    }

    fn evict_idle(&self) -> Option<Reusable> {
        let oldest = |shelf: &Apart<Mutex<Shelf>>| {
            let shelf = shelf.lock();
            let first = shelf.by_version.iter().filter_map(|(version, idle)| Some((idle.first()?.since, *version)));
            first.min()
        };
        let found = self.shelves.iter().filter_map(|shelf| Some((oldest(shelf)?, shelf)));
        let ((_, version), shelf) = found.min_by_key(|(oldest, _)| *oldest)?;
        let mut shelf = shelf.lock();
        let idle = shelf.by_version.get_mut(&version)?;
        // It may have been taken meanwhile.
        let oldest = if idle.is_empty() { None } else { Some(idle.remove(0)) }?;
        shelf.kept -= 1;
        self.give_up_places(&mut shelf);
        Some(oldest.instance)
    }

    /// Takes out those idle for too long.
    pub(crate) fn expire(&self, now: Instant) -> Vec<Reusable> {
        self.take_out(|_, idle| idle.is_expired(now))
    }

    /// Takes out all of a version, which is no longer in use.
    pub(crate) fn retire(&self, version: &Version) -> Vec<Reusable> {
        version.retire();
        self.take_out(|id, _| id == version.id)
    }

    /// How many wait for another call. Looks at each shelf.
    pub(crate) fn kept(&self) -> usize {
        let idle = |shelf: &Shelf| shelf.kept - shelf.worn.len();
        self.shelves.iter().map(|shelf| idle(&shelf.lock())).sum()
    }

    /// Whether none is kept. Each shelf is locked in turn, so whoever keeps one on it later sees what the caller has written before.
    pub(crate) fn is_empty(&self) -> bool {
        self.shelves.iter().all(|shelf| shelf.lock().kept == 0)
    }

    /// How long to wait until the next look at what has been idle for too long.
    pub(crate) fn look_interval(&self) -> Duration {
        let shortest = Duration::from_millis(self.shortest_idle_ms.load(Ordering::Relaxed));
        (shortest / 4).clamp(*LOOK_INTERVAL.start(), *LOOK_INTERVAL.end())
    }

    /// The number of this thread's shelf.
    fn own(&self) -> usize {
        threads::number() % self.shelves.len()
    }

    /// Takes a place for one more instance, if any is left.
    fn add_place(&self) -> bool {
        let is_left = self.places.fetch_add(1, Ordering::Relaxed) < self.instances_max;
        if !is_left {
            self.places.fetch_sub(1, Ordering::Relaxed);
        }
        is_left
    }

    /// Gives up the places that nothing stands on.
    fn give_up_places(&self, shelf: &mut Shelf) {
        self.places.fetch_sub(shelf.places - shelf.kept, Ordering::Relaxed);
        shelf.places = shelf.kept;
    }

    /// A shelf that has a place for one more, if any is left.
    fn shelf_with_place(&self, at: usize) -> Option<MutexGuard<'_, Shelf>> {
        let mut shelf = self.shelves[at].lock();
        if shelf.kept == shelf.places {
            if !self.add_place() {
                drop(shelf);
                self.shelves.iter().for_each(|shelf| self.give_up_places(&mut shelf.lock()));
                if !self.add_place() {
                    return None;
                }
                shelf = self.shelves[at].lock();
            }
            shelf.places += 1;
        }
        Some(shelf)
    }

    fn note_idle_limit(&self, instance: &Reusable) {
        let idle_max = instance.version().deployment.limits.idle;
        let idle_max_ms = u64::try_from(idle_max.as_millis()).unwrap_or(u64::MAX);
        // Read first: it is mostly known, and threads are not to take it from each other.
        if idle_max_ms < self.shortest_idle_ms.load(Ordering::Relaxed) {
            self.shortest_idle_ms.fetch_min(idle_max_ms, Ordering::Relaxed);
        }
    }

    fn take_out(&self, is_due: impl Fn(u64, &Idle) -> bool) -> Vec<Reusable> {
        let mut out = Vec::new();
        for shelf in &self.shelves {
            let mut shelf = shelf.lock();
            let before = out.len();
            for (&id, idle) in &mut shelf.by_version {
                out.extend(idle.extract_if(.., |idle| is_due(id, idle)).map(|idle| idle.instance));
            }
            let is_worn_due = |worn: &mut Idle| is_due(worn.instance.version().id, worn);
            out.extend(shelf.worn.extract_if(.., is_worn_due).map(|worn| worn.instance));
            shelf.by_version.retain(|_, idle| !idle.is_empty());
            shelf.kept -= out.len() - before;
            self.give_up_places(&mut shelf);
        }
        out
    }
}
