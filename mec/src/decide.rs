//! Who decides which server a device gets: associations of single clients first, then the rule that the operator has chosen.

pub(crate) mod associations;
pub(crate) mod balanced;
pub(crate) mod file;
