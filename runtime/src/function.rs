//! The functions that this computer knows: each with its version in use, or why there is none.

mod callees;
mod conduct;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nigh_proto::{ComputerProblem, Deployment, Digest, FunctionName, Kind, Outcome};
use nigh_telemetry::PerFunction;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::command::Command;
use crate::crew::{Brevity, Crew};
use crate::host::files::OpenFiles;
use crate::http::Http;
use crate::logs::{FunctionLog, Hub};
use crate::measure::Measures;
use crate::metrics::Meters;
use crate::module::Compiled;
use crate::native::Native;
use crate::residency::{Candidate, Residency};
use crate::schedule::LaneId;
pub(crate) use callees::Callee;
use callees::Callees;
use conduct::Conduct;

/// A version that can run at once.
#[derive(Debug)]
pub(crate) struct Version {
    /// Different for every version prepared, also where the same one is prepared twice.
    pub(crate) id: u64,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) code: Code,
    pub(crate) grants: Vec<Grant>,
    /// Files that all guests may have open.
    pub(crate) files: OpenFiles,
    is_retired: AtomicBool,
    /// Held so that another version of the same module finds it compiled.
    compiled: Arc<Compiled>,
}

/// How a version is entered.
#[derive(Debug)]
pub(crate) enum Code {
    /// Through the SDK's ABI.
    Native(Native),
    /// As a program.
    Command(Command),
    /// As a handler of HTTP requests.
    Http(Http),
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
    pub(crate) fn new(
        deployment: Arc<Deployment>,
        code: Code,
        grants: Vec<Grant>,
        files: OpenFiles,
        compiled: Arc<Compiled>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, deployment, code, grants, files, is_retired: AtomicBool::new(false), compiled }
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
    pub(crate) brevity: Brevity,
    pub(crate) conduct: Conduct,
    /// Held by whoever brings its code back into memory.
    pub(crate) loading: tokio::sync::Mutex<()>,
    /// When it was called last, in milliseconds since the table was made.
    used_ms: AtomicU64,
}

impl Function {
    /// Notes how a call ended, as far as that tells how others are to be run. Says how long the function is to rest now.
    pub(crate) fn note_conduct(&self, outcome: &Outcome) -> Duration {
        let function = &self.name;
        let (change, rest) = self.conduct.note(outcome);
        match (change, outcome) {
            (Some(true), Outcome::Error { kind, .. }) => tracing::warn!(
                %function, kind, "its calls break its limits again and again; they run one at a time until they end otherwise"
            ),
            (Some(false), _) => {
                tracing::info!(%function, "its calls no longer break its limits, and run as many at a time as may")
            }
            _ => {}
        }
        rest
    }
}

/// What is known of one function.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) function: Arc<Function>,
    /// What the version in use was deployed as.
    pub(crate) deployment: Option<Arc<Deployment>>,
    /// The version in use, while its code is in memory.
    pub(crate) version: Option<Arc<Version>>,
    /// The version wanted, where it could not be prepared, and why.
    pub(crate) problem: Option<(Digest, String)>,
}

/// All functions known, and a signal for whoever tells others of them.
#[derive(Debug)]
pub(crate) struct Functions {
    known: RwLock<Table>,
    callees: Callees,
    hub: Hub,
    meters: PerFunction<Meters>,
    changes: watch::Sender<u64>,
    origin: Instant,
}

#[derive(Debug)]
struct Table {
    by_name: HashMap<FunctionName, Known>,
    residency: Residency,
}

/// Versions that are no longer in memory; what is kept of them can go too.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Retired(pub(crate) Vec<Arc<Version>>);

impl Functions {
    pub(crate) fn new(residency: Residency) -> Self {
        Self {
            known: RwLock::new(Table { by_name: HashMap::new(), residency }),
            callees: Callees::new(),
            hub: Hub::new(),
            meters: PerFunction::default(),
            changes: watch::Sender::new(0),
            origin: Instant::now(),
        }
    }

    /// What is known of one function.
    pub(crate) fn get(&self, name: &FunctionName) -> Option<Known> {
        self.known.read().by_name.get(name).cloned()
    }

    /// A function that is called now, if its code is in memory.
    pub(crate) fn callee(&self, name: &FunctionName, crew: &Arc<Crew>, now: Instant) -> Option<Arc<Callee>> {
        let look_up = || {
            let known = self.get(name)?;
            Some(Callee::new(known.function, known.version?, crew))
        };
        let callee = self.callees.find(name, look_up)?;
        self.note_use(&callee.function, now);
        Some(callee)
    }

    /// The kind of a function. One that is not ready yet is taken for what passes everything on.
    pub(crate) fn kind(&self, name: &FunctionName) -> Option<Kind> {
        self.callees.kind(name).or_else(|| {
            let table = self.known.read();
            let known = table.by_name.get(name)?;
            Some(known.deployment.as_ref().map_or(Kind::Http, |deployment| deployment.kind))
        })
    }

    /// What is known of a function that is called now.
    pub(crate) fn call(&self, name: &FunctionName, now: Instant) -> Option<Known> {
        let known = self.get(name)?;
        self.note_use(&known.function, now);
        Some(known)
    }

