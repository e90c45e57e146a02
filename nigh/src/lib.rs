//! The program behind every role of an edge: subcommands ([`cli`]), configuration files ([`config`]), the roles as processes
//! (`roles`) or all of them in one ([`local`]), certificates ([`ca`]), and what an author of functions does before deploying ([`author`]).
//!
//! Nothing else in the workspace reads arguments, the environment, configuration files or signals.

pub mod author;
pub mod ca;
mod certificates;
pub mod cli;
pub mod config;
pub mod local;
mod output;
mod roles;
mod signals;
mod sockets;
mod telemetry;
pub mod units;
