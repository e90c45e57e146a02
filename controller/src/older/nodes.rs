//! Who of the older system is there: asked at the door in the rhythm of leases.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use nigh_proto::membership::Node;
use nigh_proto::{Broker, Computer, Endpoint, NodeName, PlatformError, Reason};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::table::{Table, Tables};
use crate::registry::Registry;

/// Visits within one lease, as many as others announce themselves.
const VISITS_PER_LEASE: u32 = 3;
/// Time for a connection to a node.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Nodes visited at once.
const VISITS_AT_ONCE: usize = 32;
/// Time that a computer reported as failed is left out, so that one which stops is not taken for alive on its way down.
const SUSPECTED: Duration = Duration::from_secs(2);
/// Time after which a node that was never reached again is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// The nodes of the older system.
#[derive(Debug)]
pub(crate) struct Nodes {
    registry: Arc<Registry>,
    lease: Duration,
    nodes_max: usize,
    known: Mutex<BTreeMap<NodeName, Known>>,
    news: Notify,
}

#[derive(Debug, Clone)]
struct Known {
    node: Node,
    /// When it was reached last, or announced.
    seen: Instant,
    /// Left out until then.
    suspected_until: Option<Instant>,
}

impl Nodes {
    /// Those known before a restart, to begin with.
    pub(crate) fn new(registry: Arc<Registry>, lease: Duration, nodes_max: usize, before: Vec<Node>) -> Self {
        let seen = Instant::now();
        let known = |node: Node| (node.name().clone(), Known { node, seen, suspected_until: None });
        let known = before.into_iter().map(known).collect();
        Self { registry, lease, nodes_max, known: Mutex::new(known), news: Notify::new() }
    }

    /// A computer has announced itself.
    pub(crate) fn computer(&self, computer: Computer) -> Result<(), PlatformError> {
        self.learn(Node::Computer(computer))
    }

    /// A broker has announced itself.
    pub(crate) fn broker(&self, broker: Broker) -> Result<(), PlatformError> {
        self.learn(Node::Broker(broker))
    }

    /// A computer stops, or a broker could not get an answer from it: it is left out for a while, and comes back if it can
    /// then be reached. Brokers of the older system report every failed call so, be it the computer's fault or not.
    pub(crate) fn suspect(&self, endpoint: &Endpoint) {
        let mut known = self.known.lock();
        let suspected = known.values_mut().find(|known| known.node.endpoint() == endpoint);
        let Some(suspected) = suspected else { return };
        suspected.suspected_until = Some(Instant::now() + SUSPECTED);
        let name = suspected.node.name().clone();
        drop(known);
        self.registry.withdraw(&name, Some(endpoint));
        self.news.notify_one();
    }

    fn learn(&self, node: Node) -> Result<(), PlatformError> {
        let mut known = self.known.lock();
        if known.len() >= self.nodes_max && !known.contains_key(node.name()) {
            let message = format!("{} nodes of the older system are known, as many as may be", self.nodes_max);
            return Err(PlatformError::new(Reason::OutOfBudget, message));
        }
        // At once, so that calls may come before the first visit: it would not have announced itself otherwise.
        self.registry.announce(node.clone()).map_err(PlatformError::from)?;
        known.insert(node.name().clone(), Known { node, seen: Instant::now(), suspected_until: None });
        drop(known);
        self.news.notify_one();
        Ok(())
    }

    /// Visits them for as long as it is polled.
    pub(crate) async fn look_after(&self) -> std::convert::Infallible {
        let mut tables = Tables::new();
        loop {
            let now = Instant::now();
            self.known.lock().retain(|_, known| now.saturating_duration_since(known.seen) < FORGOTTEN_AFTER);
            let due: Vec<Node> = {
                let known = self.known.lock();
                let is_due = |known: &&Known| known.suspected_until.is_none_or(|until| until <= now);
                known.values().filter(is_due).map(|known| known.node.clone()).collect()
            };
            let wanted = Arc::new(self.registry.tables());
            tables.keep(due.iter().filter_map(|node| match node {
                Node::Broker(broker) => Some(&broker.endpoint),
                Node::Computer(_) => None,
            }));
            let visits = due.into_iter().map(|node| {
                let table = match &node {
                    Node::Broker(broker) => tables.of(broker),
                    Node::Computer(_) => None,
                };
                let wanted = wanted.clone();
                async move {
                    let there = visit(&node, table, &wanted).await;
                    (node, there)
                }
            });
            let visited: Vec<(Node, bool)> = stream::iter(visits).buffer_unordered(VISITS_AT_ONCE).collect().await;
            for (node, _) in visited.into_iter().filter(|(_, is_there)| *is_there) {
                self.seen(&node);
            }
            tokio::select! {
                () = tokio::time::sleep(self.lease / VISITS_PER_LEASE) => {}
                () = self.news.notified() => {}
                () = self.registry.rerouted() => {}
            }
        }
    }

    fn seen(&self, node: &Node) {
        let mut known = self.known.lock();
        let Some(known) = known.get_mut(node.name()) else { return };
        // It may have been announced anew, or reported, during the visit.
        if known.node != *node || known.suspected_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        known.seen = Instant::now();
        known.suspected_until = None;
        if let Err(error) = self.registry.announce(node.clone()) {
            tracing::warn!(%error, node = %node.name(), "a node of the older system is left out");
        }
    }
}

/// Whether a node is there; a broker's table is brought up to date on the way.
async fn visit(node: &Node, table: Option<Arc<Table>>, wanted: &crate::install::WantedTables) -> bool {
    match (node, table) {
        (Node::Computer(computer), _) => is_reached(&computer.endpoint).await,
        (Node::Broker(broker), Some(table)) => {
            let reconciled = table.reconcile(wanted.of(&broker.endpoint)).await;
            if let Err(error) = &reconciled {
                tracing::debug!(broker = %broker.name, %error, "cannot bring its table up to date");
            }
            reconciled.is_ok()
        }
        (Node::Broker(_), None) => false,
    }
}

fn is_reached(endpoint: &Endpoint) -> impl Future<Output = bool> + use<> {
    let endpoint = endpoint.to_string();
    async move { matches!(timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await, Ok(Ok(_))) }
}
