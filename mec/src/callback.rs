//! Where notifications may go. A callback is a URL that a stranger has chosen, so it leads to the device itself or to where
//! the operator allows, over http only, and names are followed only to addresses that are allowed, checked when it is used.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use nigh_proto::asynchronous::CallbackUrl;

use crate::config::CallbackConfig;
use crate::error::Refusal;

/// Who a device is, as far as callbacks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    /// Where it is.
    pub(crate) address: IpAddr,
    /// It is at that very address, rather than behind somebody who was not named as a proxy.
    pub(crate) is_direct: bool,
}

/// A callback that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// Exactly there.
    At(IpAddr),
    /// Where this name leads, within what is allowed.
    Named(String),
}

/// Reads a callback and checks that it may be used.
pub(crate) fn check(callback: &str, device: Device, rules: &CallbackConfig) -> Result<(), Refusal> {
    judge(callback, device, rules).map(drop)
}

/// Where to connect to for a callback.
///
/// # Errors
/// Why it may not be used now.
pub(crate) async fn resolve(
    callback: &str,
    device: Device,
    rules: &CallbackConfig,
) -> Result<(CallbackUrl, SocketAddr), String> {
    let (url, target) = judge(callback, device, rules).map_err(|refusal| refusal.to_string())?;
    let port = url.port();
    let name = match target {
        Target::At(address) => return Ok((url, SocketAddr::new(address, port))),
        Target::Named(name) => name,
    };
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let mut found = found.map_err(|error| format!("{name} leads nowhere: {error}"))?;
    let may = |address: IpAddr| is_public(address) || is_within(rules, address);
    match found.find(|address| may(address.ip().to_canonical())) {
        Some(address) => Ok((url, address)),
        None => Err(format!("{name} leads to no address that may be notified; the operator may add its network")),
    }
}

fn judge(callback: &str, device: Device, rules: &CallbackConfig) -> Result<(CallbackUrl, Target), Refusal> {
    let refused = || Refusal::Callback(callback.chars().take(256).collect());
    let url: CallbackUrl = callback.parse().ok().filter(|url: &CallbackUrl| !url.is_https()).ok_or_else(refused)?;
    let host = url.host().trim_matches(['[', ']']);
    let is_listed = rules.hosts.iter().any(|allowed| allowed.covers(url.host(), url.port(), url.standard_port()));
    let Ok(address) = host.parse::<IpAddr>() else {
        if host == "localhost" && device.is_direct && device.address.is_loopback() {
            return Ok((url, Target::At(device.address)));
        }
        let name = host.to_owned();
        return if is_listed { Ok((url, Target::Named(name))) } else { Err(refused()) };
    };
    let address = address.to_canonical();
    let is_own =
        device.is_direct && (address == device.address || (address.is_loopback() && device.address.is_loopback()));
    if is_own || is_listed || is_within(rules, address) { Ok((url, Target::At(address))) } else { Err(refused()) }
}

fn is_within(rules: &CallbackConfig, address: IpAddr) -> bool {
    rules.networks.iter().any(|network| network.contains(&address))
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

    fn rules() -> CallbackConfig {
        CallbackConfig {
            hosts: ["hooks.example", "10.9.0.1:81", "localhost:1"].map(|host| host.parse().unwrap()).to_vec(),
            networks: vec!["10.20.0.0/16".parse().unwrap()],
            ..CallbackConfig::default()
        }
    }

    fn allowed(callback: &str, device: &str, is_direct: bool) -> bool {
        check(callback, Device { address: device.parse().unwrap(), is_direct }, &rules()).is_ok()
    }

    #[test]
    fn a_callback_leads_to_the_device_itself_or_to_where_the_operator_allows() {
        assert!(allowed("http://10.0.0.7:9000/x", "10.0.0.7", true));
        assert!(allowed("http://[fd00::7]:9000/x", "fd00::7", true));
        assert!(allowed("http://[::ffff:10.0.0.7]/x", "10.0.0.7", true));
        assert!(allowed("http://localhost:6600/x", "127.0.0.1", true));
        assert!(
            allowed("http://hooks.example/x", "10.0.0.7", true) && allowed("http://10.9.0.1:81/", "10.0.0.7", true)
        );
        assert!(allowed("http://10.20.3.4:1234/", "10.0.0.7", true));
        for elsewhere in [
            "http://10.0.0.8:9000/x",
            "http://127.0.0.1:6475/",
            "http://localhost:6475/",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://hooks.example:81/x",
            "http://hooks.example.evil/",
            "http://10.0.0.7@10.0.0.8/",
            "https://10.0.0.7/",
            "ftp://10.0.0.7/",
            "file:///etc/passwd",
            "10.0.0.7:80",
            "",
        ] {
            assert!(!allowed(elsewhere, "10.0.0.7", true), "{elsewhere}");
        }
    }

    #[test]
    fn an_address_that_somebody_passed_on_proves_nothing() {
        assert!(!allowed("http://127.0.0.1:9000/x", "127.0.0.1", false));
        assert!(!allowed("http://localhost:9000/x", "127.0.0.1", false));
        assert!(
            allowed("http://10.20.0.1/", "127.0.0.1", false),
            "where the operator allows it, it may go all the same"
        );
    }

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

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_not_followed() {
        let device = Device { address: "10.0.0.7".parse().unwrap(), is_direct: true };
        let refused = resolve("http://localhost:1/", device, &rules()).await.unwrap_err();
        assert!(refused.contains("no address that may be notified"), "{refused}");
        let local = CallbackConfig { networks: vec!["127.0.0.0/8".parse().unwrap()], ..rules() };
        let (url, address) = resolve("http://localhost:1/", device, &local).await.unwrap();
        assert_eq!((url.port(), address), (1, "127.0.0.1:1".parse().unwrap()));
    }
}
