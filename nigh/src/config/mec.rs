//! The settings of what tells device applications where to call.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use nigh_mec::{
    CallbackConfig, Config, DeciderConfig, Give, IpNet, LcmProxyConfig, Location, PlatformConfig, Reference, Uri,
};
use nigh_proto::{AllowedHost, Endpoint, Endpoints, NodeName, Role};
use nigh_store::Given;

use super::keys::{Fill as _, OrNone, ServerLimitKeys, Text, keys};
use super::node::{Listen, Network, Visitors, default_controller, metrics_at, networks, or_none, parse_network};
use super::store::{self, Wanted};
use super::tls::{self, TlsFiles, TlsKeys};
use super::{ConfigError, ports, read};
use crate::units::{Size, Time};

/// The store of contexts in a data folder.
const CONTEXTS: &str = "mec.redb";

/// Options of `nigh mec`; each wins over its key in the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct MecOptions {
    /// Configuration file (TOML); `--print-config` shows every key with its default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where devices come [default: 127.0.0.1:6500]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where programs of ServerlessOnEdge write associations, or `none` [default: none; 127.0.0.1:6477 by convention]
    #[arg(long, value_name = "IP:PORT", value_parser = or_none)]
    pub listen_older: Option<Listen>,
    /// Where to serve metrics and health over HTTP, or `none` [default: 127.0.0.1:9500]
    #[arg(long, value_name = "IP:PORT", value_parser = or_none)]
    pub listen_metrics: Option<Listen>,
    /// Where devices reach it, for the addresses of contexts
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<Endpoint>,
    /// Folder for contexts, made if missing [default: nigh/mec in the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where contexts are kept: embedded (a file in --data-dir), or NATS
    #[arg(long, value_name = "embedded|nats://HOST:PORT[,…]")]
    pub store: Option<Given>,
    /// Who decides where a device is sent [default: balanced]
    #[arg(long, value_enum)]
    pub decide: Option<DeciderName>,
    /// How often devices are spread anew, with --decide balanced [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub period: Option<Time>,
    /// Lines of CLIENT APPLICATION SERVER, with --decide file
    #[arg(long, value_name = "FILE")]
    pub associations: Option<PathBuf>,
    /// Where applications are that nobody here serves; {name} stands for their name
    #[arg(long, value_name = "URI")]
    pub elsewhere: Option<String>,
    /// What devices are sent to [default: brokers]
    #[arg(long, value_enum)]
    pub give: Option<GiveName>,
    /// Serve GS MEC 016 1.1.1 too, at /mx2/v1
    #[arg(long)]
    pub mx2: bool,
    /// Take only requests that are as the standard's file says
    #[arg(long)]
    pub strict: bool,
    /// A host that may be notified beside devices' own addresses; may be given several times
    #[arg(long, value_name = "HOST[:PORT]")]
    pub callback_host: Vec<AllowedHost>,
    /// A network in which any address may be notified; may be given several times
    #[arg(long, value_name = "IP/BITS", value_parser = parse_network)]
    pub callback_network: Vec<IpNet>,
    /// The MEC platform (Mp1) at which it is registered; needs --instance
    #[arg(long, value_name = "http://HOST:PORT", requires = "instance")]
    pub platform: Option<Uri>,
    /// The application instance that it is there
    #[arg(long, value_name = "ID", requires = "platform")]
    pub instance: Option<String>,
    /// Tell a proxy of somebody else (UeAppLcmProxy), as of ServerlessOnEdge, where its devices are to call
    #[arg(long, value_name = "HOST:PORT")]
    pub lcm_proxy: Option<Endpoint>,
    /// That proxy speaks no TLS, as those of ServerlessOnEdge
    #[arg(long, requires = "lcm_proxy")]
    pub lcm_proxy_plaintext: bool,
    /// Listen beyond this machine without TLS: whoever is on that network can read and send everything
    #[arg(long)]
    pub insecure_plaintext: bool,
    /// Folder of its certificate; the option of every command.
    #[arg(skip)]
    pub tls_dir: Option<PathBuf>,
}

/// Who decides where a device is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeciderName {
    /// Devices are spread evenly
    #[default]
    Balanced,
    /// A file does
    File,
    /// Programs of ServerlessOnEdge do
    Associations,
}

/// What devices are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GiveName {
    /// Brokers, which pass calls on
    Brokers,
    /// Computers
    Computers,
}

/// `reference`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReferenceName {
    Http,
    Grpc,
}

/// How it is started.
#[derive(Debug, Clone)]
pub struct MecSettings {
    /// Where devices come.
    pub devices: SocketAddr,
    /// Where associations are written.
    pub older: Option<SocketAddr>,
    /// Where it serves metrics and health.
    pub metrics: Option<SocketAddr>,
    /// The folder that it needs, to be made.
    pub data_dir: Option<PathBuf>,
    /// The files of its certificate, to be read again when they change.
    pub tls: Option<TlsFiles>,
    /// The rest.
    pub config: Config,
}

