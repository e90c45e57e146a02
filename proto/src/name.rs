//! Names, digests and addresses, checked once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// A name or address that does not have its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a name of a function, node, trigger or application.
    #[error("{what} name {given:?}: use 1 to {NAME_BYTES_MAX} of a-z 0-9 - _ ., beginning with a letter or digit")]
    Name {
        /// `function`, `node`, `trigger` or `application`.
        what: &'static str,
        /// What was given, shortened.
        given: String,
    },
    /// Not a SHA-256 in hexadecimal.
    #[error("digest {0:?}: expected 64 hexadecimal digits")]
    Digest(String),
    /// Not `host:port`.
    #[error("endpoint {0:?}: expected host:port, as in 127.0.0.1:6473 or [::1]:6473")]
    Endpoint(String),
}

/// Bytes in a function's or node's name, at most.
pub const NAME_BYTES_MAX: usize = 63;

fn shortened(given: &str) -> String {
    given.chars().take(NAME_BYTES_MAX + 1).collect()
}

pub(crate) fn checked_name(what: &'static str, given: &str) -> Result<Arc<str>, NameError> {
    let first_is_alphanumeric = given.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    let all_allowed = given.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
    if given.len() <= NAME_BYTES_MAX && first_is_alphanumeric && all_allowed {
        Ok(given.into())
    } else {
        Err(NameError::Name { what, given: shortened(given) })
    }
}

/// A name of the form of a function's.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::name::NameError;

            fn from_str(given: &str) -> Result<Self, $crate::name::NameError> {
                $crate::name::checked_name($what, given).map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        // `str` and the name hash alike, so tables keyed by name can be asked with `&str`.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

pub(crate) use name;

name! {
    /// The name by which a function is deployed and called: 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or
    /// digit. Cheap to clone.
    FunctionName, "function"
}

name! {
    /// The name of a computer or broker; the same form as a function's.
    NodeName, "node"
}

name! {
    /// The name of a trigger; the same form as a function's.
    TriggerName, "trigger"
}

/// A SHA-256: of a module, or of a version (module, limits and grants).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// How many digits it has.
    pub(crate) const DIGITS: usize = 64;

    /// All of its digits, written there.
    pub(crate) fn hexadecimal<'a>(&self, text: &'a mut [u8; Self::DIGITS]) -> &'a str {
        hexadecimal(&self.0, text)
    }

    /// The first 12 digits, for people to read.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(given: &str) -> Result<Self, NameError> {
        let malformed = || NameError::Digest(shortened(given));
        let mut digest = [0; 32];
        if given.len() != 2 * digest.len() || !given.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        for (byte, pair) in digest.iter_mut().zip(given.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        Ok(Self(digest))
    }
}

/// The value of a hexadecimal digit that has been checked to be one.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a' - 10),
    }
}

impl fmt::Display for Digest {
    // Every reply carries one through every broker, so all digits are written at once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hexadecimal(&mut [0; Self::DIGITS]))
    }
}

/// Writes bytes as digits, two for each.
pub(crate) fn hexadecimal<'a>(bytes: &[u8], text: &'a mut [u8]) -> &'a str {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    for (character, digit) in text.iter_mut().zip(digits) {
        *character = b"0123456789abcdef"[usize::from(digit)];
    }
    std::str::from_utf8(text).unwrap_or_default()
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a role is reached: `host:port`, the host a name or an address (IPv6 in brackets). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(Arc<str>);

impl Endpoint {
    /// `host:port` as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host: a name or an address, IPv6 without its brackets.
    pub fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(&*self.0, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        let port = self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.expect("checked when it was made")
    }

    /// The same host at another port.
    pub fn with_port(&self, port: u16) -> Self {
        let host = self.0.rsplit_once(':').map_or(&*self.0, |(host, _)| host);
        Self(format!("{host}:{port}").into())
    }
}

impl FromStr for Endpoint {
    type Err = NameError;

