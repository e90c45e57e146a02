//! Functions that mean harm, each in its own way, as Wasm text. Tests look at what becomes of them and of their neighbour;
//! a bench measures what the neighbour notices.

use std::time::Duration;

use bytes::Bytes;
use nigh_proto::Limits;

use crate::guests;

/// One of them.
#[derive(Debug, Clone)]
pub struct Hostile {
    /// What it does.
    pub name: &'static str,
    /// Its module.
    pub module: Bytes,
    /// How its calls may end: the kinds of its errors, or `answer`.
    pub ends: &'static [&'static str],
}

const IMPORTS: &str = r#"
    (import "nigh" "log_v1" (func $log (param i32 i32 i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_renumber" (func $fd_renumber (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;

/// An answer with nothing in it.
pub(crate) const ANSWER: &str =
    "(i32.store (i32.const 68) (i32.const 128)) (i32.store (i32.const 72) (i32.const 4)) i32.const 64";

/// For ever.
fn forever(body: &str) -> String {
    format!("(loop $again {body} (br $again)) unreachable")
}

/// Limits that let many of them run at once, each for a fifth of a second.
pub fn limits() -> Limits {
    Limits {
        memory_bytes: 16 << 20,
        timeout: Duration::from_millis(200),
        concurrency: 64,
        queue: 64,
        payload_bytes: 1 << 20,
        log_bytes: 16 << 10,
        ..Limits::default()
    }
}

/// A function of this name, with these fields beside its handler.
fn of(name: &'static str, fields: &str, handler: &str, ends: &'static [&'static str]) -> Hostile {
    Hostile { name, module: guests::native(&format!("{IMPORTS}{fields}"), handler), ends }
}

/// Takes memory until there is no more.
const TO_THE_LIMIT: &str = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))";

/// All of them.
pub fn all() -> Vec<Hostile> {
    [greedy(), asking(), unsound()].into_iter().flatten().collect()
}

/// Those that take time, memory, tables and stack.
fn greedy() -> Vec<Hostile> {
    vec![
        of("loops", "", &forever(""), &["time-limit"]),
        of("loops-first", r#"(func (export "_initialize") (loop $l (br $l)))"#, ANSWER, &["time-limit"]),
        of(
            "grows-and-touches",
            "",
            "(loop $more
                (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
                (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const 1))
                (br $more)) unreachable",
            &["memory-limit"],
        ),
        of(
            "fills",
            "",
            &format!(
                "{TO_THE_LIMIT} {}",
                forever("(memory.fill (i32.const 0) (i32.const 7) (i32.mul (memory.size) (i32.const 65536)))")
            ),
            &["time-limit"],
        ),
        of(
            "tables",
            "(table $t 1 funcref)",
            "(loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable",
            &["table-limit"],
        ),
        of(
            "recurses",
            "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))",
            "(call $deeper (i32.const 0))",
            &["stack-limit"],
        ),
    ]
}

/// Those that keep the host busy.
fn asking() -> Vec<Hostile> {
    vec![
        of("logs", "", &forever("(call $log (i32.const 3) (i32.const 0) (i32.const 65536))"), &["time-limit"]),
        of(
            "prints",
            "(data (i32.const 256) \"\\00\\04\\00\\00\\00\\00\\01\\00\")",
            &forever("(drop (call $fd_write (i32.const 1) (i32.const 256) (i32.const 1) (i32.const 300)))"),
            &["time-limit"],
        ),
        of(
            "answers-too-much",
            "",
            "(drop (memory.grow (i32.const 64))) (i32.store (i32.const 68) (i32.const 128)) (i32.store (i32.const 72) (i32.const 4))
             (i32.store (i32.const 76) (i32.const 1024)) (i32.store (i32.const 80) (i32.const 3000000)) i32.const 64",
            &["answer-too-large"],
        ),
        of("sleeps", "", &sleep(3_600_000_000_000, ANSWER), &["time-limit"]),
        of("wakes", "", &forever(&sleep(1, "")), &["time-limit"]),
        of(
            "polls-nothing",
            "",
            &format!(
                "(drop (memory.grow (i32.const 4))) {} {}",
                "(memory.fill (i32.const 4096) (i32.const 2) (i32.const 49152))",
                forever("(drop (call $poll (i32.const 4096) (i32.const 65536) (i32.const 1024) (i32.const 300)))")
            ),
            &["time-limit"],
        ),
        of(
            "randomness",
            "",
            &format!("{TO_THE_LIMIT} {}", forever("(drop (call $random (i32.const 0) (i32.const 16000000)))")),
            &["time-limit"],
        ),
        of("clocks", "", &forever("(drop (call $clock (i32.const 1) (i64.const 1) (i32.const 304)))"), &["time-limit"]),
        of("sockets", "", &forever("(drop (call $accept (i32.const 5) (i32.const 0) (i32.const 300)))"), &["time-limit"]),
        of(
            "descriptors",
            "(data (i32.const 256) \"\\00\\04\\00\\00\\10\\00\\00\\00\")",
            &format!(
                "(local $fd i32) (loop $next
                    (drop (call $fd_write (local.get $fd) (i32.const 256) (i32.const 1) (i32.const 300)))
                    (drop (call $fd_read (local.get $fd) (i32.const 256) (i32.const 1) (i32.const 300)))
                    (drop (call $fd_prestat_get (local.get $fd) (i32.const 300)))
                    (drop (call $path_open (local.get $fd) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0)
                        (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 300)))
                    (drop (call $fd_renumber (local.get $fd) (i32.const 2)))
                    (drop (call $fd_close (local.get $fd)))
                    (br_if $next (i32.lt_u (local.tee $fd (i32.add (local.get $fd) (i32.const 1))) (i32.const 500))))
                {ANSWER}"
            ),
            // It may close what the host would write to.
            &["answer", "trap", "time-limit"],
        ),
    ]
}

/// Those that end otherwise than they should, or are made to be a burden.
fn unsound() -> Vec<Hostile> {
    let mut all = vec![
        of("starts-badly", "(func $begin unreachable) (start $begin)", ANSWER, &["trap"]),
        of("initialises-badly", r#"(func (export "_initialize") unreachable)"#, ANSWER, &["trap"]),
        of("exits", "", "(call $exit (i32.const 3)) unreachable", &["trap"]),
    ];
    let many: String = (0..5000).map(|n| format!("(export \"more-{n}\" (memory 0))")).collect();
    all.push(of("exports", &many, ANSWER, &["answer"]));
    let many: String = (0..5000).map(|n| format!("(global (mut i64) (i64.const {n}))")).collect();
    all.push(of("globals", &many, ANSWER, &["answer"]));
    all
}

/// Waits for so many nanoseconds, then `rest`.
fn sleep(ns: u64, rest: &str) -> String {
    format!(
        "(i32.store (i32.const 528) (i32.const 1)) (i64.store (i32.const 536) (i64.const {ns}))
        (drop (call $poll (i32.const 512) (i32.const 640) (i32.const 1) (i32.const 768))) {rest}"
    )
}

/// A function that computes: one round for each unit of the `u32` that is its payload.
pub fn works() -> Bytes {
    guests::native(
        "",
        "(local $left i32) (local $x i64)
        (local.set $left (i32.load (i32.const 1024)))
        (loop $more
            (local.set $x (i64.add (i64.mul (local.get $x) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
            (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (i64.store (i32.const 512) (local.get $x))
        (i32.store (i32.const 68) (i32.const 128)) (i32.store (i32.const 72) (i32.const 4))
        (i32.store (i32.const 76) (i32.const 512)) (i32.store (i32.const 80) (i32.const 8)) i32.const 64",
    )
}
