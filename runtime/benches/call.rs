//! What a call of a native echo costs within the process, against bare wasmtime doing the same with the same engine: make
//! an instance from the pool, write the request, call, read the answer, drop the instance. Every limit is on, and every
//! call gets an instance that is as new, unless a row says otherwise. Rounds are interleaved, figures are medians.
//!
//! `cargo bench -p nigh-runtime --bench call [-- --rounds 9 --ms 150]`
#![expect(clippy::print_stdout, reason = "a bench prints its tables")]
#![expect(clippy::cast_precision_loss, reason = "figures of a bench")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Deployment, Digest, Kind, Limits, Outcome};
use nigh_runtime::{Computer, Config};
use tokio::runtime::Runtime;
use wasmtime::{
    Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig, Store,
};

const PAYLOAD: usize = 100;
/// The shapes of guests: name, pages of memory, items. One as small as can be, one with two pages, and one as compilers
/// make of a function: 17 pages, a table, data, something to initialise.
const GUESTS: [(&str, u32, &str); 3] = [
    ("1 page", 1, ""),
    ("2 pages", 2, ""),
    (
        "like Rust's",
        17,
        r#"(table 64 funcref) (elem (i32.const 1) $same $same) (data (i32.const 1048576) "some words of data")
        (global $stack (mut i32) (i32.const 1048576))
        (func (export "_initialize") (i32.store (i32.const 1048000) (i32.const 1)))"#,
    ),
];
/// Keeps a module from being reset in place: what a segment is left with is no state that the host can put back.
const NOT_RESET: &str = r#"(data $dropped "x") (func (data.drop $dropped))"#;
/// What a handler does before it answers, to see what interruption costs code that computes.
const COMPUTES: &str = "(local $i i32) (local $x i64) (local.set $x (i64.const 88172645463325252)) (loop $again
    (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
    (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
    (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
    (i64.store (i32.add (i32.const 4096) (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 4088))) (local.get $x))
    (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 20000))))";

fn guest(pages: u32, items: &str, handler: &str) -> Bytes {
    let text = format!(
        r#"(module
            (import "nigh" "log_v1" (func $log (param i32 i32 i32)))
            (memory (export "memory") {pages}) {items}
            (func $same (param i32) (result i32) (local.get 0))
            (func (export "nigh_alloc_v1") (param i32) (result i32) (i32.const 1024))
            (func (export "nigh_handle_v1") (param $payload i32) (param $head i32) (result i32)
                {handler}
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
    fn new(module: &[u8]) -> Self {
        Self::of(nigh_runtime::engine_for_benches(&config()).expect("an engine"), module)
    }

    /// In an engine of its own, which compiles no checks for interruption.
    fn uninterrupted(module: &[u8]) -> Self {
        let mut pool = PoolingAllocationConfig::new();
        pool.linear_memory_keep_resident(1 << 20).table_keep_resident(32 << 10).pagemap_scan(Enabled::Auto);
        let mut settings = wasmtime::Config::new();
        settings.concurrency_support(false).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        Self::of(Engine::new(&settings).expect("an engine"), module)
    }

    fn of(engine: Engine, module: &[u8]) -> Self {
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

    /// Calls per second of so many threads together.
    fn rate(&self, threads: usize, time: Duration, payload: &Bytes) -> f64 {
        let (calls, began) = (AtomicU64::new(0), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while began.elapsed() < time {
                        for _ in 0..16 {
                            black_box(self.call(payload).expect("echo runs"));
                        }
                        calls.fetch_add(16, Ordering::Relaxed);
                    }
                });
            }
        });
        calls.into_inner() as f64 / began.elapsed().as_secs_f64()
    }
}

/// A computer's side: the runtime that brings calls, and one function.
struct Ours {
    runtime: Arc<Runtime>,
    computer: Arc<Computer>,
}

impl Ours {
    fn new(
        runtime: &Arc<Runtime>,
        module: &Bytes,
        reuse: u32,
        make: fn(Config) -> Result<Arc<Computer>, nigh_runtime::Error>,
    ) -> Self {
        let computer = runtime.block_on(async { make(config()) }).expect("a computer");
        runtime.block_on(computer.deploy(deployment(module, reuse), module.clone())).expect("the guest fits");
        Self { runtime: runtime.clone(), computer }
    }

