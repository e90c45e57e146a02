//! Many functions on one computer: what registering them takes, what they hold, and how soon one whose code had left memory
//! answers. And what compiling in a process of its own costs.
//!
//! `cargo bench -p nigh-runtime --bench functions -- [functions]`

#![expect(clippy::print_stdout, reason = "a bench prints what it has measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Deployment, Digest, Kind, Limits, Outcome};
use nigh_runtime::{CompilerProgram, Computer, Config};

/// Modules compiled in a child, for the comparison.
const COMPILED_IN_CHILDREN: usize = 100;
/// Functions called whose code is not in memory.
const RELOADED: usize = 2000;

fn main() {
    let functions = std::env::args().skip(1).find_map(|given| given.parse().ok()).unwrap_or(10_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(compare_compilers());
    runtime.block_on(many(functions));
}

/// A small function that answers with a text of its own; no two modules are the same.
fn module(number: usize) -> Bytes {
    let text = format!("function {number}");
    let module = format!(
        r#"(module
            (memory (export "memory") 2)
            (data (i32.const 64) "{text}")
            (func (export "nigh_alloc_v1") (param i32) (result i32) (i32.const 1024))
            (func (export "nigh_handle_v1") (param i32 i32) (result i32)
                (i32.store (i32.const 4) (i32.const 32)) (i32.store (i32.const 8) (i32.const 4))
                (i32.store (i32.const 12) (i32.const 64)) (i32.store (i32.const 16) (i32.const {}))
                (i32.const 0)))"#,
        text.len()
    );
    wat::parse_str(module).expect("the module is well formed").into()
}

fn config() -> Config {
    Config::new("bench".parse().expect("a name"))
}

async fn deploy(computer: &Computer, number: usize) {
    let module = module(number);
    let name = format!("f{number}").parse().expect("a name");
    let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
    let (digest, bytes) = (Digest::of(&module), module.len() as u64);
    let deployment = Deployment::new(name, digest, bytes, Kind::Native, limits, Vec::new());
    computer.deploy(deployment, module).await.expect("the module deploys");
}

async fn call(computer: &Arc<Computer>, number: usize) -> Duration {
    let name = format!("f{number}").parse().expect("a name");
    let began = Instant::now();
    let reply = computer.handle(Call::new(name, Bytes::new(), Duration::from_secs(10)), began).await;
    let took = began.elapsed();
    let Outcome::Answer { payload, .. } = reply.expect("the call is admitted").outcome else { panic!("no answer") };
    assert_eq!(payload, format!("function {number}"));
    took
}

async fn compare_compilers() {
    // Cargo puts it beside the folder of the benches.
    let bench = std::env::current_exe().expect("a bench is a program");
    let path = bench.ancestors().nth(2).expect("target/release/deps/bench").join("nigh-compiler");
    let program = CompilerProgram { path, arguments: Vec::new() };
    for (what, compiler) in [("in this process", None), ("in a process of its own", Some(program))] {
        let computer = Computer::new(Config { compiler, ..config() }).expect("a computer");
        deploy(&computer, usize::MAX).await;
        let began = Instant::now();
        for number in 0..COMPILED_IN_CHILDREN {
            deploy(&computer, number).await;
        }
        let each = began.elapsed() / u32::try_from(COMPILED_IN_CHILDREN).expect("few");
        println!("deploying a small module, compiled {what}: {:.2} ms", each.as_secs_f64() * 1e3);
    }
}

async fn many(functions: usize) {
    let computer = Computer::new(config()).expect("a computer");
    deploy(&computer, 0).await;
    call(&computer, 0).await;
    let before = resident_bytes();
    let began = Instant::now();
    for number in 1..functions {
        deploy(&computer, number).await;
    }
    let (in_memory, code) = computer.resident();
    let held = resident_bytes().saturating_sub(before);
    println!("{functions} functions registered in {:.1} s, each compiled here", began.elapsed().as_secs_f64());
    println!("resident before {:.1} MiB, since then {:.1} MiB more", mib(before), mib(held));
    println!("code in memory: {in_memory} functions, {:.1} MiB mapped", mib(code));
    // The first of them left memory first.
    let mut took = Vec::new();
    for number in (0..functions).step_by((functions / RELOADED).max(1)) {
        took.push(call(&computer, number).await);
    }
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!(
        "{} calls of functions not in memory: p50 {:.3} ms, p99 {:.3} ms, longest {:.3} ms",
        took.len(),
        at(50),
        at(99),
        at(100)
    );
    let mut again: Vec<_> = Vec::new();
    for _ in 0..RELOADED {
        again.push(call(&computer, functions - 1).await);
    }
    again.sort();
    println!("a call of one that is: p50 {:.3} ms", again[again.len() / 2].as_secs_f64() * 1e3);
    println!("resident at the end {:.1} MiB", mib(resident_bytes()));
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