    fn note_use(&self, function: &Function, now: Instant) {
        let since = u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX);
        // Written only when it changes: other threads read what lies beside it.
        if function.used_ms.load(Ordering::Relaxed) != since {
            function.used_ms.store(since, Ordering::Relaxed);
        }
    }

    /// All functions, sorted by name.
    pub(crate) fn all(&self) -> Vec<Known> {
        let mut all: Vec<_> = self.known.read().by_name.values().cloned().collect();
        all.sort_by(|a, b| a.function.name.cmp(&b.function.name));
        all
    }

    /// Makes a function known before a version of it is ready.
    pub(crate) fn expect(&self, name: &FunctionName) {
        self.change(name, |_, _| {});
    }

    /// Switches a function to a version: calls from now on use it. Returns the one used before, and those whose code has
    /// to leave memory in its stead.
    pub(crate) fn switch(&self, version: Arc<Version>) -> Retired {
        let name = version.deployment.name.clone();
        let mut retired = Retired::default();
        self.change(&name, |known, residency| {
            known.problem = None;
            known.deployment = Some(version.deployment.clone());
            known.function.conduct.forget();
            residency.enter(version.compiled.code_bytes);
            retired.0.extend(known.version.replace(version));
        });
        let mut table = self.known.write();
        retired.0.iter().for_each(|before| table.residency.leave(before.compiled.code_bytes));
        table.make_room(&name, &mut retired);
        drop(table);
        self.callees.forget();
        retired
    }

    /// Brings the code of a version back that is still the one in use.
    pub(crate) fn bring_back(&self, version: Arc<Version>) -> Retired {
        let mut retired = Retired::default();
        let mut table = self.known.write();
        let Table { by_name, residency } = &mut *table;
        let name = version.deployment.name.clone();
        let Some(known) = by_name.get_mut(&name) else { return retired };
        let used = known.deployment.as_ref().map(|deployment| deployment.version);
        if known.version.is_none() && used == Some(version.deployment.version) {
            residency.enter(version.compiled.code_bytes);
            known.version = Some(version);
            table.make_room(&name, &mut retired);
        }
        drop(table);
        self.callees.forget();
        retired
    }

    /// The code of a version is gone from memory and disk: it has to be prepared anew.
    pub(crate) fn lose(&self, deployment: &Deployment) {
        self.change(&deployment.name, |known, _| {
            if known.deployment.as_ref().is_some_and(|used| used.version == deployment.version)
                && known.version.is_none()
            {
                known.deployment = None;
            }
        });
    }

    /// Versions whose code is in memory, and the bytes of it.
    pub(crate) fn resident(&self) -> (usize, u64) {
        self.known.read().residency.held()
    }

    /// Notes why a version cannot be used; the one before stays in use.
    pub(crate) fn note_problem(&self, name: &FunctionName, version: Digest, message: String) {
        self.change(name, |known, _| known.problem = Some((version, message)));
    }

    /// The version in use is the one wanted after all.
    pub(crate) fn clear_problem(&self, name: &FunctionName) {
        if self.get(name).is_some_and(|known| known.problem.is_some()) {
            self.change(name, |known, _| known.problem = None);
        }
    }

    /// Forgets a function. Returns the version that was in use.
    pub(crate) fn remove(&self, name: &FunctionName) -> Retired {
        let mut table = self.known.write();
        let version = table.by_name.remove(name).and_then(|known| known.version);
        if let Some(version) = &version {
            table.residency.leave(version.compiled.code_bytes);
        }
        drop(table);
        self.callees.forget();
        self.meters.forget(name.as_str());
        self.changes.send_modify(|count| *count += 1);
        Retired(version.into_iter().collect())
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
            known.deployment.as_ref().map(|deployment| (known.function.name.clone(), deployment.version))
        });
        let problems = all.iter().filter_map(|known| {
            let (version, message) = known.problem.clone()?;
            Some(ComputerProblem { function: known.function.name.clone(), version, message })
        });
        (ready.collect(), problems.collect())
    }

    fn change(&self, name: &FunctionName, change: impl FnOnce(&mut Known, &mut Residency)) {
        let mut table = self.known.write();
        let Table { by_name, residency } = &mut *table;
        let known =
            by_name.entry(name.clone()).or_insert_with(|| Known::new(name, &self.hub, self.meters.of(name.as_str())));
        change(known, residency);
        drop(table);
        self.callees.forget();
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Table {
    /// Takes the code out of memory that was not used for longest, where there is too much; never that of `newest`.
    fn make_room(&mut self, newest: &FunctionName, retired: &mut Retired) {
        if !self.residency.is_over() {
            return;
        }
        let candidates = self.by_name.values().filter(|known| known.function.name != *newest).filter_map(|known| {
            let version = known.version.as_ref()?;
            let used_ms = known.function.used_ms.load(Ordering::Relaxed);
            Some(Candidate { used_ms, bytes: version.compiled.code_bytes, what: known.function.name.clone() })
        });
        for name in self.residency.choose(candidates.collect()) {
            if let Some(version) = self.by_name.get_mut(&name).and_then(|known| known.version.take()) {
                self.residency.leave(version.compiled.code_bytes);
                retired.0.push(version);
            }
        }
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
            brevity: Brevity::default(),
            conduct: Conduct::default(),
            loading: tokio::sync::Mutex::default(),
            used_ms: AtomicU64::new(0),
        };
        Self { function: Arc::new(function), deployment: None, version: None, problem: None }
    }
}
