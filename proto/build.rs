//! Generates the messages and services from the `.proto` files, through protox, so that nobody needs `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["functions", "asynchronous", "triggers", "controller", "computer", "broker", "state", "documents"]
        .map(|name| format!("nigh/v1/{name}.proto"));
    let older = ["rpc", "etsimec"].map(|name| format!("uiiit/{name}.proto"));
    let files: Vec<String> = files.into_iter().chain(older).collect();
    for file in &files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
