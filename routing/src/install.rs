//! Who serves what, as each broker is to see it: the forwarding tables of a whole edge, made from who is alive.
//!
//! *Flat*: every broker knows every computer. *Hierarchical*: every computer has a home broker, chosen by the distances of a
//! [`Topology`]; only that one knows the computer, all others know the home broker. Both are functions of what is alive and
//! nothing else, so that everybody who computes them comes to the same tables.

mod hierarchy;
mod topology;

use std::collections::{BTreeMap, BTreeSet};

pub use hierarchy::{Hierarchy, Objective, UnknownObjective};
pub use topology::{Topology, TopologyError, UnknownAddress, address_of};

/// A computer and the functions that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer<F, E> {
    /// Where the computer takes calls.
    pub computer: E,
    /// What it serves.
    pub functions: BTreeSet<F>,
}

/// One broker's table: by function and destination, whether the destination is final: a computer, not another broker.
pub type Forwarding<F, E> = BTreeMap<(F, E), bool>;

/// One step from a table to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<F, E> {
    /// The function no longer goes there.
    Remove {
        /// The function.
        function: F,
        /// The destination.
        destination: E,
    },
    /// The function goes there from now on.
    Set {
        /// The function.
        function: F,
        /// The destination.
        destination: E,
        /// It is a computer, not another broker.
        is_final: bool,
    },
}

/// The table that every broker has without a hierarchy.
pub fn flat<F: Ord + Clone, E: Ord + Clone>(offers: &[Offer<F, E>]) -> Forwarding<F, E> {
    let of_computer = |offer: &Offer<F, E>| {
        let entry = |function: &F| ((function.clone(), offer.computer.clone()), true);
        offer.functions.iter().map(entry).collect::<Vec<_>>()
    };
    offers.iter().flat_map(of_computer).collect()
}

/// The steps from `before` to `after`: what goes first, then what comes, each in the order of destinations and functions.
pub fn changes<F: Ord + Clone, E: Ord + Clone>(
    before: &Forwarding<F, E>,
    after: &Forwarding<F, E>,
) -> Vec<Change<F, E>> {
    let by_destination = |table: &Forwarding<F, E>, other: &Forwarding<F, E>| {
        let differing = table.iter().filter(|(key, is_final)| other.get(key) != Some(is_final));
        differing
            .map(|((function, to), is_final)| ((to.clone(), function.clone()), *is_final))
            .collect::<BTreeMap<_, _>>()
    };
    // A destination that only turns final, or stops being so, is removed first: adding alone leaves it where it was.
    let gone = by_destination(before, after)
        .into_keys()
        .map(|(destination, function)| Change::Remove { function, destination });
    let come = by_destination(after, before).into_iter().map(|((destination, function), is_final)| Change::Set {
        function,
        destination,
        is_final,
    });
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Table = Forwarding<u8, u8>;

    fn apply(table: &mut Table, change: Change<u8, u8>) {
        match change {
            Change::Remove { function, destination } => {
                assert!(table.remove(&(function, destination)).is_some(), "only what is there is removed");
            }
            Change::Set { function, destination, is_final } => {
                assert_eq!(table.insert((function, destination), is_final), None, "nothing is set twice");
            }
        }
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_table_to_the_other(
            before: BTreeMap<(u8, u8), bool>,
            after: BTreeMap<(u8, u8), bool>,
            kept: BTreeMap<(u8, u8), bool>,
        ) {
            let (mut table, after): (Table, Table) = (
                before.into_iter().chain(kept.clone()).collect(),
                after.into_iter().chain(kept).collect(),
            );
            for change in changes(&table.clone(), &after) {
                apply(&mut table, change);
            }
            prop_assert_eq!(&table, &after);
            prop_assert!(changes(&table, &after).is_empty());
        }
    }

    #[test]
    fn a_flat_table_holds_every_function_of_every_computer() {
        let offer =
            |computer, functions: &[&'static str]| Offer { computer, functions: functions.iter().copied().collect() };
        let table = flat(&[offer("c1", &["f0", "f1"]), offer("c2", &["f1"])]);
        let expected = [(("f0", "c1"), true), (("f1", "c1"), true), (("f1", "c2"), true)];
        assert_eq!(table, BTreeMap::from(expected));
        let ordered: Vec<_> = changes(&BTreeMap::new(), &table)
            .into_iter()
            .map(|change| match change {
                Change::Set { function, destination, .. } => (destination, function),
                Change::Remove { .. } => panic!("nothing was there"),
            })
            .collect();
        assert_eq!(ordered, [("c1", "f0"), ("c1", "f1"), ("c2", "f1")], "computer by computer");
    }
}
