//! What the operator decides. Every limit has a default that is safe on a small machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use nigh_proto::tls::HttpClients;
use nigh_proto::{AllowedHost, Endpoint, Endpoints, NodeName, Remote, ServerLimits, Tls};
use nigh_store::Place;
use nigh_telemetry::Telemetry;

use crate::error::Error;
use crate::location::Location;
use crate::server::Server;

/// How it is set up. [`Config::new`] gives every field but the store a default.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where contexts are kept.
    pub place: Place,
    /// Who tells of functions, brokers and computers.
    pub controller: Option<Endpoints>,
    /// What it proves itself with; without it the wire is plain.
    pub tls: Option<Tls>,
    /// Who may come where there is TLS.
    pub http_clients: HttpClients,
    /// What is accepted of those who connect.
    pub server: ServerLimits,
    /// Where devices reach it; by default what they say themselves.
    pub advertise: Option<Endpoint>,
    /// Who provides the applications, as devices are told: 32 characters at most.
    pub provider: String,
    /// Requests must be as the standard's file says; else some that clients in the field leave out may be missing.
    pub strict: bool,
    /// Serve GS MEC 016 1.1.1 too, at `/mx2/v1`.
    pub mx2: bool,
    /// What devices are sent to.
    pub give: Give,
    /// In which form.
    pub reference: Reference,
    /// Who decides which of them.
    pub decider: DeciderConfig,
    /// Where applications are that nobody here has; `{name}` stands for the application's name.
    pub elsewhere: Option<String>,
    /// Where nodes are.
    pub locations: BTreeMap<NodeName, Location>,
    /// Proxies that are believed when they say, in `X-Forwarded-For`, where a device is.
    pub proxies: Vec<IpNet>,
    /// How devices are notified.
    pub callbacks: CallbackConfig,
    /// The MEC platform of which this is a service, if any.
    pub platform: Option<PlatformConfig>,
    /// A proxy of somebody else that is told where its devices are to call.
    pub lcm_proxy: Option<LcmProxyConfig>,
    /// Contexts, at most.
    pub contexts_max: usize,
    /// Contexts of one device, at most.
    pub contexts_per_device_max: usize,
    /// Bytes of all contexts as they are kept, at most.
    pub contexts_bytes_max: u64,
    /// Bytes of a request, at most.
    pub request_bytes_max: usize,
    /// Time for a request to come whole.
    pub request_timeout: Duration,
    /// Associations made by the older interface, at most.
    pub associations_max: usize,
    /// Time for requests to finish once it has to stop.
    pub drain: Duration,
    /// Where it tells of itself.
    pub telemetry: Telemetry,
}

/// What devices are sent to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Give {
    /// Brokers, which pass each call on to the computer that answers soonest.
    #[default]
    Brokers,
    /// Computers.
    Computers,
}

/// In which form a device of `/dev_app/v1` is told an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reference {
    /// `http://HOST:PORT/function/NAME`, where there is a door for HTTP.
    #[default]
    Http,
    /// `grpc://HOST:PORT`.
    Grpc,
}

/// Who decides where a device is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeciderConfig {
    /// Devices are spread evenly, and anew each period in which something has changed.
    Balanced {
        /// The period.
        period: Duration,
    },
    /// A file of associations does, read again whenever it changes.
    File {
        /// The file.
        path: PathBuf,
    },
    /// Associations made by the older interface alone do.
    Associations,
}

/// How devices are notified.
#[derive(Debug, Clone)]
pub struct CallbackConfig {
    /// Hosts that may be notified beside the device's own address. A name is told only where it leads to public addresses or
    /// into `networks`.
    pub hosts: Vec<AllowedHost>,
    /// Networks in which any address may be notified.
    pub networks: Vec<IpNet>,
    /// Notifications under way at once.
    pub in_flight_max: usize,
    /// Time for one try.
    pub timeout: Duration,
    /// How often one is tried.
    pub tries_max: u32,
    /// The wait before the second try; each further one is twice as long.
    pub pause: Duration,
}

/// A MEC platform, and as what this is known there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformConfig {
    /// Where it is: `http://HOST:PORT`, perhaps with a path.
    pub platform: Uri,
    /// The application instance that this is there.
    pub instance: String,
    /// What the service for device applications is called there.
    pub devices_service: String,
    /// What the service by which functions are called is called there.
    pub calls_service: String,
    /// How often it is asked whether it still knows them.
    pub check_every: Duration,
    /// Time for one request.
    pub timeout: Duration,
}

impl PlatformConfig {
    /// The defaults, at this platform as this instance.
    pub fn new(platform: Uri, instance: String) -> Self {
        Self {
            platform,
            instance,
            devices_service: "nigh-device-applications".to_owned(),
            calls_service: "nigh-functions".to_owned(),
            check_every: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let wrong = |message: String| Err(Error::Config(message));
        if self.platform.scheme_str() != Some("http") || self.platform.host().is_none() {
            return wrong(format!("platform {}: write http://HOST:PORT", self.platform));
        }
        if self.instance.is_empty() || !self.instance.bytes().all(is_plain) {
            return wrong(format!("instance {:?}: give letters, digits, - _ .", self.instance));
        }
        if self.check_every.is_zero() || self.timeout.is_zero() {
            return wrong("check_every or timeout of the platform is 0; leave it out for the default".to_owned());
        }
        Ok(())
    }
}

/// A proxy of device applications (`UeAppLcmProxy`) of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LcmProxyConfig {
    /// Where it is.
    pub endpoint: Endpoint,
    /// It speaks no TLS, also where this has a certificate; those of the older system never do.
    pub plaintext: bool,
    /// Time for one request.
    pub timeout: Duration,
}

