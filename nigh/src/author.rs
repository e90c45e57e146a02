//! What a function's author does before deploying: [`new_project`] writes a project, [`build()`] makes a module of it.
//!
//! A project stands on its own: the SDK's sources are part of this program and go with every project, so neither a
//! registry nor this repository is needed to build one. Everything else is left to the author's own cargo; what is found
//! out here is which compiler can build for `wasm32-wasip1`, and whether what came out can be deployed.

mod build;
mod compiler;
mod component;
mod environment;
mod error;
mod package;
mod project;
mod template;

pub use build::{BuildOptions, Built, build};
pub use compiler::{CompilerError, GuestCompiler};
pub use environment::Environment;
pub use error::BuildError;
pub use project::{NewProject, NewProjectError, new_project};

/// The target that functions are built for.
pub const TARGET: &str = "wasm32-wasip1";
