//! Where an application is reached: a broker, a computer, or whatever an association names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use fluent_uri::Uri;
use nigh_proto::Endpoint;
use serde::{Deserialize, Serialize};

/// `host:port`, or an absolute URI; what devices are sent to. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Server(Arc<str>);

/// Why something names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no server: write HOST:PORT, or an absolute URI")]
pub struct ServerError(String);

impl Server {
    /// Bytes of one, at most.
    pub const BYTES_MAX: usize = 512;

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a whole URI.
    pub(crate) fn is_uri(&self) -> bool {
        self.0.contains("://")
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(given: &str) -> Result<Self, ServerError> {
        let fits = given.len() <= Self::BYTES_MAX
            && if given.contains("://") { Uri::parse(given).is_ok() } else { given.parse::<Endpoint>().is_ok() };
        if fits { Ok(Self(given.into())) } else { Err(ServerError(given.chars().take(64).collect())) }
    }
}

impl From<&Endpoint> for Server {
    fn from(endpoint: &Endpoint) -> Self {
        Self(endpoint.as_str().into())
    }
}

impl TryFrom<String> for Server {
    type Error = ServerError;

    fn try_from(given: String) -> Result<Self, ServerError> {
        given.parse()
    }
}

impl From<Server> for String {
    fn from(server: Server) -> Self {
        server.0.as_ref().to_owned()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_endpoints_or_absolute_uris() {
        for fine in ["10.0.0.7:10000", "[::1]:6473", "http://edge:8080/function/echo", "grpc://edge:6473"] {
            assert_eq!(fine.parse::<Server>().unwrap().as_str(), fine);
        }
        for odd in ["", "edge", "edge:0", "http://a b/", "://x", &format!("http://{}/", "a".repeat(600))] {
            assert!(odd.parse::<Server>().is_err(), "{odd:?}");
        }
    }
}
