//! Building a package into a module, and looking at what came out.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nigh_proto::deployment::Kind;
use nigh_proto::module::{self, ModuleLimits};
use nigh_proto::name::Digest;
use serde::Deserialize;

use super::component;
use super::package::{Entry, Package};
use super::{BuildError, Environment, GuestCompiler, TARGET};

/// What every guest is compiled with: all computers offer SIMD, and the compiler uses it only where told to.
const GUEST_FLAGS: [&str; 2] = ["-C", "target-feature=+simd128"];

/// What to build, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// A package's folder, or any path in it.
    pub path: PathBuf,
    /// The package of the workspace at `path`; without it, the one that `path` lies in.
    pub package: Option<String>,
    /// Cargo's profile: `release` by default.
    pub profile: String,
    /// Where cargo puts what it builds. By default `wasm` in the workspace's target folder: apart from what is built for
    /// this machine, since that may be by another compiler.
    pub target_dir: Option<PathBuf>,
    /// Whether cargo's progress and messages are kept for the error instead of being shown on standard error.
    pub quiet: bool,
    /// Where compilers are looked for.
    pub environment: Environment,
}

/// A module that can be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The package it was built from.
    pub package: String,
    /// The file.
    pub path: PathBuf,
    /// How it will be run.
    pub kind: Kind,
    /// The file's length.
    pub bytes: u64,
    /// The file's SHA-256.
    pub digest: Digest,
    /// Bytes of memory that an instance begins with.
    pub memory_bytes_min: u64,
    /// The compiler that built it.
    pub compiler: GuestCompiler,
}

/// Builds a package for [`TARGET`] with the author's cargo, and checks that the module can be deployed. Blocks until cargo
/// is done. Builds may run at the same time, also of the same package: cargo lets one after the other into a folder.
///
/// # Errors
/// [`BuildError`], each saying what to do.
pub fn build(options: &BuildOptions) -> Result<Built, BuildError> {
    let package = Package::select(&options.environment, &options.path, options.package.as_deref())?;
    let compiler = GuestCompiler::find(&options.environment, package.folder())?;
    let path = componentize(compile(options, &package, &compiler)?)?;
    let module = std::fs::read(&path).map_err(|source| BuildError::Path { path: path.clone(), source })?;
    match module::inspect(&module, &ModuleLimits::default()) {
        Ok(found) => Ok(Built {
            package: package.name,
            path,
            kind: found.kind,
            bytes: module.len() as u64,
            digest: Digest::of(&module),
            memory_bytes_min: found.memory_bytes_min,
            compiler,
        }),
        Err(source) => Err(BuildError::Unfit { path, source }),
    }
}

impl BuildOptions {
    /// The release build of the package at `path`, shown live, in this process's environment.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            package: None,
            profile: "release".to_owned(),
            target_dir: None,
            quiet: false,
            environment: Environment::of_process(),
        }
    }
}

impl Built {
    /// The same facts as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "package": self.package,
            "path": self.path.display().to_string(),
            "kind": self.kind.to_string(),
            "bytes": self.bytes,
            "digest": self.digest.to_string(),
            "memory_bytes": self.memory_bytes_min,
            "compiler": self.compiler.to_string(),
        })
    }
}

/// For people: the facts, and what to do next.
impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path.display())?;
        writeln!(f, "  kind      {}", self.kind)?;
        writeln!(f, "  size      {} KiB ({} bytes)", tenths(self.bytes, 1 << 10), self.bytes)?;
        writeln!(f, "  digest    {}", self.digest)?;
        writeln!(f, "  memory    {} MiB to begin with", tenths(self.memory_bytes_min, 1 << 20))?;
        writeln!(f, "  compiler  {}", self.compiler)?;
        write!(f, "Deploy it with: nigh deploy {} --name {}", self.path.display(), self.package)
    }
}