    fn from_str(given: &str) -> Result<Self, NameError> {
        let malformed = || NameError::Endpoint(given.chars().take(300).collect());
        let given = given.strip_prefix("http://").or_else(|| given.strip_prefix("https://")).unwrap_or(given);
        let given = given.trim_end_matches('/');
        let (host, port) = given.rsplit_once(':').ok_or_else(malformed)?;
        let host_is_plain = !host.is_empty()
            && host.len() <= 255
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        let host_is_ipv6 = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        let port_is_valid = port.parse::<u16>().is_ok_and(|port| port != 0);
        if (host_is_plain || host_is_ipv6) && port_is_valid { Ok(Self(given.into())) } else { Err(malformed()) }
    }
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Endpoint {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Where roles are reached that know the same, so that any of them may be asked: `host:port[,host:port…]`. At least one, in
/// the order in which they are asked. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints(Arc<[Endpoint]>);

impl Endpoints {
    /// Such roles, at most.
    pub const MAX: usize = 16;

    /// The one that is asked first.
    pub fn first(&self) -> &Endpoint {
        &self.0[0]
    }

    /// All, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Endpoint> {
        self.0.iter()
    }
}

impl FromStr for Endpoints {
    type Err = NameError;

    fn from_str(given: &str) -> Result<Self, NameError> {
        let endpoints: Vec<Endpoint> =
            given.split(',').take(Self::MAX + 1).map(str::parse).collect::<Result<_, _>>()?;
        if endpoints.len() > Self::MAX {
            return Err(NameError::Endpoint(given.chars().take(300).collect()));
        }
        Ok(Self(endpoints.into()))
    }
}

impl From<Endpoint> for Endpoints {
    fn from(endpoint: Endpoint) -> Self {
        Self([endpoint].into())
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.iter().map(Endpoint::as_str).collect();
        f.write_str(&endpoints.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_with_odd_characters_are_refused() {
        for odd in ["", "-a", ".a", "Face", "a b", "a/b", "a\0", "ä", "../etc", &"a".repeat(64)] {
            assert!(odd.parse::<FunctionName>().is_err(), "{odd:?}");
        }
        for fine in ["a", "face-detect", "v1.2_x", "0"] {
            assert_eq!(fine.parse::<FunctionName>().unwrap().as_str(), fine);
        }
    }

    #[test]
    fn endpoints_need_host_and_port() {
        for odd in ["", ":1", "host", "host:", "host:0", "host:65536", "ho st:1", "::1:80", "[::g]:1", "host:1/path"] {
            assert!(odd.parse::<Endpoint>().is_err(), "{odd:?}");
        }
        for fine in ["127.0.0.1:6473", "[::1]:1", "edge-7.local:80"] {
            assert_eq!(fine.parse::<Endpoint>().unwrap().as_str(), fine);
        }
        assert_eq!("http://box:80/".parse::<Endpoint>().unwrap().as_str(), "box:80");
        for (endpoint, elsewhere) in [("box:80", "box:81"), ("[::1]:80", "[::1]:81")] {
            assert_eq!(endpoint.parse::<Endpoint>().unwrap().with_port(81).as_str(), elsewhere);
        }
    }

    #[test]
    fn several_endpoints_stand_with_commas_between() {
        let several: Endpoints = "a:1,[::1]:2".parse().unwrap();
        assert_eq!((several.first().as_str(), several.iter().len()), ("a:1", 2));
        assert_eq!(several.to_string(), "a:1,[::1]:2");
        assert!("a:1,".parse::<Endpoints>().is_err() && "".parse::<Endpoints>().is_err());
        assert!(["a:1"; Endpoints::MAX + 1].join(",").parse::<Endpoints>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in ".*") {
            let _ = text.parse::<FunctionName>();
            let _ = text.parse::<Digest>();
            let _ = text.parse::<Endpoint>();
        }

        #[test]
        fn digests_print_as_they_parse(bytes in any::<Vec<u8>>()) {
            let digest = Digest::of(&bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        }
    }
}
