//! What the controller knows: functions deployed, and who is alive, each computer and broker by its lease.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nigh_proto::discovery::{self, WatchEvent};
use nigh_proto::membership::{Node, Topics};
use nigh_proto::{Deployment, Endpoint, FunctionName, NodeName};
use nigh_routing::install::{Hierarchy, address_of};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::RegistryError;
use crate::install::WantedTables;
use crate::presence::{Patience, RETURN};
use crate::publish::{Subscription, Watchers, concerns};

/// All topics at once.
pub(crate) const EVERYTHING: Topics = Topics { functions: true, computers: true, brokers: true };

/// Functions and nodes, and those who watch them.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    lease: Duration,
    nodes_max: usize,
    hierarchy: Option<Hierarchy>,
    /// A lease ends earlier than [`State::wakes_at`].
    ends_earlier: Notify,
    /// There are nodes to save.
    is_unsaved: Notify,
    leases_lost: AtomicU64,
    /// What brokers' tables should hold may have changed.
    is_rerouted: Notify,
}

/// How much the registry knows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) functions: usize,
    pub(crate) computers: usize,
    pub(crate) brokers: usize,
    pub(crate) watchers: usize,
    /// Leases that ran out since the start.
    pub(crate) leases_lost: u64,
}

#[derive(Debug)]
struct State {
    functions: BTreeMap<FunctionName, Arc<WatchEvent>>,
    nodes: BTreeMap<NodeName, Lease>,
    watchers: Watchers,
    patience: Patience,
    attendances: u64,
    hierarchy: Option<Arc<WatchEvent>>,
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
    /// It is heard from, by the attendance of this number.
    attendance: Option<u64>,
}

/// How far the controller may oversleep before it takes its own pause for the nodes' silence.
const OVERSLEPT: Duration = Duration::from_millis(100);

impl Registry {
    /// Begins with what was known before; its nodes count as alive for the time of grace.
    pub(crate) fn new(config: &Config, functions: Vec<Deployment>, nodes: Vec<Node>) -> Self {
        let ends = Instant::now() + config.grace;
        let lease = |node: Node| (node.name().clone(), Lease { upsert: upsert(&node), node, ends, attendance: None });
        let function = |function: Deployment| (function.name.clone(), Arc::new(WatchEvent::Function(function)));
        let state = State {
            functions: functions.into_iter().map(function).collect(),
            nodes: nodes.into_iter().map(lease).collect(),
            watchers: Watchers::new(config.watchers_max, config.watcher_queue_max),
            patience: Patience::new(config.silence, config.lease),
            attendances: 0,
            hierarchy: config.hierarchy.as_ref().map(|hierarchy| Arc::new(WatchEvent::Hierarchy(told(hierarchy)))),
            unsaved: BTreeSet::new(),
            wakes_at: None,
            is_closed: false,
        };
        Self {
            state: Mutex::new(state),
            lease: config.lease,
            nodes_max: config.nodes_max,
            hierarchy: config.hierarchy.clone(),
            ends_earlier: Notify::new(),
            is_unsaved: Notify::new(),
            leases_lost: AtomicU64::new(0),
            is_rerouted: Notify::new(),
        }
    }

    /// Begins or renews a lease, and returns how long it is. Of two who use the same name the newest wins.
    pub(crate) fn announce(&self, node: Node) -> Result<Duration, RegistryError> {
        if let Some(hierarchy) = &self.hierarchy {
            let address = address_of(node.endpoint().as_str());
            hierarchy.topology.distance(address, address)?;
        }
        let mut state = self.state.lock();
        let node = state.rightly_placed(node);
        let name = node.name().clone();
        let now = Instant::now();
        state.patience.is_there(&name, now);
        let silence = state.patience.of(&name, now);
        let mut ends = now + self.lease;
        if let Some(lease) = state.nodes.get_mut(&name) {
            if lease.attendance.is_some() {
                ends = now + silence;
            }
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
            state.nodes.insert(name.clone(), Lease { node, upsert: upsert.clone(), ends, attendance: None });
            self.changed(&mut state, name, &upsert);
        }
        if state.wakes_at.is_none_or(|at| ends < at) {
            self.ends_earlier.notify_one();
        }
        Ok(self.lease)
    }

