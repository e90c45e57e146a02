//! A computer's settings.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use nigh_proto::http_client::IpNet;
use nigh_proto::{Endpoint, Endpoints, Label, Labels, NodeName, Role};
use nigh_runtime::{Config, OfferedDirectory};
use nigh_store::Given;

use super::hardware::{BackendName, backend};
use super::keys::{CallLimitKeys, Fill as _, ModuleLimitKeys, OrNone, ServerLimitKeys, Text, keys};
use super::node::{
    Listen, Network, Visitors, check_advertise, default_controller, default_name, metrics_at, networks, or_none,
    parse_network,
};
use super::remote::{self, RemoteKeys, RemoteOptions};
use super::tls::{self, TlsFiles, TlsKeys};
use super::{ConfigError, default_data_dir, ports, read, store};
use crate::units::{Size, Time};

/// The folder in the data folder for compiled modules.
pub(crate) const COMPILED: &str = "compiled";
/// The file in the data folder for states.
pub(crate) const STATES: &str = "states.redb";

/// Options of `nigh computer`; each wins over its key in the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ComputerOptions {
    /// Configuration file (TOML); `--print-config` shows every key with its default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Its name, unique in the edge [default: computer-PORT]
    #[arg(long)]
    pub name: Option<NodeName>,
    /// Where to take calls [default: 127.0.0.1:10000]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where to take calls over HTTP too; nowhere unless told so
    #[arg(long, value_name = "IP:PORT", value_parser = or_none)]
    pub listen_http: Option<Listen>,
    /// Where to serve metrics and health over HTTP, or `none` [default: on 127.0.0.1, 9000 above its port: 19000]
    #[arg(long, value_name = "IP:PORT", value_parser = or_none)]
    pub listen_metrics: Option<Listen>,
    /// Where others reach it; needed when it listens at 0.0.0.0
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<Endpoint>,
    /// A controller of ServerlessOnEdge that is to know of this computer too
    #[arg(long, value_name = "HOST:PORT")]
    pub older_controller: Option<Endpoint>,
    /// Folder for compiled modules and states, made if missing, for this computer alone [default: nigh/NAME in the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where states are kept: embedded (a file in --data-dir), or NATS, which all computers of the edge then share [default:
    /// embedded]
    #[arg(long, value_name = "embedded|nats://HOST:PORT,…|tls://HOST:PORT,…")]
    pub store: Option<Given>,
    /// Calls that run at once [default: twice the cores]
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// Sum of the memory limits of all instances [default: half of the machine's memory]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// A directory that functions may be granted, read-only unless `:rw` follows; may be given several times
    #[arg(long, value_name = "NAME=PATH[:rw]", value_parser = parse_offer)]
    pub dir: Vec<OfferedDirectory>,
    /// A network to which names may lead that functions are allowed to send requests to, beside the public internet; may be given
    /// several times
    #[arg(long, value_name = "IP/BITS", value_parser = parse_network)]
    pub outgoing_network: Vec<IpNet>,
    /// What runs its functions [default: wasm]
    #[arg(long, value_enum, value_name = "BACKEND")]
    pub backend: Option<BackendName>,
    /// With --backend modelled: `raspberry`, `intel-server`, with their parameters, or a file [default: raspberry]
    #[arg(long, value_name = "NAME[,KEY=VALUE…]|FILE", requires = "backend")]
    pub hardware: Option<String>,
    /// What functions may choose it by (`nigh deploy --where`); may be given several times, or separated by commas
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub label: Vec<Label>,
    /// Listen beyond this machine without TLS: whoever is on that network can read every payload, call, deploy and remove
    #[arg(long)]
    pub insecure_plaintext: bool,
    /// Where functions run that do not run here.
    #[command(flatten)]
    pub remote: RemoteOptions,
    /// Folder of its certificate; the option of every command.
    #[arg(skip)]
    pub tls_dir: Option<PathBuf>,
}

