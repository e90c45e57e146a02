//! What computers and brokers have in common: a name, and a controller to join.

use std::net::{Ipv4Addr, SocketAddr};

use nigh_proto::{Endpoint, NodeName};

use super::{ConfigError, ports};

/// Where a controller of this machine is by convention.
pub(crate) fn default_controller() -> Endpoint {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ports::CONTROLLER)).into()
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