    /// From now on the node is heard from: its lease ends when it falls silent. None where it is not (or no longer) reached
    /// there, so that it has to announce itself first; else the attendance's number.
    pub(crate) fn attend(&self, name: &NodeName, endpoint: &Endpoint) -> Option<u64> {
        let mut state = self.state.lock();
        let number = state.attendances + 1;
        let lease = state.nodes.get_mut(name).filter(|lease| lease.node.endpoint() == endpoint)?;
        lease.attendance = Some(number);
        state.attendances = number;
        drop(state);
        self.beat(name, number).then_some(number)
    }

    /// The node was heard from; false where this attendance counts no more.
    pub(crate) fn beat(&self, name: &NodeName, attendance: u64) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        let ends = now + state.patience.of(name, now);
        let Some(lease) = state.nodes.get_mut(name).filter(|lease| lease.attendance == Some(attendance)) else {
            return false;
        };
        lease.ends = ends;
        if state.wakes_at.is_none_or(|at| ends < at) {
            self.ends_earlier.notify_one();
        }
        true
    }

    /// The attendance has ended: unless the node comes back at once, it is gone.
    pub(crate) fn absent(&self, name: &NodeName, attendance: u64) {
        let mut state = self.state.lock();
        let ends = Instant::now() + RETURN;
        if let Some(lease) = state.nodes.get_mut(name).filter(|lease| lease.attendance == Some(attendance)) {
            lease.attendance = None;
            lease.ends = lease.ends.min(ends);
            self.ends_earlier.notify_one();
        }
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
        // A store that is shared tells of everything again when it is found again.
        if state.functions.get(&name) == Some(&upsert) {
            return;
        }
        state.functions.insert(name, upsert.clone());
        state.watchers.publish(&upsert);
        self.is_rerouted.notify_one();
    }

    /// Makes a removal known; the store has it already.
    pub(crate) fn removed(&self, name: &FunctionName) {
        let mut state = self.state.lock();
        if state.functions.remove(name).is_some() {
            state.watchers.publish(&Arc::new(WatchEvent::FunctionRemoved(name.clone())));
            self.is_rerouted.notify_one();
        }
    }

    /// A function as it is deployed.
    pub(crate) fn function(&self, name: &FunctionName) -> Option<Deployment> {
        match &**self.state.lock().functions.get(name)? {
            WatchEvent::Function(function) => Some(function.clone()),
            _ => None,
        }
    }

    /// Everything known, as upserts, each kind by name.
    pub(crate) fn snapshot(&self, topics: Topics) -> Vec<Arc<WatchEvent>> {
        self.state.lock().snapshot(topics)
    }

    /// A computer or broker that is alive.
    pub(crate) fn node(&self, name: &NodeName) -> Option<Node> {
        self.state.lock().nodes.get(name).map(|lease| lease.node.clone())
    }

    /// How much is known.
    pub(crate) fn census(&self) -> Census {
        let state = self.state.lock();
        let computers = state.nodes.values().filter(|lease| matches!(lease.node, Node::Computer(_))).count();
        Census {
            functions: state.functions.len(),
            computers,
            brokers: state.nodes.len() - computers,
            watchers: state.watchers.count(),
            leases_lost: self.leases_lost.load(Ordering::Relaxed),
        }
    }

    /// What each broker's table should hold.
    pub(crate) fn tables(&self) -> WantedTables {
        let state = self.state.lock();
        let nodes = state.nodes.values().map(|lease| &lease.node);
        WantedTables::new(nodes, |function| state.functions.contains_key(function), self.hierarchy.as_ref())
    }

    /// Waits until [`tables`](Self::tables) may have changed.
    pub(crate) async fn rerouted(&self) {
        self.is_rerouted.notified().await;
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
                () = sleep => self.forgive_own_pause(Instant::now()),
                () = self.ends_earlier.notified() => {}
            }
        }
    }

    /// Where the controller itself was held up, nodes may have been heard from and not listened to.
    fn forgive_own_pause(&self, now: Instant) {
        let mut state = self.state.lock();
        let Some(overslept) = state.wakes_at.map(|at| now.saturating_duration_since(at)) else { return };
        if overslept > OVERSLEPT {
            state
                .nodes
                .values_mut()
                .filter(|lease| lease.attendance.is_some())
                .for_each(|lease| lease.ends += overslept);
        }
    }

    /// Removes nodes whose leases have run out, and returns when the next one does.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let is_over = |(_, lease): &(&NodeName, &Lease)| lease.ends <= now;
        let over: Vec<NodeName> = state.nodes.iter().filter(is_over).map(|(name, _)| name.clone()).collect();
        for name in over {
            tracing::warn!(%name, "a node's lease ran out");
            state.patience.taken_for_gone(&name, now);
            self.leases_lost.fetch_add(1, Ordering::Relaxed);
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
        self.is_rerouted.notify_one();
    }
}

