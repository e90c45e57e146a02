//! The functions that this computer knows: each with its version in use, or why there is none.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nigh_proto::{ComputerProblem, Deployment, Digest, FunctionName};
use nigh_telemetry::PerFunction;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::command::Command;
use crate::logs::{FunctionLog, Hub};
use crate::measure::Measures;
use crate::metrics::Meters;
use crate::module::Compiled;
use crate::native::Native;
use crate::schedule::LaneId;

/// A version that can run at once.
#[derive(Debug)]
pub(crate) struct Version {
    /// Different for every version prepared, also where the same one is prepared twice.
    pub(crate) id: u64,
    pub(crate) deployment: Deployment,
    pub(crate) code: Code,
    pub(crate) grants: Vec<Grant>,
    is_retired: AtomicBool,
    /// Held so that another version of the same module finds it compiled.
    _compiled: Arc<Compiled>,
}

/// How a version is entered.
#[derive(Debug)]
pub(crate) enum Code {
    /// Through the SDK's ABI.
    Native(Native),
    /// As a program.
    Command(Command),
}

/// A directory that a guest may reach.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) host_path: PathBuf,
    pub(crate) guest_path: String,
    pub(crate) is_writable: bool,
}

impl Version {
    /// Puts a version together.
    pub(crate) fn new(deployment: Deployment, code: Code, grants: Vec<Grant>, compiled: Arc<Compiled>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, deployment, code, grants, is_retired: AtomicBool::new(false), _compiled: compiled }
    }

    /// No more calls go to it.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    /// Whether no more calls go to it.
    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }
}

/// What outlives versions: measurements, lines logged, a lane in the schedule.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) lane: LaneId,
    pub(crate) name: FunctionName,
    pub(crate) log: Arc<FunctionLog>,
    pub(crate) measures: Mutex<Measures>,
    pub(crate) meters: Arc<Meters>,
}

/// What is known of one function.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) function: Arc<Function>,
    /// The version in use.
    pub(crate) version: Option<Arc<Version>>,
    /// The version wanted, where it could not be prepared, and why.
    pub(crate) problem: Option<(Digest, String)>,
}

/// All functions known, and a signal for whoever tells others of them.
#[derive(Debug)]
pub(crate) struct Functions {
    known: RwLock<HashMap<FunctionName, Known>>,
    hub: Hub,
    meters: PerFunction<Meters>,
    changes: watch::Sender<u64>,
}

impl Functions {
    pub(crate) fn new() -> Self {
        Self {
            known: RwLock::default(),
            hub: Hub::new(),
            meters: PerFunction::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// What is known of one function.
    pub(crate) fn get(&self, name: &FunctionName) -> Option<Known> {
        self.known.read().get(name).cloned()
    }

    /// All functions, sorted by name.
    pub(crate) fn all(&self) -> Vec<Known> {
        let mut all: Vec<_> = self.known.read().values().cloned().collect();
        all.sort_by(|a, b| a.function.name.cmp(&b.function.name));
        all
    }

    /// Makes a function known before a version of it is ready.
    pub(crate) fn expect(&self, name: &FunctionName) {
        self.change(name, |_| {});
    }

    /// Switches a function to a version: calls from now on use it. Returns the one used before.
    pub(crate) fn switch(&self, version: Arc<Version>) -> Option<Arc<Version>> {
        let name = version.deployment.name.clone();
        let mut before = None;
        self.change(&name, |known| {
            known.problem = None;
            before = known.version.replace(version);
        });
        before
    }

    /// Notes why a version cannot be used; the one before stays in use.
    pub(crate) fn note_problem(&self, name: &FunctionName, version: Digest, message: String) {
        self.change(name, |known| known.problem = Some((version, message)));
    }

    /// The version in use is the one wanted after all.
    pub(crate) fn clear_problem(&self, name: &FunctionName) {
        if self.get(name).is_some_and(|known| known.problem.is_some()) {
            self.change(name, |known| known.problem = None);
        }
    }

    /// Forgets a function. Returns the version that was in use.
    pub(crate) fn remove(&self, name: &FunctionName) -> Option<Arc<Version>> {
        let removed = self.known.write().remove(name);
        self.meters.forget(name.as_str());
        self.changes.send_modify(|count| *count += 1);
        removed?.version
    }

    /// Told whenever something has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What is counted of each function.
    pub(crate) fn meters(&self) -> &PerFunction<Meters> {
        &self.meters
    }

    /// Where all lines logged pass.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The versions ready and the problems, as they are announced.
    pub(crate) fn announcement(&self) -> (Vec<(FunctionName, Digest)>, Vec<ComputerProblem>) {
        let all = self.all();
        let ready = all.iter().filter_map(|known| {
            known.version.as_ref().map(|version| (known.function.name.clone(), version.deployment.version))
        });
        let problems = all.iter().filter_map(|known| {
            let (version, message) = known.problem.clone()?;
            Some(ComputerProblem { function: known.function.name.clone(), version, message })
        });
        (ready.collect(), problems.collect())
    }

    fn change(&self, name: &FunctionName, change: impl FnOnce(&mut Known)) {
        let mut table = self.known.write();
        change(table.entry(name.clone()).or_insert_with(|| Known::new(name, &self.hub, self.meters.of(name.as_str()))));
        drop(table);
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Known {
    fn new(name: &FunctionName, hub: &Hub, meters: Arc<Meters>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let function = Function {
            lane: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.clone(),
            log: Arc::new(FunctionLog::new(name.clone(), hub.clone())),
            measures: Mutex::default(),
            meters,
        };
        Self { function: Arc::new(function), version: None, problem: None }
    }
}
