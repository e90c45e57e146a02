//! What the controller knows: functions deployed, and who is alive, each computer and broker by its lease.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::{Node, Topics};
use nigh_proto::{Deployment, Endpoint, FunctionName, NodeName};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::RegistryError;
use crate::publish::{Subscription, Watchers, concerns};

/// All topics at once.
pub(crate) const EVERYTHING: Topics = Topics { functions: true, computers: true, brokers: true };

/// Functions and nodes, and those who watch them.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    lease: Duration,
    nodes_max: usize,
    /// A lease ends earlier than [`State::wakes_at`].
    ends_earlier: Notify,
    /// There are nodes to save.
    is_unsaved: Notify,
}

#[derive(Debug)]
struct State {
    functions: BTreeMap<FunctionName, Arc<WatchEvent>>,
    nodes: BTreeMap<NodeName, Lease>,
    watchers: Watchers,
    /// Nodes whose record in the store is not the one here.
    unsaved: BTreeSet<NodeName>,
    /// When [`Registry::keep_expiring`] looks again.
    wakes_at: Option<Instant>,
    is_closed: bool,
}

#[derive(Debug)]
struct Lease {
    node: Node,
    upsert: Arc<WatchEvent>,
    ends: Instant,
}

impl Registry {
    /// Begins with what was known before; its nodes count as alive for the time of grace.
    pub(crate) fn new(config: &Config, functions: Vec<Deployment>, nodes: Vec<Node>) -> Self {
        let ends = Instant::now() + config.grace;
        let lease = |node: Node| (node.name().clone(), Lease { upsert: upsert(&node), node, ends });
        let function = |function: Deployment| (function.name.clone(), Arc::new(WatchEvent::Function(function)));
        let state = State {
            functions: functions.into_iter().map(function).collect(),
            nodes: nodes.into_iter().map(lease).collect(),
            watchers: Watchers::new(config.watchers_max, config.watcher_queue_max),
            unsaved: BTreeSet::new(),
            wakes_at: None,
            is_closed: false,
        };
        Self {
            state: Mutex::new(state),
            lease: config.lease,
            nodes_max: config.nodes_max,
            ends_earlier: Notify::new(),
            is_unsaved: Notify::new(),
        }
    }

    /// Begins or renews a lease, and returns how long it is. Of two who use the same name the newest wins.
    pub(crate) fn announce(&self, node: Node) -> Result<Duration, RegistryError> {
        let mut state = self.state.lock();
        let name = node.name().clone();
        let ends = Instant::now() + self.lease;
        if let Some(lease) = state.nodes.get_mut(&name) {
            lease.ends = ends;
            if lease.node != node {
                let before = std::mem::replace(&mut lease.node, node);
                lease.upsert = upsert(&lease.node);
                let after = lease.upsert.clone();
                if before.endpoint() != lease.node.endpoint() {
                    let (was, now) = (before.endpoint(), lease.node.endpoint());
                    tracing::warn!(%name, %was, %now, "a node moved; if both run, give each a name of its own");
                }
                if std::mem::discriminant(&before) != std::mem::discriminant(&lease.node) {
                    state.watchers.publish(&removal(&before));
                }
                self.changed(&mut state, name, &after);
            }
        } else {
            if state.nodes.len() >= self.nodes_max {
                return Err(RegistryError::NodesFull(self.nodes_max));
            }
            tracing::info!(%name, endpoint = %node.endpoint(), "a node is alive");
            let upsert = upsert(&node);
            state.nodes.insert(name.clone(), Lease { node, upsert: upsert.clone(), ends });
            self.changed(&mut state, name, &upsert);
        }
        if state.wakes_at.is_none_or(|at| ends < at) {
            self.ends_earlier.notify_one();
        }
        Ok(self.lease)
    }

    /// Ends a lease early, if its node is (still) reached there.
    pub(crate) fn withdraw(&self, name: &NodeName, endpoint: Option<&Endpoint>) {
        let mut state = self.state.lock();
        let is_meant = |lease: &Lease| endpoint.is_none_or(|endpoint| lease.node.endpoint() == endpoint);
        if state.nodes.get(name).is_some_and(is_meant) {
            tracing::info!(%name, "a node withdrew");
            self.remove_node(&mut state, name);
        }
    }

