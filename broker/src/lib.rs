//! A broker: takes calls, sends each to the destination expected to answer soonest, and learns from the outcome.
//!
//! The walk of a call: [`ingress`] (a message becomes a checked call) → [`call`] (time left? [`probe`], where the policy asks; [`attempt`]: pick, forward,
//! record; perhaps once more elsewhere; calls of http functions in [`exchange`]) → `routing` (pick) → [`forward`] (over a
//! kept connection), and straight back. Beside it,
//! [`returns`] looks out for destinations found dead, and [`discovery`] keeps the forwarding table in [`routes`] in step with the controller. A broker holds nothing that it
//! could not rebuild: calls that it has accepted for later ([`asynchronous`]), and what brings such calls by itself
//! ([`triggers`]), are in a store.

mod asynchronous;
mod attempt;
mod call;
mod config;
mod discovery;
mod error;
mod exchange;
mod flow;
mod forward;
mod ingress;
mod metrics;
mod probe;
mod returns;
mod rewind;
mod routes;
mod triggers;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use nigh_doors::System;
use nigh_proto::membership::{self, Node};
use nigh_proto::older;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::call::Broker;
use crate::routes::Routes;

pub use asynchronous::AsynchronousConfig;
pub use config::Config;
pub use error::Error;
pub use triggers::TriggersConfig;

/// Time for calls that were cut off at the end of the drain to tell their callers.
const FAREWELL: Duration = Duration::from_secs(1);

/// The sockets that a broker serves; the caller has bound them.
#[derive(Debug)]
pub struct Listeners {
    /// Calls over gRPC.
    pub calls: TcpListener,
    /// The forwarding table, to be read and edited over gRPC.
    pub table: Option<TcpListener>,
    /// Calls over HTTP.
    pub http: Option<TcpListener>,
    /// Calls of other systems' clients.
    pub doors: Vec<(System, TcpListener)>,
}

/// Serves until `shutdown`; then withdraws from the controller, takes no more calls, and lets those under way end for at
/// most [`Config::drain`].
///
/// # Errors
/// [`Error`], where the broker cannot start or a door fails for good.
pub async fn run(listeners: Listeners, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let announcement = ingress::announcement(&listeners, &config)?;
    let (reports, unreachable) = mpsc::channel(older::REPORTS_WAITING_MAX);
    let reports_to = config.older_controller.clone();
    let routes = Routes::new(&config, reports_to.is_some().then_some(reports));
    let _reporting = reports_to.map(|controller| spawn(older::keep_reporting(controller, unreachable)));
    for (function, endpoint) in &config.routes {
        routes.set_by_hand(function, endpoint, None, true)?;
    }
    for (function, endpoint) in &config.forward {
        routes.set_by_hand(function, endpoint, None, false)?;
    }
    let (cut, stop) = (CancellationToken::new(), CancellationToken::new());
    let broker = Arc::new(Broker::new(routes.clone(), &config, cut.clone()));
    asynchronous::open(broker.asynchronous(), stop.clone()).await?;
    let mut beside = Beside::start(&config, announcement, &broker, &routes, &shutdown);
    metrics::describe(&config.telemetry, &config.name, &broker);
    let watched = routes.clone();
    config.telemetry.ready_when(move || watched.readiness());
    tracing::info!(broker = %config.name, policy = %config.policy, "serving");

    // On the heap, as all doors together are large.
    let mut serving = Box::pin(ingress::serve(listeners, &config, &broker, &routes, &stop));
    tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown.cancelled() => {}
    }
    tracing::info!(broker = %config.name, in_flight = broker.in_flight(), "stopping");
    config.telemetry.not_ready("the broker is stopping");
    tokio::select! {
        ended = &mut serving => return ended,
        () = beside.withdraw() => {}
    }
    stop.cancel();
    let drained = async {
        let ended = (&mut serving).await;
        beside.finish().await;
        ended
    };
    if let Ok(ended) = tokio::time::timeout(config.drain, drained).await {
        return ended;
    }
    tracing::warn!(broker = %config.name, in_flight = broker.in_flight(), "the time to drain is over, cutting calls off");
    cut.cancel();
    tokio::time::timeout(FAREWELL, serving).await.unwrap_or(Ok(()))
}

/// What a broker does beside its doors. Dropped, it ends.
struct Beside {
    /// Makes the calls that were accepted.
    working: Option<AbortOnDropHandle<()>>,
    triggering: Option<AbortOnDropHandle<()>>,
    announcing: Option<AbortOnDropHandle<()>>,
    leave: CancellationToken,
    /// Nothing of what is announced ever changes.
    _node: watch::Sender<Node>,
    _others: Vec<AbortOnDropHandle<()>>,
}

impl Beside {
    fn start(
        config: &Config,
        announcement: nigh_proto::Broker,
        broker: &Arc<Broker>,
        routes: &Arc<Routes>,
        shutdown: &CancellationToken,
    ) -> Self {
        let is_offered = broker.asynchronous().is_offered();
        let work = || asynchronous::work(broker.asynchronous().clone(), broker.clone(), shutdown.clone());
        let trigger = || triggers::run(broker.triggers().clone(), shutdown.clone());
        let leave = CancellationToken::new();
        let endpoint = announcement.endpoint.clone();
        let (node, announced) = watch::channel(Node::Broker(announcement));
        let announce = |controller| membership::keep_announced(controller, announced.clone(), leave.clone());
        let announce_there = |controller| older::keep_announced(controller, announced.clone(), leave.clone());
        let discover = |controller| spawn(discovery::follow(controller, endpoint, routes.clone()));
        Self {
            working: is_offered.then(|| spawn(work())),
            triggering: is_offered.then(|| spawn(trigger())),
            _others: config
                .controller_remote()
                .map(discover)
                .into_iter()
                .chain(config.older_controller.clone().map(|controller| spawn(announce_there(controller))))
                .collect(),
            announcing: config.controller_remote().map(|controller| spawn(announce(controller))),
            leave,
            _node: node,
        }
    }

    /// Withdraws from the controller, which has a limit of time of its own.
    async fn withdraw(&mut self) {
        self.leave.cancel();
        if let Some(announcing) = &mut self.announcing {
            // It has no result.
            let _ = announcing.await;
        }
    }

    /// Waits for the calls that are under way by themselves; those that wait stay where they are.
    async fn finish(self) {
        for task in [self.triggering, self.working].into_iter().flatten() {
            let _ = task.await;
        }
    }
}

/// A task that ends with whoever holds it.
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
