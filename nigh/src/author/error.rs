//! Why a build came to nothing. All are mended by who builds; none by trying again.

use std::io;
use std::path::PathBuf;

use nigh_proto::module::ModuleError;

use super::{CompilerError, TARGET};

/// Why there is no module to deploy.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The path leads nowhere.
    #[error("cannot open {}: {source}; give the folder of a function, or make one with: nigh new NAME", .path.display())]
    Path {
        /// The path given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Cargo itself did not start.
    #[error("cannot run {}: {source}; install Rust from https://rustup.rs, or name a cargo in CARGO", .program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Cargo sees no package there.
    #[error(
        "cargo cannot read a package at {}:\n{messages}\ngive the folder of a function, or make one with: nigh new NAME",
        .path.display()
    )]
    NoPackage {
        /// The path given.
        path: PathBuf,
        /// What cargo said.
        messages: String,
    },
    /// The path is a workspace's, or the name none of its members'.
    #[error("say which package of {} to build, with --package NAME; it has: {}", .path.display(), .packages.join(", "))]
    WhichPackage {
        /// The path given.
        path: PathBuf,
        /// The workspace's packages that make modules.
        packages: Vec<String>,
    },
    /// The package is a plain library.
    #[error(
        "{package} is a library that other crates use, not a module; add to {}:\n\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n",
        .manifest.display()
    )]
    NoCdylib {
        /// The package.
        package: String,
        /// Its `Cargo.toml`.
        manifest: PathBuf,
    },
    /// The package has several programs.
    #[error(
        "{package} has several programs: {}; say which one is the function by adding to [package] in {}:\ndefault-run = \"NAME\"",
        .programs.join(", "),
        .manifest.display()
    )]
    WhichProgram {
        /// The package.
        package: String,
        /// Its programs.
        programs: Vec<String>,
        /// Its `Cargo.toml`.
        manifest: PathBuf,
    },
    /// Nobody can compile for the target.
    #[error(transparent)]
    Compiler(#[from] CompilerError),
    /// Cargo could not build it.
    #[error(
        "cargo could not build {package} for {TARGET} ({status}): mend what it says about {package}; where it is a \
         dependency that fails, choose a version or features that support WASI (no C code, sockets or threads){}",
        if .messages.is_empty() { String::new() } else { format!("\n{messages}") }
    )]
    Failed {
        /// The package.
        package: String,
        /// How cargo ended.
        status: std::process::ExitStatus,
        /// What it said, if the user has not seen it already.
        messages: String,
    },
    /// Cargo succeeded, but named no module.
    #[error("cargo built {package} but names no .wasm file of it; is another target forced by a cargo configuration?")]
    NoModule {
        /// The package.
        package: String,
    },
    /// Cargo's messages are not those of the cargo known.
    #[error("cargo's answer is not understood ({0}); Nigh needs cargo 1.85 or later")]
    Answer(#[from] serde_json::Error),
    /// What was built has bindings of a component, and cannot be made one.
    #[error(
        "{} was built, but cannot be made a component: {reason}; are its bindings those of one world, and complete?",
        .path.display()
    )]
    NoComponent {
        /// The module.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What was built can be compiled but not deployed.
    #[error("{} was built, but cannot be deployed: {source}", .path.display())]
    Unfit {
        /// The module.
        path: PathBuf,
        /// Why.
        source: ModuleError,
    },
}
