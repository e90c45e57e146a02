//! The computer's doors: calls (`nigh.v1.Functions`), and what people and tools want to see of it (`nigh.v1.Computer`), on one
//! port; calls over HTTP on another, where it has one. They are the same whatever runs its functions.

mod inside;
mod logs;

use std::sync::Arc;

use nigh_proto::CallLimits;
use nigh_proto::channel::{self, Door};
use nigh_proto::ingress::{Ingress, http};
use nigh_proto::older::EdgeIngress;
use nigh_proto::older::rpc::edge_computer_server::EdgeComputerServer;
use nigh_proto::tls::HttpClients;
use nigh_proto::v1::computer_server::ComputerServer;
use nigh_state::ingress::Door as StateDoor;
use tokio_util::sync::CancellationToken;

use self::inside::Inside;
use crate::computer::Computer;
use crate::computing::Computing;
use crate::error::Error;

/// Where calls come in.
pub(crate) struct Doors {
    /// Over gRPC, with all that there is to see of the computer.
    pub(crate) calls: Door,
    /// Over HTTP.
    pub(crate) http: Option<Door>,
    /// Whom that one lets in.
    pub(crate) http_clients: HttpClients,
}

/// Serves a computer's doors until `shutdown`, and then until all calls under way have been answered.
pub(crate) async fn serve<C: Computing>(
    computer: Arc<C>,
    doors: Doors,
    limits: CallLimits,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let Doors { calls: door, http, http_clients } = doors;
    let inside = Inside::new(computer.clone(), shutdown.clone());
    let states = StateDoor::new(computer.states().clone());
    let over_http = async {
        let Some(door) = http else { return };
        http::serve(door, http_clients, Arc::new(inside.clone()), limits.clone(), shutdown.clone()).await;
    };
    let functions = Ingress::service_within(computer.clone(), limits.clone(), door.limits(), shutdown.clone());
    let services = channel::server_within(door.limits())
        .add_service(functions)
        .add_service(EdgeIngress::service(computer, limits.clone()))
        .add_service(EdgeComputerServer::new(inside.clone()))
        .add_service(states.service())
        .add_service(states.older_service())
        .add_service(ComputerServer::new(inside.clone()));
    let (served, ()) = tokio::join!(channel::serve(services, door, shutdown.clone()), over_http);
    served.map_err(|error| Error::Server(error.to_string()))
}

/// Serves calls over HTTP alone, without the role around it.
pub async fn serve_http(computer: Arc<Computer>, door: Door, limits: CallLimits, stop: CancellationToken) {
    let inside = Arc::new(Inside::new(computer, stop.clone()));
    http::serve(door, HttpClients::Certified, inside, limits, stop).await;
}
