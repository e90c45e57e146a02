//! What roles have in common: a name, a controller to join, and a port where they tell of themselves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use nigh_proto::http_client::IpNet;
use nigh_proto::tls::HttpClients;
use nigh_proto::{Endpoint, Endpoints, NodeName};

use super::keys::{OrNone, Text};
use super::{ConfigError, ports};

/// A socket that may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

/// `http_clients`.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Visitors {
    Certified,
    Anybody,
}

impl From<Visitors> for HttpClients {
    fn from(visitors: Visitors) -> Self {
        match visitors {
            Visitors::Certified => Self::Certified,
            Visitors::Anybody => Self::Anybody,
        }
    }
}

/// Where a controller of this machine is by convention.
pub(crate) fn default_controller() -> Endpoints {
    Endpoint::from(SocketAddr::from((Ipv4Addr::LOCALHOST, ports::CONTROLLER))).into()
}

/// The name of a node that was given none: its role and port, as in `computer-10000`.
pub fn default_name(role: &str, port: u16) -> NodeName {
    format!("{role}-{port}").parse().expect("a role and a number make a name")
}

/// What is announced must be reachable.
pub(super) fn check_advertise(
    role: &'static str,
    listen: SocketAddr,
    advertise: Option<&Endpoint>,
) -> Result<(), ConfigError> {
    if listen.ip().is_unspecified() && advertise.is_none() {
        return Err(ConfigError::Advertise { role, listen });
    }
    Ok(())
}

/// Reads an address, or `none`.
pub(crate) fn or_none(given: &str) -> Result<Listen, std::net::AddrParseError> {
    given.parse::<OrNone<SocketAddr>>().map(|listen| Listen(listen.0))
}

/// Where a role serves metrics and health: as its option says, else its key. Otherwise on this machine only, at a fixed
/// distance from its own port, so that several on one machine do not meet; where that is for the system to pick, so is
/// this.
pub(super) fn metrics_at(
    option: Option<Listen>,
    key: Option<Text<OrNone<SocketAddr>>>,
    own: SocketAddr,
    offset: u16,
) -> Option<SocketAddr> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, metrics_port(own.port(), offset)));
    option.map(|listen| listen.0).or(key.map(|key| key.0.0)).unwrap_or(Some(usual))
}

/// The port for metrics of a role whose own port is this; 0 lets the system pick.
pub(crate) fn metrics_port(own: u16, offset: u16) -> u16 {
    if own == 0 { 0 } else { own.checked_add(offset).unwrap_or(0) }
}

/// An address, or a network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network(IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        parse_network(given).map(Self)
    }
}

/// Reads an address, or a network.
pub(crate) fn parse_network(given: &str) -> Result<IpNet, String> {
    let address = given.parse::<IpAddr>().map(IpNet::from).ok();
    let network = address.or_else(|| given.parse().ok());
    network.ok_or_else(|| format!("{given:?} is no network: write an address, or ADDRESS/BITS as in 10.1.0.0/16"))
}

/// Those of the file, and those of the options.
pub(super) fn networks(keys: Option<Vec<Text<Network>>>, options: &[IpNet]) -> Vec<IpNet> {
    keys.unwrap_or_default().into_iter().map(|network| network.0.0).chain(options.iter().copied()).collect()
}
