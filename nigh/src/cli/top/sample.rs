//! How everybody was at one time, as they tell themselves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nigh_client::{Admin, ComputerStatus, Inspect, Routes, Table};
use nigh_proto::{Broker, Endpoint, Labels, NodeName, PlatformError, Reason};

/// Time for a node to say how it is; it is shown as silent after that.
const ANSWER_MAX: Duration = Duration::from_millis(900);

/// One look at everybody.
pub(super) struct Sample {
    pub(super) taken: Instant,
    pub(super) computers: Vec<(NodeName, Endpoint, Labels, Result<ComputerStatus, PlatformError>)>,
    pub(super) brokers: Vec<(Broker, Result<Routes, PlatformError>)>,
}

/// Connections kept from one look to the next.
#[derive(Default)]
pub(super) struct Connections(BTreeMap<Endpoint, Inspect>);

impl Connections {
    fn to(&mut self, admin: &Admin, endpoint: &Endpoint) -> Inspect {
        self.0.entry(endpoint.clone()).or_insert_with(|| admin.inspect(endpoint.clone())).clone()
    }
}

impl Sample {
    /// Asks every computer and broker that the controller knows.
    ///
    /// # Errors
    /// Where the controller does not answer.
    pub(super) async fn take(admin: &Admin, connections: &mut Connections) -> Result<Self, PlatformError> {
        let listing = admin.list().await?;
        let tables = listing.brokers.iter().filter_map(|broker| broker.table_endpoint.as_ref());
        let present: Vec<&Endpoint> = listing.computers.iter().map(|one| &one.endpoint).chain(tables).collect();
        connections.0.retain(|endpoint, _| present.contains(&endpoint));
        let computers = listing.computers.iter().map(|computer| {
            let (name, endpoint) = (computer.name.clone(), computer.endpoint.clone());
            let (labels, inspect) = (computer.labels.clone(), connections.to(admin, &endpoint));
            async move { (name, endpoint, labels, in_time(inspect.status()).await) }
        });
        let computers = computers.collect::<Vec<_>>();
        let brokers = listing.brokers.iter().map(|broker| {
            let (broker, inspect) =
                (broker.clone(), broker.table_endpoint.as_ref().map(|table| connections.to(admin, table)));
            async move {
                let routes = match inspect {
                    Some(inspect) => in_time(inspect.routes(None, Table::Overall)).await,
                    None => Err(PlatformError::new(Reason::NotAllowed, "it offers no table to look into")),
                };
                (broker, routes)
            }
        });
        let brokers = brokers.collect::<Vec<_>>();
        let (computers, brokers) = tokio::join!(join_all(computers), join_all(brokers));
        Ok(Self { taken: Instant::now(), computers, brokers })
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, PlatformError>>) -> Result<T, PlatformError> {
    let silent = |_| Err(PlatformError::new(Reason::Late, "no answer in time"));
    tokio::time::timeout(ANSWER_MAX, answer).await.unwrap_or_else(silent)
}
