//! A broker's settings.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use nigh_broker::{AsynchronousConfig, Config};
use nigh_doors::System;
use nigh_proto::tls::https::Trust;
use nigh_proto::{AllowedHost, Endpoint, Endpoints, FunctionName, NodeName, Role};
use nigh_routing::Policy;
use nigh_routing::forwarding::Optimizer;
use nigh_store::Given;

use super::doors::{DoorKeys, DoorOptions, Doors};
use super::keys::{CallLimitKeys, Fill as _, OrNone, ServerLimitKeys, Share, Text, keys};
use super::node::{
    Listen, Network, Visitors, check_advertise, default_controller, default_name, metrics_at, networks, or_none,
};
use super::store::{self, Wanted};
use super::tls::{self, TlsFiles, TlsKeys};
use super::{ConfigError, ports, read};
use crate::units::{Size, Time};

/// The store of asynchronous calls in a data folder.
pub(crate) const CALLS: &str = "calls.redb";

/// Options of `nigh broker`; each wins over its key in the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct BrokerOptions {
    /// Configuration file (TOML); `--print-config` shows every key with its default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Its name, unique in the edge [default: broker-PORT]
    #[arg(long)]
    pub name: Option<NodeName>,
    /// Where to take calls over gRPC [default: 127.0.0.1:6473]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where to offer the forwarding table, or `none` [default: 127.0.0.1:6474]
    #[arg(long, value_name = "IP:PORT", value_parser = or_none)]
    pub listen_table: Option<Listen>,
    /// Where to take calls over HTTP, or `none` [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT", value_parser = or_none)]
    pub listen_http: Option<Listen>,
    /// Where to serve metrics and health over HTTP, or `none` [default: 127.0.0.1:9473]
    #[arg(long, value_name = "IP:PORT", value_parser = or_none)]
    pub listen_metrics: Option<Listen>,
    /// Where others reach it for calls; needed when it listens at 0.0.0.0
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<Endpoint>,
    /// A controller of ServerlessOnEdge that is to know of this broker too
    #[arg(long, value_name = "HOST:PORT")]
    pub older_controller: Option<Endpoint>,
    /// How a destination is chosen: predict, p2c-ewma, least-outstanding, least-latency, random, least-impedance,
    /// round-robin or proportional-fairness, with its parameters [default: predict]
    #[arg(long, value_name = "NAME[,KEY=VALUE…]")]
    pub policy: Option<Policy>,
    /// How latency becomes weight, for policies that choose by weight alone: none, trivial, async, asyncPF or ewma
    /// [default: ewma]
    #[arg(long, value_name = "NAME[,KEY=VALUE…]")]
    pub optimizer: Option<Optimizer>,
    /// Make calls that are safe to retry a second time elsewhere when they take longer than this percentage of their
    /// function's calls, such as 95
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(50..=99))]
    pub hedge: Option<u32>,
    /// A destination whatever the controller says; may be given several times
    #[arg(long, value_name = "FUNCTION=HOST:PORT", value_parser = parse_route)]
    pub route: Vec<(FunctionName, Endpoint)>,
    /// Another broker that calls of a function may be passed on to; may be given several times
    #[arg(long, value_name = "FUNCTION=HOST:PORT", value_parser = parse_route)]
    pub forward: Vec<(FunctionName, Endpoint)>,
    /// Folder for asynchronous calls, made if missing; without this and --store they are refused
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where asynchronous calls are kept: embedded (a file in --data-dir), or NATS, which several brokers can share
    #[arg(long, value_name = "embedded|nats://HOST:PORT[,…]")]
    pub store: Option<Given>,
    /// Doors for other systems' clients.
    #[command(flatten)]
    pub doors: DoorOptions,
    /// Join no controller; only --route and the file's routes are known
    #[arg(long)]
    pub no_controller: bool,
    /// Listen beyond this machine without TLS: whoever is on that network can read every payload, call, deploy and remove
    #[arg(long)]
    pub insecure_plaintext: bool,
    /// Folder of its certificate; the option of every command.
    #[arg(skip)]
    pub tls_dir: Option<PathBuf>,
}

/// How a broker is started.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// Where it takes calls over gRPC.
    pub calls: SocketAddr,
    /// Where it offers its table.
    pub table: Option<SocketAddr>,
    /// Where it takes calls over HTTP.
    pub http: Option<SocketAddr>,
    /// Where it takes calls of other systems' clients.
    pub doors: Vec<(System, SocketAddr)>,
    /// Where it serves metrics and health.
    pub metrics: Option<SocketAddr>,
    /// The folder that it needs, to be made.
    pub data_dir: Option<PathBuf>,
    /// The files of its certificate, to be read again when they change.
    pub tls: Option<TlsFiles>,
    /// Its name; without one it is called after the port that it gets.
    pub name: Option<NodeName>,
    /// The rest; see [`BrokerSettings::into_config`].
    pub config: Config,
}

