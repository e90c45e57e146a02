//! Functions as calls find them: looked up in the table once for each thread, so that threads which call the same function
//! share nothing that others write to. What the table changes, no thread remembers any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nigh_proto::{FunctionName, Kind, NodeName};
use parking_lot::Mutex;

use super::{Function, Version};
use crate::crew::Crew;
use crate::logs::FunctionLog;
use crate::probe;
use crate::threads::{self, Apart, Handle};

/// Functions that one thread remembers.
const REMEMBERED_MAX: usize = 64;

/// A function that can be called at once, with all that its calls need of what threads share.
#[derive(Debug)]
pub(crate) struct Callee {
    pub(crate) function: Arc<Function>,
    pub(crate) version: Arc<Version>,
    pub(crate) log: Handle<FunctionLog>,
    /// Who runs it.
    pub(crate) crew: Handle<Crew>,
    /// The name of its computer.
    pub(crate) computer: NodeName,
}

impl Callee {
    /// The function, to be run by this crew.
    pub(crate) fn new(function: Arc<Function>, version: Arc<Version>, crew: &Arc<Crew>) -> Self {
        let log = function.log.clone().into();
        // Parsed anew, so that it is a copy and no further owner of the same text.
        let computer = crew.computer.as_str().parse().unwrap_or_else(|_| crew.computer.clone());
        Self { function, version, log, crew: crew.clone().into(), computer }
    }
}

/// What each thread remembers.
#[derive(Debug)]
pub(super) struct Callees {
    /// Counts the changes of the table.
    changes: AtomicU64,
    by_thread: Box<[Apart<Mutex<Known>>]>,
}

#[derive(Debug, Default)]
struct Known {
    /// Changes of the table that this knows of.
    changes: u64,
    by_name: HashMap<FunctionName, Arc<Callee>>,
}

impl Callees {
    pub(super) fn new() -> Self {
        let by_thread = (0..2 * probe::cores()).map(|_| Apart::default()).collect();
        Self { changes: AtomicU64::new(0), by_thread }
    }

    /// The function of this name, as this thread remembers it or as `look_up` finds it in the table.
    pub(super) fn find(&self, name: &FunctionName, look_up: impl FnOnce() -> Option<Callee>) -> Option<Arc<Callee>> {
        let changes = self.changes.load(Ordering::Acquire);
        let remembered = self.of_thread();
        if let Some(callee) = remembered.lock().by_name.get(name) {
            return Some(callee.clone());
        }
        let callee = Arc::new(look_up()?);
        let mut remembered = remembered.lock();
        // Where the table has changed since, this may be what it held before.
        if remembered.changes == changes {
            if remembered.by_name.len() >= REMEMBERED_MAX {
                remembered.by_name.clear();
            }
            remembered.by_name.insert(name.clone(), callee.clone());
        }
        Some(callee)
    }

    /// The kind of a function that this thread remembers.
    pub(super) fn kind(&self, name: &FunctionName) -> Option<Kind> {
        let remembered = self.of_thread().lock();
        remembered.by_name.get(name).map(|callee| callee.version.deployment.kind)
    }

    /// The table has changed: from now on it is asked again.
    pub(super) fn forget(&self) {
        let changes = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        for remembered in &self.by_thread {
            let mut remembered = remembered.lock();
            remembered.changes = remembered.changes.max(changes);
            // Dropped with the lock held, but mostly there is little, and the code of a version that leaves memory is to be gone.
            remembered.by_name.clear();
        }
    }

    fn of_thread(&self) -> &Mutex<Known> {
        &self.by_thread[threads::number() % self.by_thread.len()]
    }
}
