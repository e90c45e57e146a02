//! Forwarding tables of brokers of the older system: read, compared with what they should be, and changed where they
//! differ. Reading first also mends what such a broker drops by itself: it forgets a destination at the first failure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nigh_proto::older::rpc;
use nigh_proto::{Broker, Endpoint, FunctionName, PlatformError, channel};
use nigh_routing::install::{Change, Forwarding, changes};
use parking_lot::Mutex;
use rpc::edge_router_client::EdgeRouterClient;
use tonic::transport::Channel;

/// Time for one request to a broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The weight of a destination until its broker has measured it.
const WEIGHT: f32 = 1.0;
/// The table of all destinations, and the one of final ones only.
const OVERALL: u32 = 0;

/// A broker's table.
pub(crate) type Wanted = Forwarding<FunctionName, Endpoint>;

/// Connections to the brokers, kept between visits.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    open: BTreeMap<Endpoint, Arc<Table>>,
}

/// One broker's table at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Table {
    endpoint: Endpoint,
    client: EdgeRouterClient<Channel>,
    /// What was written from here. Entries of others, made by hand, are not ours to remove.
    written: Mutex<BTreeSet<(FunctionName, Endpoint)>>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Forgets the connections to all but these brokers.
    pub(crate) fn keep<'a>(&mut self, brokers: impl Iterator<Item = &'a Endpoint>) {
        let brokers: BTreeSet<&Endpoint> = brokers.collect();
        self.open.retain(|broker, _| brokers.contains(broker));
    }

    /// A broker's table, if it has one.
    pub(crate) fn of(&mut self, broker: &Broker) -> Option<Arc<Table>> {
        let endpoint = broker.table_endpoint.as_ref()?;
        let open = self.open.get(&broker.endpoint).filter(|table| table.endpoint == *endpoint);
        if let Some(table) = open {
            return Some(table.clone());
        }
        let client = EdgeRouterClient::new(channel::connect_lazy(endpoint));
        let table = Arc::new(Table { endpoint: endpoint.clone(), client, written: Mutex::default() });
        self.open.insert(broker.endpoint.clone(), table.clone());
        Some(table)
    }
}

impl Table {
    /// Makes the table what it should be; weights that the broker has measured stay.
    pub(crate) async fn reconcile(&self, wanted: &Wanted) -> Result<(), PlatformError> {
        let mut found = self.read().await?;
        found.retain(|key, _| wanted.contains_key(key) || self.written.lock().contains(key));
        for change in changes(&found, wanted) {
            self.configure(change).await?;
        }
        *self.written.lock() = wanted.keys().cloned().collect();
        Ok(())
    }

    async fn read(&self) -> Result<Wanted, PlatformError> {
        let request = timed(rpc::TableId { value: OVERALL });
        let table = self.client.clone().get_table(request).await?.into_inner();
        // What is no name or endpoint of ours cannot have come from here.
        let entry = |entry: rpc::forwarding_table::Entry| {
            Some(((entry.lambda.parse().ok()?, entry.destination.parse().ok()?), entry.r#final))
        };
        Ok(table.entries.into_iter().filter_map(entry).collect())
    }

    async fn configure(&self, change: Change<FunctionName, Endpoint>) -> Result<(), PlatformError> {
        use rpc::edge_router_conf::Action;
        let configuration = match change {
            Change::Remove { function, destination } => rpc::EdgeRouterConf {
                action: Action::Remove.into(),
                lambda: function.to_string(),
                destination: destination.to_string(),
                ..rpc::EdgeRouterConf::default()
            },
            Change::Set { function, destination, is_final } => rpc::EdgeRouterConf {
                action: Action::Change.into(),
                lambda: function.to_string(),
                destination: destination.to_string(),
                weight: WEIGHT,
                r#final: is_final,
            },
        };
        let answer = self.client.clone().configure(timed(configuration)).await?.into_inner();
        if answer.msg.starts_with("Error") {
            let message = format!("the broker's table at {} refuses an entry: {}", self.endpoint, answer.msg);
            return Err(PlatformError::malformed(message));
        }
        Ok(())
    }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(REQUEST_TIMEOUT);
    request
}
