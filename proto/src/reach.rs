//! Where a connection may lead. A URL that a stranger has chosen leads nowhere but to the public internet and to where an operator
//! allows, whatever names say at the time that it is used.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use tokio::net::TcpStream;

use crate::dial::dial;
use crate::name::Endpoint;

/// Where a client's connections may lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reach {
    /// Wherever the URL says.
    #[default]
    Anywhere,
    /// Exactly there, whatever the URL says.
    At(SocketAddr),
    /// To addresses of the public internet.
    Public {
        /// And to any address of these.
        networks: Vec<IpNet>,
    },
}

impl Reach {
    /// Connects to whoever is meant by a URL's host and port; an IPv6 address without brackets.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let endpoint = match self {
            Self::Anywhere => endpoint_of(host, port)?,
            Self::At(address) => Endpoint::from(*address),
            Self::Public { networks } => Endpoint::from(find(host, port, networks).await?),
        };
        dial(&endpoint).await
    }
}

fn endpoint_of(host: &str, port: u16) -> io::Result<Endpoint> {
    let endpoint = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    endpoint.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{error}")))
}

/// An address that a name leads to and that may be connected to. Names are looked up once, so that nobody leads elsewhere between the
/// check and the connection.
async fn find(host: &str, port: u16, networks: &[IpNet]) -> io::Result<SocketAddr> {
    let found = tokio::net::lookup_host((host, port)).await;
    let mut found = found.map_err(|error| io::Error::new(error.kind(), format!("{host} leads nowhere: {error}")))?;
    let may = |address: IpAddr| is_public(address) || networks.iter().any(|network| network.contains(&address));
    found.find(|address| may(address.ip().to_canonical())).ok_or_else(|| {
        let message = format!("{host} leads to no address that may be reached; the operator may add its network");
        io::Error::new(io::ErrorKind::PermissionDenied, message)
    })
}

/// Whether an address is of the public internet: not of a machine itself, a private network, or a link, where the
/// metadata of clouds are too.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            let is_reserved = a == 0 || a >= 240 || (a, b, c) == (192, 0, 0) || (a == 198 && b & 0xfe == 18);
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast())
                && !(v4.is_documentation() || is_shared || is_reserved)
        }
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let segments = v6.segments();
    // Of what is assigned for use on the internet, without the ranges that carry an address of version 4, which may be any.
    let is_global = segments[0] & 0xe000 == 0x2000;
    let is_translated = segments[0] == 0x2002 || (segments[0] == 0x2001 && segments[1] < 0x200);
    let is_documentation = segments[0] == 0x2001 && segments[1] == 0xdb8;
    is_global && !is_translated && !is_documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_internet_has_no_private_corner() {
        for public in ["1.1.1.1", "193.0.6.139", "2a00:1450::1", "2606:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }
}
