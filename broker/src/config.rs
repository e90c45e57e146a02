//! What an operator sets of a broker.

use std::time::Duration;

use nigh_proto::tls::HttpClients;
use nigh_proto::{CallLimits, Endpoint, FunctionName, NodeName, Remote, ServerLimits, Tls};
use nigh_routing::PolicyKind;
use nigh_telemetry::Telemetry;

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
    pub controller: Option<Endpoint>,
    /// A controller of the older system that is to know of this broker too, and then writes into its table.
    pub older_controller: Option<Endpoint>,
    /// How it chooses among a function's destinations.
    pub policy: PolicyKind,
    /// What it accepts of one call.
    pub limits: CallLimits,
    /// What it accepts of those who connect to one of its doors.
    pub server: ServerLimits,
    /// Calls under way at once, at most; further ones are refused with a time to retry after.
    pub calls_max: usize,
    /// Time that calls under way have to end once the broker is told to stop.
    pub drain: Duration,
    /// Destinations set by hand, whatever the controller says.
    pub routes: Vec<(FunctionName, Endpoint)>,
    /// Where it tells of itself.
    pub telemetry: Telemetry,
}

impl Config {
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
            policy: PolicyKind::default(),
            limits: CallLimits::default(),
            server: ServerLimits::default(),
            calls_max: Self::CALLS_MAX,
            drain: Self::DRAIN,
            routes: Vec::new(),
            telemetry: Telemetry::new(),
        }
    }

    /// The controller, as it is connected to.
    pub(crate) fn controller_remote(&self) -> Option<Remote> {
        Some(Remote::new(self.controller.clone()?, self.tls.clone()))
    }
}