    /// Calls per second of so many callers together, each one call after the other.
    fn rate(&self, callers: usize, time: Duration, payload: &Bytes) -> f64 {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (began, is_crowd) = (Instant::now(), callers > 1);
        let callers = (0..callers).map(|_| {
            // Its own payload, as calls that come from elsewhere have theirs.
            let (computer, payload) = (self.computer.clone(), Bytes::copy_from_slice(payload));
            let (stop, calls) = (stop.clone(), calls.clone());
            self.runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..16 {
                        run(&computer, &payload).await;
                        // A call that was over at once has not let go of the thread; let the others have theirs.
                        if is_crowd {
                            tokio::task::yield_now().await;
                        }
                    }
                    calls.fetch_add(16, Ordering::Relaxed);
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let took = began.elapsed();
        let calls = calls.load(Ordering::Relaxed);
        self.runtime.block_on(join_all(callers));
        calls as f64 / took.as_secs_f64()
    }
}

fn config() -> Config {
    Config::new("bench".parse().expect("a valid name"))
}

fn deployment(module: &Bytes, reuse: u32) -> Deployment {
    Deployment::new(
        "echo".parse().expect("a valid name"),
        Digest::of(module),
        module.len() as u64,
        Kind::Native,
        Limits { concurrency: 64, reuse, ..Limits::default() },
        Vec::new(),
    )
}

async fn run(computer: &Computer, payload: &Bytes) {
    let call = Call::new("echo".parse().expect("a valid name"), payload.clone(), Duration::from_secs(30));
    let reply = computer.handle(call, Instant::now()).await.expect("echo runs");
    assert!(matches!(reply.outcome, Outcome::Answer { payload, .. } if payload.len() == PAYLOAD));
}

fn runtime(threads: usize) -> Arc<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Arc::new(builder.worker_threads(threads).enable_all().build().expect("a runtime"))
}

type Measure<'a> = Box<dyn Fn() -> f64 + 'a>;

/// The median of each measure, rounds interleaved; the first round warms up.
fn medians<const N: usize>(rounds: usize, measures: [Measure<'_>; N]) -> [f64; N] {
    let mut figures: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for round in 0..=rounds {
        for (measure, figures) in measures.iter().zip(&mut figures) {
            let figure = measure();
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    figures.map(|mut figures| {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    })
}

fn argument(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn main() {
    let rounds = usize::try_from(argument("--rounds", 9)).unwrap_or(9);
    let time = Duration::from_millis(argument("--ms", 150));
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let (one, two) = (runtime(1), runtime(2));
    println!(
        "µs per call, {PAYLOAD} B, median of {rounds} rounds; in brackets the share of bare wasmtime's on one thread"
    );
    println!(
        "| guest | bare, 1 thread | bare, 2 threads | 1 in flight | 64 in flight | 64, reuse 1000 | 64, newly made | 1 thread | 2 threads / 1 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, pages, items) in GUESTS {
        let module = guest(pages, items, "");
        let unreset = guest(pages, &format!("{items} {NOT_RESET}"), "");
        let bare = Bare::new(&module);
        let ours = |runtime, module, reuse| Ours::new(runtime, module, reuse, Computer::new);
        let (fresh, kept, made, alone) =
            (ours(&two, &module, 1), ours(&two, &module, 1000), ours(&two, &unreset, 1), ours(&one, &module, 1));
        let rates = medians(
            rounds,
            [
                Box::new(|| bare.rate(1, time, &payload)),
                Box::new(|| bare.rate(2, time, &payload)),
                Box::new(|| fresh.rate(1, time, &payload)),
                Box::new(|| fresh.rate(64, time, &payload)),
                Box::new(|| kept.rate(64, time, &payload)),
                Box::new(|| made.rate(64, time, &payload)),
                Box::new(|| alone.rate(32, time, &payload)),
            ],
        );
        let cell = |rate: f64| format!("{:.2} ({:.2})", 1e6 / rate, rates[0] / rate);
        let cells: Vec<_> = rates[1..].iter().map(|rate| cell(*rate)).collect();
        println!("| {name} | {:.2} | {} | {:.2} |", 1e6 / rates[0], cells.join(" | "), rates[3] / rates[6]);
    }
    limits(rounds, time, &payload, &two);
    first_call(rounds, &payload, &two);
}

/// What limits cost: the same computer without looking in on guests, memory limits and time-outs; and bare wasmtime without
/// the checks in compiled code that let a guest be interrupted.
fn limits(rounds: usize, time: Duration, payload: &Bytes, runtime: &Arc<Runtime>) {
    println!("\nµs per call with and without limits, computer at 64 in flight, bare on 1 thread");
    println!(
        "| guest | limits on | off | on / off | bare, can be interrupted | cannot | can / cannot |\n|---|---|---|---|---|---|---|"
    );
    for (name, handler) in [("echo", ""), ("computes", COMPUTES)] {
        let module = guest(2, "", handler);
        let on = Ours::new(runtime, &module, 1, Computer::new);
        let off = Ours::new(runtime, &module, 1, Computer::without_limits_for_benches);
        let (can, cannot) = (Bare::new(&module), Bare::uninterrupted(&module));
        let [on, off, can, cannot] = medians(
            rounds,
            [
                Box::new(|| on.rate(64, time, payload)),
                Box::new(|| off.rate(64, time, payload)),
                Box::new(|| can.rate(1, time, payload)),
                Box::new(|| cannot.rate(1, time, payload)),
            ],
        );
        let (on_us, off_us, can_us, cannot_us) = (1e6 / on, 1e6 / off, 1e6 / can, 1e6 / cannot);
        println!(
            "| {name} | {on_us:.2} | {off_us:.2} | {:.3} | {can_us:.2} | {cannot_us:.2} | {:.3} |",
            on_us / off_us,
            can_us / cannot_us
        );
    }
}

/// The first call of a function whose module was compiled before: by a computer that has just started.
fn first_call(rounds: usize, payload: &Bytes, runtime: &Arc<Runtime>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, pages, items) = GUESTS[2];
    let module = guest(pages, items, "");
    let figures = |_| {
        let cached = Config { cache: Some(folder.path().to_owned()), ..config() };
        let computer = runtime.block_on(async { Computer::new(cached) }).expect("a computer");
        let began = Instant::now();
        runtime.block_on(computer.deploy(deployment(&module, 1), module.clone())).expect("the guest fits");
        let deployed = began.elapsed();
        let began = Instant::now();
        runtime.block_on(run(&computer, payload));
        (deployed.as_secs_f64() * 1e6, began.elapsed().as_secs_f64() * 1e6)
    };
    let (mut deploys, mut calls): (Vec<_>, Vec<_>) = (0..=rounds).map(figures).skip(1).unzip();
    deploys.sort_by(f64::total_cmp);
    calls.sort_by(f64::total_cmp);
    println!(
        "\na module found compiled: ready after {:.0} µs, its first call after another {:.0} µs (medians of {rounds})",
        deploys[rounds / 2],
        calls[rounds / 2]
    );
}
