//! placeholder

pub mod author;
