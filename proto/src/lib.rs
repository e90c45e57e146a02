//! Every contract between Nigh's roles, on both sides of each boundary: the messages on the wire ([`v1`]), the checked
//! values they become ([`Call`], [`Reply`], [`Deployment`], …), channels and servers with the platform's settings, TLS and who
//! may ask for what over it ([`tls`], [`access`]), the one mapping between errors and gRPC statuses ([`PlatformError`]), and what a module must look like ([`module`]).
//!
//! Wire types stop here: a role turns a message into a checked value once, at its ingress.

pub mod access;
pub mod asynchronous;
pub mod call;
pub mod cdn_loop;
pub mod channel;
pub mod connections;
mod deadline;
pub mod deployment;
pub mod dial;
pub mod discovery;
pub mod document;
pub mod event;
pub mod exchange;
pub mod flow;
pub mod http_client;
pub mod identity;
pub mod ingress;
mod intake;
pub mod membership;
pub mod module;
pub mod name;
pub mod older;
pub mod placement;
mod reach;
pub mod reply;
mod stall;
pub mod state;
pub mod status;
pub mod stream;
pub mod time;
pub mod tls;
pub mod trigger;

/// The generated messages, clients and servers of package `nigh.v1`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "generated code; the .proto files are the documentation"
)]
pub mod v1 {
    tonic::include_proto!("nigh.v1");
}

pub use asynchronous::{Acceptance, Callback};
pub use call::{Call, CallId, CallLimits, Headers, Priority};
pub use channel::Remote;
pub use connections::ServerLimits;
pub use deployment::{AllowedHost, Deployment, DirectoryGrant, Kind, Limits};
pub use discovery::{Broker, Computer, ComputerProblem};
pub use document::{Document, DocumentKey};
pub use exchange::{Exchange, Exchanged};
pub use flow::Flow;
pub use identity::{Identity, Role};
pub use name::{Digest, Endpoint, Endpoints, FunctionName, NodeName, TriggerName};
pub use placement::{Constraint, Label, Labels, Placement};
pub use reply::{Estimate, Load, Outcome, Reply, Spread, StepRan, Timing};
pub use state::{ApplicationName, CarriedState, StateId, StateName, StatePlace};
pub use status::{PlatformError, Reason};
pub use stream::parts;
pub use tls::Tls;
pub use trigger::Trigger;

/// The version of the protocol between roles; a peer that speaks another is refused with [`Reason::Protocol`].
pub const PROTOCOL: u32 = 1;
