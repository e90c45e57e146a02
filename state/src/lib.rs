//! States of applications, as a computer keeps them.
//!
//! A call gets a [`Session`]: the states that its function depends on, each leased to it alone. What it writes is kept in the
//! session, and written in one go by [`Session::commit`] once the function has answered; a session that is dropped has written
//! nothing.
//!
//! [`Keeper`] knows the states that this computer holds ([`record`] is what it keeps of each) and brings those that others hold
//! here ([`moving`]), by what the controller's [`Directory`] says; where computers share a store, nothing moves ([`shared`]).
//! [`ingress`] are the doors: for other computers and operators, and for clients of the older system. [`forward`] speaks to
//! others.
//!
//! A move is safe at every moment because only one step of it counts: the claim at the directory, on the condition that nobody
//! has claimed the state since. Until then neither copy is used and both are the same.

mod config;
mod directory;
mod error;
mod forward;
pub mod ingress;
mod keeper;
mod lease;
mod moving;
mod record;
mod session;
mod shared;

pub use config::Config;
pub use directory::{Claimed, Directory, Given, Holder, Peers};
pub use error::StateError;
pub use forward::{RemoteDirectory, RemotePeers};
pub use keeper::{Info, Keeper};
pub use lease::{Change, Lease};
pub use session::{Access, Refusal, Session};
