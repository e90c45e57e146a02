//! Where notifications may go. A callback is a URL that a stranger has chosen, so it leads to the device itself or to where
//! the operator allows, over http only, and names are followed only to addresses that are allowed, checked when it is used.

use std::net::{IpAddr, SocketAddr};

use nigh_proto::asynchronous::CallbackUrl;
use nigh_proto::http_client::Reach;

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
    /// Where its name leads, within what is allowed.
    Named,
}

/// Reads a callback and checks that it may be used.
pub(crate) fn check(callback: &str, device: Device, rules: &CallbackConfig) -> Result<(), Refusal> {
    judge(callback, device, rules).map(drop)
}

/// Where a callback is, and where a connection to it may lead.
///
/// # Errors
/// Why it may not be used now.
pub(crate) fn resolve(callback: &str, device: Device, rules: &CallbackConfig) -> Result<(CallbackUrl, Reach), Refusal> {
    let (url, target) = judge(callback, device, rules)?;
    let reach = match target {
        Target::At(address) => Reach::At(SocketAddr::new(address, url.port())),
        Target::Named => Reach::Public { networks: rules.networks.clone() },
    };
    Ok((url, reach))
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
        return if is_listed { Ok((url, Target::Named)) } else { Err(refused()) };
    };
    let address = address.to_canonical();
    let is_own =
        device.is_direct && (address == device.address || (address.is_loopback() && device.address.is_loopback()));
    if is_own || is_listed || is_within(rules, address) { Ok((url, Target::At(address))) } else { Err(refused()) }
}

fn is_within(rules: &CallbackConfig, address: IpAddr) -> bool {
    rules.networks.iter().any(|network| network.contains(&address))
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
    fn a_name_leads_to_the_public_internet_and_to_allowed_networks_alone() {
        let device = Device { address: "10.0.0.7".parse().unwrap(), is_direct: true };
        let reach = |callback: &str| resolve(callback, device, &rules()).unwrap().1;
        assert_eq!(reach("http://hooks.example/x"), Reach::Public { networks: rules().networks });
        assert_eq!(reach("http://10.0.0.7:9000/x"), Reach::At("10.0.0.7:9000".parse().unwrap()));
    }
}
