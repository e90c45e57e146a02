//! A computer to call, with small limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::ingress::Handler as _;
use nigh_proto::{
    Call, Deployment, Digest, DirectoryGrant, Headers, Kind, Limits, Outcome, PlatformError, Reason, Reply,
};
use nigh_runtime::{CompilerProgram, Computer, Config, PrepareError};

/// Longer than any test takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn config() -> Config {
    Config { workers: 4, instances_max: 16, ..Config::new("computer-1".parse().unwrap()) }
}

/// The program that compiles in a process of its own.
pub(crate) fn compiler() -> CompilerProgram {
    // Cargo puts it beside the folder of the tests.
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("nigh-compiler");
    CompilerProgram { path, arguments: Vec::new() }
}

pub(crate) fn computer() -> Arc<Computer> {
    Computer::new(config()).unwrap()
}

pub(crate) fn limits() -> Limits {
    Limits { memory_bytes: 4 << 20, payload_bytes: 1 << 20, ..Limits::default() }
}

/// A deployment of a module in text form, with its bytes.
pub(crate) fn deployment(
    name: &str,
    text: &str,
    limits: Limits,
    directories: Vec<DirectoryGrant>,
) -> (Deployment, bytes::Bytes) {
    let module = wat::parse_str(text).unwrap();
    let kind = match text {
        _ if text.contains("(component") => Kind::Http,
        _ if text.contains("nigh_handle_v1") => Kind::Native,
        _ => Kind::Command,
    };
    let (digest, len) = (Digest::of(&module), module.len() as u64);
    (Deployment::new(name.parse().unwrap(), digest, len, kind, limits, directories), module.into())
}

pub(crate) async fn try_deploy(
    computer: &Computer,
    name: &str,
    text: &str,
    limits: Limits,
) -> Result<(), PrepareError> {
    let (deployment, module) = deployment(name, text, limits, Vec::new());
    computer.deploy(deployment, module).await
}

pub(crate) async fn deploy(computer: &Computer, name: &str, text: &str, limits: Limits) {
    try_deploy(computer, name, text, limits).await.unwrap();
}

pub(crate) fn call(name: &str, payload: impl Into<Vec<u8>>) -> Call {
    Call::new(name.parse().unwrap(), payload.into(), LONG)
}

pub(crate) async fn invoke(computer: &Computer, call: Call) -> Result<Reply, PlatformError> {
    computer.handle(call, Instant::now()).await
}

/// The payload of the answer to a call.
pub(crate) async fn answer(computer: &Computer, name: &str, payload: impl Into<Vec<u8>>) -> Vec<u8> {
    match invoke(computer, call(name, payload)).await.unwrap().outcome {
        Outcome::Answer { payload, .. } => payload.to_vec(),
        other => panic!("no answer: {other:?}"),
    }
}

/// The kind and message of a call's error.
pub(crate) async fn error(computer: &Computer, name: &str, payload: impl Into<Vec<u8>>) -> (String, String) {
    match invoke(computer, call(name, payload)).await.unwrap().outcome {
        Outcome::Error { kind, message } => (kind, message),
        other => panic!("no error: {other:?}"),
    }
}

/// The reason why the platform refuses a call.
pub(crate) async fn refusal(computer: &Computer, call: Call) -> (Reason, PlatformError) {
    let error = invoke(computer, call).await.unwrap_err();
    (error.reason, error)
}

pub(crate) fn headers(headers: &[(&str, &str)]) -> Headers {
    Headers::new(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()).unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
