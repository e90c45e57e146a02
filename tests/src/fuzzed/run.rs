//! Guests that run: modules made up in the shape of the native ABI and real guests with changes, called through a whole
//! computer. Each call comes to an outcome within its limits, and a neighbour is answered afterwards.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use bytes::Bytes;
use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Deployment, Digest, Headers, Kind, Limits, Outcome, Reason};
use nigh_runtime::{Computer, Config};
use tokio::runtime::Runtime;
use wasm_smith::Module;

use crate::guests;

const FUNCTION: &str = "made-up";
const NEIGHBOUR: &str = "neighbour";
/// Time of one call of a made-up guest; many of them loop.
const TIMEOUT: Duration = Duration::from_millis(20);
const PAYLOAD: &[u8] = b"payload";

/// The exports that make a module a native function.
const SHAPE: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "nigh_alloc_v1") (param i32) (result i32) unreachable)
    (func (export "nigh_handle_v1") (param i32 i32) (result i32) unreachable)
    (func (export "_initialize")))"#;
/// The imports that it may have, those with side effects on the host among them.
const OFFER: &str = r#"(module
    (import "nigh" "log_v1" (func (param i32 i32 i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_renumber" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#;

/// The first byte chooses between a module made up and a real guest with changes.
pub(super) fn check(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let module = if kind % 4 == 0 { Some(mutated(bytes)) } else { made_up(bytes) };
    let Some(module) = module else { return };
    let computer = computer();
    runtime().block_on(run(&computer, module.into()));
}

async fn run(computer: &Computer, module: Bytes) {
    if computer.deploy(deployment(FUNCTION, &module, TIMEOUT), module).await.is_err() {
        return;
    }
    let headers = Headers::new(vec![("name".to_owned(), "value".to_owned())]).expect("headers");
    let call = Call { headers, ..Call::new(FUNCTION.parse().expect("a name"), PAYLOAD, 100 * TIMEOUT) };
    match computer.handle(call, Instant::now()).await {
        Ok(reply) => match reply.outcome {
            Outcome::Answer { payload, .. } => assert!(payload.len() as u64 <= limits(TIMEOUT).payload_bytes),
            Outcome::Error { kind, message } => assert!(!kind.is_empty() && kind.len() <= 64 && message.len() < 9000),
            Outcome::Estimate(_) => panic!("nobody asked for an estimate"),
        },
        // On a busy machine the wait alone may take that long.
        Err(error) => assert_eq!(error.reason, Reason::Late, "{error}"),
    }
    let neighbour = Call::new(NEIGHBOUR.parse().expect("a name"), PAYLOAD, Duration::from_secs(30));
    let reply = computer.handle(neighbour, Instant::now()).await.expect("the neighbour is served");
    assert!(matches!(reply.outcome, Outcome::Answer { payload, .. } if payload == PAYLOAD));
    assert!(computer.under_way() <= 1, "nothing is left behind");
    computer.remove(&FUNCTION.parse().expect("a name"));
}

/// A module in the shape of the ABI, made of these bytes.
fn made_up(bytes: &[u8]) -> Option<Vec<u8>> {
    static SHAPES: LazyLock<(Vec<u8>, Vec<u8>)> =
        LazyLock::new(|| (guests::from_text(SHAPE).into(), guests::from_text(OFFER).into()));
    let (exports, available_imports) = SHAPES.clone();
    let config = wasm_smith::Config {
        exports: Some(exports),
        available_imports: Some(available_imports),
        max_memories: 1,
        max_tables: 4,
        max_table_elements: 1000,
        max_memory32_bytes: 4 << 20,
        allow_invalid_funcs: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        shared_everything_threads_enabled: false,
        wide_arithmetic_enabled: false,
        custom_page_sizes_enabled: false,
        ..wasm_smith::Config::default()
    };
    let module = Module::new(config, &mut Unstructured::new(bytes)).ok()?;
    Some(module.to_bytes())
}

/// A real guest with bytes changed: each three of these say where (twice) and to what.
pub(super) fn mutated(changes: &[u8]) -> Vec<u8> {
    static GUEST: LazyLock<Bytes> = LazyLock::new(|| {
        let fields = r#"(import "nigh" "log_v1" (func $log (param i32 i32 i32)))
            (func (export "_initialize") (call $log (i32.const 3) (i32.const 0) (i32.const 4)))
            (table 4 funcref) (global $seen (mut i32) (i32.const 0)) (data (i32.const 8) "data")"#;
        guests::echo_with(fields)
    });
    let mut guest = GUEST.to_vec();
    for change in changes.as_chunks::<3>().0 {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % guest.len();
        guest[at] = change[2];
    }
    guest
}

fn limits(timeout: Duration) -> Limits {
    Limits { memory_bytes: 4 << 20, payload_bytes: 1 << 20, log_bytes: 1 << 10, timeout, ..Limits::default() }
}

fn deployment(name: &str, module: &Bytes, timeout: Duration) -> Deployment {
    let (name, digest) = (name.parse().expect("a name"), Digest::of(module));
    Deployment::new(name, digest, module.len() as u64, Kind::Native, limits(timeout), Vec::new())
}

/// Where all guests run.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
    &RUNTIME
}

/// A computer with a neighbour on it, the same for all inputs, as in life.
pub(super) fn computer() -> Arc<Computer> {
    static COMPUTER: LazyLock<Arc<Computer>> = LazyLock::new(|| {
        runtime().block_on(async {
            let config = Config { workers: 2, instances_max: 8, ..Config::new("computer-1".parse().expect("a name")) };
            let computer = Computer::new(config).expect("a computer");
            let echo = guests::echo();
            let deployed = computer.deploy(deployment(NEIGHBOUR, &echo, Duration::from_secs(10)), echo).await;
            deployed.expect("the neighbour deploys");
            computer
        })
    });
    COMPUTER.clone()
}