impl LcmProxyConfig {
    /// The defaults, for this one.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, plaintext: false, timeout: Duration::from_secs(2) }
    }

    pub(crate) fn remote(&self, tls: Option<Tls>) -> Remote {
        Remote::new(self.endpoint.clone(), tls.filter(|_| !self.plaintext))
    }
}

impl Config {
    /// The defaults, with contexts kept there.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            controller: None,
            tls: None,
            http_clients: HttpClients::default(),
            server: ServerLimits::default(),
            advertise: None,
            provider: "Nigh".to_owned(),
            strict: false,
            mx2: false,
            give: Give::default(),
            reference: Reference::default(),
            decider: DeciderConfig::Balanced { period: Duration::from_secs(5) },
            elsewhere: None,
            locations: BTreeMap::new(),
            proxies: Vec::new(),
            callbacks: CallbackConfig::default(),
            platform: None,
            lcm_proxy: None,
            contexts_max: 10_000,
            contexts_per_device_max: 256,
            contexts_bytes_max: 256 << 20,
            request_bytes_max: 64 << 10,
            request_timeout: Duration::from_secs(10),
            associations_max: 2000,
            drain: Duration::from_secs(5),
            telemetry: Telemetry::new(),
        }
    }

    pub(crate) fn controller_remote(&self) -> Option<Remote> {
        Some(Remote::any_of(self.controller.as_ref()?, self.tls.clone()))
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self) -> Result<(), Error> {
        let limits = [
            ("contexts_max", self.contexts_max),
            ("contexts_per_device_max", self.contexts_per_device_max),
            ("request_bytes_max", self.request_bytes_max),
            ("associations_max", self.associations_max),
            ("callbacks.in_flight_max", self.callbacks.in_flight_max),
            ("callbacks.tries_max", self.callbacks.tries_max as usize),
        ];
        let waits = [
            ("request_timeout", self.request_timeout),
            ("drain", self.drain),
            ("callbacks.timeout", self.callbacks.timeout),
            ("callbacks.pause", self.callbacks.pause),
        ];
        let zero_limit = limits.iter().find(|(_, limit)| *limit == 0).map(|(name, _)| *name);
        let zero_wait = waits.iter().find(|(_, wait)| wait.is_zero()).map(|(name, _)| *name);
        if let Some(name) = zero_limit.or(zero_wait) {
            return Err(Error::Config(format!("{name} is 0; leave it out for the default")));
        }
        if matches!(self.decider, DeciderConfig::Balanced { period } if period.is_zero()) {
            return Err(Error::Config("the period of the balanced decider is 0; leave it out for the default".into()));
        }
        if self.provider.is_empty() || self.provider.chars().count() > 32 {
            return Err(Error::Config(format!("provider {:?}: give 1 to 32 characters", self.provider)));
        }
        if let Some(platform) = &self.platform {
            platform.check()?;
        }
        if self.lcm_proxy.as_ref().is_some_and(|proxy| proxy.timeout.is_zero()) {
            return Err(Error::Config("timeout of lcm_proxy is 0; leave it out for the default".into()));
        }
        if let Some(elsewhere) = &self.elsewhere {
            let example: Result<Server, _> = elsewhere.replace("{name}", "name").parse();
            if !example.is_ok_and(|server| server.is_uri()) {
                let message =
                    format!("elsewhere {elsewhere:?}: give an absolute URI, as http://cloud.example/function/{{name}}");
                return Err(Error::Config(message));
            }
        }
        Ok(())
    }
}

impl Default for CallbackConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            networks: Vec::new(),
            in_flight_max: 256,
            timeout: Duration::from_secs(2),
            tries_max: 3,
            pause: Duration::from_millis(250),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::new(Place::Embedded { file: "contexts".into() });
            change(&mut config);
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(refused(|_| {}), Ok(()));
        assert_eq!(refused(|config| config.elsewhere = Some("http://cloud/function/{name}".into())), Ok(()));
        let told = |change| refused(change).unwrap_err();
        assert!(told(|config| config.contexts_max = 0).contains("contexts_max"));
        assert!(told(|config| config.callbacks.timeout = Duration::ZERO).contains("callbacks.timeout"));
        assert!(told(|config| config.provider = "p".repeat(33)).contains("32 characters"));
        assert!(told(|config| config.elsewhere = Some("cloud:80".into())).contains("absolute URI"));
        let platform = |uri: &'static str, instance: &str| {
            let mut config = Config::new(Place::Embedded { file: "contexts".into() });
            config.platform = Some(PlatformConfig::new(Uri::from_static(uri), instance.to_owned()));
            config.check()
        };
        assert!(platform("http://mep:8081/sandbox", "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f").is_ok());
        assert!(
            platform("https://mep", "a").is_err()
                && platform("mep", "a").is_err()
                && platform("http://mep", "a/b").is_err()
        );
        let period = Duration::ZERO;
        let mut config = Config::new(Place::Embedded { file: "contexts".into() });
        config.decider = DeciderConfig::Balanced { period };
        assert!(config.check().is_err());
    }
}
