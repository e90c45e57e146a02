//! Instances kept between calls, for functions deployed with reuse. Fresh instances come straight from the engine's own
//! pool and never pass here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::function::Version;
use crate::instance::Instance;

/// How long an instance is kept without a call.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(30);

/// Idle instances by version: one of one version never serves another.
#[derive(Debug)]
pub(crate) struct Pool {
    kept: Mutex<Kept>,
    instances_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    by_version: HashMap<u64, Vec<Idle>>,
    count: usize,
}

#[derive(Debug)]
struct Idle {
    instance: Instance,
    since: Instant,
}

impl Pool {
    /// Keeps at most so many.
    pub(crate) fn new(instances_max: usize) -> Self {
        Self { kept: Mutex::default(), instances_max }
    }

    /// The instance of this version that was used last.
    pub(crate) fn take(&self, version: &Version) -> Option<Instance> {
        if version.deployment.limits.reuse <= 1 {
            return None;
        }
        let mut kept = self.kept.lock();
        let idle = kept.by_version.get_mut(&version.id)?.pop()?;
        kept.count -= 1;
        Some(idle.instance)
    }

    /// Keeps an instance for a later call; gives it back where there is no room.
    pub(crate) fn keep(&self, instance: Instance, now: Instant) -> Option<Instance> {
        let mut kept = self.kept.lock();
        let (version, concurrency) = {
            let version = instance.version();
            (version.id, version.deployment.limits.concurrency as usize)
        };
        let of_version = kept.by_version.get(&version).map_or(0, Vec::len);
        if kept.count >= self.instances_max || of_version >= concurrency {
            return Some(instance);
        }
        kept.by_version.entry(version).or_default().push(Idle { instance, since: now });
        kept.count += 1;
        None
    }

    /// Takes out the instance that has been idle for longest.
    pub(crate) fn evict(&self) -> Option<Instance> {
        let mut kept = self.kept.lock();
        let oldest = |idle: &Vec<Idle>| idle.first().map(|idle| idle.since);
        let version =
            *kept.by_version.iter().filter(|(_, idle)| !idle.is_empty()).min_by_key(|(_, idle)| oldest(idle))?.0;
        let idle = kept.by_version.get_mut(&version)?.remove(0);
        kept.count -= 1;
        Some(idle.instance)
    }

    /// Takes out those idle for too long.
    pub(crate) fn expire(&self, now: Instant) -> Vec<Instance> {
        self.take_out(|_, idle| now.saturating_duration_since(idle.since) >= IDLE_MAX)
    }

    /// Takes out all of a version that is no longer in use.
    pub(crate) fn retire(&self, version: &Version) -> Vec<Instance> {
        self.take_out(|id, _| id == version.id)
    }

    /// How many are kept.
    pub(crate) fn kept(&self) -> usize {
        self.kept.lock().count
    }

    /// Whether none is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.lock().count == 0
    }

    fn take_out(&self, is_due: impl Fn(u64, &Idle) -> bool) -> Vec<Instance> {
        let mut kept = self.kept.lock();
        let mut out = Vec::new();
        for (&id, idle) in &mut kept.by_version {
            out.extend(idle.extract_if(.., |idle| is_due(id, idle)).map(|idle| idle.instance));
        }
        kept.by_version.retain(|_, idle| !idle.is_empty());
        kept.count -= out.len();
        out
    }
}