impl State {
    /// The node without the functions that it has ready though its labels do not allow them.
    fn rightly_placed(&self, mut node: Node) -> Node {
        if let Node::Computer(computer) = &mut node {
            let labels = &computer.labels;
            computer.ready.retain(|(name, _)| match self.functions.get(name).map(|event| &**event) {
                Some(WatchEvent::Function(function)) => function.placement.allows(labels),
                Some(_) | None => true,
            });
        }
        node
    }

    fn snapshot(&self, topics: Topics) -> Vec<Arc<WatchEvent>> {
        let nodes = self.nodes.values().map(|lease| &lease.upsert);
        self.hierarchy
            .iter()
            .chain(self.functions.values())
            .chain(nodes)
            .filter(|event| concerns(topics, event))
            .cloned()
            .collect()
    }
}

/// The hierarchy as watchers are told of it.
fn told(hierarchy: &Hierarchy) -> Arc<discovery::Hierarchy> {
    Arc::new(discovery::Hierarchy {
        addresses: hierarchy.topology.addresses().map(str::to_owned).collect(),
        distances: hierarchy.topology.distances().to_vec(),
        objective: hierarchy.objective.to_string(),
    })
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

#[cfg(test)]
mod tests {
    use nigh_proto::{Broker, Computer, Digest, Kind, Limits};
    use proptest::prelude::*;

    use super::*;

    fn config() -> Config {
        Config { watcher_queue_max: 4, nodes_max: 6, watchers_max: 3, ..Config::new("unused".into()) }
    }

    fn registry() -> Registry {
        Registry::new(&config(), Vec::new(), Vec::new())
    }

    fn computer(name: &str, port: u16, workers: u32) -> Node {
        Node::Computer(Computer {
            name: name.parse().unwrap(),
            endpoint: format!("127.0.0.1:{port}").parse().unwrap(),
            ready: Vec::new(),
            problems: Vec::new(),
            workers,
            directories: Vec::new(),
            own_functions: Vec::new(),
            older: false,
            labels: nigh_proto::Labels::default(),
        })
    }

    fn broker(name: &str, port: u16) -> Node {
        let endpoint = format!("127.0.0.1:{port}").parse().unwrap();
        let name = name.parse().unwrap();
        Node::Broker(Broker { name, endpoint, table_endpoint: None, http_endpoint: None, older: false })
    }

    fn function(name: &str, module: u8) -> Deployment {
        let digest = Digest::of(&[module]);
        Deployment::new(name.parse().unwrap(), digest, 1, Kind::Native, Limits::default(), Vec::new())
    }

    fn names(registry: &Registry) -> Vec<String> {
        registry.state.lock().nodes.keys().map(ToString::to_string).collect()
    }

    async fn change(watch: &mut Subscription) -> WatchEvent {
        (*watch.next().await.unwrap().unwrap()).clone()
    }

    /// Runs the expiring of leases beside a test's body.
    async fn with_expiring(registry: &Registry, body: impl Future<Output = ()>) {
        tokio::select! {
            () = body => {}
            never = registry.keep_expiring() => match never {},
        }
    }

    #[test]
    fn a_computer_is_not_said_to_serve_what_its_labels_do_not_allow() {
        let registry = registry();
        let placement = nigh_proto::Placement::from_wire(&["zone=shop".into()]).unwrap();
        let placed = function("placed", 1).placed(placement);
        registry.deployed(placed.clone());
        let serves = |zone: &str| {
            let Node::Computer(mut computer) = computer("a", 1, 1) else { panic!("a computer") };
            computer.ready = vec![(placed.name.clone(), placed.version), ("free".parse().unwrap(), placed.version)];
            computer.labels = nigh_proto::Labels::new([format!("zone={zone}").parse().unwrap()]).unwrap();
            registry.announce(Node::Computer(computer)).unwrap();
            let snapshot = registry.snapshot(Topics { computers: true, ..Topics::default() });
            let WatchEvent::Computer(told) = &*snapshot[0] else { panic!("a computer") };
            told.ready.len()
        };
        assert_eq!((serves("office"), serves("shop")), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_unless_renewed() {
        let registry = registry();
        let lease = config().lease;
        with_expiring(&registry, async {
            registry.announce(computer("a", 1, 1)).unwrap();
            registry.announce(computer("b", 2, 1)).unwrap();
            let mut watch = registry.watch(EVERYTHING).unwrap();
            for _ in 0..3 {
                watch.next().await.unwrap().unwrap();
            }
            tokio::time::sleep(lease / 2).await;
            registry.announce(computer("b", 2, 1)).unwrap();
            tokio::time::sleep(lease / 2 - Duration::from_millis(1)).await;
            assert_eq!(names(&registry), ["a", "b"]);
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert_eq!(names(&registry), ["b"]);
            assert_eq!(change(&mut watch).await, WatchEvent::ComputerRemoved("a".parse().unwrap()));
            tokio::time::sleep(lease).await;
            assert!(names(&registry).is_empty());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_known_before_a_restart_have_the_time_of_grace_and_newcomers_their_lease() {
        let config = config();
        assert!(config.grace > config.lease);
        let registry = Registry::new(&config, Vec::new(), vec![computer("old", 1, 1)]);
        with_expiring(&registry, async {
            // The wait for the end of the grace is under way already when the shorter lease begins.
            tokio::time::sleep(Duration::from_millis(10)).await;
            registry.announce(computer("new", 2, 1)).unwrap();
            tokio::time::sleep(config.lease + Duration::from_millis(2)).await;
            assert_eq!(names(&registry), ["old"]);
            tokio::time::sleep(config.grace - config.lease).await;
            assert!(names(&registry).is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn a_renewal_tells_watchers_nothing_and_a_change_tells_them_once() {
        let registry = registry();
        registry.announce(computer("a", 1, 1)).unwrap();
        let mut watch = registry.watch(EVERYTHING).unwrap();
        assert!(matches!(change(&mut watch).await, WatchEvent::Computer(_)));
        assert_eq!(change(&mut watch).await, WatchEvent::Synced);
        registry.announce(computer("a", 1, 1)).unwrap();
        registry.announce(computer("a", 1, 2)).unwrap();
        assert!(matches!(change(&mut watch).await, WatchEvent::Computer(computer) if computer.workers == 2));
        registry.announce(broker("a", 1)).unwrap();
        assert_eq!(change(&mut watch).await, WatchEvent::ComputerRemoved("a".parse().unwrap()));
        assert!(matches!(change(&mut watch).await, WatchEvent::Broker(_)));
        registry.close();
        assert!(watch.next().await.is_none());
        assert_eq!(registry.watch(EVERYTHING).unwrap_err(), RegistryError::Closed);
    }

    #[tokio::test]
    async fn the_newest_of_two_with_one_name_wins_and_the_other_cannot_withdraw_it() {
        let registry = registry();
        registry.announce(computer("a", 1, 1)).unwrap();
        registry.announce(computer("a", 2, 1)).unwrap();
        registry.withdraw(&"a".parse().unwrap(), Some(&"127.0.0.1:1".parse().unwrap()));
        assert_eq!(names(&registry), ["a"]);
        registry.withdraw(&"a".parse().unwrap(), Some(&"127.0.0.1:2".parse().unwrap()));
        assert!(names(&registry).is_empty());
        registry.withdraw(&"a".parse().unwrap(), None);
    }

    #[tokio::test]
    async fn nodes_and_watchers_are_bounded() {
        let registry = registry();
        for name in ["a", "b", "c", "d", "e", "f"] {
            registry.announce(computer(name, 1, 1)).unwrap();
        }
        assert_eq!(registry.announce(computer("g", 1, 1)).unwrap_err(), RegistryError::NodesFull(6));
        registry.announce(computer("a", 2, 1)).unwrap();
        let mut watches: Vec<_> = (0..3).map(|_| registry.watch(EVERYTHING).unwrap()).collect();
        assert_eq!(registry.watch(EVERYTHING).unwrap_err(), RegistryError::WatchersFull(3));
        watches.pop();
        registry.watch(EVERYTHING).unwrap();
    }

    #[tokio::test]
    async fn a_slow_watcher_is_cut_off_and_holds_up_nobody() {
        let registry = registry();
        let (mut slow, mut quick) = (registry.watch(EVERYTHING).unwrap(), registry.watch(EVERYTHING).unwrap());
        assert_eq!(change(&mut slow).await, WatchEvent::Synced);
        assert_eq!(change(&mut quick).await, WatchEvent::Synced);
        for workers in 0..6 {
            registry.announce(computer("a", 1, workers)).unwrap();
            assert!(matches!(change(&mut quick).await, WatchEvent::Computer(computer) if computer.workers == workers));
        }
        assert_eq!(slow.next().await.unwrap().unwrap_err(), RegistryError::TooSlow(4));
        assert!(slow.next().await.is_none());
        let mut again = registry.watch(EVERYTHING).unwrap();
        assert!(matches!(change(&mut again).await, WatchEvent::Computer(computer) if computer.workers == 5));
    }

    #[tokio::test]
    async fn what_is_to_be_saved_is_the_last_state_of_each_node() {
        let registry = registry();
        registry.announce(computer("a", 1, 1)).unwrap();
        registry.announce(computer("a", 1, 2)).unwrap();
        registry.announce(computer("b", 2, 1)).unwrap();
        registry.withdraw(&"b".parse().unwrap(), None);
        let unsaved = registry.unsaved().await;
        assert_eq!(unsaved, [("a".parse().unwrap(), Some(computer("a", 1, 2))), ("b".parse().unwrap(), None)]);
        assert!(registry.take_unsaved().is_empty());
        registry.put_back_unsaved(std::iter::once("b".parse().unwrap()));
        assert_eq!(registry.unsaved().await, [("b".parse().unwrap(), None)]);
    }

    /// One thing that happens to a registry or to one of its watchers.
    #[derive(Debug, Clone)]
    enum Step {
        Announce { name: usize, is_broker: bool, port: u16, workers: u32 },
        Withdraw { name: usize },
        Deploy { name: usize, module: u8 },
        Remove { name: usize },
        Pass { ms: u64 },
        Read { watcher: usize, events: usize },
        Leave { watcher: usize },
    }

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    const TOPICS: [Topics; 3] = [
        EVERYTHING,
        Topics { functions: true, computers: false, brokers: false },
        Topics { functions: false, computers: true, brokers: true },
    ];

    fn step() -> impl Strategy<Value = Step> {
        let name = 0..NAMES.len();
        prop_oneof![
            4 => (name.clone(), any::<bool>(), 1..3u16, 0..3u32)
                .prop_map(|(name, is_broker, port, workers)| Step::Announce { name, is_broker, port, workers }),
            1 => name.clone().prop_map(|name| Step::Withdraw { name }),
            2 => (name.clone(), 0..3u8).prop_map(|(name, module)| Step::Deploy { name, module }),
            1 => name.prop_map(|name| Step::Remove { name }),
            2 => (0..4000u64).prop_map(|ms| Step::Pass { ms }),
            4 => (0..TOPICS.len(), 1..8usize).prop_map(|(watcher, events)| Step::Read { watcher, events }),
            1 => (0..TOPICS.len()).prop_map(|watcher| Step::Leave { watcher }),
        ]
    }

    /// A watcher as nodes have it: what it believes, rebuilt from a snapshot whenever its watch ends.
    struct Reader {
        topics: Topics,
        watch: Option<Subscription>,
        is_synced: bool,
        view: BTreeMap<(char, String), WatchEvent>,
    }

    impl Reader {
        fn new(topics: Topics) -> Self {
            Self { topics, watch: None, is_synced: false, view: BTreeMap::new() }
        }

        /// Reads one event if there is one; false where there is none.
        async fn read(&mut self, registry: &Registry) -> bool {
            let Self { topics, watch, is_synced, view } = self;
            let watch = watch.get_or_insert_with(|| {
                view.clear();
                *is_synced = false;
                registry.watch(*topics).unwrap()
            });
            let next = tokio::select! {
                biased;
                next = watch.next() => next.unwrap(),
                () = std::future::ready(()) => return false,
            };
            match next {
                Ok(event) => match &*event {
                    WatchEvent::Function(one) => drop(view.insert(('f', one.name.to_string()), (*event).clone())),
                    WatchEvent::Computer(one) => drop(view.insert(('c', one.name.to_string()), (*event).clone())),
                    WatchEvent::Broker(one) => drop(view.insert(('b', one.name.to_string()), (*event).clone())),
                    WatchEvent::FunctionRemoved(name) => assert!(view.remove(&('f', name.to_string())).is_some()),
                    WatchEvent::ComputerRemoved(name) => assert!(view.remove(&('c', name.to_string())).is_some()),
                    WatchEvent::BrokerRemoved(name) => assert!(view.remove(&('b', name.to_string())).is_some()),
                    WatchEvent::Hierarchy(_) => panic!("none is configured"),
                    WatchEvent::Synced => *is_synced = true,
                },
                Err(error) => {
                    assert_eq!(error, RegistryError::TooSlow(4));
                    self.watch = None;
                }
            }
            true
        }

        async fn catch_up(&mut self, registry: &Registry) {
            while self.read(registry).await {}
            assert!(self.is_synced);
            let mut view: Vec<_> = self.view.values().cloned().collect();
            let mut known: Vec<_> = registry.snapshot(self.topics).iter().map(|event| (**event).clone()).collect();
            let order = |event: &WatchEvent| format!("{event:?}");
            view.sort_by_key(order);
            known.sort_by_key(order);
            assert_eq!(view, known);
        }
    }

    async fn take(step: Step, registry: &Registry, readers: &mut [Reader]) {
        match step {
            Step::Announce { name, is_broker: true, port, .. } => {
                registry.announce(broker(NAMES[name], port)).unwrap();
            }
            Step::Announce { name, is_broker: false, port, workers } => {
                registry.announce(computer(NAMES[name], port, workers)).unwrap();
            }
            Step::Withdraw { name } => registry.withdraw(&NAMES[name].parse().unwrap(), None),
            Step::Deploy { name, module } => registry.deployed(function(NAMES[name], module)),
            Step::Remove { name } => registry.removed(&NAMES[name].parse().unwrap()),
            Step::Pass { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Step::Read { watcher, events } => {
                for _ in 0..events {
                    readers[watcher].read(registry).await;
                }
            }
            Step::Leave { watcher } => readers[watcher].watch = None,
        }
    }

    proptest! {
        /// Whatever happens and however slowly watchers read, one that has caught up believes what the registry knows.
        #[test]
        fn watchers_that_have_caught_up_agree_with_the_registry(
            steps in prop::collection::vec(prop::collection::vec(step(), 1..30), 1..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let registry = registry();
                let mut readers: Vec<_> = TOPICS.iter().map(|topics| Reader::new(*topics)).collect();
                with_expiring(&registry, async {
                    for steps in steps {
                        for step in steps {
                            take(step, &registry, &mut readers).await;
                        }
                        for reader in &mut readers {
                            reader.catch_up(&registry).await;
                        }
                    }
                })
                .await;
            });
        }
    }

    #[test]
    fn no_change_falls_between_a_snapshot_and_what_follows_it() {
        let config = Config { watcher_queue_max: 100_000, ..config() };
        let registry = Registry::new(&config, Vec::new(), Vec::new());
        let watches = std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let registry = &registry;
                scope.spawn(move || {
                    for workers in 1..2000 {
                        registry.announce(computer(name, 1, workers)).unwrap();
                    }
                });
            }
            (0..3).map(|_| registry.watch(EVERYTHING).unwrap()).collect::<Vec<_>>()
        });
        registry.close();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for mut watch in watches {
            let mut last = BTreeMap::new();
            while let Some(event) = runtime.block_on(watch.next()) {
                let WatchEvent::Computer(computer) = (*event.unwrap()).clone() else { continue };
                if let Some(before) = last.insert(computer.name.clone(), computer.workers) {
                    assert_eq!(computer.workers, before + 1, "a change was lost, repeated or out of order");
                }
            }
            assert!(last.values().all(|workers| *workers == 1999) && last.len() == 2, "{last:?}");
        }
    }
}