    /// Makes a deployment known; the store has it already.
    pub(crate) fn deployed(&self, function: Deployment) {
        let mut state = self.state.lock();
        let name = function.name.clone();
        let upsert = Arc::new(WatchEvent::Function(function));
        state.functions.insert(name, upsert.clone());
        state.watchers.publish(&upsert);
    }

    /// Makes a removal known; the store has it already.
    pub(crate) fn removed(&self, name: &FunctionName) {
        let mut state = self.state.lock();
        if state.functions.remove(name).is_some() {
            state.watchers.publish(&Arc::new(WatchEvent::FunctionRemoved(name.clone())));
        }
    }

    /// Everything known, as upserts, each kind by name.
    pub(crate) fn snapshot(&self, topics: Topics) -> Vec<Arc<WatchEvent>> {
        self.state.lock().snapshot(topics)
    }

    /// Begins a watch.
    pub(crate) fn watch(&self, topics: Topics) -> Result<Subscription, RegistryError> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(RegistryError::Closed);
        }
        let snapshot = state.snapshot(topics);
        state.watchers.add(topics, snapshot)
    }

    /// Ends all watches, for good.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.watchers.end();
    }

    /// Removes nodes as their leases run out.
    pub(crate) async fn keep_expiring(&self) -> Infallible {
        loop {
            let wakes_at = self.expire(Instant::now());
            let sleep = async {
                match wakes_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.ends_earlier.notified() => {}
            }
        }
    }

    /// Removes nodes whose leases have run out, and returns when the next one does.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let is_over = |(_, lease): &(&NodeName, &Lease)| lease.ends <= now;
        let over: Vec<NodeName> = state.nodes.iter().filter(is_over).map(|(name, _)| name.clone()).collect();
        for name in over {
            tracing::warn!(%name, "a node's lease ran out");
            self.remove_node(&mut state, &name);
        }
        state.wakes_at = state.nodes.values().map(|lease| lease.ends).min();
        state.wakes_at
    }

    /// Waits until there are nodes to save, and takes them: the record of each, `None` where it is gone.
    pub(crate) async fn unsaved(&self) -> Vec<(NodeName, Option<Node>)> {
        loop {
            let unsaved = self.take_unsaved();
            if !unsaved.is_empty() {
                return unsaved;
            }
            self.is_unsaved.notified().await;
        }
    }

    /// The nodes to save, as they are.
    pub(crate) fn take_unsaved(&self) -> Vec<(NodeName, Option<Node>)> {
        let mut state = self.state.lock();
        let names = std::mem::take(&mut state.unsaved);
        let record = |name: NodeName| {
            let node = state.nodes.get(&name).map(|lease| lease.node.clone());
            (name, node)
        };
        names.into_iter().map(record).collect()
    }

    /// Has nodes saved again whose saving failed.
    pub(crate) fn put_back_unsaved(&self, names: impl Iterator<Item = NodeName>) {
        self.state.lock().unsaved.extend(names);
        self.is_unsaved.notify_one();
    }

    fn remove_node(&self, state: &mut State, name: &NodeName) {
        if let Some(lease) = state.nodes.remove(name) {
            self.changed(state, name.clone(), &removal(&lease.node));
        }
    }

    fn changed(&self, state: &mut State, name: NodeName, event: &Arc<WatchEvent>) {
        state.watchers.publish(event);
        state.unsaved.insert(name);
        self.is_unsaved.notify_one();
    }
}

impl State {
    fn snapshot(&self, topics: Topics) -> Vec<Arc<WatchEvent>> {
        let nodes = self.nodes.values().map(|lease| &lease.upsert);
        self.functions.values().chain(nodes).filter(|event| concerns(topics, event)).cloned().collect()
    }
}

fn upsert(node: &Node) -> Arc<WatchEvent> {
    Arc::new(match node.clone() {
        Node::Computer(computer) => WatchEvent::Computer(computer),
        Node::Broker(broker) => WatchEvent::Broker(broker),
    })
}

fn removal(node: &Node) -> Arc<WatchEvent> {
    Arc::new(match node {
        Node::Computer(computer) => WatchEvent::ComputerRemoved(computer.name.clone()),
        Node::Broker(broker) => WatchEvent::BrokerRemoved(broker.name.clone()),
    })
}
