//! Home brokers: each computer belongs to the broker that is best placed between it and all other brokers.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::topology::{Topology, UnknownAddress, address_of};
use super::{Forwarding, Offer};

/// What a home is chosen by. The other measure decides between equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// The longest way from a broker through the home to the computer.
    MinMax,
    /// The average way.
    MinAvg,
}

/// A word that names no objective.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("objective {0:?}: use min-max or min-avg")]
pub struct UnknownObjective(String);

impl FromStr for Objective {
    type Err = UnknownObjective;

    fn from_str(word: &str) -> Result<Self, UnknownObjective> {
        match word {
            "min-max" => Ok(Self::MinMax),
            "min-avg" => Ok(Self::MinAvg),
            _ => Err(UnknownObjective(word.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MinMax => "min-max",
            Self::MinAvg => "min-avg",
        })
    }
}

/// How a hierarchy is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Hierarchy {
    /// Who is how far from whom.
    pub topology: Topology,
    /// What a home is chosen by.
    pub objective: Objective,
}

impl Hierarchy {
    /// The table of each broker. What is at no address of the topology is left out: check with
    /// [`Topology::distance`] before letting it in.
    pub fn tables<F, E>(&self, offers: &[Offer<F, E>], brokers: &BTreeSet<E>) -> BTreeMap<E, Forwarding<F, E>>
    where
        F: Ord + Clone,
        E: Ord + Clone + Borrow<str>,
    {
        let mut at: BTreeMap<&str, Vec<&E>> = BTreeMap::new();
        for broker in brokers {
            let address = address_of(broker.borrow());
            if self.topology.distance(address, address).is_ok() {
                at.entry(address).or_default().push(broker);
            }
        }
        let mut tables: BTreeMap<E, Forwarding<F, E>> =
            at.values().flatten().map(|&broker| (broker.clone(), Forwarding::new())).collect();
        for offer in offers {
            let Ok(Some(home)) = self.home(address_of(offer.computer.borrow()), at.keys().copied()) else { continue };
            let home = one_of(&at[home], offer.computer.borrow());
            for (broker, table) in &mut tables {
                let (destination, is_final) = if broker == home { (&offer.computer, true) } else { (home, false) };
                for function in &offer.functions {
                    table.insert((function.clone(), destination.clone()), is_final);
                }
            }
        }
        tables
    }

    /// The address among `brokers` that is home for a computer at `address`: the first of the lowest score, where
    /// there are any.
    ///
    /// # Errors
    /// [`UnknownAddress`].
    pub fn home<'a>(
        &self,
        address: &str,
        brokers: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Option<&'a str>, UnknownAddress> {
        #[expect(clippy::cast_precision_loss, reason = "at most a few thousand addresses")]
        let size = self.topology.len() as f64;
        // Large enough to let the first measure decide alone, with distances of the order of 1.
        let omega = 1.0 + 2.0 * size * size;
        let mut best: Option<(f64, &str)> = None;
        for candidate in brokers.clone() {
            let near = self.topology.distance(candidate, address)?;
            let (mut farthest, mut sum) = (0.0f64, 0.0);
            for broker in brokers.clone() {
                let distance = self.topology.distance(candidate, broker)?;
                farthest = farthest.max(distance);
                sum += distance;
            }
            let (longest, average) = (near + farthest, size * near + sum);
            let score = match self.objective {
                Objective::MinMax => omega.mul_add(longest, average),
                Objective::MinAvg => omega.mul_add(average, longest),
            };
            if best.is_none_or(|(lowest, _)| score < lowest) {
                best = Some((score, candidate));
            }
        }
        Ok(best.map(|(_, home)| home))
    }
}

