//! `nigh new` and `nigh build`: what an author does before deploying.

use std::path::PathBuf;

use clap::Args;

use crate::author::{BuildOptions, build, new_project};
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh new hello                    a project in ./hello
  nigh new hello --dir work/greet   elsewhere
  cd hello && cargo test && nigh build")]
pub(super) struct NewCommand {
    /// The function's name: a-z 0-9 - _
    name: String,
    /// Where to write it: a folder that is empty or not there yet [default: NAME]
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh build                        the function in this folder
  nigh build hello --json           in ./hello; where the module is, for programs
  nigh build --package thumbnail    one of a workspace")]
pub(super) struct BuildCommand {
    /// The function's folder, or any path in it
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Which package, where PATH is a workspace
    #[arg(long, short, value_name = "NAME")]
    package: Option<String>,
    /// Cargo's profile
    #[arg(long, default_value = "release", value_name = "NAME")]
    profile: String,
    /// Where cargo puts what it builds [default: target/wasm of the workspace]
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Show cargo's messages only where it fails
    #[arg(long, short)]
    quiet: bool,
}

impl NewCommand {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let project = new_project(&self.name, self.dir.as_deref())?;
        Ok(output.result(&project.to_json(), |_| &project)?)
    }
}

impl BuildCommand {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let Self { path, package, profile, target_dir, quiet } = self;
        let built = build(&BuildOptions { package, profile, target_dir, quiet, ..BuildOptions::new(path) })?;
        Ok(output.result(&built.to_json(), |_| &built)?)
    }
}
