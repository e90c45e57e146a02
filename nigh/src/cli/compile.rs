//! `nigh compile`: what a computer starts to have one module compiled; people have no use for it.

use std::path::{Path, PathBuf};

use nigh_runtime::CompilerProgram;

/// The name of the command.
pub(super) const NAME: &str = "compile";

/// This very program, also where its file has been replaced or removed since it was started.
pub(crate) fn own_compiler() -> Option<CompilerProgram> {
    let running = Path::new("/proc/self/exe");
    let path: Option<PathBuf> = if running.exists() { Some(running.to_owned()) } else { std::env::current_exe().ok() };
    Some(CompilerProgram { path: path?, arguments: vec![NAME.into()] })
}