keys! {
    /// A broker's file.
    BrokerKeys for Config {
        own {
            name: Text<NodeName>,
            listen: Text<SocketAddr>,
            listen_table: Text<OrNone<SocketAddr>>,
            listen_http: Text<OrNone<SocketAddr>>,
            listen_metrics: Text<OrNone<SocketAddr>>,
            controller: Text<OrNone<Endpoints>>,
            routes: BTreeMap<String, Vec<Text<Endpoint>>>,
            forward: BTreeMap<String, Vec<Text<Endpoint>>>,
            hedge: Text<OrNone<u32>>,
            insecure_plaintext: bool,
            data_dir: PathBuf,
            store: Text<Given>,
            asynchronous: AsynchronousKeys,
            doors: DoorKeys,
            tls: TlsKeys,
            http_clients: Visitors,
        }
        config {
            advertise: Text<Endpoint>,
            older_controller: Text<Endpoint>,
            policy: Text<Policy>,
            optimizer: Text<Optimizer>,
            slow_start: Time,
            retry_share: Share,
            calls_max: NonZeroUsize,
            drain: Time,
            limits: CallLimitKeys,
            server: ServerLimitKeys,
        }
    }
}

keys! {
    /// `[asynchronous]`: calls that are accepted now and run later.
    AsynchronousKeys for AsynchronousConfig {
        own {
            callback_hosts: Vec<Text<AllowedHost>>,
            callback_networks: Vec<Text<Network>>,
            callback_ca: PathBuf,
            triggers_max: NonZeroUsize,
            rate_max: NonZeroU32,
        }
        config {
            calls_max: NonZeroUsize,
            entries_max: NonZeroU32,
            bytes_max: Size,
            payloads_bytes_max: Size,
            keep_results: Time,
            tries_max: NonZeroU32,
            give_up_after: Time,
        }
    }
}

impl BrokerSettings {
    /// Every key, with its default.
    pub const EXAMPLE: &str = include_str!("../../config/broker.toml");

    /// The file and the options put together; `controller` is the one chosen by option or environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(options: &BrokerOptions, controller: Option<&Endpoints>) -> Result<Self, ConfigError> {
        let mut keys: BrokerKeys = read(options.config.as_deref())?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let calls = options.listen.or(keys.listen.take().map(|listen| listen.0)).unwrap_or(at(ports::CALLS));
        let door = |option: Option<Listen>, key: Option<Text<OrNone<SocketAddr>>>, port| {
            option.map(|listen| listen.0).or(key.map(|key| key.0.0)).unwrap_or(Some(at(port)))
        };
        let table = door(options.listen_table, keys.listen_table.take(), ports::TABLE);
        let http = door(options.listen_http, keys.listen_http.take(), ports::HTTP);
        let metrics = metrics_at(options.listen_metrics, keys.listen_metrics.take(), calls, ports::BROKER_OFFSET);

