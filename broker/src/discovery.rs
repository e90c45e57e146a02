//! Keeps the forwarding table in step with the controller: a function's destinations are the live computers that have any
//! version of it ready, or bring it themselves; in a hierarchy, those that this broker is home to, and the homes of all
//! others. While the controller is away, what was learnt stays in use.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use nigh_proto::discovery::{self, WatchEvent};
use nigh_proto::membership::{Knowledge, Topics, keep_watching};
use nigh_proto::{Computer, Endpoint, FunctionName, Kind, NodeName, Remote};
use nigh_routing::install::{Forwarding, Hierarchy, Objective, Offer, Topology, flat};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::routes::{Routes, Serving};

/// Changes that may wait to be taken in, all of which are then taken in at once.
const CHANGES_WAITING_MAX: usize = 1024;

/// Time that computers have to announce themselves again where the broker finds its controller again and that does not know
/// of them, or where the last that serves a function is removed. The controller may only have been cut off from them; whoever
/// is truly gone refuses calls, and costs a try.
const FADING: Duration = Duration::from_secs(2);

/// Follows the controller for as long as the future is polled; `endpoint` is where this broker takes calls, as it is announced.
pub(crate) async fn follow(controller: Remote, endpoint: Endpoint, routes: Arc<Routes>) {
    let (tell, mut learnt) = mpsc::channel(CHANGES_WAITING_MAX);
    let topics = Topics { functions: true, computers: true, brokers: true };
    let watching = keep_watching(controller, topics, tell, CancellationToken::new());
    let applying = async {
        let mut known = Known::of(endpoint);
        let mut news = Vec::new();
        loop {
            let learning = learnt.recv_many(&mut news, CHANGES_WAITING_MAX);
            let learning = match known.fades_at {
                Some(at) => tokio::time::timeout_at(at, learning).await,
                None => Ok(learning.await),
            };
            match learning {
                Ok(0) => return,
                Ok(_) => news.drain(..).for_each(|knowledge| known.learn(knowledge)),
                Err(_) => known.fade(),
            }
            routes.announce(known.announced(), known.functions.clone());
        }
    };
    tokio::join!(watching, applying);
}

/// What the controller has told.
#[derive(Debug)]
struct Known {
    /// Where this broker takes calls, as the others know it.
    endpoint: Endpoint,
    functions: BTreeMap<FunctionName, Kind>,
    computers: HashMap<NodeName, Computer>,
    /// Of them, those that the controller has not told of since it was found again, and until when they are kept.
    fading: HashSet<NodeName>,
    fades_at: Option<Instant>,
    brokers: HashMap<NodeName, Endpoint>,
    hierarchy: Option<Hierarchy>,
}

impl Known {
    fn of(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            functions: BTreeMap::new(),
            computers: HashMap::new(),
            fading: HashSet::new(),
            fades_at: None,
            brokers: HashMap::new(),
            hierarchy: None,
        }
    }

    fn learn(&mut self, knowledge: Knowledge) {
        match knowledge {
            Knowledge::All(events) => {
                let before = std::mem::replace(self, Self::of(self.endpoint.clone()));
                events.into_iter().for_each(|event| self.change(event));
                for (name, computer) in before.computers {
                    let is_elsewhere = |other: &Computer| other.endpoint == computer.endpoint;
                    if !self.computers.contains_key(&name) && !self.computers.values().any(is_elsewhere) {
                        self.fading.insert(name.clone());
                        self.computers.insert(name, computer);
                    }
                }
                self.fades_at = (!self.fading.is_empty()).then(|| Instant::now() + FADING);
            }
            Knowledge::Change(event) => self.change(event),
        }
    }

    fn change(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Function(deployment) => {
                self.functions.insert(deployment.name, deployment.kind);
            }
            WatchEvent::FunctionRemoved(name) => {
                self.functions.remove(&name);
            }
            WatchEvent::Computer(computer) => {
                self.fading.remove(&computer.name);
                self.computers.insert(computer.name.clone(), computer);
            }
            WatchEvent::ComputerRemoved(name) => {
                if self.is_last_resort(&name) {
                    self.fading.insert(name);
                    self.fades_at.get_or_insert_with(|| Instant::now() + FADING);
                } else {
                    self.fading.remove(&name);
                    self.computers.remove(&name);
                }
            }
            WatchEvent::Broker(broker) => {
                self.brokers.insert(broker.name, broker.endpoint);
            }
            WatchEvent::BrokerRemoved(name) => {
                self.brokers.remove(&name);
            }
            WatchEvent::Hierarchy(told) => self.hierarchy = checked(&told),
            WatchEvent::Synced => {}
        }
    }

    /// Whether this computer serves a function that no other does, fading ones left out.
    fn is_last_resort(&self, name: &NodeName) -> bool {
        let serves =
            |computer: &Computer| computer.serves(|function| self.functions.contains_key(function)).cloned().collect();
        let Some(mut alone) = self.computers.get(name).map(serves) else { return false };
        let others = self.computers.values().filter(|other| other.name != *name && !self.fading.contains(&other.name));
        for other in others {
            let others_too: HashSet<FunctionName> = serves(other);
            alone.retain(|function: &FunctionName| !others_too.contains(function));
            if alone.is_empty() {
                return false;
            }
        }
        !alone.is_empty()
    }

    /// Forgets those that have not been told of again.
    fn fade(&mut self) {
        for name in self.fading.drain() {
            self.computers.remove(&name);
        }
        self.fades_at = None;
    }

    /// Who serves each function, as this broker is to know it; a function deployed that nobody serves is there with nobody.
    fn announced(&self) -> Serving {
        let mut announced: Serving =
            self.functions.keys().map(|function| (function.clone(), BTreeMap::new())).collect();
        for ((function, endpoint), is_final) in self.table() {
            announced.entry(function).or_default().insert(endpoint, is_final);
        }
        announced
    }

    fn table(&self) -> Forwarding<FunctionName, Endpoint> {
        let mut offers: Vec<_> = self.computers.values().map(|computer| self.offer(computer)).collect();
        let Some(hierarchy) = &self.hierarchy else { return flat(&offers) };
        offers.sort_by(|one, other| one.computer.cmp(&other.computer));
        let brokers = self.brokers.values().chain([&self.endpoint]).cloned().collect();
        hierarchy.tables(&offers, &brokers).remove(&self.endpoint).unwrap_or_default()
    }

    fn offer(&self, computer: &Computer) -> Offer<FunctionName, Endpoint> {
        let functions = computer.serves(|function| self.functions.contains_key(function)).cloned().collect();
        Offer { computer: computer.endpoint.clone(), functions }
    }
}

/// The hierarchy that was told of; none where it makes no sense, as then every broker that knows every computer still serves.
fn checked(told: &discovery::Hierarchy) -> Option<Hierarchy> {
    let topology = Topology::new(told.addresses.clone(), told.distances.clone()).map_err(|error| error.to_string());
    let objective = told.objective.parse::<Objective>().map_err(|error| error.to_string());
    match (topology, objective) {
        (Ok(topology), Ok(objective)) => Some(Hierarchy { topology, objective }),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "the controller's hierarchy makes no sense, going on without");
            None
        }
    }
}
