//! The policies by which a destination is chosen, by name.

use std::fmt;
use std::str::FromStr;

/// How one of a function's destinations is chosen for a call. All policies are fed by the same measured latencies, leave
/// out the same destinations that are set aside, and try those never or long not measured in the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// At random, with a probability in inverse proportion to latency.
    Random,
    /// Weighted deficit round robin over the destinations that are at most twice as slow as the fastest: each turn
    /// costs a destination its latency, and the one that has spent least is next.
    RoundRobin,
    /// The smallest latency.
    #[default]
    LeastLatency,
}

/// A policy's name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy {0:?}: use random, round-robin or least-latency")]
pub struct UnknownPolicy(String);

impl PolicyKind {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Random, Self::RoundRobin, Self::LeastLatency];

    /// The policy's name, as in options and configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::LeastLatency => "least-latency",
        }
    }
}

impl FromStr for PolicyKind {
    type Err = UnknownPolicy;

    fn from_str(given: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.as_str() == given)
            .ok_or_else(|| UnknownPolicy(given.chars().take(64).collect()))
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_parse_as_they_print() {
        for policy in PolicyKind::ALL {
            assert_eq!(policy.to_string().parse::<PolicyKind>(), Ok(policy));
        }
    }

    #[test]
    fn an_unknown_policy_is_told_the_known_ones() {
        let error = "fastest".parse::<PolicyKind>().unwrap_err().to_string();
        for policy in PolicyKind::ALL {
            assert!(error.contains(policy.as_str()), "{error}");
        }
    }
}
