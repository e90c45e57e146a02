//! Distances between the addresses of an edge, as read from a file: one row for each address, `address d1 … dN`.

use std::collections::HashMap;
use std::str::FromStr;

use rand::{Rng, RngExt};

/// Addresses of one topology, at most; the distances of more would fill memory.
const ADDRESSES_MAX: usize = 4096;

/// A square matrix of distances. What they measure is the operator's choice; only their order matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    addresses: Vec<String>,
    index: HashMap<String, usize>,
    /// Row by row.
    distances: Vec<f64>,
}

/// A text that is no topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// No row at all.
    #[error(
        "no row; write one for each address: the address, then its distance to each address in the order of the rows"
    )]
    Empty,
    /// A row that has not as many distances as there are rows.
    #[error("line {line}: {found} distances, but there are {rows} addresses; every row needs one distance to each")]
    NotSquare {
        /// Where.
        line: usize,
        /// Distances of that row.
        found: usize,
        /// Rows.
        rows: usize,
    },
    /// The same address again.
    #[error("line {line}: address {address} has a row already")]
    Twice {
        /// Where.
        line: usize,
        /// Which.
        address: String,
    },
    /// Not a distance.
    #[error("line {line}: {given:?} is no distance; write a number from 0 up")]
    Distance {
        /// Where.
        line: usize,
        /// What stands there.
        given: String,
    },
    /// Too many rows.
    #[error("over {ADDRESSES_MAX} addresses")]
    TooLarge,
}

/// An address that the topology does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address {0:?} is not in the topology; add a row for it to the topology's file")]
pub struct UnknownAddress(pub String);

/// An endpoint's address: its text before the last colon.
pub fn address_of(endpoint: &str) -> &str {
    endpoint.rsplit_once(':').map_or(endpoint, |(address, _)| address)
}

impl Topology {
    /// The topology of these addresses, with the distances from each to each of them, row by row.
    ///
    /// # Errors
    /// [`TopologyError`]; a line is that of the address, counted from 1.
    pub fn new(addresses: Vec<String>, distances: Vec<f64>) -> Result<Self, TopologyError> {
        let size = addresses.len();
        if size == 0 {
            return Err(TopologyError::Empty);
        }
        if size > ADDRESSES_MAX {
            return Err(TopologyError::TooLarge);
        }
        if distances.len() != size * size {
            return Err(TopologyError::NotSquare { line: 1, found: distances.len(), rows: size * size });
        }
        if let Some(at) = distances.iter().position(|distance| !distance.is_finite() || *distance < 0.0) {
            return Err(TopologyError::Distance { line: 1 + at / size, given: distances[at].to_string() });
        }
        let mut index = HashMap::with_capacity(size);
        for (at, address) in addresses.iter().enumerate() {
            if index.insert(address.clone(), at).is_some() {
                return Err(TopologyError::Twice { line: at + 1, address: address.clone() });
            }
        }
        Ok(Self { addresses, index, distances })
    }

    /// The distances from each address to each, row by row.
    pub fn distances(&self) -> &[f64] {
        &self.distances
    }

    /// The number of addresses.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether it holds no address; none that was read does.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The addresses, in the order of their rows.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = &str> {
        self.addresses.iter().map(String::as_str)
    }

    /// The distance from one address to another.
    ///
    /// # Errors
    /// [`UnknownAddress`] for the first that it does not hold.
    pub fn distance(&self, from: &str, to: &str) -> Result<f64, UnknownAddress> {
        let at = |address: &str| self.index.get(address).copied().ok_or_else(|| UnknownAddress(address.to_owned()));
        Ok(self.distances[at(from)? * self.len() + at(to)?])
    }

    /// The same addresses at random distances, each between 0 and 1 and 0 to itself.
    #[must_use]
    pub fn randomized(&self, rng: &mut impl Rng) -> Self {
        let size = self.len();
        let distance = |at: usize, rng: &mut _| {
            if at / size == at % size { self.distances[at] } else { RngExt::random::<f64>(rng) }
        };
        Self { distances: (0..size * size).map(|at| distance(at, rng)).collect(), ..self.clone() }
    }
}

