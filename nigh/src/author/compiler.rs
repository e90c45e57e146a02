//! Finding a compiler for guests: the toolchain's own where it has the target, else the distribution's.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Environment, TARGET};

/// A compiler that has a standard library for the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestCompiler {
    /// The compiler.
    pub rustc: PathBuf,
    /// What it calls itself.
    pub version: String,
    /// Where the target's standard library is, if not where the compiler looks by itself.
    pub sysroot: Option<PathBuf>,
    /// The linker, if not the compiler's own.
    pub linker: Option<PathBuf>,
}

/// Why there is no compiler for guests. All are mended on this machine, by who builds.
#[derive(Debug, thiserror::Error)]
pub enum CompilerError {
    /// Nobody has the target.
    #[error(
        "no compiler here builds for {TARGET}; asked {}.\n  \
         With rustup:            rustup target add {TARGET}\n  \
         On Debian, without it:  run scripts/setup of Nigh's sources, which builds the target from Debian's packages\n  \
         Elsewhere:              install your distribution's {TARGET} package for Rust, or rustup (https://rustup.rs)",
        .asked.iter().map(|rustc| rustc.display().to_string()).collect::<Vec<_>>().join(" and ")
    )]
    NoTarget {
        /// The compilers that were asked.
        asked: Vec<PathBuf>,
    },
    /// The distribution's compiler was updated after its standard library for the target was built.
    #[error(
        "the standard library in {} was built for {built_for:?}, but {} is {found:?} now; run scripts/setup again",
        .sysroot.display(),
        .rustc.display()
    )]
    Stale {
        /// The standard library's folder.
        sysroot: PathBuf,
        /// The compiler.
        rustc: PathBuf,
        /// Which version it was built for.
        built_for: String,
        /// The version that is there.
        found: String,
    },
    /// The folder that `scripts/setup` made has lost its library.
    #[error("there is no standard library for {TARGET} in {}; remove the folder and run scripts/setup again", .sysroot.display())]
    Damaged {
        /// The standard library's folder.
        sysroot: PathBuf,
    },
    /// There is nothing to link with.
    #[error(
        "{} can compile for {TARGET}, but there is no linker: neither rust-lld beside a compiler nor wasm-ld on the PATH; \
         install lld (apt-get install lld), or name one in CARGO_TARGET_WASM32_WASIP1_LINKER",
        .rustc.display()
    )]
    NoLinker {
        /// The compiler.
        rustc: PathBuf,
    },
}

impl GuestCompiler {
    /// Finds the compiler for a package in `folder` (which may choose its own toolchain): the toolchain's, if its
    /// standard libraries include the target's; else the distribution's with its own libraries; else the distribution's
    /// with those that `scripts/setup` built for it.
    ///
    /// # Errors
    /// [`CompilerError`], each saying what to install.
    pub fn find(environment: &Environment, folder: &Path) -> Result<Self, CompilerError> {
        let toolchain = Rustc { path: &environment.rustc, folder };
        if toolchain.has_std(None) {
            return Ok(toolchain.with(None, None));
        }
        let distribution = Rustc { path: &environment.distribution_rustc, folder };
        if distribution.has_std(None) {
            return Ok(distribution.with(None, linker(environment, toolchain, distribution)));
        }
        let nobody = || CompilerError::NoTarget {
            asked: vec![environment.rustc.clone(), environment.distribution_rustc.clone()],
        };
        let sysroot = environment.sysroot.clone().ok_or_else(nobody)?;
        let built_for = std::fs::read_to_string(sysroot.join("compiler")).map_err(|_| nobody())?.trim().to_owned();
        let found = distribution.version().ok_or_else(nobody)?;
        let rustc = environment.distribution_rustc.clone();
        if built_for != found {
            return Err(CompilerError::Stale { sysroot, rustc, built_for, found });
        }
        if !distribution.has_std(Some(&sysroot)) {
            return Err(CompilerError::Damaged { sysroot });
        }
        match linker(environment, toolchain, distribution) {
            Some(linker) => Ok(distribution.with(Some(sysroot), Some(linker))),
            None => Err(CompilerError::NoLinker { rustc }),
        }
    }
}

