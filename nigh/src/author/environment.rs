//! What building takes from the environment, in one place so that tests can give another.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Programs and folders that a build uses. [`Environment::of_process`] is what a user has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `CARGO`, else `cargo`.
    pub cargo: PathBuf,
    /// `RUSTC`, else `rustc`: of the toolchain that builds everything else.
    pub rustc: PathBuf,
    /// The distribution's own compiler.
    pub distribution_rustc: PathBuf,
    /// The standard library for the target that `scripts/setup` builds for the distribution's compiler:
    /// `NIGH_WASM_SYSROOT`, else `nigh/wasm-sysroot` in the user's data folder.
    pub sysroot: Option<PathBuf>,
    /// `PATH`, to look for a linker.
    pub path: OsString,
    /// `CARGO_TARGET_WASM32_WASIP1_LINKER`: a linker that the user chose.
    pub linker: Option<PathBuf>,
    /// `CARGO_ENCODED_RUSTFLAGS` or `RUSTFLAGS`: the user's own flags, which are kept.
    pub rustflags: Option<Vec<String>>,
}

impl Environment {
    /// What the variables of this process say.
    pub fn of_process() -> Self {
        let path_of = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = path_of("XDG_DATA_HOME").or_else(|| Some(env::home_dir()?.join(".local/share")));
        Self {
            cargo: path_of("CARGO").unwrap_or_else(|| "cargo".into()),
            rustc: path_of("RUSTC").unwrap_or_else(|| "rustc".into()),
            distribution_rustc: "/usr/bin/rustc".into(),
            sysroot: path_of("NIGH_WASM_SYSROOT").or_else(|| Some(data?.join("nigh/wasm-sysroot"))),
            path: env::var_os("PATH").unwrap_or_default(),
            linker: path_of("CARGO_TARGET_WASM32_WASIP1_LINKER"),
            rustflags: rustflags(env::var("CARGO_ENCODED_RUSTFLAGS").ok(), env::var("RUSTFLAGS").ok()),
        }
    }
}

/// Cargo's rule: the encoded flags win, and are separated by a byte that no flag contains.
fn rustflags(encoded: Option<String>, plain: Option<String>) -> Option<Vec<String>> {
    let split = |flags: String, by: char| flags.split(by).filter(|flag| !flag.is_empty()).map(str::to_owned).collect();
    encoded.map(|flags| split(flags, '\u{1f}')).or_else(|| plain.map(|flags| split(flags, ' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_split_as_cargo_does() {
        let flags =
            |encoded: Option<&str>, plain: Option<&str>| rustflags(encoded.map(Into::into), plain.map(Into::into));
        assert_eq!(flags(None, None), None);
        assert_eq!(flags(None, Some(" -D  warnings")).unwrap(), ["-D", "warnings"]);
        assert_eq!(flags(Some("--cfg\u{1f}a=\"b c\""), Some("-D warnings")).unwrap(), ["--cfg", "a=\"b c\""]);
    }
}
