//! Where an edge in one process listens: its ports, and the sockets opened there.

use std::net::SocketAddr;

use nigh_doors::System;

use super::EdgeConfig;
use crate::config::ports;
use crate::sockets::{BindError, Bound, bind};

/// The ports of an edge; 0 lets the system pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgePorts {
    /// The controller.
    pub controller: u16,
    /// The broker, calls over gRPC.
    pub calls: u16,
    /// The broker's forwarding table.
    pub table: u16,
    /// The broker, calls over HTTP.
    pub http: u16,
    /// The first computer; the others follow.
    pub computers: u16,
    /// The controller's metrics and health.
    pub controller_metrics: u16,
    /// The broker's metrics and health.
    pub broker_metrics: u16,
    /// The metrics and health of the first computer; those of the others follow.
    pub computer_metrics: u16,
}

impl EdgePorts {
    /// Those by convention.
    pub const CONVENTIONAL: Self = Self {
        controller: ports::CONTROLLER,
        calls: ports::CALLS,
        table: ports::TABLE,
        http: ports::HTTP,
        computers: ports::COMPUTERS,
        controller_metrics: ports::CONTROLLER_METRICS,
        broker_metrics: ports::BROKER_METRICS,
        computer_metrics: ports::COMPUTER_METRICS,
    };
    /// Those that the system picks.
    pub const ANY: Self = Self {
        controller: 0,
        calls: 0,
        table: 0,
        http: 0,
        computers: 0,
        controller_metrics: 0,
        broker_metrics: 0,
        computer_metrics: 0,
    };
}

/// The port of this number, of several that follow each other.
fn port_of(first: u16, number: usize) -> u16 {
    match first {
        0 => 0,
        first => first.saturating_add(u16::try_from(number).unwrap_or(u16::MAX)),
    }
}

/// The sockets of an edge.
pub(super) struct Sockets {
    pub(super) controller: Bound,
    pub(super) calls: Bound,
    pub(super) table: Bound,
    pub(super) http: Bound,
    pub(super) doors: Vec<(System, Bound)>,
    pub(super) computers: Vec<(Bound, Option<Bound>)>,
    pub(super) controller_metrics: Option<Bound>,
    pub(super) broker_metrics: Option<Bound>,
}

impl Sockets {
    pub(super) async fn bind(config: &EdgeConfig) -> Result<Self, BindError> {
        let at = |port| SocketAddr::new(config.listen, port);
        let ports = config.ports;
        let mut sockets = Self {
            controller: bind(at(ports.controller), "the controller", "--controller-port or --any-ports").await?,
            calls: bind(at(ports.calls), "calls over gRPC", "--calls-port or --any-ports").await?,
            table: bind(at(ports.table), "the forwarding table", "--table-port or --any-ports").await?,
            http: bind(at(ports.http), "calls over HTTP", "--http-port or --any-ports").await?,
            doors: Vec::with_capacity(config.doors.len()),
            computers: Vec::with_capacity(config.computers),
            controller_metrics: Self::bind_metrics(config, ports.controller_metrics).await?,
            broker_metrics: Self::bind_metrics(config, ports.broker_metrics).await?,
        };
        for &(system, port) in &config.doors {
            sockets.doors.push((system, bind(at(port), "other systems' clients", "--door").await?));
        }
        for number in 0..config.computers {
            let address = at(port_of(ports.computers, number));
            let bound = bind(address, "a computer", "--computer-port or --any-ports").await?;
            let metrics = Self::bind_metrics(config, port_of(ports.computer_metrics, number)).await?;
            sockets.computers.push((bound, metrics));
        }
        Ok(sockets)
    }

    async fn bind_metrics(config: &EdgeConfig, port: u16) -> Result<Option<Bound>, BindError> {
        let Some(listen) = config.listen_metrics else { return Ok(None) };
        let option = "--listen-metrics, or --any-ports";
        bind(SocketAddr::new(listen, port), "metrics and health", option).await.map(Some)
    }
}
