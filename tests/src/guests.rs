//! The functions that the tests run. Rust guests are built when a test first asks, by the builder behind `nigh build`;
//! hostile ones are written as Wasm text.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use bytes::Bytes;
use nigh::author::{BuildOptions, build as build_project};

type Built = Arc<OnceLock<Bytes>>;

/// The module of a guest project: a folder below `guest-functions/` or `tests/guests/`.
///
/// # Panics
/// Where it cannot be built; the message says what to do.
pub fn built(name: &str) -> Bytes {
    static BUILT: LazyLock<Mutex<HashMap<String, Built>>> = LazyLock::new(Mutex::default);
    let slot = BUILT.lock().expect("no test panics while it holds this").entry(name.to_owned()).or_default().clone();
    slot.get_or_init(|| build(&project(name))).clone()
}

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand below the root").to_owned()
}

fn project(name: &str) -> PathBuf {
    ["guest-functions", "tests/guests", "tests/guests/http"]
        .map(|folder| root().join(folder).join(name))
        .into_iter()
        .find(|folder| folder.join("Cargo.toml").exists())
        .unwrap_or_else(|| panic!("no guest project named {name}"))
}

fn build(project: &Path) -> Bytes {
    // One that stands apart from the workspace must not make a target folder of its own.
    let target_dir = Some(root().join("target/wasm"));
    let options = BuildOptions { profile: "guest".into(), quiet: true, target_dir, ..BuildOptions::new(project) };
    let built = build_project(&options).unwrap_or_else(|error| panic!("{}: {error}", project.display()));
    std::fs::read(&built.path).expect("the builder names the file it made").into()
}

/// An http function made by another language's toolchain: `javascript` or `python`.
///
/// # Panics
/// Where it has not been made.
pub fn foreign(language: &str) -> Bytes {
    let path = root().join("target/http-guests").join(format!("{language}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run scripts/http-guests", path.display())).into()
}

/// A module from Wasm text.
///
/// # Panics
/// Where the text is not Wasm.
pub fn from_text(text: &str) -> Bytes {
    wat::parse_str(text).expect("the test's text is Wasm").into()
}

/// A native function whose handler has this body (of type `i32, i32 -> i32`: lengths of payload and head to the address of
/// the answer), with one page of memory that may grow, and these extra fields in the module.
pub fn native(fields: &str, handler: &str) -> Bytes {
    from_text(&format!(
        r#"(module
            {fields}
            (memory (export "memory") 2)
            (func (export "nigh_alloc_v1") (param i32) (result i32) i32.const 1024)
            (func (export "nigh_handle_v1") (param $payload i32) (param $head i32) (result i32)
                {handler}))"#
    ))
}

/// A native function that answers with its payload and no headers, and needs no compiler to be made.
pub fn echo() -> Bytes {
    echo_with("")
}

/// The same with these extra fields in the module; imports stand first.
pub fn echo_with(fields: &str) -> Bytes {
    native(
        fields,
        // The head of no headers is four zero bytes, as memory is to begin with.
        "(i32.store (i32.const 64) (i32.const 0))
         (i32.store (i32.const 68) (i32.const 128))
         (i32.store (i32.const 72) (i32.const 4))
         (i32.store (i32.const 76) (i32.const 1024))
         (i32.store (i32.const 80) (local.get $payload))
         i32.const 64",
    )
}

/// A native function that answers these bytes, so that versions can be told apart.
pub fn constant(answer: &str) -> Bytes {
    native(
        &format!("(data (i32.const 512) \"{answer}\")"),
        &format!(
            "(i32.store (i32.const 64) (i32.const 0))
             (i32.store (i32.const 68) (i32.const 128))
             (i32.store (i32.const 72) (i32.const 4))
             (i32.store (i32.const 76) (i32.const 512))
             (i32.store (i32.const 80) (i32.const {}))
             i32.const 64",
            answer.len()
        ),
    )
}
