//! Waiting until the computers of an edge can run a version.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::{Knowledge, Topics, keep_watching};
use nigh_proto::{Computer, Digest, Endpoint, FunctionName, Labels, NodeName, Placement, Remote};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Changes that wait to be looked at.
const CHANGES_QUEUED_MAX: usize = 64;

/// How far the computers alive are with one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Those that can run it.
    pub ready: Vec<NodeName>,
    /// Those that cannot, and why.
    pub problems: Vec<(NodeName, String)>,
    /// Those that are still at it.
    pub preparing: Vec<NodeName>,
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ready on {}, being prepared on {}", self.ready.len(), self.preparing.len())?;
        self.problems.iter().try_for_each(|(name, problem)| write!(f, "; {name}: {problem}"))
    }
}

/// A function, and computers none of which may run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    /// What the function asks for.
    pub placement: Placement,
    /// The computers alive.
    pub computers: Vec<(NodeName, Labels)>,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { placement, computers } = self;
        write!(f, "no computer matches {placement}")?;
        if let several @ [_, _, ..] = placement.constraints() {
            for constraint in several {
                let matching = computers.iter().filter(|(_, labels)| constraint.is_met_by(labels));
                let matching: Vec<_> = matching.map(|(name, _)| name.as_str()).collect();
                let who = if matching.is_empty() { "nobody".to_owned() } else { matching.join(", ") };
                write!(f, "; {constraint}: {who}")?;
            }
        }
        f.write_str("; alive: ")?;
        for (at, (name, labels)) in computers.iter().enumerate() {
            let separator = if at > 0 { ", " } else { "" };
            let labels = if labels.is_empty() { "no labels".to_owned() } else { labels.to_string() };
            write!(f, "{separator}{name} ({labels})")?;
        }
        f.write_str(". It will run where a computer starts with these labels: nigh computer --label KEY=VALUE")
    }
}

/// Why a version did not become ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadyError {
    /// No computer alive can run it. Whoever deployed it has to act; waiting does not help.
    #[error("no computer can run it: {0}")]
    Failed(Readiness),
    /// Another version was deployed meanwhile.
    #[error("version {} was deployed in its place meanwhile", by.short())]
    Replaced {
        /// The version that is deployed now.
        by: Digest,
    },
    /// It is not deployed (any more).
    #[error("the function is not deployed; was it removed meanwhile?")]
    Removed,
    /// Not all computers were done in time; they go on.
    #[error("not all computers were done within {timeout:?}: {readiness}")]
    Late {
        /// How far they were.
        readiness: Readiness,
        /// The time they had.
        timeout: Duration,
    },
    /// Those alive do not have the labels that it asks for.
    #[error("{0}")]
    Misplaced(Misplaced),
    /// There was nobody to run it.
    #[error(
        "no computer is alive that runs what is deployed; start one: `nigh computer`, or `nigh up` for a whole edge"
    )]
    NoComputer,
    /// Nothing was learnt of it.
    #[error("nothing was heard from the controller at {controller} within {timeout:?}; is `nigh up` running there?")]
    Unreachable {
        /// Where the controller should be.
        controller: Endpoint,
        /// How long it was tried.
        timeout: Duration,
    },
}

/// See [`Admin::await_ready`](crate::Admin::await_ready).
pub(crate) async fn await_ready(
    controller: Remote,
    name: &FunctionName,
    version: Digest,
    timeout: Duration,
    mut on_change: impl FnMut(&Readiness),
) -> Result<Readiness, ReadyError> {
    let (learnt, mut changes) = mpsc::channel(CHANGES_QUEUED_MAX);
    let stop = CancellationToken::new();
    let _stop_when_done = stop.clone().drop_guard();
    let topics = Topics { functions: true, computers: true, brokers: false };
    tokio::spawn(keep_watching(controller.clone(), topics, learnt, stop));
    let mut view = View { name, version, deployed: None, placement: Placement::default(), computers: BTreeMap::new() };
    let mut last = None;
    let settled = async {
        while let Some(knowledge) = changes.recv().await {
            view.learn(knowledge);
            let readiness = view.readiness();
            if last.as_ref() != Some(&readiness) {
                on_change(&readiness);
                last = Some(readiness.clone());
            }
            if let Some(settled) = view.settled(readiness) {
                return settled;
            }
        }
        std::future::pending().await
    };
    match tokio::time::timeout(timeout, settled).await {
        Ok(settled) => settled,
        Err(_) => Err(match last {
            None => ReadyError::Unreachable { controller: controller.endpoint, timeout },
            Some(readiness) if readiness == Readiness::default() => ReadyError::NoComputer,
            Some(readiness) => ReadyError::Late { readiness, timeout },
        }),
    }
}

/// What is known of one function and the computers that may run it.
struct View<'a> {
    name: &'a FunctionName,
    version: Digest,
    deployed: Option<Digest>,
    placement: Placement,
    computers: BTreeMap<NodeName, Computer>,
}

impl View<'_> {
    fn learn(&mut self, knowledge: Knowledge) {
        match knowledge {
            Knowledge::All(events) => {
                self.deployed = None;
                self.computers.clear();
                events.into_iter().for_each(|event| self.take(event));
            }
            Knowledge::Change(event) => self.take(event),
        }
    }

    fn take(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Function(function) if function.name == *self.name => {
                (self.deployed, self.placement) = (Some(function.version), function.placement);
            }
            WatchEvent::FunctionRemoved(name) if name == *self.name => self.deployed = None,
            WatchEvent::Computer(computer) => drop(self.computers.insert(computer.name.clone(), computer)),
            WatchEvent::ComputerRemoved(name) => drop(self.computers.remove(&name)),
            WatchEvent::Function(_)
            | WatchEvent::FunctionRemoved(_)
            | WatchEvent::Broker(_)
            | WatchEvent::BrokerRemoved(_)
            | WatchEvent::Hierarchy(_)
            | WatchEvent::Synced => {}
        }
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::default();
        // One that runs only what it brings itself has nothing to prepare.
        let may = |computer: &Computer| computer.takes_deployments() && self.placement.allows(&computer.labels);
        for (name, computer) in self.computers.iter().filter(|(_, computer)| may(computer)) {
            let mut problems = computer.problems.iter();
            let problem = problems.find(|problem| problem.function == *self.name && problem.version == self.version);
            if computer.ready.iter().any(|(function, version)| function == self.name && *version == self.version) {
                readiness.ready.push(name.clone());
            } else if let Some(problem) = problem {
                readiness.problems.push((name.clone(), problem.message.clone()));
            } else {
                readiness.preparing.push(name.clone());
            }
        }
        readiness
    }

    /// The end of the wait, if this is one.
    fn settled(&self, readiness: Readiness) -> Option<Result<Readiness, ReadyError>> {
        match self.deployed {
            None => Some(Err(ReadyError::Removed)),
            Some(by) if by != self.version => Some(Err(ReadyError::Replaced { by })),
            Some(_) if !readiness.preparing.is_empty() => None,
            Some(_) if !readiness.ready.is_empty() => Some(Ok(readiness)),
            Some(_) if !readiness.problems.is_empty() => Some(Err(ReadyError::Failed(readiness))),
            Some(_) if self.computers.values().any(Computer::takes_deployments) => {
                let takers = self.computers.values().filter(|computer| computer.takes_deployments());
                let computers = takers.map(|one| (one.name.clone(), one.labels.clone())).collect();
                Some(Err(ReadyError::Misplaced(Misplaced { placement: self.placement.clone(), computers })))
            }
            Some(_) => None,
        }
    }
}
