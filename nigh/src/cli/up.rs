//! `nigh up`: a whole edge in one process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use nigh_doors::System;
use nigh_proto::http_client::IpNet;
use nigh_routing::Policy;
use nigh_runtime::OfferedDirectory;
use tokio_util::sync::CancellationToken;

use super::compile::own_compiler;
use crate::ca::{Authority, folder};
use crate::config::{
    BackendName, VisitorOptions, backend, default_data_dir, metrics_port, parse_network, parse_offer, ports,
};
use crate::local::{COMPUTERS_MAX, Edge, EdgeConfig, EdgePorts};
use crate::output::Output;
use crate::signals::StopSignals;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh up                                  one computer, on the usual ports of this machine
  nigh up --computers 4 --data-dir ./data
  nigh up --computers 8 --backend modelled --hardware raspberry   computers that answer as that hardware would
  nigh up --any-ports --json               on free ports; where, as one line of JSON
  nigh up --listen 0.0.0.0 --advertise edge-7.example --ca ~/.local/share/nigh/ca   for other machines, over TLS

What is deployed is kept in the data folder and is there again next time. Ctrl-C stops it once the calls under way have
ended; a second one at once.")]
pub(super) struct UpOptions {
    /// Computers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = computers)]
    computers: usize,
    /// Folder for what is deployed and compiled [default: nigh/edge in the user's data folder]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How the broker chooses, with its parameters: predict, p2c-ewma, least-outstanding, round-robin, …
    #[arg(long, default_value_t, value_name = "NAME[,KEY=VALUE…]")]
    policy: Policy,
    /// A directory that functions may be granted, read-only unless `:rw` follows; may be given several times
    #[arg(long, value_name = "NAME=PATH[:rw]", value_parser = parse_offer)]
    dir: Vec<OfferedDirectory>,
    /// A network to which names may lead that functions are allowed to send requests to, beside the public internet; may be given
    /// several times
    #[arg(long, value_name = "IP/BITS", value_parser = parse_network)]
    outgoing_network: Vec<IpNet>,
    /// What runs the computers' functions
    #[arg(long, value_enum, value_name = "BACKEND", default_value_t)]
    backend: BackendName,
    /// With --backend modelled: `raspberry`, `intel-server`, with their parameters, or a file [default: raspberry]
    #[arg(long, value_name = "NAME[,KEY=VALUE…]|FILE", requires = "backend")]
    hardware: Option<String>,
    #[command(flatten)]
    sockets: SocketOptions,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Where it listens")]
struct SocketOptions {
    /// Address for all sockets; 0.0.0.0 for other machines too
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Address for metrics and health, or `none`
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", value_parser = address_or_none)]
    listen_metrics: AddressOrNone,
    /// Host by which others reach this machine; needed with 0.0.0.0
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Folder of an authority (`nigh ca init`) that issues certificates to all roles: everything is over TLS then
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Listen beyond this machine without TLS: whoever is on that network can read every payload, call, deploy and remove
    #[arg(long, conflicts_with = "ca")]
    insecure_plaintext: bool,
    /// Let the system pick every port
    #[arg(long, conflicts_with_all = ["calls_port", "table_port", "controller_port", "http_port", "computer_port"])]
    any_ports: bool,
    /// Calls over gRPC
    #[arg(long, value_name = "PORT", default_value_t = EdgePorts::CONVENTIONAL.calls)]
    calls_port: u16,
    /// The broker's forwarding table
    #[arg(long, value_name = "PORT", default_value_t = EdgePorts::CONVENTIONAL.table)]
    table_port: u16,
    /// The controller
    #[arg(long, value_name = "PORT", default_value_t = EdgePorts::CONVENTIONAL.controller)]
    controller_port: u16,
    /// Calls over HTTP
    #[arg(long, value_name = "PORT", default_value_t = EdgePorts::CONVENTIONAL.http)]
    http_port: u16,
    /// A door for clients of another system (openwhisk, lambda, openfaas); may be given several times
    #[arg(long, value_name = "SYSTEM=PORT", value_parser = parse_door)]
    door: Vec<(System, u16)>,
    #[command(flatten)]
    visitors: VisitorOptions,
    /// The first computer; the others follow
    #[arg(long, value_name = "PORT", default_value_t = EdgePorts::CONVENTIONAL.computers)]
    computer_port: u16,
}

/// `SYSTEM=PORT`.
fn parse_door(given: &str) -> Result<(System, u16), String> {
    let (system, port) = given.split_once('=').ok_or("write it as SYSTEM=PORT, as in openwhisk=3233")?;
    Ok((system.parse()?, port.parse().map_err(|_| format!("{port:?} is no port"))?))
}

/// An address, or none.
#[derive(Debug, Clone, Copy)]
struct AddressOrNone(Option<IpAddr>);

fn address_or_none(given: &str) -> Result<AddressOrNone, std::net::AddrParseError> {
    if given == "none" { Ok(AddressOrNone(None)) } else { given.parse().map(|address| AddressOrNone(Some(address))) }
}

fn computers(given: &str) -> Result<usize, String> {
    match given.parse() {
        Ok(computers) if (1..=COMPUTERS_MAX).contains(&computers) => Ok(computers),
        _ => Err(format!("give a number from 1 to {COMPUTERS_MAX}")),
    }
}

impl UpOptions {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        let signals = StopSignals::listen()?;
        let config = self.config()?;
        let data_dir = config.data_dir.display().to_string();
        let is_usual = config.listen.is_loopback() && config.ports == EdgePorts::CONVENTIONAL;
        let scheme = if config.authority.is_some() { "https" } else { "http" };
        let edge = Edge::start(config).await?;
        // That nobody reads where it listens is no reason not to run.
        let _ = output.result(&Started::new(&edge, data_dir, is_usual, scheme), ToString::to_string);
        let shutdown = CancellationToken::new();
        signals.run(async { Ok(edge.run(shutdown.clone()).await?) }, shutdown.clone()).await
    }

