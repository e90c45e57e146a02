//! The protocol of the older system, ServerlessOnEdge (`uiiit.rpc`): its messages ([`rpc`]), how they become calls and replies
//! and back, and its door ([`EdgeIngress`]) in front of anything that handles calls. Only what a lambda's name and input
//! say goes through as it is; a payload travels in one of two fields, which [`INPUT`] remembers.

mod callback;
mod ingress;
mod lcm;
mod membership;
mod message;

/// The generated messages, clients and servers of package `uiiit.rpc`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto file is the documentation"
)]
pub mod rpc {
    tonic::include_proto!("uiiit.rpc");
}

/// The generated messages, clients and servers of package `uiiit.etsimec.rpc`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto file is the documentation"
)]
pub mod etsimec {
    tonic::include_proto!("uiiit.etsimec.rpc");
}

pub use callback::call_back;
pub use ingress::EdgeIngress;
pub use lcm::{Association, LcmProxy};
pub use membership::{REPORTS_WAITING_MAX, keep_announced, keep_reporting};
pub use message::{INPUT, OUTPUT, call, name_of, reply, request, response, text_bytes, update_states};

/// What a response says when all went well.
pub const OK: &str = "OK";

/// A share as the older messages tell it: in percent, rounded.
pub fn percent(share: f32) -> u32 {
    // In range after the clamp; not a number becomes 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0.5 and 100.5")]
    let percent = 100.0f32.mul_add(share.clamp(0.0, 1.0), 0.5) as u32;
    percent
}
