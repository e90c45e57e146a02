//! What states cost a call of a native function within the process: none, one that it depends on and leaves alone, one that it
//! reads, one that it reads and writes, which waits for the disk. One call after the other, and sixteen at once of as many
//! applications, whose writes share their waits. Rounds are interleaved, figures are medians.
//!
//! `cargo bench -p nigh-runtime --bench state [-- --rounds 5 --ms 300]`
#![expect(clippy::print_stdout, reason = "a bench prints its tables")]
#![expect(clippy::cast_precision_loss, reason = "figures of a bench")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Deployment, Digest, Kind, Limits, Outcome};
use nigh_runtime::{Computer, Config};
use nigh_store::Place;

/// Calls at once.
const AT_ONCE: usize = 16;
/// Reads the eight bytes of the state `n`.
const GET: &str = "(drop (call $get (i32.const 512) (i32.const 1) (i32.const 520) (i32.const 8)))";
/// Writes them, one more than they were.
const PUT: &str = "(i64.store (i32.const 520) (i64.add (i64.load (i32.const 520)) (i64.const 1)))
    (drop (call $put (i32.const 512) (i32.const 1) (i32.const 520) (i32.const 8)))";

fn guest(handler: &str) -> Bytes {
    let text = format!(
        r#"(module
            (import "nigh" "state_get_v1" (func $get (param i32 i32 i32 i32) (result i64)))
            (import "nigh" "state_put_v1" (func $put (param i32 i32 i32 i32) (result i64)))
            (memory (export "memory") 1)
            (data (i32.const 512) "n")
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

fn call(name: &str, application: usize) -> Call {
    let mut call = Call::new(name.parse().expect("a name"), "x", Duration::from_secs(30));
    call.application = Some(format!("app-{application}").parse().expect("a name"));
    call
}

async fn run(computer: &Computer, call: Call) {
    let reply = computer.handle(call, Instant::now()).await.expect("it runs");
    assert!(matches!(reply.outcome, Outcome::Answer { .. }), "{reply:?}");
}

/// The median time of one call after the other, in microseconds.
async fn alone(computer: &Computer, name: &str, time: Duration) -> f64 {
    let (mut took, began) = (Vec::new(), Instant::now());
    while began.elapsed() < time {
        let sent = Instant::now();
        run(computer, call(name, 0)).await;
        took.push(sent.elapsed());
    }
    took.sort();
    took[took.len() / 2].as_secs_f64() * 1e6
}

/// Calls per second, of so many callers with an application each.
async fn together(computer: &Arc<Computer>, name: &str, time: Duration) -> f64 {
    let began = Instant::now();
    let callers = (0..AT_ONCE).map(|application| {
        let (computer, name) = (computer.clone(), name.to_owned());
        tokio::spawn(async move {
            let mut calls = 0u64;
            while began.elapsed() < time {
                run(&computer, call(&name, application)).await;
                calls += 1;
            }
            calls
        })
    });
    let calls: u64 = join_all(callers).await.into_iter().map(|calls| calls.expect("no caller panics")).sum();
    calls as f64 / began.elapsed().as_secs_f64()
}

fn argument(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let (rounds, time) = (argument("--rounds", 5), Duration::from_millis(argument("--ms", 300)));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    runtime.block_on(async {
        let mut config = Config::new("bench".parse().expect("a name"));
        config.states.place = Some(Place::Embedded { file: folder.path().join("states.redb") });
        let computer = Computer::new(config).expect("a computer");
        let rows = [
            ("none", "", false),
            ("left-alone", "", true),
            ("get", GET, true),
            ("get-and-put", &*format!("{GET} {PUT}"), true),
        ];
        for (name, handler, has_state) in rows {
            let module = guest(handler);
            let states = if has_state { vec!["n".parse().expect("a name")] } else { Vec::new() };
            let (digest, bytes) = (Digest::of(&module), module.len() as u64);
            let name = name.parse().expect("a name");
            let deployment = Deployment::new(name, digest, bytes, Kind::Native, Limits::default(), Vec::new());
            computer.deploy(deployment.depending_on(states), module).await.expect("it deploys");
        }
        let mut figures = vec![(Vec::new(), Vec::new()); rows.len()];
        for _ in 0..rounds {
            for ((name, ..), (latency, rate)) in rows.iter().zip(&mut figures) {
                latency.push(alone(&computer, name, time).await);
                rate.push(together(&computer, name, time).await);
            }
        }
        println!("state          one call, p50    {AT_ONCE} at once");
        for ((name, ..), (latency, rate)) in rows.iter().zip(figures) {
            println!("{name:<12} {:>13.1} us {:>10.0} calls/s", median(latency), median(rate));
        }
    });
}