        let files = tls::chosen(options.tls_dir.as_deref(), keys.tls.take())?;
        let loaded = tls::load(files.as_ref(), Role::Broker)?;
        let name = tls::name(options.name.clone().or(keys.name.take().map(|name| name.0)), loaded.as_ref())?;
        let insecure = options.insecure_plaintext || keys.insecure_plaintext == Some(true);
        let mut config = Config::new(name.clone().unwrap_or_else(|| default_name("broker", calls.port())));
        config.routes = routes(keys.routes.take().unwrap_or_default())?;
        config.routes.extend(options.route.iter().cloned());
        config.forward = routes(keys.forward.take().unwrap_or_default())?;
        config.forward.extend(options.forward.iter().cloned());
        config.hedge_percent = options.hedge.or(keys.hedge.take().and_then(|hedge| hedge.0.0));
        if config.hedge_percent.is_some_and(|percent| !(50..=99).contains(&percent)) {
            return Err(ConfigError::Contradiction("hedge: give a percentage from 50 to 99, or none".into()));
        }
        config.controller = match keys.controller.take() {
            _ if options.no_controller => None,
            Some(Text(OrNone(None))) if controller.is_none() => None,
            key => controller.cloned().or(key.and_then(|key| key.0.0)).or_else(|| Some(default_controller())),
        };
        let doors = Doors::new(&options.doors, keys.doors.take().unwrap_or_default(), insecure)?;
        config.callers = doors.callers.unwrap_or(config.callers);
        config.http_clients = keys.http_clients.take().map_or(config.http_clients, Into::into);
        config.tls = loaded;
        let place = store::place(Wanted {
            given: options.store.clone().or(keys.store.take().map(|store| store.0)),
            data_dir: options.data_dir.clone().or(keys.data_dir.take()),
            file: CALLS,
            role: "broker",
            tls: files.as_ref(),
            insecure_plaintext: insecure,
        })?;
        let mut asynchronous = keys.asynchronous.take().unwrap_or_default();
        let trust = asynchronous.callback_ca.take().map(believing).transpose()?;
        let data_dir = place.and_then(|(place, data_dir)| {
            let mut asynchronous = asynchronous.applied_to(AsynchronousConfig::new(place));
            asynchronous.callback_trust = trust.unwrap_or(asynchronous.callback_trust);
            asynchronous.triggers.insecure_plaintext = insecure;
            asynchronous.triggers.tls = files.as_ref().map(store::tls_files);
            config.asynchronous = Some(asynchronous);
            data_dir
        });
        keys.fill(&mut config);
        config.advertise = options.advertise.clone().or(config.advertise);
        config.older_controller = options.older_controller.clone().or(config.older_controller);
        config.policy = options.policy.unwrap_or(config.policy);
        config.optimizer = options.optimizer.unwrap_or(config.optimizer);
        let has_routes = !(config.routes.is_empty() && config.forward.is_empty());
        if config.controller.is_none() && config.older_controller.is_none() && !has_routes {
            let message = "a broker without a controller and without routes could answer nothing; add --route FUNCTION=HOST:PORT or a controller";
            return Err(ConfigError::Contradiction(message.into()));
        }
        check_advertise("broker", calls, config.advertise.as_ref())?;
        let beside = doors.listen.iter().map(|(_, at)| *at);
        let listens: Vec<SocketAddr> =
            [Some(calls), table, http, metrics].into_iter().flatten().chain(beside).collect();
        tls::check_exposed(Role::Broker, &listens, config.tls.as_ref(), insecure)?;
        Ok(Self { calls, table, http, doors: doors.listen, metrics, data_dir, tls: files, name, config })
    }

    /// The configuration of a broker that takes calls on this port, from which the name follows where nobody has set it.
    pub fn into_config(self, port: u16) -> Config {
        let name = self.name.unwrap_or_else(|| default_name("broker", port));
        Config { name, ..self.config }
    }
}

impl AsynchronousKeys {
    fn applied_to(mut self, mut config: AsynchronousConfig) -> AsynchronousConfig {
        let hosts = self.callback_hosts.take().unwrap_or_default();
        config.callback_hosts = hosts.into_iter().map(|host| host.0).collect();
        config.callback_networks = networks(self.callback_networks.take(), &[]);
        let triggers = &mut config.triggers;
        triggers.triggers_max = self.triggers_max.take().map_or(triggers.triggers_max, NonZeroUsize::get);
        triggers.rate_max = self.rate_max.take().map_or(triggers.rate_max, NonZeroU32::get);
        self.fill(&mut config);
        config
    }
}

/// Whom callbacks over https believe, from a file.
fn believing(file: PathBuf) -> Result<Trust, ConfigError> {
    let pem = std::fs::read(&file).map_err(|source| ConfigError::Read { path: file.clone(), source })?;
    Trust::authorities(&pem)
        .map_err(|error| ConfigError::Contradiction(format!("callback_ca {}: {error}", file.display())))
}

fn routes(keys: BTreeMap<String, Vec<Text<Endpoint>>>) -> Result<Vec<(FunctionName, Endpoint)>, ConfigError> {
    let mut routes = Vec::new();
    for (function, destinations) in keys {
        let function: FunctionName =
            function.parse().map_err(|error| ConfigError::Contradiction(format!("[routes]: {error}")))?;
        routes.extend(destinations.into_iter().map(|destination| (function.clone(), destination.0)));
    }
    Ok(routes)
}

/// `FUNCTION=HOST:PORT`.
fn parse_route(given: &str) -> Result<(FunctionName, Endpoint), String> {
    let (function, destination) = given.split_once('=').ok_or("write it as FUNCTION=HOST:PORT")?;
    let function = function.parse().map_err(|error: nigh_proto::name::NameError| error.to_string())?;
    let destination = destination.parse().map_err(|error: nigh_proto::name::NameError| error.to_string())?;
    Ok((function, destination))
}