/// `bytes` in `unit`s with one decimal.
fn tenths(bytes: u64, unit: u64) -> String {
    let tenths = (bytes.saturating_mul(10).saturating_add(unit / 2)) / unit;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Runs cargo and returns the module that it names.
fn compile(options: &BuildOptions, package: &Package, compiler: &GuestCompiler) -> Result<PathBuf, BuildError> {
    let mut cargo = command(options, package, compiler);
    cargo.stdin(Stdio::null()).stderr(if options.quiet { Stdio::piped() } else { Stdio::inherit() });
    let run = |source| BuildError::Run { program: options.environment.cargo.clone(), source };
    let output = cargo.output().map_err(run)?;
    if !output.status.success() {
        return Err(BuildError::Failed {
            package: package.name.clone(),
            status: output.status,
            messages: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let mut module = None;
    // Other programs that cargo starts may write lines of their own.
    for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"{")) {
        if let Message::CompilerArtifact { package_id, filenames } = serde_json::from_slice(line)?
            && package_id == package.id
        {
            module = filenames.into_iter().find(|file| file.extension() == Some(OsStr::new("wasm"))).or(module);
        }
    }
    module.ok_or_else(|| BuildError::NoModule { package: package.name.clone() })
}

/// Makes a component of a module that is meant to become one, beside it.
fn componentize(path: PathBuf) -> Result<PathBuf, BuildError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::Path { path, source }
    };
    let module = std::fs::read(&path).map_err(failed(&path))?;
    if !component::is_wanted(&module) {
        return Ok(path);
    }
    let encoded = component::encode(&module);
    let component = encoded.map_err(|reason| BuildError::NoComponent { path: path.clone(), reason })?;
    let beside = path.with_extension("component.wasm");
    // Put there whole: another build of the same package may be reading it.
    let fresh = beside.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&fresh, component).and_then(|()| std::fs::rename(&fresh, &beside)).map_err(failed(&beside))?;
    Ok(beside)
}

/// A line of cargo's `--message-format=json`.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        package_id: String,
        filenames: Vec<PathBuf>,
    },
    #[serde(other)]
    Other,
}

fn command(options: &BuildOptions, package: &Package, compiler: &GuestCompiler) -> Command {
    let mut cargo = Command::new(&options.environment.cargo);
    // From the package's folder, where its choice of a toolchain and its cargo configuration hold.
    cargo.current_dir(package.folder()).arg("build").args(["--target", TARGET, "--profile", &options.profile]);
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.arg("--manifest-path").arg(&package.manifest).args(["--package", &package.id]);
    match &package.entry {
        Entry::Library => cargo.arg("--lib"),
        Entry::Program(name) => cargo.args(["--bin", name]),
    };
    let target_dir = match &options.target_dir {
        Some(folder) => std::path::absolute(folder).unwrap_or_else(|_| folder.clone()),
        None => package.target_dir.join("wasm"),
    };
    cargo.arg("--target-dir").arg(target_dir);
    if compiler.rustc != Path::new("rustc") {
        cargo.env("RUSTC", &compiler.rustc);
    }
    if let Some(linker) = &compiler.linker {
        cargo.env("CARGO_TARGET_WASM32_WASIP1_LINKER", linker);
    }
    let flags = guest_flags(compiler);
    match &options.environment.rustflags {
        // Cargo looks at the environment's flags or at the target's, never at both.
        Some(own) => cargo.env(
            "CARGO_ENCODED_RUSTFLAGS",
            own.iter().chain(&flags).map(String::as_str).collect::<Vec<_>>().join("\u{1f}"),
        ),
        None => cargo.args(["--config", &format!("target.{TARGET}.rustflags={}", serde_json::json!(flags))]),
    };
    cargo
}

fn guest_flags(compiler: &GuestCompiler) -> Vec<String> {
    let mut flags = GUEST_FLAGS.map(str::to_owned).to_vec();
    if let Some(sysroot) = &compiler.sysroot {
        flags.extend(["--sysroot".to_owned(), sysroot.display().to_string()]);
    }
    flags
}

#[cfg(test)]
mod tests;
