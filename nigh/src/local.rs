//! A whole edge in one process: a controller, a broker and computers, each on sockets of its own, so that a caller cannot
//! tell it from one on several machines. Behind `nigh up` and the tests.

mod certificates;
mod sockets;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use nigh_broker::{AsynchronousConfig, Listeners};
use nigh_doors::System;
use nigh_proto::channel::Door;
use nigh_proto::{Endpoint, NodeName, Role as Kind, ServerLimits, Tls};
use nigh_telemetry::{Telemetry, serve_while};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ca::Authority;
use crate::config::{self, ports};
use crate::local::certificates::Certificates;
use crate::local::sockets::Sockets;
use crate::sockets::Bound;

pub use crate::local::certificates::CertificateError;
pub use crate::local::sockets::EdgePorts;
pub use crate::sockets::BindError;

/// Computers in one process, at most: unless modelled, each reserves address space for its instances.
pub const COMPUTERS_MAX: usize = 64;

/// How an edge is set up.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Folder for what is deployed and for compiled modules, made if missing; one edge at a time can use it.
    pub data_dir: PathBuf,
    /// Where all roles listen.
    pub listen: IpAddr,
    /// Where all roles serve metrics and health, if anywhere.
    pub listen_metrics: Option<IpAddr>,
    /// On which ports.
    pub ports: EdgePorts,
    /// Doors of the broker for other systems' clients, and their ports.
    pub doors: Vec<(System, u16)>,
    /// The host by which others reach this machine, if not by `listen`.
    pub advertise: Option<String>,
    /// Computers, from 1 to [`COMPUTERS_MAX`].
    pub computers: usize,
    /// The authority that issues a certificate to each role; without one the wire is plain.
    pub authority: Option<Arc<Authority>>,
    /// The controller's settings. Its store is put into `data_dir`.
    pub controller: nigh_controller::Config,
    /// The broker's settings. Name, addresses and controller are put in.
    pub broker: nigh_broker::Config,
    /// Each computer's settings. Name, addresses, controller and cache are put in, and the memory is shared among all.
    pub computer: nigh_runtime::Config,
}

