//! Where a call goes.

pub mod policy;

pub use policy::PolicyKind;
