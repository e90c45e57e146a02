//! Forwarding tables as edge brokers have long had them: weighted destinations per function, edited by hand or by a
//! controller, with policies that choose by weight alone and optimizers that turn measured latency into weights.

mod optimizer;
mod selection;
mod table;
mod text;

pub use optimizer::{Optimizer, Statistic, Tuner};
pub use selection::Selection;
pub(crate) use selection::Selector;
pub use table::{ForwardingTable, TableError, Weighted};
pub use text::{Row, TableText, weight_text};