impl FromStr for Topology {
    type Err = TopologyError;

    fn from_str(text: &str) -> Result<Self, TopologyError> {
        let rows: Vec<(usize, &str)> = text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .collect();
        if rows.is_empty() {
            return Err(TopologyError::Empty);
        }
        if rows.len() > ADDRESSES_MAX {
            return Err(TopologyError::TooLarge);
        }
        let mut topology = Self { addresses: Vec::new(), index: HashMap::new(), distances: Vec::new() };
        for &(line, row) in &rows {
            let mut words = row.split_whitespace();
            let address = words.next().unwrap_or_default().to_owned();
            if topology.index.insert(address.clone(), topology.addresses.len()).is_some() {
                return Err(TopologyError::Twice { line, address });
            }
            topology.addresses.push(address);
            let before = topology.distances.len();
            for word in words {
                let distance = word.parse::<f64>().ok().filter(|distance| distance.is_finite() && *distance >= 0.0);
                let no_distance = || TopologyError::Distance { line, given: word.to_owned() };
                topology.distances.push(distance.ok_or_else(no_distance)?);
            }
            let found = topology.distances.len() - before;
            if found != rows.len() {
                return Err(TopologyError::NotSquare { line, found, rows: rows.len() });
            }
        }
        Ok(topology)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_topology_with_a_comment_is_read_back() {
        let text = "# hosts\nh0 0 1 2 3\nh1 1 0 1 2\n\nh2 2 1 0 1\nh3 3 2 1 0\n";
        let topology: Topology = text.parse().unwrap();
        assert_eq!(topology.addresses().collect::<Vec<_>>(), ["h0", "h1", "h2", "h3"]);
        assert!((topology.distance("h0", "h3").unwrap() - 3.0).abs() < f64::EPSILON);
        assert_eq!(topology.distance("h0", "h9"), Err(UnknownAddress("h9".into())));
        assert_eq!("h0 0".parse::<Topology>().unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_topology_is_refused_with_its_line() {
        assert_eq!("".parse::<Topology>(), Err(TopologyError::Empty));
        assert_eq!("# only\n# comments\n".parse::<Topology>(), Err(TopologyError::Empty));
        assert_eq!("a 0 1\nb 1\n".parse::<Topology>(), Err(TopologyError::NotSquare { line: 2, found: 1, rows: 2 }));
        assert_eq!("a 0 1\na 1 0\n".parse::<Topology>(), Err(TopologyError::Twice { line: 2, address: "a".into() }));
        let distance = TopologyError::Distance { line: 1, given: "far".into() };
        assert_eq!("a far".parse::<Topology>(), Err(distance));
        assert!(matches!("a NaN".parse::<Topology>(), Err(TopologyError::Distance { .. })));
        assert!(matches!("a -1".parse::<Topology>(), Err(TopologyError::Distance { .. })));
    }

    #[test]
    fn random_distances_leave_the_diagonal() {
        let topology: Topology = "a 0 5\nb 5 0".parse().unwrap();
        let random = topology.randomized(&mut rand::rngs::ChaCha8Rng::seed_from_u64(1));
        assert!((0.0..1.0).contains(&random.distance("a", "b").unwrap()));
        assert!(random.distance("b", "b").unwrap().abs() < f64::EPSILON);
        assert_eq!(random, topology.randomized(&mut rand::rngs::ChaCha8Rng::seed_from_u64(1)), "by the seed alone");
    }

    #[test]
    fn an_address_is_what_stands_before_the_port() {
        assert_eq!(address_of("10.0.0.1:6473"), "10.0.0.1");
        assert_eq!(address_of("[::1]:6473"), "[::1]");
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in "[a-c0-9 .#\n-]{0,200}") {
            let _ = text.parse::<Topology>();
        }
    }
}
