//! Which package of which workspace is meant, as cargo sees it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{BuildError, Environment};

/// A package that makes a module, and what of it does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// Cargo's unambiguous name for it.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) manifest: PathBuf,
    pub(super) entry: Entry,
    /// The target folder of its workspace.
    pub(super) target_dir: PathBuf,
}

/// What becomes the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The library, a cdylib.
    Library,
    /// The program of this name.
    Program(String),
}

impl Package {
    /// The package called `name`, or else the one that `path` (a folder, or a `Cargo.toml`) lies in.
    pub(super) fn select(environment: &Environment, path: &Path, name: Option<&str>) -> Result<Self, BuildError> {
        let opened = |source| BuildError::Path { path: path.to_owned(), source };
        let mut folder = path.canonicalize().map_err(opened)?;
        if folder.is_file() {
            folder.pop();
        }
        let workspace = Workspace::read(environment, path, &folder)?;
        let chosen = match name {
            Some(name) => workspace.packages.iter().find(|package| package.name == name),
            None => {
                workspace.packages.iter().filter(|package| package.holds(&folder)).max_by_key(|package| package.depth())
            }
        };
        let Some(chosen) = chosen else {
            let modules = workspace.packages.iter().filter(|package| package.makes_module());
            let packages = modules.map(|package| package.name.clone()).collect();
            return Err(BuildError::WhichPackage { path: path.to_owned(), packages });
        };
        Ok(Self {
            id: chosen.id.clone(),
            name: chosen.name.clone(),
            manifest: chosen.manifest_path.clone(),
            entry: chosen.entry()?,
            target_dir: workspace.target_directory,
        })
    }

    /// The package's folder.
    pub(super) fn folder(&self) -> &Path {
        self.manifest.parent().unwrap_or(Path::new("."))
    }
}

/// The part of `cargo metadata` that is used here.
#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Member>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Member {
    id: String,
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    default_run: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Workspace {
    fn read(environment: &Environment, path: &Path, folder: &Path) -> Result<Self, BuildError> {
        let output = Command::new(&environment.cargo)
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(folder)
            .output()
            .map_err(|source| BuildError::Run { program: environment.cargo.clone(), source })?;
        if !output.status.success() {
            let messages = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(BuildError::NoPackage { path: path.to_owned(), messages });
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Member {
    fn holds(&self, folder: &Path) -> bool {
        let own = self.manifest_path.parent().and_then(|own| own.canonicalize().ok());
        own.is_some_and(|own| folder.starts_with(own))
    }

    fn depth(&self) -> usize {
        self.manifest_path.components().count()
    }

    /// The names of its targets of this kind.
    fn targets(&self, kind: &str) -> Vec<String> {
        let of_kind = self.targets.iter().filter(|target| target.kind.iter().any(|have| have == kind));
        of_kind.map(|target| target.name.clone()).collect()
    }

    fn makes_module(&self) -> bool {
        !self.targets("cdylib").is_empty() || !self.targets("bin").is_empty()
    }

    fn entry(&self) -> Result<Entry, BuildError> {
        if !self.targets("cdylib").is_empty() {
            return Ok(Entry::Library);
        }
        let programs = self.targets("bin");
        match (programs.as_slice(), &self.default_run) {
            ([], _) => Err(BuildError::NoCdylib { package: self.name.clone(), manifest: self.manifest_path.clone() }),
            ([program], _) | (_, Some(program)) => Ok(Entry::Program(program.clone())),
            _ => Err(BuildError::WhichProgram {
                package: self.name.clone(),
                programs,
                manifest: self.manifest_path.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn select(path: &Path, name: Option<&str>) -> Result<Package, BuildError> {
        Package::select(&Environment::of_process(), path, name)
    }

    /// A workspace without a package of its own: a module, a plain library and a package of two programs.
    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let package = |name: &str, more: &str| format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n{more}");
        write(
            root.path(),
            &[
                ("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"functions/*\"]\n"),
                ("functions/module/Cargo.toml", &package("module", "[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n")),
                ("functions/module/src/lib.rs", ""),
                ("functions/plain/Cargo.toml", &package("plain", "")),
                ("functions/plain/src/lib.rs", ""),
                ("functions/two/Cargo.toml", &package("two", "")),
                ("functions/two/src/bin/one.rs", "fn main() {}"),
                ("functions/two/src/bin/other.rs", "fn main() {}"),
            ],
        );
        root
    }

    #[test]
    fn a_package_is_known_by_any_path_in_it_or_by_its_name() {
        let root = workspace();
        let at = |path: &str| root.path().join(path);
        let module = select(&at("functions/module"), None).unwrap();
        assert_eq!((module.name.as_str(), &module.entry), ("module", &Entry::Library));
        assert_eq!(select(&at("functions/module/src"), None).unwrap(), module);
        assert_eq!(select(&at("functions/module/Cargo.toml"), None).unwrap(), module);
        assert_eq!(select(root.path(), Some("module")).unwrap(), module);
    }

    #[test]
    fn what_is_not_clear_is_asked_for() {
        let root = workspace();
        for (path, name) in [(".", None), ("functions", None), (".", Some("modul"))] {
            let error = select(&root.path().join(path), name).unwrap_err().to_string();
            assert!(error.contains("--package NAME; it has: module, two"), "{error}");
        }
        let error = select(root.path(), Some("two")).unwrap_err().to_string();
        assert!(error.contains("one, other") && error.contains("default-run"), "{error}");
        let manifest = root.path().join("functions/two/Cargo.toml");
        fs::write(&manifest, "[package]\nname = \"two\"\nedition = \"2024\"\ndefault-run = \"other\"\n").unwrap();
        assert_eq!(select(root.path(), Some("two")).unwrap().entry, Entry::Program("other".into()));
    }

    #[test]
    fn a_plain_library_is_told_what_it_lacks() {
        let root = workspace();
        let error = select(&root.path().join("functions/plain"), None).unwrap_err().to_string();
        assert!(error.contains("crate-type = [\"cdylib\", \"rlib\"]") && error.contains("Cargo.toml"), "{error}");
    }

    #[test]
    fn paths_without_a_package_are_refused_with_advice() {
        let empty = tempfile::tempdir().unwrap();
        for path in [empty.path().to_owned(), empty.path().join("nowhere")] {
            let error = select(&path, None).unwrap_err().to_string();
            assert!(error.contains("nigh new NAME"), "{error}");
        }
        let environment = Environment { cargo: "/nowhere/cargo".into(), ..Environment::of_process() };
        let error = Package::select(&environment, empty.path(), None).unwrap_err().to_string();
        assert!(error.contains("https://rustup.rs"), "{error}");
    }
}