keys! {
    /// A file.
    MecKeys for Config {
        own {
            listen: Text<SocketAddr>,
            listen_older: Text<OrNone<SocketAddr>>,
            listen_metrics: Text<OrNone<SocketAddr>>,
            insecure_plaintext: bool,
            http_clients: Visitors,
            controller: Text<Endpoints>,
            data_dir: PathBuf,
            store: Text<Given>,
            provider: String,
            strict: bool,
            mx2: bool,
            give: GiveName,
            reference: ReferenceName,
            decide: DeciderName,
            period: Time,
            associations: PathBuf,
            elsewhere: String,
            proxies: Vec<Text<Network>>,
            callbacks: CallbackKeys,
            platform: PlatformKeys,
            lcm_proxy: LcmProxyKeys,
            locations: BTreeMap<String, LocationKeys>,
            tls: TlsKeys,
        }
        config {
            advertise: Text<Endpoint>,
            contexts_max: NonZeroUsize,
            contexts_per_device_max: NonZeroUsize,
            contexts_bytes_max: Size,
            associations_max: NonZeroUsize,
            request_bytes_max: Size,
            request_timeout: Time,
            drain: Time,
            server: ServerLimitKeys,
        }
    }
}

keys! {
    /// `[callbacks]`: how devices are notified.
    CallbackKeys for CallbackConfig {
        own {
            hosts: Vec<Text<AllowedHost>>,
            networks: Vec<Text<Network>>,
        }
        config {
            in_flight_max: NonZeroUsize,
            timeout: Time,
            tries_max: NonZeroU32,
            pause: Time,
        }
    }
}

keys! {
    /// `[platform]`: the MEC platform at which it is registered.
    PlatformKeys for PlatformConfig {
        own {
            url: Text<Uri>,
            instance: String,
        }
        config {
            devices_service: Text<String>,
            calls_service: Text<String>,
            check_every: Time,
            timeout: Time,
        }
    }
}

keys! {
    /// `[lcm_proxy]`: a proxy of somebody else that is driven.
    LcmProxyKeys for LcmProxyConfig {
        own {
            endpoint: Text<Endpoint>,
            plaintext: bool,
        }
        config {
            timeout: Time,
        }
    }
}

/// `[locations.NODE]`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocationKeys {
    country: Option<String>,
    point: Option<(f64, f64)>,
}

impl MecSettings {
    /// Every key, with its default.
    pub const EXAMPLE: &str = include_str!("../../config/mec.toml");

    /// The file and the options put together; `controller` is the one chosen by option or environment.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(options: &MecOptions, controller: Option<&Endpoints>) -> Result<Self, ConfigError> {
        let mut keys: MecKeys = read(options.config.as_deref())?;
        let devices = options.listen.or(keys.listen.take().map(|listen| listen.0));
        let devices = devices.unwrap_or((Ipv4Addr::LOCALHOST, ports::MEC).into());
        let older = options.listen_older.map(|listen| listen.0);
        let older = older.or(keys.listen_older.take().map(|key| key.0.0)).flatten();
        let metrics = metrics_at(options.listen_metrics, keys.listen_metrics.take(), devices, ports::MEC_OFFSET);
        let files = tls::chosen(options.tls_dir.as_deref(), keys.tls.take())?;
        let loaded = tls::load(files.as_ref(), Role::Mec)?;
        let insecure = options.insecure_plaintext || keys.insecure_plaintext == Some(true);
        let (place, data_dir) = store::place(Wanted {
            given: options.store.clone().or(keys.store.take().map(|store| store.0)).or(Some(Given::Embedded)),
            data_dir: options.data_dir.clone().or(keys.data_dir.take()),
            file: CONTEXTS,
            role: "mec",
            tls: files.as_ref(),
            insecure_plaintext: insecure,
        })?
        .ok_or(ConfigError::NoHome)?;
        let mut config = Config::new(place);
        let key = keys.controller.take().map(|controller| controller.0);
        config.controller = Some(controller.cloned().or(key).unwrap_or_else(default_controller));
        config.tls = loaded;
        config.http_clients = keys.http_clients.take().map_or(config.http_clients, Into::into);
        config.decider = decider(options, &mut keys)?;
        config.proxies = networks(keys.proxies.take(), &[]);
        let mut callbacks = keys.callbacks.take().unwrap_or_default();
        let hosts = callbacks.hosts.take().unwrap_or_default().into_iter().map(|host| host.0);
        config.callbacks.hosts = hosts.chain(options.callback_host.iter().cloned()).collect();
        config.callbacks.networks = networks(callbacks.networks.take(), &options.callback_network);
        callbacks.fill(&mut config.callbacks);
        config.locations = locations(keys.locations.take().unwrap_or_default())?;
        config.platform = platform(options, keys.platform.take())?;
        config.lcm_proxy = lcm_proxy(options, keys.lcm_proxy.take())?;
        what_devices_see(options, &mut keys, &mut config);
        keys.fill(&mut config);
        config.advertise = options.advertise.clone().or(config.advertise);
        config.check().map_err(|error| ConfigError::Contradiction(error.to_string()))?;
        let listens: Vec<SocketAddr> = [Some(devices), older, metrics].into_iter().flatten().collect();
        tls::check_exposed(Role::Mec, &listens, config.tls.as_ref(), insecure)?;
        Ok(Self { devices, older, metrics, data_dir, tls: files, config })
    }
}

