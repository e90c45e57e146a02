//! The invariants of the code base that no compiler checks: sizes, arrows between crates, who may name what.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file, its tests left out.
const FILE_LINES_MAX: usize = 500;

/// Which crates a crate may depend on; only roles' libraries and what they share. The program alone joins the roles.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("telemetry", &["nigh-proto"]),
    ("store", &[]),
    ("state", &["nigh-proto", "nigh-store"]),
    ("routing", &[]),
    ("model", &[]),
    ("flow", &["nigh-proto"]),
    ("sdk", &[]),
    ("client", &["nigh-proto"]),
    ("load", &["nigh-client", "nigh-proto"]),
    ("doors", &["nigh-client", "nigh-proto", "nigh-telemetry"]),
    ("broker", &["nigh-doors", "nigh-flow", "nigh-proto", "nigh-routing", "nigh-store", "nigh-telemetry"]),
    ("runtime", &["nigh-model", "nigh-proto", "nigh-routing", "nigh-state", "nigh-store", "nigh-telemetry"]),
    ("controller", &["nigh-proto", "nigh-routing", "nigh-store", "nigh-telemetry"]),
    ("mec", &["nigh-proto", "nigh-store", "nigh-telemetry"]),
    (
        "nigh",
        &[
            "nigh-broker",
            "nigh-client",
            "nigh-controller",
            "nigh-doors",
            "nigh-flow",
            "nigh-model",
            "nigh-load",
            "nigh-mec",
            "nigh-proto",
            "nigh-routing",
            "nigh-runtime",
            "nigh-state",
            "nigh-store",
            "nigh-telemetry",
        ],
    ),
    ("guest-functions/echo", &["nigh-sdk"]),
    ("guest-functions/sha256", &["nigh-sdk"]),
    ("guest-functions/spin", &["nigh-sdk"]),
    ("guest-functions/thumbnail", &["nigh-sdk"]),
    ("guest-functions/face-detect", &["nigh-sdk"]),
    ("tests/guests/misbehaving", &["nigh-sdk"]),
    ("tests/guests/shout", &[]),
];

/// The files that may hold `unsafe`, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("sdk/src/abi.rs", "the ABI passes addresses in linear memory"),
    ("sdk/src/entry.rs", "exports need unmangled names"),
    (
        "guest-functions/face-detect/src/detector/kernel.rs",
        "loads four neighbouring sums at once, offsets checked once per scale",
    ),
    ("runtime/src/http/renewal.rs", "reaches the memory of a component, which shows it"),
    ("runtime/src/crew/priority.rs", "has the kernel let other threads go before guests"),
    ("runtime/src/faults.rs", "asks the kernel how many page faults a thread had"),
    ("runtime/src/module.rs", "loads compiled code"),
    ("runtime/src/pages.rs", "asks the kernel which pages were written to, and gives pages back to it"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Every file of the source tree, with its path from the root.
fn files() -> Vec<(String, PathBuf)> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<(String, PathBuf)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "target" | ".git" | "nigh-data" | "node_modules") {
                    walk(&path, root, found);
                }
            } else {
                found.push((path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), path));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &root(), &mut found);
    found.sort();
    assert!(found.len() > 50, "is this the source tree?");
    found
}

/// The Rust files, with their text.
fn sources() -> Vec<(String, String)> {
    let is_rust = |(name, _): &(String, PathBuf)| name.ends_with(".rs");
    files().into_iter().filter(is_rust).map(|(name, path)| (name, fs::read_to_string(path).unwrap())).collect()
}

/// A file's text up to its tests.
fn without_tests(text: &str) -> &str {
    text.find("\nmod tests").map_or(text, |at| &text[..at])
}

/// The code of a line, without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// Whether a word stands in a file's code outside comments.
fn names(text: &str, word: &str) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    text.lines().map(code).any(|line| {
        line.match_indices(word).any(|(at, _)| {
            let bytes = line.as_bytes();
            !is_part(at.checked_sub(1).and_then(|before| bytes.get(before))) && !is_part(bytes.get(at + word.len()))
        })
    })
}

fn assert_none(what: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{what}:\n  {}", offenders.join("\n  "));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent =
        |(_, text): &(String, String)| !text.trim_start().starts_with("//!") && !text.trim_start().starts_with("#!");
    assert_none("files without a `//!` head", sources().into_iter().filter(silent).map(|(name, _)| name).collect());
}

#[test]
fn files_fit_in_the_head() {
    let long = sources().into_iter().filter_map(|(name, text)| {
        let lines = without_tests(&text).lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{name}: {lines} lines"))
    });
    assert_none("files over 500 lines without their tests; split them by theme", long.collect());
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("unimple", "mented!("),
        concat!("to", "do!("),
    ];
    let later = sources().into_iter().filter(|(_, text)| words.iter().any(|word| text.contains(word)));
    assert_none("unfinished work", later.map(|(name, _)| name).collect());
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let mut offenders = Vec::new();
    for (folder, allowed) in ARROWS {
        let manifest: toml::Table =
            fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            let ours = dependencies.keys().filter(|name| name.starts_with("nigh"));
            offenders.extend(
                ours.filter(|name| !allowed.contains(&name.as_str()))
                    .map(|name| format!("{folder} → {name} ({section})")),
            );
        }
    }
    assert_none("arrows that the architecture does not have", offenders);
}

