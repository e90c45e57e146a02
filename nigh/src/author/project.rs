//! Writing a new project.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nigh_proto::name::{FunctionName, NameError};

use super::template;

/// A project just written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProject {
    /// Its name: of the package, and of the function to deploy.
    pub name: FunctionName,
    /// Its folder.
    pub folder: PathBuf,
}

/// Why a project was not written. Nothing that was there is touched.
#[derive(Debug, thiserror::Error)]
pub enum NewProjectError {
    /// No function can be called so.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A function can be called so, a package cannot.
    #[error("cargo takes no package called {name:?}: {why}; try {advice:?}")]
    PackageName {
        /// The name given.
        name: String,
        /// The rule.
        why: &'static str,
        /// A name that would do.
        advice: String,
    },
    /// The place is taken.
    #[error("{} is there already and not empty; choose another name, or another folder with --dir PATH", .folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}; choose another folder with --dir PATH", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes a project that builds, tests and deploys as it stands into `folder` (by default one of its own name in the
/// current folder), which must be empty or not exist yet.
///
/// # Errors
/// [`NewProjectError`], each saying what to choose instead.
pub fn new_project(name: &str, folder: Option<&Path>) -> Result<NewProject, NewProjectError> {
    let name: FunctionName = name.parse()?;
    check_package_name(name.as_str())?;
    let folder = folder.unwrap_or(Path::new(name.as_str())).to_owned();
    if !is_free(&folder).map_err(|source| NewProjectError::Write { path: folder.clone(), source })? {
        return Err(NewProjectError::Taken { folder });
    }
    for (path, text) in template::files(name.as_str()) {
        let path = path.split('/').fold(folder.clone(), |path, part| path.join(part));
        write(&path, &text).map_err(|source| NewProjectError::Write { path, source })?;
    }
    Ok(NewProject { name, folder })
}

/// For people: what to do next.
impl fmt::Display for NewProject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is ready in {}", self.name, self.folder.display())?;
        write!(f, "Next: cd {} && cargo test && nigh build", self.folder.display())
    }
}

impl NewProject {
    /// The same facts as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "name": self.name.as_str(), "path": self.folder.display().to_string() })
    }
}

/// Names that mean something to the compiler: keywords (no crate can be named so in a path), the crates that are always
/// there, and the SDK, which every project depends on.
#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    "alloc", "core", "proc-macro", "proc_macro", "std", "test",
    "nigh-sdk", "nigh_sdk",
];

/// What cargo asks of a package's name beyond what a function's must be.
fn check_package_name(name: &str) -> Result<(), NewProjectError> {
    let refuse = |why, advice: String| Err(NewProjectError::PackageName { name: name.to_owned(), why, advice });
    if name.contains('.') {
        return refuse("it has a dot", name.replace('.', "-"));
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        return refuse("it begins with a digit", format!("f{name}"));
    }
    if RESERVED.contains(&name) {
        return refuse("the name means something else in Rust", format!("my-{name}"));
    }
    Ok(())
}

/// Whether a project can go there: nothing is, or an empty folder.
fn is_free(folder: &Path) -> io::Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(_) if folder.is_file() => Ok(false),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_refused_with_advice() {
        let root = tempfile::tempdir().unwrap();
        let refusal = |name: &str| new_project(name, Some(&root.path().join("p"))).unwrap_err().to_string();
        for odd in ["", "-a", "Face", "a b", "a/b", "../up", "ä", "_a", &"a".repeat(64)] {
            assert!(refusal(odd).contains("use 1 to 63 of a-z 0-9"), "{odd:?}");
        }
        for (odd, advice) in
            [("v1.2", "v1-2"), ("3d", "f3d"), ("match", "my-match"), ("std", "my-std"), ("nigh-sdk", "my-nigh-sdk")]
        {
            assert!(refusal(odd).contains(&format!("try {advice:?}")), "{odd:?}");
            assert!(check_package_name(advice).is_ok());
        }
        assert!(!root.path().join("p").exists());
    }

    #[test]
    fn what_is_there_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let taken = root.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("note"), "mine").unwrap();
        for place in [&taken, &taken.join("note")] {
            let error = new_project("fresh", Some(place)).unwrap_err();
            assert!(
                matches!(error, NewProjectError::Taken { .. }) && error.to_string().contains("--dir PATH"),
                "{error}"
            );
        }
        assert_eq!(fs::read_dir(&taken).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(taken.join("note")).unwrap(), "mine");
        let below_a_file = new_project("fresh", Some(&taken.join("note/below"))).unwrap_err();
        assert!(below_a_file.to_string().contains("--dir PATH"), "{below_a_file}");
    }

    #[test]
    fn an_empty_folder_will_do() {
        let root = tempfile::tempdir().unwrap();
        let project = new_project("fresh", Some(root.path())).unwrap();
        assert_eq!(project.folder, root.path());
        assert!(root.path().join("vendor/nigh-sdk/src/lib.rs").is_file() && root.path().join(".gitignore").is_file());
        assert!(project.to_string().contains("nigh build"));
        assert_eq!(project.to_json()["name"], "fresh");
    }
}