/// Why an edge cannot start or go on. Whoever runs it has to act.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// There cannot be so many computers.
    #[error("{0} computers: one process can be 1 to {COMPUTERS_MAX}, on ports up to 65535")]
    Computers(usize),
    /// Others could not reach it.
    #[error("{listen} is every address of this machine, but not one at which others reach it; add --advertise HOST")]
    Advertise {
        /// Where it would listen.
        listen: IpAddr,
    },
    /// Not a host.
    #[error("{0:?} is no host by which others could reach this machine; give a name or an address without a port")]
    Host(String),
    /// The data folder cannot be made.
    #[error("cannot make the folder {}: {source}; choose another with --data-dir", .folder.display())]
    DataDir {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A role has no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A socket cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The controller failed.
    #[error("the controller failed: {0}")]
    Controller(#[from] nigh_controller::Error),
    /// The broker failed.
    #[error("the broker failed: {0}")]
    Broker(#[from] nigh_broker::Error),
    /// A computer failed.
    #[error("a computer failed: {0}")]
    Computer(#[from] nigh_runtime::Error),
    /// A role ended though nobody asked it to.
    #[error("the {0} ended by itself; this is a defect")]
    Ended(&'static str),
    /// A role's task panicked.
    #[error("the {0} panicked; this is a defect")]
    Panicked(&'static str),
}

/// An edge that runs in this process. Dropping it stops it without waiting; [`Edge::shutdown`] waits.
#[derive(Debug)]
pub struct Edge {
    controller: Endpoint,
    broker: Endpoint,
    table: Endpoint,
    http: Endpoint,
    doors: Vec<(System, Endpoint)>,
    computers: Vec<(NodeName, Endpoint)>,
    metrics: Vec<(String, Endpoint)>,
    certificates: Option<Certificates>,
    // In the order in which they are stopped.
    roles: Vec<Role>,
}

/// Where a role tells of itself.
struct Telling {
    door: Option<Door>,
    telemetry: Telemetry,
}

#[derive(Debug)]
struct Role {
    name: &'static str,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), EdgeError>>,
}

impl Edge {
    /// Starts all roles. When this returns, all sockets are open; computers announce themselves within moments.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn start(config: EdgeConfig) -> Result<Self, EdgeError> {
        config.check()?;
        let folder = &config.data_dir;
        std::fs::create_dir_all(folder).map_err(|source| EdgeError::DataDir { folder: folder.clone(), source })?;
        let sockets = Sockets::bind(&config).await?;
        let endpoint = |bound: &Bound| config.endpoint(bound.address);
        let mut edge = Self {
            controller: endpoint(&sockets.controller)?,
            broker: endpoint(&sockets.calls)?,
            table: endpoint(&sockets.table)?,
            http: endpoint(&sockets.http)?,
            doors: sockets
                .doors
                .iter()
                .map(|(system, door)| Ok((*system, endpoint(door)?)))
                .collect::<Result<_, EdgeError>>()?,
            computers: Vec::with_capacity(config.computers),
            metrics: Vec::with_capacity(config.computers + 2),
            certificates: config.authority.clone().map(|authority| Certificates::new(authority, config.hosts())),
            roles: Vec::with_capacity(config.computers + 2),
        };
        let listeners = Listeners {
            calls: sockets.calls.listener,
            table: Some(sockets.table.listener),
            http: Some(sockets.http.listener),
            doors: sockets.doors.into_iter().map(|(system, door)| (system, door.listener)).collect(),
        };
        edge.start_broker(&config, listeners, sockets.calls.address.port(), sockets.broker_metrics)?;
        for (bound, metrics) in sockets.computers {
            edge.start_computer(&config, bound, metrics)?;
        }
        edge.start_controller(&config, sockets.controller, sockets.controller_metrics)?;
        if let Some(certificates) = &mut edge.certificates {
            certificates.keep_renewing();
        }
        Ok(edge)
    }

    /// Where the controller is.
    pub fn controller(&self) -> &Endpoint {
        &self.controller
    }

    /// Where the broker takes calls over gRPC.
    pub fn broker(&self) -> &Endpoint {
        &self.broker
    }

    /// Where the broker's forwarding table is.
    pub fn table(&self) -> &Endpoint {
        &self.table
    }

    /// Where the broker takes calls over HTTP.
    pub fn http(&self) -> &Endpoint {
        &self.http
    }

    /// The broker's doors for other systems' clients.
    pub fn doors(&self) -> &[(System, Endpoint)] {
        &self.doors
    }

    /// The computers: their names and where they take calls.
    pub fn computers(&self) -> &[(NodeName, Endpoint)] {
        &self.computers
    }

    /// Who serves metrics and health, and where.
    pub fn metrics(&self) -> &[(String, Endpoint)] {
        &self.metrics
    }

    /// Issues new certificates to all roles, as happens by itself long before the old ones end. Connections made from now on
    /// use them.
    ///
    /// # Errors
    /// [`CertificateError`]; those before stay in use.
    pub fn renew_certificates(&self) -> Result<(), CertificateError> {
        self.certificates.as_ref().map_or(Ok(()), Certificates::renew)
    }

    /// Runs until `shutdown`, then stops all roles; or until one of them fails, then stops the others.
    ///
    /// # Errors
    /// [`EdgeError`] of the role that failed.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), EdgeError> {
        let failed = tokio::select! {
            () = shutdown.cancelled() => None,
            error = self.first_end() => Some(error),
        };
        let stopped = self.shutdown().await;
        failed.map_or(stopped, Err)
    }

    /// Stops the broker, then the computers, then the controller, each once its calls under way have ended.
    ///
    /// # Errors
    /// [`EdgeError`] of the first role that did not end well.
    pub async fn shutdown(mut self) -> Result<(), EdgeError> {
        let mut outcome = Ok(());
        let mut roles = std::mem::take(&mut self.roles).into_iter().peekable();
        while let Some(role) = roles.next() {
            role.shutdown.cancel();
            // Those of one kind stop together.
            let mut together = vec![role];
            while let Some(next) = roles.next_if(|next| next.name == together[0].name) {
                next.shutdown.cancel();
                together.push(next);
            }
            for role in together {
                let ended = role.task.await.unwrap_or(Err(EdgeError::Panicked(role.name)));
                outcome = outcome.and(ended);
            }
        }
        outcome
    }

    /// Waits for a role that ends without having been asked to.
    async fn first_end(&mut self) -> EdgeError {
        let tasks = self.roles.iter_mut().map(|role| &mut role.task);
        let (ended, at, _) = futures_util::future::select_all(tasks).await;
        let role = self.roles.remove(at);
        match ended {
            Ok(Ok(())) => EdgeError::Ended(role.name),
            Ok(Err(error)) => error,
            Err(_) => EdgeError::Panicked(role.name),
        }
    }

    /// What a role proves itself with, where there is an authority.
    fn certify(&self, role: Kind, name: &NodeName) -> Result<Option<Tls>, CertificateError> {
        self.certificates.as_ref().map(|certificates| certificates.issue(role, name)).transpose()
    }

    fn start_broker(
        &mut self,
        config: &EdgeConfig,
        listeners: Listeners,
        port: u16,
        metrics: Option<Bound>,
    ) -> Result<(), CertificateError> {
        let mut broker = config.broker.clone();
        broker.telemetry = Telemetry::new();
        broker.name = config::default_name("broker", port);
        broker.tls = self.certify(Kind::Broker, &broker.name)?;
        broker.advertise = Some(self.broker.clone());
        broker.controller = Some(self.controller.clone().into());
        let place = config::embedded(&config.data_dir, config::CALLS);
        let asynchronous = broker.asynchronous.take().unwrap_or_else(|| AsynchronousConfig::new(place.clone()));
        broker.asynchronous = Some(AsynchronousConfig { place, ..asynchronous });
        let telling =
            self.telling(broker.name.as_str(), metrics, &broker.telemetry, broker.tls.as_ref(), &broker.server);
        self.spawn("broker", telling, async move |shutdown| Ok(nigh_broker::run(listeners, broker, shutdown).await?));
        Ok(())
    }

    fn start_computer(&mut self, config: &EdgeConfig, bound: Bound, metrics: Option<Bound>) -> Result<(), EdgeError> {
        let mut computer = config.computer.clone();
        computer.telemetry = Telemetry::new();
        let endpoint = config.endpoint(bound.address)?;
        computer.name = config::default_name("computer", bound.address.port());
        computer.tls = self.certify(Kind::Computer, &computer.name)?;
        computer.advertise = Some(endpoint.clone());
        computer.controller = Some(self.controller.clone().into());
        let folder = config.data_dir.join(format!("computer-{}", self.computers.len() + 1));
        computer.cache = Some(folder.join(config::COMPILED));
        computer.states.place.get_or_insert_with(|| config::embedded(&folder, config::STATES));
        computer.memory_bytes_max = (computer.memory_bytes_max / config.computers as u64).max(1);
        self.computers.push((computer.name.clone(), endpoint));
        let telling =
            self.telling(computer.name.as_str(), metrics, &computer.telemetry, computer.tls.as_ref(), &computer.server);
        self.spawn("computer", telling, async move |shutdown| {
            Ok(nigh_runtime::run(bound.listener, computer, shutdown).await?)
        });
        Ok(())
    }

    fn start_controller(
        &mut self,
        config: &EdgeConfig,
        bound: Bound,
        metrics: Option<Bound>,
    ) -> Result<(), CertificateError> {
        let mut controller = config.controller.clone();
        controller.telemetry = Telemetry::new();
        controller.tls = self.certify(Kind::Controller, &config::default_name("controller", bound.address.port()))?;
        controller.store = config::embedded(&config.data_dir, config::STORE);
        let telling =
            self.telling("controller", metrics, &controller.telemetry, controller.tls.as_ref(), &controller.server);
        self.spawn("controller", telling, async move |shutdown| {
            Ok(Box::pin(nigh_controller::run(bound.listener, controller, shutdown)).await?)
        });
        Ok(())
    }

    /// Notes where a role will tell of itself.
    fn telling(
        &mut self,
        name: &str,
        metrics: Option<Bound>,
        telemetry: &Telemetry,
        tls: Option<&Tls>,
        limits: &ServerLimits,
    ) -> Telling {
        if let Some(bound) = &metrics {
            self.metrics.push((name.to_owned(), bound.endpoint()));
        }
        Telling { door: metrics.map(|bound| bound.into_metrics_door(tls, limits)), telemetry: telemetry.clone() }
    }

    fn spawn<Run>(&mut self, name: &'static str, telling: Telling, run: impl FnOnce(CancellationToken) -> Run)
    where
        Run: Future<Output = Result<(), EdgeError>> + Send + 'static,
    {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve_while(telling.door, telling.telemetry, run(shutdown.clone())));
        self.roles.push(Role { name, shutdown, task });
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        for role in &self.roles {
            role.shutdown.cancel();
        }
    }
}

impl EdgeConfig {
    /// One computer, listening on this machine only and on the ports by convention.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            listen_metrics: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ports: EdgePorts::CONVENTIONAL,
            doors: Vec::new(),
            advertise: None,
            authority: None,
            computers: 1,
            controller: nigh_controller::Config::new(data_dir.join(config::STORE)),
            broker: nigh_broker::Config::new(config::default_name("broker", ports::CALLS)),
            computer: nigh_runtime::Config::new(config::default_name("computer", ports::COMPUTERS)),
            data_dir,
        }
    }

    /// The same on ports that the system picks.
    pub fn ephemeral(data_dir: impl Into<PathBuf>) -> Self {
        Self { ports: EdgePorts::ANY, ..Self::new(data_dir) }
    }

    fn check(&self) -> Result<(), EdgeError> {
        let further = self.computers.saturating_sub(1);
        let suffices = |first: u16| first == 0 || usize::from(first) + further <= usize::from(u16::MAX);
        let ports_suffice = suffices(self.ports.computers) && suffices(self.ports.computer_metrics);
        if !(1..=COMPUTERS_MAX).contains(&self.computers) || !ports_suffice {
            return Err(EdgeError::Computers(self.computers));
        }
        if self.listen.is_unspecified() && self.advertise.is_none() {
            return Err(EdgeError::Advertise { listen: self.listen });
        }
        self.endpoint(SocketAddr::new(self.listen, ports::CALLS)).map(drop)
    }

    /// The hosts by which others reach this machine.
    fn hosts(&self) -> Vec<String> {
        let own = (!self.listen.is_unspecified()).then(|| self.listen.to_string());
        own.into_iter().chain(self.advertise.clone()).collect()
    }

    /// Where others reach a socket.
    fn endpoint(&self, address: SocketAddr) -> Result<Endpoint, EdgeError> {
        let Some(host) = &self.advertise else { return Ok(address.into()) };
        let bracketed = if host.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.clone() };
        format!("{bracketed}:{}", address.port()).parse().map_err(|_| EdgeError::Host(host.clone()))
    }
}

#[cfg(test)]
mod tests;
