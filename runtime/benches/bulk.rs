//! What it costs a guest that its bulk instructions are done in pieces, and how long one keeps the engine from looking up: copies and
//! fills of a length that is known only when they run, compiled as a computer compiles them and as they were, by the
//! same engine. Rounds are interleaved, figures are medians.
//!
//! `cargo bench -p nigh-runtime --bench bulk [-- --rounds 9]`
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::time::{Duration, Instant};

use nigh_runtime::{Config, engine_for_benches, in_pieces_for_benches};
use wasmtime::{Engine, Instance, Module, Store, TypedFunc, UpdateDeadline};

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
/// Lengths of the instructions, and how often each is done in a round.
const LENGTHS: [(u32, u32); 9] = [
    (8, 200_000),
    (32, 200_000),
    (128, 200_000),
    (KIB, 100_000),
    (16 * KIB, 10_000),
    (64 * KIB, 3000),
    (65 * KIB, 3000),
    (MIB, 100),
    (16 * MIB, 5),
];

/// Does so many of such a length, one after the other. Copies go elsewhere, or on by 64 bytes; they begin within a page where the
/// processor takes no load for one of a store just before.
const GUEST: &str = r#"(module
    (memory 600)
    (func (export "copy") (param $length i32) (param $times i32)
        (loop $more
            (memory.copy (i32.const 17827904) (i32.const 0) (local.get $length))
            (br_if $more (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
    (func (export "shift") (param $length i32) (param $times i32)
        (loop $more
            (memory.copy (i32.const 64) (i32.const 0) (local.get $length))
            (br_if $more (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
    (func (export "fill") (param $length i32) (param $times i32)
        (loop $more
            (memory.fill (i32.const 8) (i32.const 7) (local.get $length))
            (br_if $more (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))))"#;
/// Its functions, and what they do.
const FUNCTIONS: [(&str, &str); 3] =
    [("copy", "`memory.copy`"), ("shift", "`memory.copy`, overlapping"), ("fill", "`memory.fill`")];

struct Guest {
    store: Store<Looks>,
    functions: [TypedFunc<(u32, u32), ()>; FUNCTIONS.len()],
}

/// When the engine looked up last, and the longest time that it did not.
#[derive(Default)]
struct Looks {
    last: Option<Instant>,
    longest: Duration,
}

impl Guest {
    fn new(engine: &Engine, module: &[u8]) -> Self {
        let module = Module::new(engine, module).expect("it compiles");
        let mut store = Store::new(engine, Looks::default());
        store.set_epoch_deadline(1 << 40);
        let instance = Instance::new(&mut store, &module, &[]).expect("it starts");
        let functions = FUNCTIONS.map(|(name, _)| instance.get_typed_func(&mut store, name).expect("it is there"));
        Self { store, functions }
    }

    /// Nanoseconds that each took.
    fn ns(&mut self, function: usize, length: u32, times: u32) -> f64 {
        let began = Instant::now();
        self.functions[function].call(&mut self.store, (length, times)).expect("it fits");
        began.elapsed().as_secs_f64() * 1e9 / f64::from(times)
    }

    /// The longest time between two looks of the engine.
    fn longest(mut self, function: usize, length: u32) -> Duration {
        self.store.epoch_deadline_callback(|mut store| {
            let (looks, now) = (store.data_mut(), Instant::now());
            looks.longest = looks.longest.max(looks.last.map_or(Duration::ZERO, |last| now - last));
            looks.last = Some(now);
            Ok(UpdateDeadline::Continue(0))
        });
        self.store.set_epoch_deadline(0);
        self.functions[function].call(&mut self.store, (length, 2)).expect("it fits");
        self.store.data().longest
    }
}

fn median<T: Copy>(mut values: Vec<T>, by: impl Fn(&T, &T) -> std::cmp::Ordering) -> T {
    values.sort_by(by);
    values[values.len() / 2]
}

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--rounds");
    let rounds: usize = arguments.nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(9);
    let engine = engine_for_benches(&Config::new("bench".parse().expect("a name"))).expect("an engine");
    let module = wat::parse_str(GUEST).expect("the guest is valid");
    let rewritten = in_pieces_for_benches(&module).expect("the guest is valid");
    println!("ns for each instruction of a length known when it runs, medians of {rounds} rounds");
    println!("| instruction | bytes | as it was | in pieces | ratio |\n|---|---|---|---|---|");
    let mut guests = [&module[..], &rewritten].map(|module| Guest::new(&engine, module));
    for (function, (_, name)) in FUNCTIONS.into_iter().enumerate() {
        for (length, times) in LENGTHS {
            let mut took = [Vec::new(), Vec::new()];
            for round in 0..=rounds {
                for (guest, took) in guests.iter_mut().zip(&mut took) {
                    let ns = guest.ns(function, length, times);
                    if round > 0 {
                        took.push(ns);
                    }
                }
            }
            let [whole, pieces] = took.map(|took| median(took, f64::total_cmp));
            println!("| {name} | {length} | {whole:.1} | {pieces:.1} | {:.2} |", pieces / whole);
        }
    }
    drop(guests);
    println!("\nthe longest time between two looks of the engine, at memory touched for the first time");
    println!("| instruction | as it was | in pieces |\n|---|---|---|");
    for (function, (_, name)) in FUNCTIONS.into_iter().enumerate() {
        let [whole, pieces] = [&module[..], &rewritten].map(|module| {
            let longest = (0..rounds).map(|_| Guest::new(&engine, module).longest(function, 16 * MIB));
            median(longest.collect(), Duration::cmp)
        });
        println!("| {name}, 16 MiB | {whole:.1?} | {pieces:.1?} |");
    }
}