impl fmt::Display for GuestCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.version, self.rustc.display())
    }
}

/// The user's choice, else the LLVM linker that comes with one of the compilers, else the system's.
fn linker(environment: &Environment, toolchain: Rustc<'_>, distribution: Rustc<'_>) -> Option<PathBuf> {
    let beside = |rustc: Rustc<'_>| {
        let name = format!("rust-lld{}", env::consts::EXE_SUFFIX);
        Some(rustc.sysroot()?.join("lib/rustlib").join(rustc.host()?).join("bin").join(name))
    };
    let on_path = env::split_paths(&environment.path).flat_map(|folder| {
        ["wasm-ld", "rust-lld"].map(|name| folder.join(format!("{name}{}", env::consts::EXE_SUFFIX)))
    });
    environment.linker.clone().or_else(|| {
        [beside(toolchain), beside(distribution)].into_iter().flatten().chain(on_path).find(|linker| linker.is_file())
    })
}

/// A compiler to ask, from a folder. What it cannot answer is `None`: another one may.
#[derive(Clone, Copy)]
struct Rustc<'a> {
    path: &'a Path,
    folder: &'a Path,
}

impl Rustc<'_> {
    fn answer<I: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = I>) -> Option<String> {
        let output = Command::new(self.path).args(arguments).current_dir(self.folder).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    }

    fn version(self) -> Option<String> {
        self.answer(["--version"])
    }

    fn sysroot(self) -> Option<PathBuf> {
        self.answer(["--print", "sysroot"]).map(PathBuf::from)
    }

    fn host(self) -> Option<String> {
        self.answer(["-vV"])?.lines().find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
    }

    /// Whether the target's standard library is where this compiler looks for it, or below `sysroot`.
    fn has_std(self, sysroot: Option<&Path>) -> bool {
        let mut arguments = ["--print", "target-libdir", "--target", TARGET].map(OsStr::new).to_vec();
        arguments.extend(sysroot.into_iter().flat_map(|sysroot| [OsStr::new("--sysroot"), sysroot.as_os_str()]));
        let Some(entries) = self.answer(arguments).and_then(|folder| std::fs::read_dir(folder).ok()) else {
            return false;
        };
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    }

    fn with(self, sysroot: Option<PathBuf>, linker: Option<PathBuf>) -> GuestCompiler {
        let version = self.version().unwrap_or_else(|| "rustc".to_owned());
        GuestCompiler { rustc: self.path.to_owned(), version, sysroot, linker }
    }
}

