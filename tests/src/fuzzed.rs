//! What must hold for any bytes whatever, one function for each kind of input that strangers send. The fuzz targets in
//! `fuzz/` call these with bytes that a fuzzer makes up; `it/corpus.rs` calls them with the corpora and regressions that
//! are kept there. A check panics where something does not hold.

mod http;
mod module;
mod pictures;
mod run;
mod settings;
mod wire;

/// A kind of input: its name, which is the name of its fuzz target and of its folders, and its check.
pub type Target = (&'static str, fn(&[u8]));

/// Every kind.
pub const TARGETS: [Target; 6] = [
    ("http", http::check),
    ("module", module::check),
    ("pictures", pictures::check),
    ("run", run::check),
    ("settings", settings::check),
    ("wire", wire::check),
];

/// Checks bytes as input of this kind.
///
/// # Panics
/// Where something does not hold, or there is no such kind.
pub fn check(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a kind of input");
    check(data);
}
