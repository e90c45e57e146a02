//! The files of a new project. All of them are part of this program, the SDK's sources included.

/// In a file's text, what becomes the project's name.
const NAME: &str = "{{name}}";
/// In a file's text, what becomes the stem of the module's file name.
const STEM: &str = "{{stem}}";

/// Files of the project itself.
const PROJECT: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../templates/function/manifest.toml")),
    ("src/lib.rs", include_str!("../../templates/function/src/lib.rs")),
    ("README.md", include_str!("../../templates/function/README.md")),
    (".gitignore", "/target\n"),
];

/// Where a project keeps the SDK.
const SDK_FOLDER: &str = "vendor/nigh-sdk";

/// Files of the SDK, as they are in this program's sources.
const SDK: &[(&str, &str)] = &[
    ("src/abi.rs", include_str!("../../../sdk/src/abi.rs")),
    ("src/entry.rs", include_str!("../../../sdk/src/entry.rs")),
    ("src/io.rs", include_str!("../../../sdk/src/io.rs")),
    ("src/lib.rs", include_str!("../../../sdk/src/lib.rs")),
    ("src/log.rs", include_str!("../../../sdk/src/log.rs")),
    ("src/state.rs", include_str!("../../../sdk/src/state.rs")),
    ("README.md", include_str!("../../../sdk/README.md")),
    ("LICENSE-APACHE", include_str!("../../../LICENSE-APACHE")),
    ("LICENSE-MIT", include_str!("../../../LICENSE-MIT")),
];

/// The edition of the SDK's sources.
const EDITION: &str = "2024";

/// Paths (with `/`) and texts of the project called `name`.
pub(super) fn files(name: &str) -> impl Iterator<Item = (String, String)> {
    let stem = name.replace('-', "_");
    let project =
        PROJECT.iter().map(move |(path, text)| ((*path).to_owned(), text.replace(NAME, name).replace(STEM, &stem)));
    let sdk = SDK.iter().map(|(path, text)| (format!("{SDK_FOLDER}/{path}"), (*text).to_owned()));
    project.chain(sdk).chain([(format!("{SDK_FOLDER}/Cargo.toml"), sdk_manifest())])
}

/// The SDK's manifest without what it inherits from its workspace.
fn sdk_manifest() -> String {
    let (version, rust_version) = (env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_RUST_VERSION"));
    let license = env!("CARGO_PKG_LICENSE");
    format!(
        "[package]\nname = \"nigh-sdk\"\ndescription = \"What a Nigh function is written against\"\n\
         version = \"{version}\"\nedition = \"{EDITION}\"\nrust-version = \"{rust_version}\"\nlicense = \"{license}\"\n\
         publish = false\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    #[test]
    fn the_sdk_goes_with_a_project_whole() {
        fn collect(folder: &Path, prefix: &str, into: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let path = format!("{prefix}/{}", entry.file_name().to_str().unwrap());
                if entry.path().is_dir() {
                    collect(&entry.path(), &path, into);
                } else {
                    into.insert(path, fs::read_to_string(entry.path()).unwrap());
                }
            }
        }
        let mut sources = BTreeMap::new();
        collect(&repository().join("sdk/src"), "src", &mut sources);
        let embedded: BTreeMap<_, _> =
            SDK.iter().filter(|(path, _)| path.starts_with("src/")).map(|(path, text)| (*path, *text)).collect();
        assert!(embedded.into_iter().eq(sources.iter().map(|(path, text)| (path.as_str(), text.as_str()))));
    }

    #[test]
    fn the_sdks_manifest_says_what_its_own_says() {
        let own = fs::read_to_string(repository().join("sdk/Cargo.toml")).unwrap();
        let own: toml::Table = own.parse().unwrap();
        let workspace: toml::Table = fs::read_to_string(repository().join("Cargo.toml")).unwrap().parse().unwrap();
        let inherited = &workspace["workspace"]["package"];
        let expected: toml::Table = own["package"]
            .as_table()
            .unwrap()
            .iter()
            .map(|(key, value)| (key.clone(), if value.is_table() { &inherited[key] } else { value }.clone()))
            .collect();
        let embedded: toml::Table = sdk_manifest().parse().unwrap();
        assert_eq!(embedded["package"].as_table().unwrap(), &expected);
        assert_eq!(own["dependencies"].as_table().unwrap().len(), 0, "a project could not fetch them offline");
    }

    #[test]
    fn no_placeholder_is_left() {
        for (path, text) in files("word-count") {
            assert!(!text.contains("{{"), "{path}");
        }
        let files: BTreeMap<_, _> = files("word-count").collect();
        assert!(files["Cargo.toml"].contains("name = \"word-count\""));
        assert!(files["README.md"].contains("word_count.wasm --name word-count"));
    }
}