/// The MEC platform, if there is one.
fn platform(options: &MecOptions, keys: Option<PlatformKeys>) -> Result<Option<PlatformConfig>, ConfigError> {
    let mut keys = keys.unwrap_or_default();
    let url = options.platform.clone().or(keys.url.take().map(|url| url.0));
    let instance = options.instance.clone().or(keys.instance.take());
    match (url, instance) {
        (None, None) => Ok(None),
        (Some(url), Some(instance)) => {
            let mut platform = PlatformConfig::new(url, instance);
            keys.fill(&mut platform);
            Ok(Some(platform))
        }
        _ => Err(ConfigError::Contradiction("[platform] needs both `url` and `instance`, or neither".into())),
    }
}

/// The proxy that is driven, if any.
fn lcm_proxy(options: &MecOptions, keys: Option<LcmProxyKeys>) -> Result<Option<LcmProxyConfig>, ConfigError> {
    let has_keys = keys.is_some();
    let mut keys = keys.unwrap_or_default();
    let Some(endpoint) = options.lcm_proxy.clone().or(keys.endpoint.take().map(|endpoint| endpoint.0)) else {
        let message = "[lcm_proxy] needs `endpoint`, or leave it out";
        return if has_keys { Err(ConfigError::Contradiction(message.into())) } else { Ok(None) };
    };
    let plaintext = keys.plaintext.take() == Some(true);
    let mut proxy = LcmProxyConfig::new(endpoint);
    keys.fill(&mut proxy);
    proxy.plaintext = options.lcm_proxy_plaintext || plaintext;
    Ok(Some(proxy))
}

/// What devices are told, and in which dialects.
fn what_devices_see(options: &MecOptions, keys: &mut MecKeys, config: &mut Config) {
    config.provider = keys.provider.take().unwrap_or_else(|| config.provider.clone());
    config.strict = options.strict || keys.strict == Some(true);
    config.mx2 = options.mx2 || keys.mx2 == Some(true);
    config.give = match options.give.or(keys.give) {
        Some(GiveName::Computers) => Give::Computers,
        Some(GiveName::Brokers) | None => Give::Brokers,
    };
    config.reference = match keys.reference {
        Some(ReferenceName::Grpc) => Reference::Grpc,
        Some(ReferenceName::Http) | None => Reference::Http,
    };
    config.elsewhere = options.elsewhere.clone().or(keys.elsewhere.take());
}

fn decider(options: &MecOptions, keys: &mut MecKeys) -> Result<DeciderConfig, ConfigError> {
    let name = options.decide.or(keys.decide).unwrap_or_default();
    let path = options.associations.clone().or(keys.associations.take());
    let period = options.period.or(keys.period).map_or(Duration::from_secs(5), Time::duration);
    match (name, path) {
        (DeciderName::File, Some(path)) => Ok(DeciderConfig::File { path }),
        (DeciderName::File, None) => {
            let message = "`decide = \"file\"` needs the file: add `associations = \"FILE\"` or --associations FILE";
            Err(ConfigError::Contradiction(message.into()))
        }
        (_, Some(path)) if options.associations.is_some() => {
            let message = format!("--associations {} is for --decide file; add that, or leave it out", path.display());
            Err(ConfigError::Contradiction(message))
        }
        (DeciderName::Balanced, _) => Ok(DeciderConfig::Balanced { period }),
        (DeciderName::Associations, _) => Ok(DeciderConfig::Associations),
    }
}

fn locations(keys: BTreeMap<String, LocationKeys>) -> Result<BTreeMap<NodeName, Location>, ConfigError> {
    let wrong = |message: String| ConfigError::Contradiction(format!("[locations]: {message}"));
    let location = |(name, LocationKeys { country, point }): (String, LocationKeys)| {
        let node: NodeName = name.parse().map_err(|error: nigh_proto::name::NameError| wrong(error.to_string()))?;
        let is_code = |code: &String| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        if country.as_ref().is_some_and(|code| !is_code(code)) {
            return Err(wrong(format!("{name}: a country has two capitals, as in IT")));
        }
        if point.is_some_and(|(longitude, latitude)| longitude.abs() > 180.0 || latitude.abs() > 90.0) {
            return Err(wrong(format!("{name}: a point is longitude and latitude in degrees")));
        }
        Ok((node, Location { country, point }))
    };
    keys.into_iter().map(location).collect()
}