/// One of the brokers at one address for a computer: which is of no matter, as long as everybody takes the same (FNV-1a).
fn one_of<'a, E>(brokers: &[&'a E], computer: &str) -> &'a E {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = computer.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
    let at = hash % brokers.len().max(1) as u64;
    brokers[usize::try_from(at).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Hosts 0 to 4 in a line, 2 beside 0 and 1: 0,1 – 2 – 3 – 4.
    const LINE: &str = "host0 0 2 1 2 3\nhost1 2 0 1 2 3\nhost2 1 1 0 1 2\nhost3 2 2 1 0 1\nhost4 3 3 2 1 0\n";

    fn hierarchy(objective: Objective) -> Hierarchy {
        Hierarchy { topology: LINE.parse().unwrap(), objective }
    }

    fn offer(computer: &str, functions: &[&str]) -> Offer<String, String> {
        Offer { computer: computer.to_owned(), functions: functions.iter().map(ToString::to_string).collect() }
    }

    fn brokers(endpoints: &[&str]) -> BTreeSet<String> {
        endpoints.iter().map(ToString::to_string).collect()
    }

    fn table(entries: &[(&str, &str, bool)]) -> Forwarding<String, String> {
        entries.iter().map(|(function, to, is_final)| (((*function).into(), (*to).into()), *is_final)).collect()
    }

    #[test]
    fn only_the_home_knows_the_computer_all_others_know_the_home() {
        for objective in [Objective::MinMax, Objective::MinAvg] {
            let hierarchy = hierarchy(objective);
            let brokers = brokers(&["host2:1", "host4:1", "host4:2"]);
            let tables = hierarchy.tables(&[offer("host0:9", &["f"])], &brokers);
            assert_eq!(tables["host2:1"], table(&[("f", "host0:9", true)]));
            assert_eq!(tables["host4:1"], table(&[("f", "host2:1", false)]));
            assert_eq!(tables["host4:2"], table(&[("f", "host2:1", false)]));
            // A second computer of the same home adds no more than the final entry.
            let tables = hierarchy.tables(&[offer("host0:9", &["f"]), offer("host1:9", &["f"])], &brokers);
            assert_eq!(tables["host2:1"], table(&[("f", "host0:9", true), ("f", "host1:9", true)]));
            assert_eq!(tables["host4:1"], table(&[("f", "host2:1", false)]));
        }
    }

    #[test]
    fn one_of_two_brokers_at_an_address_is_home() {
        let hierarchy = hierarchy(Objective::MinMax);
        let tables = hierarchy.tables(&[offer("host4:9", &["f"])], &brokers(&["host2:1", "host4:1", "host4:2"]));
        let homes: Vec<&String> = tables
            .iter()
            .filter(|(_, table)| table.values().any(|is_final| *is_final))
            .map(|(broker, _)| broker)
            .collect();
        let [home] = homes[..] else { panic!("{homes:?}") };
        assert_eq!(address_of(home), "host4");
        assert!(tables.iter().all(|(broker, table)| broker == home || table.contains_key(&("f".into(), home.clone()))));
    }

    #[test]
    fn a_broker_that_comes_or_goes_moves_homes() {
        let hierarchy = hierarchy(Objective::MinAvg);
        let offers = [offer("host1:9", &["f"])];
        let before = hierarchy.tables(&offers, &brokers(&["host2:1", "host4:1"]));
        assert_eq!(before["host2:1"], table(&[("f", "host1:9", true)]));
        let nearer = hierarchy.tables(&offers, &brokers(&["host1:1", "host2:1", "host4:1"]));
        assert_eq!(nearer["host1:1"], table(&[("f", "host1:9", true)]));
        assert_eq!(nearer["host2:1"], table(&[("f", "host1:1", false)]));
        let survivors = hierarchy.tables(&offers, &brokers(&["host4:1"]));
        assert_eq!(survivors["host4:1"], table(&[("f", "host1:9", true)]));
        assert!(hierarchy.tables(&offers, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn what_is_in_no_row_is_an_error_by_itself_and_left_out_of_tables() {
        let hierarchy = hierarchy(Objective::MinMax);
        let unknown = hierarchy.home("elsewhere", ["host2"].into_iter());
        assert_eq!(unknown, Err(UnknownAddress("elsewhere".into())));
        assert!(hierarchy.home("host0", ["elsewhere"].into_iter()).is_err());
        let offers = [offer("elsewhere:9", &["f"]), offer("host0:9", &["f"])];
        let tables = hierarchy.tables(&offers, &brokers(&["host2:1", "elsewhere:1"]));
        assert_eq!(tables.len(), 1);
        assert_eq!(tables["host2:1"], table(&[("f", "host0:9", true)]));
    }

    proptest! {
        #[test]
        fn every_computer_has_one_home_and_every_other_broker_knows_it(
            hosts in proptest::collection::btree_set((0usize..5, 1u8..4), 1..6),
            computers in proptest::collection::btree_set((0usize..5, 1u8..9), 1..6),
            min_max: bool,
        ) {
            let hierarchy = hierarchy(if min_max { Objective::MinMax } else { Objective::MinAvg });
            let brokers: BTreeSet<String> = hosts.iter().map(|(host, port)| format!("host{host}:{port}")).collect();
            let offers: Vec<_> = computers.iter().map(|(host, port)| offer(&format!("host{host}:90{port}"), &["f"])).collect();
            let tables = hierarchy.tables(&offers, &brokers);
            prop_assert_eq!(tables.len(), brokers.len());
            for one in &offers {
                let key = ("f".to_owned(), one.computer.clone());
                let homes: Vec<_> = tables.iter().filter(|(_, table)| table.contains_key(&key)).collect();
                prop_assert_eq!(homes.len(), 1);
                prop_assert!(homes[0].1[&key]);
                let home = ("f".to_owned(), homes[0].0.clone());
                prop_assert!(tables.iter().all(|(broker, table)| *broker == home.1 || table.get(&home) == Some(&false)));
            }
        }
    }
}
