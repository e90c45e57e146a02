//! Real projects, built with the compiler of this machine, all outside this repository.

use std::fs;
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::author::new_project;

/// A project whose library is `source`, beside the SDK.
fn project(name: &str, source: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    new_project(name, Some(folder.path())).unwrap();
    fs::write(folder.path().join("src/lib.rs"), source).unwrap();
    folder
}

/// The quiet build of a folder, whatever target folder the tests themselves are built in.
fn quiet(folder: &TempDir) -> BuildOptions {
    BuildOptions {
        target_dir: Some(folder.path().join("target/wasm")),
        quiet: true,
        ..BuildOptions::new(folder.path())
    }
}

fn advice(folder: &TempDir) -> String {
    build(&quiet(folder)).unwrap_err().to_string()
}

#[test]
fn a_new_project_tests_and_builds_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    new_project("word-count", Some(folder.path())).unwrap();
    let tests = Command::new(Environment::of_process().cargo)
        .args(["test", "--offline"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tests.stdout);
    assert!(tests.status.success() && said.contains("2 passed"), "{said}{}", String::from_utf8_lossy(&tests.stderr));

    let built = build(&quiet(&folder)).unwrap();
    assert_eq!((built.package.as_str(), built.kind), ("word-count", Kind::Native));
    assert!(built.path.ends_with("target/wasm/wasm32-wasip1/release/word_count.wasm"), "{}", built.path.display());
    assert!(built.bytes < 100 << 10, "{} bytes", built.bytes);
    assert!(built.memory_bytes_min < 2 << 20, "{} bytes of memory", built.memory_bytes_min);
    let module = fs::read(&built.path).unwrap();
    assert_eq!((built.bytes, built.digest), (module.len() as u64, Digest::of(&module)));

    let json = built.to_json();
    assert_eq!(json["digest"], built.digest.to_string());
    assert_eq!(json["bytes"], built.bytes);
    let text = built.to_string();
    assert!(text.contains("kind      native") && text.contains("word_count.wasm --name word-count"), "{text}");
}

#[test]
fn a_plain_program_becomes_a_command() {
    let folder = project("shout", "");
    fs::remove_file(folder.path().join("src/lib.rs")).unwrap();
    let manifest = "[package]\nname = \"shout\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.path().join("src/main.rs"), "fn main() { println!(\"HELLO\") }").unwrap();
    let built = build(&BuildOptions { profile: "dev".into(), ..quiet(&folder) }).unwrap();
    assert_eq!(built.kind, Kind::Command);
    assert!(built.path.ends_with("wasm32-wasip1/debug/shout.wasm"), "{}", built.path.display());
}

#[test]
fn what_the_compiler_refuses_is_passed_on() {
    let folder = project("broken", "fn handle() -> u32 { \"not a number\" }");
    let error = advice(&folder);
    assert!(error.contains("mismatched types") && error.contains("mend what it says about broken"), "{error}");
    let unknown = BuildOptions { profile: "no-such".into(), ..quiet(&folder) };
    let error = build(&unknown).unwrap_err().to_string();
    assert!(error.contains("no-such"), "{error}");
}

#[test]
fn a_module_without_a_function_is_refused_with_advice() {
    let folder = project("forgetful", "pub fn handle() {}");
    let error = advice(&folder);
    assert!(error.contains("is `nigh_sdk::function!(...)` in the crate?"), "{error}");
}

#[test]
fn a_handler_of_the_wrong_type_is_refused_by_the_compiler() {
    let folder = project("odd", "nigh_sdk::function!(handle);\nfn handle(text: String) -> String { text }");
    assert!(advice(&folder).contains("nigh_sdk::Request"), "{}", advice(&folder));
}

#[test]
fn the_authors_own_flags_are_kept() {
    let source = "#[cfg(not(all(mine, target_feature = \"simd128\")))]\ncompile_error!(\"flags lost\");\n\
                  nigh_sdk::function!(echo);\n\
                  fn echo(request: nigh_sdk::Request) -> Result<nigh_sdk::Response, nigh_sdk::Error> {\n\
                  Ok(nigh_sdk::Response::new(request.into_payload())) }";
    let by_environment = project("flagged", source);
    let mut options = quiet(&by_environment);
    options.environment.rustflags = Some(vec!["--cfg".into(), "mine".into()]);
    build(&options).unwrap();

    let by_configuration = project("flagged", source);
    fs::create_dir(by_configuration.path().join(".cargo")).unwrap();
    let configuration = format!("[target.{TARGET}]\nrustflags = [\"--cfg\", \"mine\"]\n");
    fs::write(by_configuration.path().join(".cargo/config.toml"), configuration).unwrap();
    let mut options = quiet(&by_configuration);
    options.environment.rustflags = None;
    build(&options).unwrap();
}

#[test]
fn builds_at_the_same_time_agree() {
    let folder = tempfile::tempdir().unwrap();
    new_project("busy", Some(folder.path())).unwrap();
    let options = quiet(&folder);
    let built = thread::scope(|scope| {
        let builds = [(); 3].map(|()| scope.spawn(|| build(&options).unwrap()));
        builds.map(|build| build.join().unwrap())
    });
    assert_eq!(built[0], built[1]);
    assert_eq!(built[1], built[2]);
}

#[test]
fn sizes_are_rounded_to_tenths() {
    assert_eq!(tenths(0, 1 << 10), "0.0");
    assert_eq!(tenths(1024 + 51, 1 << 10), "1.0");
    assert_eq!(tenths(1024 + 52, 1 << 10), "1.1");
    assert_eq!(tenths(1_114_112, 1 << 20), "1.1");
}