#[test]
fn every_crate_is_on_the_map_and_follows_the_lints() {
    let workspace: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let members: Vec<String> =
        workspace["workspace"]["members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap().to_owned()).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(folder, _)| *folder).chain(["tests"]).collect();
    assert_eq!(
        members.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        known,
        "members of the workspace and the list of arrows"
    );
    let lax = members.into_iter().filter(|folder| {
        let manifest: toml::Table =
            fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap();
        manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool) != Some(true)
    });
    assert_none("crates without the workspace's lints", lax.collect());
}

#[test]
fn routing_and_the_model_are_pure() {
    let impure = ["tokio", "tonic", "futures-util", "axum", "async-trait"];
    let clocks = ["Instant", "SystemTime", "thread_rng", "await"];
    for folder in ["routing", "model"] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        assert_none(
            &format!("impure dependencies of {folder}"),
            impure.iter().filter(|name| dependencies.contains_key(**name)).map(ToString::to_string).collect(),
        );
        let offenders = sources().into_iter().filter(|(name, _)| name.starts_with(&format!("{folder}/src")));
        let offenders = offenders.filter(|(_, text)| clocks.iter().any(|word| names(without_tests(text), word)));
        assert_none(&format!("clocks, dice or tasks in {folder}"), offenders.map(|(name, _)| name).collect());
    }
}

#[test]
fn only_the_runtime_names_wasmtime() {
    let offenders = sources().into_iter().filter(|(name, _)| {
        !name.starts_with("runtime/") && name != "tests/it/tidy.rs" && !name.starts_with("tests/benches/")
    });
    let offenders = offenders.filter(|(_, text)| names(text, "wasmtime") || names(text, "wasmtime_wasi"));
    assert_none("files outside runtime that name wasmtime", offenders.map(|(name, _)| name).collect());
}

#[test]
fn only_one_room_names_rustls() {
    let may = |name: &str| name.starts_with("proto/src/tls") || name.starts_with("tests/");
    let offenders = sources().into_iter().filter(|(name, _)| !may(name));
    let offenders = offenders.filter(|(_, text)| names(text, "rustls") || names(text, "tokio_rustls"));
    assert_none("files beyond proto/tls that name rustls", offenders.map(|(name, _)| name).collect());
}

#[test]
fn only_one_room_sends_http_requests_beyond_the_edge() {
    let rooms = ["proto/src/http_client.rs", "proto/src/tls/https.rs"];
    let clients = [concat!("hyper_util::", "client"), concat!("hyper::", "client")];
    let offenders = sources().into_iter().filter(|(name, text)| {
        let is_test = name.contains("tests/") || name.contains("/benches/");
        !is_test && !rooms.contains(&name.as_str()) && clients.iter().any(|client| without_tests(text).contains(client))
    });
    assert_none("files beyond proto/http_client that name a client of HTTP", offenders.map(|(name, _)| name).collect());
}

#[test]
fn only_doors_name_tonic() {
    let may = |name: &str| {
        let rooms = ["ingress", "forward", "discovery", "table"];
        name.starts_with("proto/")
            || name.starts_with("client/")
            || name.starts_with("tests/")
            || name.contains("/benches/")
            || rooms.iter().any(|room| name.ends_with(&format!("/{room}.rs")) || name.contains(&format!("/{room}/")))
    };
    let offenders = sources()
        .into_iter()
        .filter(|(name, text)| !may(name) && !name.contains("/tests") && names(without_tests(text), "tonic"));
    assert_none("files beyond the doors that name tonic", offenders.map(|(name, _)| name).collect());
}

#[test]
fn unsafe_code_stands_only_where_it_must() {
    // As a word alone it may stand in a list of keywords.
    let is_unsafe = |text: &str| {
        without_tests(text).lines().map(code).any(|line| line.contains("unsafe ") || line.contains("unsafe("))
    };
    let listed: BTreeSet<&str> = UNSAFE.iter().map(|(name, _)| *name).collect();
    let using: BTreeSet<String> = sources()
        .into_iter()
        .filter(|(name, text)| name != "tests/it/tidy.rs" && is_unsafe(text))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        using.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        listed,
        "files with unsafe code, and the list of those that may"
    );
}

#[test]
fn data_files_tell_where_they_come_from() {
    let data = [".jpg", ".jpeg", ".png", ".cascade", ".bin", ".xml"];
    let untold = files().into_iter().filter(|(name, path)| {
        data.iter().any(|ending| name.ends_with(ending))
            && !path.ancestors().skip(1).take(3).any(|folder| folder.join("SOURCES.md").exists())
    });
    assert_none("data files without a SOURCES.md", untold.map(|(name, _)| name).collect());
}

#[test]
fn no_secret_is_in_the_tree() {
    let secret = |(name, path): &(String, PathBuf)| {
        name.ends_with(".pem")
            || name.ends_with(".key")
            || fs::read_to_string(path).is_ok_and(|text| text.contains(concat!("PRIVATE", " KEY-----")))
    };
    assert_none("keys belong to whoever runs Nigh", files().into_iter().filter(secret).map(|(name, _)| name).collect());
}
