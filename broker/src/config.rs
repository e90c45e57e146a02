//! What an operator sets of a broker.

use std::time::Duration;

use nigh_doors::{ActivationLimits, Callers};
use nigh_proto::tls::HttpClients;
use nigh_proto::{CallLimits, Endpoint, Endpoints, FunctionName, NodeName, Remote, ServerLimits, Tls};
use nigh_routing::forwarding::Optimizer;
use nigh_routing::{Policy, RetryBudget, Strategy};
use nigh_telemetry::Telemetry;

use crate::asynchronous::AsynchronousConfig;

/// A broker's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name, unique among the nodes of an edge.
    pub name: NodeName,
    /// Where others reach it for calls, if not at the calls listener's own address.
    pub advertise: Option<Endpoint>,
    /// What it proves itself with, to those who call and those it calls; without it the wire is plain.
    pub tls: Option<Tls>,
    /// Over TLS, whether callers over HTTP have to show a certificate.
    pub http_clients: HttpClients,
    /// The controller that tells it of functions and computers; without one it has only `routes`.
    pub controller: Option<Endpoints>,
    /// A controller of the older system that is to know of this broker too, and then writes into its table.
    pub older_controller: Option<Endpoint>,
    /// How it chooses among a function's destinations.
    pub policy: Policy,
    /// How measured latency becomes weight, where the policy chooses by weight alone.
    pub optimizer: Optimizer,
    /// For how long a newcomer, or one that is back, gets fewer calls than its share.
    pub slow_start: Duration,
    /// Which share of calls (0 to 1) may be made twice, by retry or hedge.
    pub retry_share: f64,
    /// Makes a call that is safe to retry a second time elsewhere when it has not been answered within the time that this
    /// percentage of its function's calls takes. Without it no call is hedged.
    pub hedge_percent: Option<u32>,
    /// What it accepts of one call.
    pub limits: CallLimits,
    /// What it accepts of those who connect to one of its doors.
    pub server: ServerLimits,
    /// Calls under way at once, at most; further ones are refused with a time to retry after.
    pub calls_max: usize,
    /// Time that calls under way have to end once the broker is told to stop.
    pub drain: Duration,
    /// Computers set by hand, whatever the controller says.
    pub routes: Vec<(FunctionName, Endpoint)>,
    /// Where it tells of itself.
    pub telemetry: Telemetry,
    /// Brokers that calls of a function may be passed on to, by hand too.
    pub forward: Vec<(FunctionName, Endpoint)>,
    /// Where calls that run later are kept, and how; without it they are refused.
    pub asynchronous: Option<AsynchronousConfig>,
    /// Who may come in by the doors for other systems' clients.
    pub callers: Callers,
    /// What is kept of activations, for clients of OpenWhisk.
    pub activations: ActivationLimits,
}

impl Config {
    pub(crate) fn strategy(&self) -> Strategy {
        Strategy { policy: self.policy, optimizer: self.optimizer, slow_start: self.slow_start }
    }

    /// The default of `calls_max`.
    pub const CALLS_MAX: usize = 16_384;
    /// The default of `drain`.
    pub const DRAIN: Duration = Duration::from_secs(30);

    /// Settings of a broker of this name with defaults for the rest: no controller, no routes.
    pub fn new(name: NodeName) -> Self {
        Self {
            name,
            advertise: None,
            tls: None,
            http_clients: HttpClients::default(),
            controller: None,
            older_controller: None,
            policy: Policy::default(),
            optimizer: Optimizer::default(),
            slow_start: Strategy::SLOW_START,
            retry_share: RetryBudget::SHARE,
            hedge_percent: None,
            limits: CallLimits::default(),
            server: ServerLimits::default(),
            calls_max: Self::CALLS_MAX,
            drain: Self::DRAIN,
            routes: Vec::new(),
            telemetry: Telemetry::new(),
            forward: Vec::new(),
            asynchronous: None,
            callers: Callers::everybody(),
            activations: ActivationLimits::default(),
        }
    }

    /// The controller, as it is connected to.
    pub(crate) fn controller_remote(&self) -> Option<Remote> {
        Some(Remote::any_of(self.controller.as_ref()?, self.tls.clone()))
    }
}