#[cfg(test)]
#[cfg(unix)] // where a script can stand in for a compiler
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A machine of nothing but folders: `toolchain` and `distribution` each hold a stand-in for a compiler.
    struct Machine(TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for compiler in ["toolchain", "distribution"] {
                machine.write(&format!("{compiler}/version"), &format!("rustc of {compiler}"));
                // A link instead of a copy: a file just written may still be open in a process another test has forked.
                let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/author/stand-in-rustc");
                std::os::unix::fs::symlink(stand_in, machine.at(&format!("{compiler}/rustc"))).unwrap();
            }
            machine
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, text: &str) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            fs::write(self.at(path), text).unwrap();
        }

        fn add_std(&self, root: &str) {
            self.write(&format!("{root}/lib/rustlib/{TARGET}/lib/libstd-0123.rlib"), "");
        }

        fn add_sysroot(&self, built_for: &str) {
            self.write("sysroot/compiler", &format!("{built_for}\n"));
            self.add_std("sysroot");
        }

        fn add_linker(&self, root: &str) -> PathBuf {
            let linker = format!("{root}/lib/rustlib/stand-in-host/bin/rust-lld");
            self.write(&linker, "");
            self.at(&linker)
        }

        fn environment(&self) -> Environment {
            Environment {
                cargo: "cargo".into(),
                rustc: self.at("toolchain/rustc"),
                distribution_rustc: self.at("distribution/rustc"),
                sysroot: Some(self.at("sysroot")),
                path: self.at("bin").into(),
                linker: None,
                rustflags: None,
            }
        }

        fn find(&self) -> Result<GuestCompiler, CompilerError> {
            GuestCompiler::find(&self.environment(), self.0.path())
        }
    }

    #[test]
    fn the_toolchain_comes_first() {
        let machine = Machine::new();
        machine.add_std("toolchain");
        machine.add_std("distribution");
        machine.add_sysroot("another compiler");
        let found = machine.find().unwrap();
        assert_eq!(found.to_string(), format!("rustc of toolchain ({})", machine.at("toolchain/rustc").display()));
        assert_eq!((found.sysroot, found.linker), (None, None));
    }

    #[test]
    fn then_the_distribution_with_its_own_library() {
        let machine = Machine::new();
        machine.add_std("distribution");
        machine.add_sysroot("another compiler");
        let found = machine.find().unwrap();
        assert_eq!((found.rustc, found.sysroot), (machine.at("distribution/rustc"), None));
    }

    #[test]
    fn then_the_distribution_with_the_library_that_setup_built() {
        let machine = Machine::new();
        machine.add_sysroot("rustc of distribution");
        let linker = machine.add_linker("toolchain");
        let found = machine.find().unwrap();
        assert_eq!(found.rustc, machine.at("distribution/rustc"));
        assert_eq!((found.sysroot, found.linker), (Some(machine.at("sysroot")), Some(linker)));
    }

    #[test]
    fn linkers_are_sought_where_the_user_says_then_beside_the_compilers_then_on_the_path() {
        let machine = Machine::new();
        machine.add_sysroot("rustc of distribution");
        let error = machine.find().unwrap_err();
        assert!(matches!(error, CompilerError::NoLinker { .. }) && error.to_string().contains("apt-get install lld"));
        machine.write("bin/wasm-ld", "");
        assert_eq!(machine.find().unwrap().linker, Some(machine.at("bin/wasm-ld")));
        let beside = machine.add_linker("distribution");
        assert_eq!(machine.find().unwrap().linker, Some(beside));
        let environment = Environment { linker: Some("my-ld".into()), ..machine.environment() };
        assert_eq!(GuestCompiler::find(&environment, machine.0.path()).unwrap().linker, Some("my-ld".into()));
    }

    #[test]
    fn a_library_for_another_compiler_is_not_used() {
        let machine = Machine::new();
        machine.add_linker("toolchain");
        machine.add_sysroot("rustc of last year");
        let error = machine.find().unwrap_err().to_string();
        assert!(error.contains("rustc of last year") && error.contains("run scripts/setup again"), "{error}");
    }

    #[test]
    fn a_library_that_is_gone_is_noticed() {
        let machine = Machine::new();
        machine.write("sysroot/compiler", "rustc of distribution");
        assert!(matches!(machine.find().unwrap_err(), CompilerError::Damaged { .. }));
    }

    #[test]
    fn without_any_compiler_every_kind_of_machine_gets_its_advice() {
        let machine = Machine::new();
        let nowhere = Environment {
            rustc: machine.at("nowhere"),
            distribution_rustc: machine.at("nowhere"),
            sysroot: None,
            ..machine.environment()
        };
        for environment in [machine.environment(), nowhere] {
            let error = GuestCompiler::find(&environment, machine.0.path()).unwrap_err().to_string();
            for advice in ["rustup target add wasm32-wasip1", "scripts/setup", "https://rustup.rs"] {
                assert!(error.contains(advice), "{error}");
            }
        }
    }
}