/// How a computer is started.
#[derive(Debug, Clone)]
pub struct ComputerSettings {
    /// Where it takes calls over gRPC.
    pub listen: SocketAddr,
    /// Where it takes calls over HTTP.
    pub http: Option<SocketAddr>,
    /// Where it serves metrics and health.
    pub metrics: Option<SocketAddr>,
    /// The files of its certificate, to be read again when they change.
    pub tls: Option<TlsFiles>,
    /// Its name; without one it is called after the port that it gets.
    pub name: Option<NodeName>,
    /// Folder for compiled modules.
    pub data_dir: Option<PathBuf>,
    /// The rest; see [`ComputerSettings::into_config`].
    pub config: Config,
}

keys! {
    /// A computer's file.
    ComputerKeys for Config {
        own {
            name: Text<NodeName>,
            listen: Text<SocketAddr>,
            listen_http: Text<OrNone<SocketAddr>>,
            http_clients: Visitors,
            listen_metrics: Text<OrNone<SocketAddr>>,
            controller: Text<Endpoints>,
            data_dir: PathBuf,
            directories: BTreeMap<String, Offer>,
            outgoing_networks: Vec<Text<Network>>,
            labels: BTreeMap<String, String>,
            insecure_plaintext: bool,
            tls: TlsKeys,
            backend: BackendName,
            hardware: String,
            store: Text<Given>,
            remote: RemoteKeys,
        }
        config {
            advertise: Text<Endpoint>,
            older_controller: Text<Endpoint>,
            cache_bytes_max: Size,
            resident_functions_max: NonZeroUsize,
            resident_code_bytes_max: Size,
            compiles_max: NonZeroUsize,
            compile_cpu_max: Time,
            compile_timeout: Time,
            compile_memory_bytes_max: Size,
            workers: NonZeroUsize,
            instances_max: NonZeroU32,
            memory_bytes_max: Size,
            open_files_max: NonZeroU32,
            queue_max: NonZeroUsize,
            payload_bytes_total_max: Size,
            drain: Time,
            limits: CallLimitKeys,
            module_limits: ModuleLimitKeys,
            server: ServerLimitKeys,
            states: StateKeys,
        }
    }
}

keys! {
    /// `[states]`: how states are kept.
    StateKeys for nigh_state::Config {
        own {}
        config {
            bytes_max: Size,
            waiting_max: NonZeroUsize,
            older_hosts: Vec<String>,
            offer: Time,
        }
    }
}

/// `[directories.NAME]`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offer {
    path: PathBuf,
    #[serde(default)]
    writable: bool,
}

impl ComputerSettings {
    /// Every key, with its default.
    pub const EXAMPLE: &str = include_str!("../../config/computer.toml");

