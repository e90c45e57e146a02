//! Keeps the forwarding table in step with the controller: a function's destinations are the live computers that have any
//! version of it ready. While the controller is away, what was learnt stays in use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::{Knowledge, Topics, keep_watching};
use nigh_proto::{Computer, FunctionName, Kind, NodeName, Remote};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::routes::{Announced, Routes};

/// Changes that may wait to be taken in, all of which are then taken in at once.
const CHANGES_WAITING_MAX: usize = 1024;

/// Follows the controller for as long as the future is polled.
pub(crate) async fn follow(controller: Remote, routes: Arc<Routes>) {
    let (tell, mut learnt) = mpsc::channel(CHANGES_WAITING_MAX);
    let topics = Topics { functions: true, computers: true, brokers: false };
    let watching = keep_watching(controller, topics, tell, CancellationToken::new());
    let applying = async {
        let mut known = Known::default();
        let mut news = Vec::new();
        while learnt.recv_many(&mut news, CHANGES_WAITING_MAX).await > 0 {
            news.drain(..).for_each(|knowledge| known.learn(knowledge));
            routes.announce(known.announced(), known.functions.clone());
        }
    };
    tokio::join!(watching, applying);
}

/// What the controller has told.
#[derive(Debug, Default)]
struct Known {
    functions: BTreeMap<FunctionName, Kind>,
    computers: HashMap<NodeName, Computer>,
}

impl Known {
    fn learn(&mut self, knowledge: Knowledge) {
        match knowledge {
            Knowledge::All(events) => {
                *self = Self::default();
                events.into_iter().for_each(|event| self.change(event));
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
                self.computers.insert(computer.name.clone(), computer);
            }
            WatchEvent::ComputerRemoved(name) => {
                self.computers.remove(&name);
            }
            WatchEvent::Broker(_) | WatchEvent::BrokerRemoved(_) | WatchEvent::Hierarchy(_) | WatchEvent::Synced => {}
        }
    }

    /// Who serves each function deployed, if anybody.
    fn announced(&self) -> Announced {
        let mut announced: Announced =
            self.functions.keys().map(|function| (function.clone(), BTreeSet::new())).collect();
        for computer in self.computers.values() {
            for (function, _) in &computer.ready {
                if let Some(endpoints) = announced.get_mut(function) {
                    endpoints.insert(computer.endpoint.clone());
                }
            }
            for function in &computer.own_functions {
                announced.entry(function.clone()).or_default().insert(computer.endpoint.clone());
            }
        }
        announced
    }
}
