//! Nodes of the older system, which announce themselves once, take no lease and never come back by themselves. The
//! controller looks after them: it asks at their doors as often as others renew their leases, keeps those announced that
//! open, and writes into its brokers' tables what brokers of our own learn by watching.

mod ingress;
mod nodes;
mod table;

pub(crate) use ingress::EdgeIngress;
pub(crate) use nodes::Nodes;
