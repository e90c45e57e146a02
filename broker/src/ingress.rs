//! The doors: calls over gRPC, calls over HTTP, those of other systems' clients, and the forwarding table. What passes them is a checked value.

mod asynchronous;
mod older;
mod table;
mod triggers;

use std::net::SocketAddr;
use std::sync::Arc;

use nigh_doors::Settings;
use nigh_proto::channel::{self, Door};
use nigh_proto::ingress::{Ingress, http};
use nigh_proto::older::EdgeIngress;
use nigh_proto::{Broker as Announcement, Endpoint};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Listeners;
use crate::call::Broker;
use crate::config::Config;
use crate::error::Error;
use crate::routes::Routes;

/// How the broker announces itself.
///
/// # Errors
/// [`Error::Advertise`] where its address could not be reached from elsewhere and it has a controller to announce it to.
pub(crate) fn announcement(listeners: &Listeners, config: &Config) -> Result<Announcement, Error> {
    let address = |listener: &TcpListener| listener.local_addr().map_err(Error::Listener);
    let calls = address(&listeners.calls)?;
    if config.advertise.is_none() && config.controller.is_some() && calls.ip().is_unspecified() {
        return Err(Error::Advertise(calls));
    }
    let endpoint = config.advertise.clone().unwrap_or_else(|| calls.into());
    let beside = |listener: &Option<TcpListener>| {
        listener.as_ref().map(|listener| address(listener).map(|at| reached_at(&endpoint, at))).transpose()
    };
    Ok(Announcement {
        name: config.name.clone(),
        table_endpoint: beside(&listeners.table)?,
        http_endpoint: beside(&listeners.http)?,
        older: false,
        endpoint,
    })
}

/// A listener's address as others reach it: where it listens on every address, on the host of this endpoint.
fn reached_at(endpoint: &Endpoint, address: SocketAddr) -> Endpoint {
    if address.ip().is_unspecified() { endpoint.with_port(address.port()) } else { address.into() }
}

/// Serves every door until `stop`, and then until the calls under way have ended.
///
/// # Errors
/// [`Error::Serve`] where a door fails for good.
pub(crate) async fn serve(
    listeners: Listeners,
    config: &Config,
    broker: &Arc<Broker>,
    routes: &Arc<Routes>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let calls = Ingress::service_within(broker.clone(), broker.limits().clone(), &config.server, stop.clone());
    let older = EdgeIngress::service(broker.clone(), broker.limits().clone());
    let door = |listener| Door::new(listener, config.tls.clone()).within(&config.server);
    let later = asynchronous::service(broker.clone());
    let triggers = triggers::service(broker.clone());
    let services = channel::server_within(&config.server).add_service(calls).add_service(older);
    let services = services.add_service(later).add_service(triggers);
    let calls = channel::serve(services, door(listeners.calls), stop.clone());
    let table = async {
        let Some(listener) = listeners.table else { return Ok(()) };
        let (table, older) = (table::service(routes.clone()), older::service(routes.clone()));
        let services = channel::server_within(&config.server).add_service(table).add_service(older);
        channel::serve(services, door(listener), stop.clone()).await
    };
    let http = async {
        let Some(listener) = listeners.http else { return };
        let limits = broker.limits().clone();
        http::serve(door(listener), config.http_clients, broker.clone(), limits, stop.clone()).await;
    };
    let doors = listeners.doors.into_iter().map(|(system, listener)| {
        nigh_doors::serve(system, door(listener), settings(config), broker.clone(), stop.clone())
    });
    let doors = futures_util::future::join_all(doors);
    let failed = |door| move |source| Error::Serve { door, source };
    tokio::try_join!(
        async { calls.await.map_err(|error| failed("calls")(error.into())) },
        async { table.await.map_err(|error| failed("table")(error.into())) },
        async {
            tokio::join!(http, doors);
            Ok(())
        },
    )?;
    Ok(())
}

/// What the doors for other systems' clients are told.
fn settings(config: &Config) -> Settings {
    Settings {
        clients: config.http_clients,
        limits: config.limits.clone(),
        callers: config.callers.clone(),
        controller: config.controller_remote(),
        activations: config.activations,
    }
}
