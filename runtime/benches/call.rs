//! One call of a native echo within the process, against bare wasmtime doing the same with the same module and engine:
//! make an instance from the pool, write the request, call, read the answer, drop the instance.
//!
//! `cargo bench -p nigh-runtime --bench call`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::future::join_all;
use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Deployment, Digest, Kind, Limits, Outcome};
use nigh_runtime::{Computer, Config};
use wasmtime::{Engine, InstancePre, Linker, Module, Store};

/// A guest that is as small as can be, and one of the shape that compilers make of an SDK function: 17 pages, a table,
/// data.
const GUESTS: [(&str, u32, &str); 2] = [
    ("trivial", 2, ""),
    (
        "rust-like",
        17,
        r#"(table 64 funcref) (elem (i32.const 1) $answer $answer) (data (i32.const 65536) "some words of data")
        (func (export "_initialize") (i32.store (i32.const 1048000) (i32.const 1)))"#,
    ),
];
const PAYLOAD: usize = 100;

fn guest(pages: u32, items: &str) -> Bytes {
    let text = format!(
        r#"(module
            (import "nigh" "log_v1" (func $log (param i32 i32 i32)))
            (memory (export "memory") {pages}) {items}
            (func $answer (param i32) (result i32) (local.get 0))
            (func (export "nigh_alloc_v1") (param i32) (result i32) (i32.const 1024))
            (func (export "nigh_handle_v1") (param $payload i32) (param $head i32) (result i32)
                (i32.store (i32.const 4) (i32.add (i32.const 1024) (local.get $payload)))
                (i32.store (i32.const 8) (local.get $head))
                (i32.store (i32.const 12) (i32.const 1024))
                (i32.store (i32.const 16) (local.get $payload))
                (i32.const 0)))"#
    );
    wat::parse_str(text).expect("the guest is valid").into()
}

/// Bare wasmtime's side.
struct Bare {
    engine: Engine,
    pre: InstancePre<()>,
}

impl Bare {
    fn new(engine: Engine, module: &[u8]) -> Self {
        let module = Module::new(&engine, module).expect("the guest compiles");
        let mut linker = Linker::new(&engine);
        linker.func_wrap("nigh", "log_v1", |_: u32, _: u32, _: u32| {}).expect("the import is new");
        let pre = linker.instantiate_pre(&module).expect("the imports fit");
        Self { engine, pre }
    }

    fn call(&self, payload: &[u8]) -> wasmtime::Result<Bytes> {
        let mut store = Store::new(&self.engine, ());
        store.set_epoch_deadline(1 << 40);
        let instance = self.pre.instantiate(&mut store)?;
        if let Some(initialize) = instance.get_func(&mut store, "_initialize") {
            initialize.typed::<(), ()>(&store)?.call(&mut store, ())?;
        }
        let memory = instance.get_memory(&mut store, "memory").expect("exported");
        let alloc = instance.get_typed_func::<u32, u32>(&mut store, "nigh_alloc_v1")?;
        let handle = instance.get_typed_func::<(u32, u32), u32>(&mut store, "nigh_handle_v1")?;
        let len = u32::try_from(payload.len())?;
        let at = usize::try_from(alloc.call(&mut store, len + 4)?)?;
        memory.write(&mut store, at, payload)?;
        memory.write(&mut store, at + payload.len(), &[0; 4])?;
        let descriptor = usize::try_from(handle.call(&mut store, (len, 4))?)?;
        let data = memory.data(&store);
        let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap_or_default());
        let (at, len) = (usize::try_from(word(descriptor + 12))?, usize::try_from(word(descriptor + 16))?);
        Ok(Bytes::copy_from_slice(&data[at..at + len]))
    }
}

fn config() -> Config {
    Config::new("bench".parse().expect("a valid name"))
}

fn call(payload: &Bytes) -> Call {
    Call::new("echo".parse().expect("a valid name"), payload.clone(), Duration::from_secs(30))
}

async fn run(computer: &Computer, call: Call) {
    let reply = computer.handle(call, Instant::now()).await.expect("echo runs");
    assert!(matches!(reply.outcome, Outcome::Answer { payload, .. } if payload.len() == PAYLOAD));
}

/// `threads` threads calling at once; the time for `iterations` calls in all.
fn bare_on_threads(bare: &Arc<Bare>, threads: u64, iterations: u64, payload: &Bytes) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..iterations.div_ceil(threads) {
                    black_box(bare.call(payload).expect("echo runs"));
                }
            });
        }
    });
    start.elapsed()
}

fn bench(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let payload = Bytes::from(vec![7; PAYLOAD]);
    for (name, pages, items) in GUESTS {
        let module = guest(pages, items);
        let mut group = criterion.benchmark_group(format!("native echo, {name}"));
        group.measurement_time(Duration::from_secs(4)).sample_size(30);
        let bare = Arc::new(Bare::new(nigh_runtime::engine_for_benches(&config()).expect("an engine"), &module));
        group.bench_function("bare wasmtime", |bencher| bencher.iter(|| bare.call(black_box(&payload))));
        group.bench_function("bare wasmtime, 2 threads", |bencher| {
            bencher.iter_custom(|iterations| bare_on_threads(&bare, 2, iterations, &payload));
        });
        for reuse in [1, 1000] {
            let computer = runtime.block_on(async { Computer::new(config()) }).expect("a computer");
            let deployment = Deployment::new(
                "echo".parse().expect("a valid name"),
                Digest::of(&module),
                module.len() as u64,
                Kind::Native,
                Limits { concurrency: 64, reuse, ..Limits::default() },
                Vec::new(),
            );
            runtime.block_on(computer.deploy(deployment, module.clone())).expect("the guest fits");
            for in_flight in [1u64, 64] {
                let id = BenchmarkId::new(format!("computer, reuse {reuse}"), format!("{in_flight} in flight"));
                group.bench_function(id, |bencher| {
                    bencher
                        .iter_custom(|iterations| runtime.block_on(drive(&computer, in_flight, iterations, &payload)));
                });
            }
        }
        group.finish();
    }
}

/// So many callers, each one call after the other; the time for `iterations` calls in all.
async fn drive(computer: &Arc<Computer>, callers: u64, iterations: u64, payload: &Bytes) -> Duration {
    let start = Instant::now();
    let callers = (0..callers).map(|_| {
        let (computer, payload) = (computer.clone(), payload.clone());
        tokio::spawn(async move {
            for _ in 0..iterations.div_ceil(callers) {
                run(&computer, call(&payload)).await;
            }
        })
    });
    join_all(callers).await;
    start.elapsed()
}

criterion_group!(benches, bench);
criterion_main!(benches);
