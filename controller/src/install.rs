//! What each broker's table should hold, made from who is alive, for the brokers that do not make it themselves.

use std::collections::{BTreeMap, BTreeSet};

use nigh_proto::membership::Node;
use nigh_proto::{Computer, Endpoint, FunctionName};
use nigh_routing::install::{Forwarding, Hierarchy, Offer, flat};

/// A broker's table.
type Table = Forwarding<FunctionName, Endpoint>;

/// The tables of all brokers.
#[derive(Debug)]
pub(crate) enum WantedTables {
    /// Everybody's is the same.
    Flat(Table),
    /// Each broker's own.
    Hierarchical(BTreeMap<Endpoint, Table>, Table),
}

impl WantedTables {
    /// The tables that follow from these nodes.
    pub(crate) fn new<'a>(
        nodes: impl Iterator<Item = &'a Node>,
        is_deployed: impl Fn(&FunctionName) -> bool,
        hierarchy: Option<&Hierarchy>,
    ) -> Self {
        let (mut offers, mut brokers) = (Vec::new(), BTreeSet::new());
        for node in nodes {
            match node {
                Node::Computer(computer) => offers.push(offer(computer, &is_deployed)),
                Node::Broker(broker) => {
                    brokers.insert(broker.endpoint.clone());
                }
            }
        }
        match hierarchy {
            None => Self::Flat(flat(&offers)),
            Some(hierarchy) => Self::Hierarchical(hierarchy.tables(&offers, &brokers), Table::new()),
        }
    }

    /// The table of the broker at this endpoint.
    pub(crate) fn of(&self, broker: &Endpoint) -> &Table {
        match self {
            Self::Flat(table) => table,
            Self::Hierarchical(tables, empty) => tables.get(broker).unwrap_or(empty),
        }
    }
}

fn offer(computer: &Computer, is_deployed: impl Fn(&FunctionName) -> bool) -> Offer<FunctionName, Endpoint> {
    let functions = computer.serves(is_deployed).cloned().collect();
    Offer { computer: computer.endpoint.clone(), functions }
}
