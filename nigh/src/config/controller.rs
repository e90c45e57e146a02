//! A controller's settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use nigh_controller::Config;
use nigh_proto::Role;
use nigh_routing::install::{Hierarchy, Objective, Topology};
use nigh_store::{Given, Place};

use super::keys::{Fill as _, ModuleLimitKeys, OrNone, ServerLimitKeys, Text, keys};
use super::node::{Listen, metrics_at, or_none};
use super::store::{self, Wanted};
use super::tls::{self, TlsFiles, TlsKeys};
use super::{ConfigError, ports, read};
use crate::units::{Size, Time};

/// The file in the data folder that holds what is deployed.
pub(crate) const STORE: &str = "controller.redb";

/// Options of `nigh controller`; each wins over its key in the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ControllerOptions {
    /// Configuration file (TOML); `--print-config` shows every key with its default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:6475]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where to serve metrics and health over HTTP, or `none` [default: 127.0.0.1:9475]
    #[arg(long, value_name = "IP:PORT", value_parser = or_none)]
    pub listen_metrics: Option<Listen>,
    /// Folder for what is deployed, made if missing [default: nigh/controller in the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where what is deployed is kept: embedded (a file in --data-dir), or NATS, which several controllers can share
    #[arg(long, value_name = "embedded|nats://HOST:PORT[,…]")]
    pub store: Option<Given>,
    /// Distances between hosts: each computer then has a home broker, the only one that calls it
    #[arg(long, value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// What homes are chosen by: min-max or min-avg [default: min-max]
    #[arg(long, requires = "topology")]
    pub objective: Option<Objective>,
    /// Listen beyond this machine without TLS: whoever is on that network can read every payload, call, deploy and remove
    #[arg(long)]
    pub insecure_plaintext: bool,
    /// Folder of its certificate; the option of every command.
    #[arg(skip)]
    pub tls_dir: Option<PathBuf>,
}

/// How a controller is started.
#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it serves metrics and health.
    pub metrics: Option<SocketAddr>,
    /// The folder that must be there for its store, if it needs one.
    pub data_dir: Option<PathBuf>,
    /// The files of its certificate, to be read again when they change.
    pub tls: Option<TlsFiles>,
    /// The file of the topology, and what homes are chosen by.
    pub hierarchy: Option<(PathBuf, Objective)>,
    /// The rest; see [`ControllerSettings::into_config`].
    pub config: Config,
}

keys! {
    /// A controller's file.
    ControllerKeys for Config {
        own {
            listen: Text<SocketAddr>,
            listen_metrics: Text<OrNone<SocketAddr>>,
            data_dir: PathBuf,
            store: Text<Given>,
            topology: PathBuf,
            objective: Text<Objective>,
            insecure_plaintext: bool,
            tls: TlsKeys,
        }
        config {
            lease: Time,
            beat: Time,
            silence: Time,
            grace: Time,
            functions_max: NonZeroUsize,
            modules_bytes_max: Size,
            nodes_max: NonZeroUsize,
            states_max: NonZeroUsize,
            announcement_bytes_max: Size,
            watchers_max: NonZeroUsize,
            watcher_queue_max: NonZeroUsize,
            uploads_max: NonZeroUsize,
            upload_part_bytes_max: Size,
            upload_idle: Time,
            upload_timeout: Time,
            inspections_max: NonZeroUsize,
            removals_max: NonZeroUsize,
            fetches_max: NonZeroUsize,
            fetch_idle: Time,
            drain: Time,
            module_limits: ModuleLimitKeys,
            server: ServerLimitKeys,
        }
    }
}

impl ControllerSettings {
    /// Every key, with its default.
    pub const EXAMPLE: &str = include_str!("../../config/controller.toml");

    /// The file and the options put together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(options: &ControllerOptions) -> Result<Self, ConfigError> {
        let mut keys: ControllerKeys = read(options.config.as_deref())?;
        let listen = options.listen.or(keys.listen.as_ref().map(|listen| listen.0));
        let listen = listen.unwrap_or((Ipv4Addr::LOCALHOST, ports::CONTROLLER).into());
        let metrics = metrics_at(options.listen_metrics, keys.listen_metrics.take(), listen, ports::CONTROLLER_OFFSET);
        let files = tls::chosen(options.tls_dir.as_deref(), keys.tls.take())?;
        let insecure = options.insecure_plaintext || keys.insecure_plaintext == Some(true);
        let place = store::place(Wanted {
            given: options.store.clone().or(keys.store.take().map(|store| store.0)).or(Some(Given::Embedded)),
            data_dir: options.data_dir.clone().or(keys.data_dir.take()),
            file: STORE,
            role: "controller",
            tls: files.as_ref(),
            insecure_plaintext: insecure,
        })?;
        let (place, data_dir) = place.unwrap_or_else(|| (Place::Embedded { file: STORE.into() }, None));
        let mut config = Config { store: place, ..Config::new(STORE.into()) };
        let objective = options.objective.or(keys.objective.take().map(|objective| objective.0));
        let topology = options.topology.clone().or(keys.topology.take());
        if topology.is_none() && objective.is_some() {
            let message = "`objective` chooses homes by a topology; add `topology = \"FILE\"`";
            return Err(ConfigError::Contradiction(message.into()));
        }
        let hierarchy = topology.map(|file| (file, objective.unwrap_or(Objective::MinMax)));
        config.tls = tls::load(files.as_ref(), Role::Controller)?;
        let listens: Vec<SocketAddr> = std::iter::once(listen).chain(metrics).collect();
        tls::check_exposed(Role::Controller, &listens, config.tls.as_ref(), insecure)?;
        keys.fill(&mut config);
        Ok(Self { listen, metrics, data_dir, tls: files, hierarchy, config })
    }

    /// The configuration, with the topology read.
    ///
    /// # Errors
    /// [`ConfigError`] where the topology's file cannot be read or is none.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let mut config = self.config;
        if let Some((file, objective)) = self.hierarchy {
            let text =
                std::fs::read_to_string(&file).map_err(|source| ConfigError::Read { path: file.clone(), source })?;
            let topology = text.parse::<Topology>();
            let topology =
                topology.map_err(|error| ConfigError::Contradiction(format!("{}: {error}", file.display())))?;
            config.hierarchy = Some(Hierarchy { topology, objective });
        }
        Ok(config)
    }
}