    fn config(&self) -> anyhow::Result<EdgeConfig> {
        let data_dir = match &self.data_dir {
            Some(folder) => folder.clone(),
            None => default_data_dir("edge")?,
        };
        let mut config = EdgeConfig::new(data_dir);
        config.computers = self.computers;
        config.listen = self.sockets.listen;
        config.listen_metrics = self.sockets.listen_metrics.0;
        config.authority = self.sockets.authority()?.map(Arc::new);
        config.advertise = self.sockets.advertise.clone();
        config.ports = self.sockets.ports();
        if !self.sockets.door.is_empty() {
            let at = SocketAddr::new(config.listen, 0);
            config.broker.callers = self.sockets.visitors.callers(&[at], self.sockets.insecure_plaintext)?;
            config.doors = self.sockets.door.clone();
        }
        config.broker.policy = self.policy;
        config.computer.directories = self.dir.clone();
        config.computer.outgoing_networks = self.outgoing_network.clone();
        config.computer.compiler = own_compiler();
        config.computer.backend = backend(self.backend, self.hardware.as_deref())?;
        Ok(config)
    }
}

impl SocketOptions {
    /// Who issues certificates. Beyond this machine there must be somebody, unless that was waived.
    fn authority(&self) -> anyhow::Result<Option<Authority>> {
        let Self { ca, insecure_plaintext, .. } = self;
        let listens = std::iter::once(self.listen).chain(self.listen_metrics.0);
        let exposed = listens.into_iter().find(|address| !address.is_loopback());
        match (ca, exposed) {
            (Some(folder), _) => Ok(Some(folder::read_authority(folder)?)),
            (None, None) => Ok(None),
            (None, Some(listen)) if *insecure_plaintext => {
                tracing::warn!(%listen, "reachable from other machines without TLS: whoever is on that network can read, call and deploy");
                Ok(None)
            }
            (None, Some(listen)) => Err(anyhow::anyhow!(
                "{listen} can be reached from other machines, and without TLS whoever is on that network could read every payload, call, deploy and remove. Either add --ca DIR, an authority made with `nigh ca init`, or take that risk with --insecure-plaintext"
            )),
        }
    }

    fn ports(&self) -> EdgePorts {
        if self.any_ports {
            return EdgePorts::ANY;
        }
        EdgePorts {
            controller: self.controller_port,
            calls: self.calls_port,
            table: self.table_port,
            http: self.http_port,
            computers: self.computer_port,
            controller_metrics: metrics_port(self.controller_port, ports::CONTROLLER_OFFSET),
            broker_metrics: metrics_port(self.calls_port, ports::BROKER_OFFSET),
            computer_metrics: metrics_port(self.computer_port, ports::COMPUTER_OFFSET),
        }
    }
}

/// Where an edge listens.
#[derive(Debug, serde::Serialize)]
struct Started {
    controller: String,
    calls: String,
    table: String,
    http: String,
    doors: BTreeMap<String, String>,
    computers: Vec<Computer>,
    metrics: BTreeMap<String, String>,
    data_dir: String,
    #[serde(skip)]
    is_usual: bool,
    #[serde(skip)]
    scheme: &'static str,
}

#[derive(Debug, serde::Serialize)]
struct Computer {
    name: String,
    endpoint: String,
}

impl Started {
    fn new(edge: &Edge, data_dir: String, is_usual: bool, scheme: &'static str) -> Self {
        let computers = edge.computers().iter();
        Self {
            controller: edge.controller().to_string(),
            calls: edge.broker().to_string(),
            table: edge.table().to_string(),
            http: edge.http().to_string(),
            doors: edge.doors().iter().map(|(system, door)| (system.to_string(), door.to_string())).collect(),
            computers: computers
                .map(|(name, endpoint)| Computer { name: name.to_string(), endpoint: endpoint.to_string() })
                .collect(),
            metrics: edge.metrics().iter().map(|(name, endpoint)| (name.clone(), endpoint.to_string())).collect(),
            data_dir,
            is_usual,
            scheme,
        }
    }
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "An edge is up; Ctrl-C stops it.")?;
        writeln!(f, "  calls       {}", self.calls)?;
        writeln!(f, "  http        {}://{}/function/NAME", self.scheme, self.http)?;
        for (system, door) in &self.doors {
            writeln!(f, "  {system:<11} {}://{door}", self.scheme)?;
        }
        writeln!(f, "  table       {}", self.table)?;
        writeln!(f, "  controller  {}", self.controller)?;
        for computer in &self.computers {
            writeln!(f, "  computer    {} ({})", computer.endpoint, computer.name)?;
        }
        for (name, endpoint) in &self.metrics {
            writeln!(f, "  metrics     http://{endpoint}/metrics ({name})")?;
        }
        write!(f, "  data        {}", self.data_dir)?;
        if !self.is_usual {
            let Self { controller, calls, table, .. } = self;
            write!(
                f,
                "\nOther commands find it with:\n  export NIGH_CONTROLLER={controller} NIGH_BROKER={calls} NIGH_TABLE={table}"
            )?;
        }
        Ok(())
    }
}
