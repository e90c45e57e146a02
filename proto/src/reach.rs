//! Where a connection may lead. A name leads to wherever its owner says at the time that it is used, so whoever follows names that
//! others own says which addresses these may be.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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
    /// Wherever somebody may have meant who allowed this very host: an address as it is; a name to addresses of the public internet,
    /// one that only a network of its own gives ([`is_local`]) to those of private networks too, and `localhost` to this machine.
    Listed {
        /// And any name to any address of these.
        networks: Vec<IpNet>,
    },
}

/// Why a name is not followed.
#[derive(Debug, thiserror::Error)]
pub enum NotFollowed {
    /// It has no address, or nobody knows now.
    #[error("{host} leads nowhere: {why}")]
    Nowhere {
        /// The name.
        host: String,
        /// What the system says.
        why: io::Error,
    },
    /// It leads to where it may not.
    #[error("{host} leads to no address that may be reached; the operator may add its network")]
    Prohibited {
        /// The name.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
}

impl NotFollowed {
    /// Whether that is what an error of a connection is about.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl Reach {
    /// Connects to whoever is meant by a URL's host and port; an IPv6 address without brackets.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        match self {
            Self::Anywhere => dial(&endpoint_of(host, port)?).await,
            Self::At(address) => dial(&Endpoint::from(*address)).await,
            Self::Public { networks } => {
                dial_any(find(host, port, |address| is_public(address) || is_within(networks, address)).await?).await
            }
            Self::Listed { networks } => {
                dial_any(find(host, port, |address| may_be_meant(host, address, networks)).await?).await
            }
        }
    }
}

/// Connects to the first of these that lets itself be connected to.
async fn dial_any(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match dial(&Endpoint::from(address)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn endpoint_of(host: &str, port: u16) -> io::Result<Endpoint> {
    let endpoint = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    endpoint.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{error}")))
}

/// The addresses that a name leads to and that may be connected to, one at least. Names are looked up once, so that nobody leads
/// elsewhere between the check and the connection.
async fn find(host: &str, port: u16, may: impl Fn(IpAddr) -> bool) -> io::Result<Vec<SocketAddr>> {
    let nowhere = |why: io::Error| io::Error::new(why.kind(), NotFollowed::Nowhere { host: host.to_owned(), why });
    let found: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(nowhere)?.collect();
    let first = found.first().ok_or_else(|| nowhere(io::ErrorKind::NotFound.into()))?.ip().to_canonical();
    let found: Vec<_> = found.into_iter().filter(|address| may(address.ip().to_canonical())).collect();
    if found.is_empty() {
        let prohibited = NotFollowed::Prohibited { host: host.to_owned(), address: first };
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, prohibited));
    }
    Ok(found)
}

/// Whether a host that somebody allowed by this name, or as this address, may lead to an address.
fn may_be_meant(host: &str, address: IpAddr, networks: &[IpNet]) -> bool {
    host.parse::<IpAddr>().is_ok()
        || is_public(address)
        || (is_local(host) && is_private(address))
        || (is_of_zone(host, "localhost") && address.is_loopback())
        || is_within(networks, address)
}

fn is_within(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Whether nobody on the internet can own a name, so that only whoever runs the network here says where it leads: it has no dot, or
/// is of a zone that is kept for such networks or, as `lan`, usual there.
fn is_local(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    !host.contains('.') || ["local", "internal", "home.arpa", "lan"].iter().any(|zone| is_of_zone(host, zone))
}

/// Whether a name is a zone's, or the zone's own; the root's dot may stand at its end.
fn is_of_zone(host: &str, zone: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).as_bytes();
    let Some(at) = host.len().checked_sub(zone.len()) else { return false };
    host[at..].eq_ignore_ascii_case(zone.as_bytes()) && (at == 0 || host[at - 1] == b'.')
}

/// Whether an address is of a private network, or of one that a provider shares among its customers.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || is_shared(v4),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

fn is_shared(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    a == 100 && b & 0xc0 == 64
}

/// Whether an address is of the public internet: not of a machine itself, a private network, or a link, where the
/// metadata of clouds are too.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let is_reserved = a == 0 || a >= 240 || (a, b, c) == (192, 0, 0) || (a == 198 && b & 0xfe == 18);
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast())
                && !(v4.is_documentation() || is_shared(v4) || is_reserved)
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

    fn may(host: &str, address: &str) -> bool {
        may_be_meant(host, address.parse().unwrap(), &["192.0.2.0/24".parse().unwrap()])
    }

    #[test]
    fn an_address_that_was_allowed_is_meant_and_a_name_leads_only_to_where_its_owner_may_lead() {
        for (host, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("169.254.169.254", "169.254.169.254"),
            ("::1", "::1"),
            ("api.example", "1.1.1.1"),
            ("api.example", "192.0.2.7"),
            ("gateway", "192.168.1.1"),
            ("gateway.", "10.0.0.1"),
            ("Camera.LOCAL", "fd00::7"),
            ("till.shop.home.arpa", "172.16.0.9"),
            ("vm.internal", "100.64.0.1"),
            ("router.lan", "192.168.1.1"),
            ("localhost", "127.0.0.1"),
            ("app.localhost", "::1"),
        ] {
            assert!(may(host, address), "{host} {address}");
        }
        for (host, address) in [
            ("evil.example", "127.0.0.1"),
            ("evil.example", "10.0.0.5"),
            ("evil.example", "fd00::7"),
            ("evil.example", "169.254.169.254"),
            ("evil.local.example", "192.168.1.1"),
            ("evillocal.example", "192.168.1.1"),
            ("evil.notlan", "192.168.1.1"),
            ("localhost.example", "127.0.0.1"),
            ("notlocalhost.example", "127.0.0.1"),
            ("gateway.local", "127.0.0.1"),
            ("gateway", "127.0.0.1"),
            ("metadata.google.internal", "169.254.169.254"),
            ("camera.local", "fe80::7"),
            ("gateway.lan", "0.0.0.0"),
            ("gateway.lan", "224.0.0.251"),
            ("gateway.lan", "64:ff9b::7f00:1"),
            ("2130706433", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("", "127.0.0.1"),
        ] {
            assert!(!may(host, address), "{host} {address}");
        }
    }

    #[tokio::test]
    async fn a_connection_leads_to_an_address_that_was_checked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let listed = Reach::Listed { networks: Vec::new() };
        for host in ["127.0.0.1", "localhost"] {
            assert_eq!(listed.connect(host, port).await.unwrap().peer_addr().unwrap().port(), port, "{host}");
        }
        // The system takes these for addresses; nobody who allowed them need have known that.
        for host in ["2130706433", "127.1", "0x7f.1"] {
            let refused = listed.connect(host, port).await.unwrap_err();
            let told = NotFollowed::of(&refused);
            assert!(matches!(told, Some(NotFollowed::Prohibited { address, .. }) if address.is_loopback()), "{told:?}");
            let networks = vec!["127.0.0.0/8".parse().unwrap()];
            Reach::Listed { networks }.connect(host, port).await.unwrap();
        }
        let mapped = listed.connect("::ffff:127.0.0.1", port).await;
        assert!(mapped.is_ok() || NotFollowed::of(&mapped.unwrap_err()).is_none(), "an address is what it is");
        let nowhere = listed.connect("no such host", port).await.unwrap_err();
        assert!(matches!(NotFollowed::of(&nowhere), Some(NotFollowed::Nowhere { .. })), "{nowhere}");
    }
}
