//! Who is alive and what is deployed: the registry of one edge.
//!
//! A request enters at `ingress`, which turns messages into checked values. `deploy` receives and judges modules and puts
//! them into the `store`, which may be shared by several controllers; `fetch` hands them out; `registry` knows functions, computers and brokers, and `publish` tells
//! watchers; `presence` hears from nodes; `states` knows which computer holds which state, `documents` what doors keep of functions. Nothing here is on the way of a call: an edge goes on running while its controller is away.

mod config;
mod deploy;
mod documents;
mod error;
mod fetch;
mod ingress;
mod install;
mod metrics;
mod older;
mod presence;
mod publish;
mod registry;
mod states;
mod store;

use std::sync::Arc;
use std::time::Duration;

use nigh_proto::membership::Node;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::deploy::Deployments;
use crate::documents::Documents;
use crate::fetch::Fetches;
use crate::ingress::Ingress;
use crate::registry::Registry;
use crate::states::States;
use crate::store::Store;

pub use config::Config;
pub use error::{Error, StoreError};

/// Wait before another try where records of nodes could not be written.
const SAVE_RETRY: Duration = Duration::from_secs(1);

/// Serves `nigh.v1.Controller` on `listener` until `shutdown`. Then ends watches, answers what is under way for at most
/// [`Config::drain`], and frees the store.
///
/// # Errors
/// [`Error`]: the operator has to act.
pub async fn run(listener: TcpListener, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    config.check()?;
    let opening = async { Ok::<_, StoreError>((Store::open(&config).await?, Documents::open(&config).await?)) };
    let Some(opened) = shutdown.run_until_cancelled(opening).await else { return Ok(()) };
    let ((store, known), documents) = opened?;
    let (functions, nodes) = (known.functions.len(), known.nodes.len());
    tracing::info!(store = %config.told_store(), functions, nodes, "the controller knows");
    let is_older = |node: &&Node| match node {
        Node::Computer(computer) => computer.older,
        Node::Broker(broker) => broker.older,
    };
    let older = known.nodes.iter().filter(is_older).cloned().collect();
    let registry = Arc::new(Registry::new(&config, known.functions, known.nodes));
    let deployments = Deployments::new(&config, store.clone(), registry.clone(), documents.clone());
    metrics::describe(&config, &registry, deployments.counts());
    config.telemetry.ready_when(|| Ok(()));
    let older = Arc::new(older::Nodes::new(registry.clone(), config.lease, config.nodes_max, older));
    let ingress = Ingress {
        registry: registry.clone(),
        deployments,
        fetches: Fetches::new(&config, store.clone()),
        older: older.clone(),
        beat: config.beat,
    };
    let states = States::new(store.clone(), registry.clone(), config.states_max);
    let stop = CancellationToken::new();
    let serve = async {
        let served = tokio::select! {
            served = ingress.serve(states, documents.clone(), listener, &config, shutdown.clone()) => served,
            () = overstayed(&registry, &config, &shutdown) => Ok(()),
            never = registry.keep_expiring() => match never {},
            never = older.look_after() => match never {},
            () = store.follow(&registry) => Ok(()),
            () = documents.follow() => Ok(()),
        };
        stop.cancel();
        served
    };
    let (served, ()) = tokio::join!(serve, keep_saving(&registry, &store, &stop));
    let saved = store.save_nodes(Arc::new(registry.take_unsaved())).await;
    documents.close();
    store.close().await.and(saved)?;
    served
}

/// Ends watches at `shutdown`, and returns once requests have had their time to finish.
async fn overstayed(registry: &Registry, config: &Config, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    config.telemetry.not_ready("the controller is stopping");
    registry.close();
    tokio::time::sleep(config.drain).await;
    tracing::warn!(after = ?config.drain, "requests were still under way and are cut off");
}

/// Keeps the records of nodes up to date until `stop`, so that brokers need not forget them when the controller restarts.
async fn keep_saving(registry: &Registry, store: &Store, stop: &CancellationToken) {
    loop {
        let unsaved = tokio::select! {
            unsaved = registry.unsaved() => Arc::new(unsaved),
            () = stop.cancelled() => return,
        };
        if let Err(error) = store.save_nodes(unsaved.clone()).await {
            tracing::error!(%error, "cannot save who is alive");
            registry.put_back_unsaved(unsaved.iter().map(|(name, _)| name.clone()));
            tokio::select! {
                () = tokio::time::sleep(SAVE_RETRY) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
