//! A computer's life as a role of the edge: serve, be known, drain, end.

use std::sync::Arc;
use std::time::Duration;

use nigh_proto::channel::Door;
use nigh_proto::{Endpoint, Remote};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::computer::Computer;
use crate::computing::Computing;
use crate::config::{Backend, Config};
use crate::discovery::At;
use crate::error::Error;
use crate::front::Front;
use crate::ingress::Doors;
use crate::modelled::Modelled;
use crate::remote::RemoteSystem;
use crate::{discovery, ingress};

/// How long calls are still taken after the withdrawal, so that brokers learn of it before any call is refused.
const WITHDRAWAL_GRACE: Duration = Duration::from_millis(300);
/// How often it is checked whether the last call has ended.
const DRAIN_CHECK: Duration = Duration::from_millis(5);
/// Time for connections to close once all calls are over.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The sockets that a computer serves; the caller has bound them. A [`TcpListener`] alone is one for calls over gRPC.
#[derive(Debug)]
pub struct Listeners {
    /// Calls over gRPC, and all that there is to see of the computer.
    pub calls: TcpListener,
    /// Calls over HTTP.
    pub http: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(calls: TcpListener) -> Self {
        Self { calls, http: None }
    }
}

/// Serves calls on `listeners` until `shutdown`. Then the computer withdraws, goes on serving for a short time so that
/// brokers learn of it, refuses new calls, lets those under way finish within [`Config::drain`], and ends.
///
/// # Errors
/// Where it cannot start, or its server breaks; the operator has to act.
pub async fn run(listeners: impl Into<Listeners>, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let listeners = listeners.into();
    match config.backend.clone() {
        Backend::Wasm => {
            let starting = config.clone();
            // Starting the engine reserves address space and makes threads: not for an async thread.
            let computer = tokio::task::spawn_blocking(move || Computer::new(starting))
                .await
                .map_err(|error| Error::Engine(error.to_string()))??;
            computer.set_learning(config.controller.is_some());
            run_as(computer, listeners, config, shutdown).await
        }
        Backend::Modelled(hardware) => {
            let computer = Front::new(&config, Modelled::start(&config, hardware)?);
            run_as(computer, listeners, config, shutdown).await
        }
        Backend::Remote(settings) => {
            let computer = Front::new(&config, RemoteSystem::start(&config, &settings)?);
            run_as(computer, listeners, config, shutdown).await
        }
    }
}

async fn run_as<C: Computing>(
    computer: Arc<C>,
    listeners: Listeners,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let controller = config.controller.map(|controllers| Remote::any_of(&controllers, config.tls.clone()));
    let is_announced = controller.is_some() || config.older_controller.is_some();
    let own = listeners.calls.local_addr().map_err(Error::Listen)?;
    let door = |listener| Door::new(listener, config.tls.clone()).within(&config.server);
    let doors =
        Doors { calls: door(listeners.calls), http: listeners.http.map(door), http_clients: config.http_clients };
    let endpoint = config.advertise.unwrap_or_else(|| Endpoint::from(own));
    computer.states().set_endpoint(endpoint.clone());
    let watched = Arc::downgrade(&computer);
    let telemetry = config.telemetry;
    telemetry.ready_when(move || watched.upgrade().map_or(Ok(()), |computer| computer.readiness()));
    tracing::info!(name = %computer.name(), %endpoint, "computer ready");

    let close_port = CancellationToken::new();
    let mut port = tokio::spawn(ingress::serve(computer.clone(), doors, config.limits, close_port.clone()));
    let mut relations = JoinSet::new();
    if let Some(controller) = &controller {
        relations.spawn(computer.clone().follow(controller.clone(), shutdown.clone()));
    }
    for at in controller.map(At::Current).into_iter().chain(config.older_controller.map(At::Older)) {
        relations.spawn(discovery::announce(computer.clone(), endpoint.clone(), at, shutdown.clone()));
    }
    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = &mut port => {
            computer.end();
            return ended.unwrap_or_else(|error| Err(Error::Server(error.to_string())));
        }
    }
    telemetry.not_ready("the computer is stopping");
    if is_announced {
        tokio::time::sleep(WITHDRAWAL_GRACE).await;
    }
    finish_calls(&*computer, config.drain).await;
    close_port.cancel();
    let closed = tokio::time::timeout(CLOSE_MAX, &mut port).await;
    port.abort();
    relations.shutdown().await;
    match closed {
        Ok(Ok(served)) => served,
        // Connections that their peers keep open end with the process.
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

async fn finish_calls(computer: &impl Computing, drain: Duration) {
    computer.close();
    let until = Instant::now() + drain;
    while computer.under_way() > 0 && Instant::now() < until {
        tokio::time::sleep(DRAIN_CHECK).await;
    }
    let left = computer.under_way();
    if left > 0 {
        tracing::warn!(left, drain_ms = drain.as_millis(), "calls were still running at the end of the time to drain");
    }
    computer.end();
}