    /// The file and the options put together; `controller` is the one chosen by option or environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(options: &ComputerOptions, controller: Option<&Endpoints>) -> Result<Self, ConfigError> {
        let mut keys: ComputerKeys = read(options.config.as_deref())?;
        let listen = options.listen.or(keys.listen.take().map(|listen| listen.0));
        let listen = listen.unwrap_or((Ipv4Addr::LOCALHOST, ports::COMPUTERS).into());
        let http = options.listen_http.map(|listen| listen.0).or(keys.listen_http.take().map(|key| key.0.0)).flatten();
        let metrics = metrics_at(options.listen_metrics, keys.listen_metrics.take(), listen, ports::COMPUTER_OFFSET);
        let files = tls::chosen(options.tls_dir.as_deref(), keys.tls.take())?;
        let loaded = tls::load(files.as_ref(), Role::Computer)?;
        let name = tls::name(options.name.clone().or(keys.name.take().map(|name| name.0)), loaded.as_ref())?;
        let insecure = options.insecure_plaintext || keys.insecure_plaintext == Some(true);
        let mut config = Config::new(name.clone().unwrap_or_else(|| default_name("computer", listen.port())));
        let key = keys.controller.take().map(|controller| controller.0);
        config.controller = Some(controller.cloned().or(key).unwrap_or_else(default_controller));
        let data_dir = options.data_dir.clone().or(keys.data_dir.take());
        config.directories = directories(keys.directories.take().unwrap_or_default())?;
        config.directories.extend(options.dir.iter().cloned());
        config.outgoing_networks = networks(keys.outgoing_networks.take(), &options.outgoing_network);
        config.http_clients = keys.http_clients.take().map_or(config.http_clients, Into::into);
        config.labels = labels(keys.labels.take().unwrap_or_default(), &options.label)?;
        config.tls = loaded;
        let given = options.store.clone().or(keys.store.take().map(|store| store.0));
        let shared = given.filter(|given| *given != Given::Embedded).map(|given| {
            store::place(store::Wanted {
                given: Some(given),
                data_dir: None,
                file: STATES,
                role: "computer",
                tls: files.as_ref(),
                insecure_plaintext: insecure,
            })
        });
        let shared = shared.transpose()?.flatten().map(|(place, _)| place);
        let named = options.backend.or(keys.backend.take()).unwrap_or_default();
        let described = options.hardware.clone().or(keys.hardware.take().filter(|_| named == BackendName::Modelled));
        let elsewhere = keys.remote.take().unwrap_or_default();
        config.backend = if named.is_remote() && described.is_none() {
            config.workers = remote::WORKERS;
            remote::backend(named, &options.remote, elsewhere)?
        } else if !named.is_remote() && options.remote.is_given() {
            let message = "say with --backend http or --backend openwhisk what it is where the functions run";
            return Err(ConfigError::Contradiction(message.to_owned()));
        } else {
            backend(named, described.as_deref())?
        };
        keys.fill(&mut config);
        config.states.place = shared;
        config.advertise = options.advertise.clone().or(config.advertise);
        config.older_controller = options.older_controller.clone().or(config.older_controller);
        config.workers = options.workers.map_or(config.workers, NonZeroUsize::get);
        config.memory_bytes_max = options.memory.map_or(config.memory_bytes_max, Size::bytes);
        check_advertise("computer", listen, config.advertise.as_ref())?;
        let listens: Vec<SocketAddr> = [Some(listen), http, metrics].into_iter().flatten().collect();
        tls::check_exposed(Role::Computer, &listens, config.tls.as_ref(), insecure)?;
        Ok(Self { listen, http, metrics, tls: files, name, data_dir, config })
    }

    /// The configuration of a computer that listens on this port, from which what nobody has set follows.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`].
    pub fn into_config(self, port: u16) -> Result<Config, ConfigError> {
        let mut config = self.config;
        config.name = self.name.unwrap_or_else(|| default_name("computer", port));
        let data_dir = match self.data_dir {
            Some(folder) => folder,
            None => default_data_dir(config.name.as_str())?,
        };
        config.cache = Some(data_dir.join(COMPILED));
        config.states.place.get_or_insert_with(|| store::embedded(&data_dir, STATES));
        Ok(config)
    }
}

/// Those of the file, and those of the options, which win.
fn labels(keys: BTreeMap<String, String>, options: &[Label]) -> Result<Labels, ConfigError> {
    let keys = keys.into_iter().map(|(key, value)| format!("{key}={value}").parse()).collect::<Result<Vec<Label>, _>>();
    let labels = keys.and_then(|keys| Labels::new(keys.into_iter().chain(options.iter().cloned())));
    labels.map_err(|error| ConfigError::Contradiction(format!("[labels]: {}", error.message)))
}

fn directories(keys: BTreeMap<String, Offer>) -> Result<Vec<OfferedDirectory>, ConfigError> {
    let offer = |(name, Offer { path, writable }): (String, Offer)| match name.parse::<NodeName>() {
        Ok(_) => Ok(OfferedDirectory { name, path, writable }),
        Err(error) => Err(ConfigError::Contradiction(format!("[directories]: {error}"))),
    };
    keys.into_iter().map(offer).collect()
}

/// `NAME=PATH[:rw]`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_offer(given: &str) -> Result<OfferedDirectory, String> {
    let (name, path) = given.split_once('=').ok_or("write it as NAME=PATH or NAME=PATH:rw")?;
    let name: NodeName = name.parse().map_err(|error: nigh_proto::name::NameError| error.to_string())?;
    let (path, writable) = path.strip_suffix(":rw").map_or((path, false), |path| (path, true));
    if path.is_empty() {
        return Err("write it as NAME=PATH or NAME=PATH:rw".into());
    }
    Ok(OfferedDirectory { name: name.as_str().to_owned(), path: path.into(), writable })
}
