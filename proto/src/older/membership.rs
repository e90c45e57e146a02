//! Being known to a controller of the older system. It takes no leases, forgets everything when it restarts and tells
//! nobody, so nodes announce themselves again and again; what it knows already it ignores.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::rpc;
use super::rpc::edge_controller_client::EdgeControllerClient;
use crate::channel;
use crate::membership::Node;
use crate::name::Endpoint;
use crate::status::PlatformError;

/// Time between two announcements.
const INTERVAL: Duration = Duration::from_secs(10);
/// Time between two tries to reach a controller that is away.
const RETRY: Duration = Duration::from_secs(1);
/// Time for one announcement or removal.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps a node announced until `shutdown`, then takes a computer back; that system has no way to take back a broker.
/// Announces at once whenever `node` changes.
pub async fn keep_announced(controller: Endpoint, mut node: watch::Receiver<Node>, shutdown: CancellationToken) {
    let client = EdgeControllerClient::new(channel::connect_lazy(&controller));
    let mut reached = false;
    loop {
        let announced = node.borrow_and_update().clone();
        let result = announce(client.clone(), &announced).await;
        match &result {
            Ok(()) if !reached => tracing::info!(%controller, "announced to a controller of the older system"),
            Ok(()) => {}
            Err(error) if reached => tracing::warn!(%controller, %error, "cannot announce, will try again"),
            Err(error) => tracing::debug!(%controller, %error, "cannot announce yet"),
        }
        reached = result.is_ok();
        tokio::select! {
            () = tokio::time::sleep(if reached { INTERVAL } else { RETRY }) => {}
            changed = node.changed() => if changed.is_err() { break },
            () = shutdown.cancelled() => break,
        }
    }
    let last = node.borrow().clone();
    if let Node::Computer(computer) = last {
        // Best effort: whoever cannot call it any more reports it as failed.
        let _ = client.clone().remove_computer(timed(computer_info(&computer))).await;
    }
}

/// Computers reported that may wait until the controller has heard of those before.
pub const REPORTS_WAITING_MAX: usize = 64;

/// Tells a controller of computers that cannot be reached, as brokers do there, until nobody reports any more. It forgets them
/// until they announce themselves again.
pub async fn keep_reporting(controller: Endpoint, mut unreachable: mpsc::Receiver<Endpoint>) {
    let mut client = EdgeControllerClient::new(channel::connect_lazy(&controller));
    while let Some(endpoint) = unreachable.recv().await {
        let gone = rpc::ComputerInfo { edge_server_endpoint: endpoint.to_string(), containers: Vec::new() };
        match client.remove_computer(timed(gone)).await {
            Ok(_) => tracing::info!(%controller, %endpoint, "reported as unreachable"),
            Err(error) => tracing::debug!(%controller, %endpoint, %error, "cannot report as unreachable"),
        }
    }
}

async fn announce(mut client: EdgeControllerClient<Channel>, node: &Node) -> Result<(), PlatformError> {
    match node {
        Node::Computer(computer) => client.announce_computer(timed(computer_info(computer))).await?,
        Node::Broker(broker) => {
            let table = broker.table_endpoint.as_ref().unwrap_or(&broker.endpoint);
            let info = rpc::RouterInfo {
                edge_server_endpoint: broker.endpoint.to_string(),
                forwarding_table_endpoint: table.to_string(),
            };
            client.announce_router(timed(info)).await?
        }
    };
    Ok(())
}

fn computer_info(computer: &crate::Computer) -> rpc::ComputerInfo {
    let functions = computer.serves(|_| true);
    let container = |function: &crate::FunctionName| rpc::Container {
        name: function.to_string(),
        processor: std::env::consts::ARCH.to_owned(),
        lambda: function.to_string(),
        num_workers: computer.workers,
    };
    rpc::ComputerInfo {
        edge_server_endpoint: computer.endpoint.to_string(),
        containers: functions.map(container).collect(),
    }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(REQUEST_TIMEOUT);
    request
}
