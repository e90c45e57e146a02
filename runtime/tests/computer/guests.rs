//! Guests in text form. A native one keeps its descriptor at address 0 and its inbox from 1024 on.

/// A native guest with this handler; `$payload` and `$head` are its parameters, the payload lies at 1024.
pub(crate) fn native(items: &str, handler: &str) -> String {
    format!(
        r#"(module
            (import "nigh" "log_v1" (func $log (param i32 i32 i32)))
            (memory (export "memory") 2)
            {items}
            (func (export "nigh_alloc_v1") (param $len i32) (result i32)
                (if (i32.gt_u (i32.add (local.get $len) (i32.const 1024)) (i32.mul (memory.size) (i32.const 65536)))
                    (then (if (i32.eq (memory.grow (i32.div_u (local.get $len) (i32.const 65536))) (i32.const -1))
                        (then unreachable))))
                (i32.const 1024))
            (func $answer (param $status i32) (param $head i32) (param $head_len i32) (param $body i32) (param $body_len i32)
                (i32.store (i32.const 0) (local.get $status))
                (i32.store (i32.const 4) (local.get $head))
                (i32.store (i32.const 8) (local.get $head_len))
                (i32.store (i32.const 12) (local.get $body))
                (i32.store (i32.const 16) (local.get $body_len)))
            (func $handle (export "nigh_handle_v1") (param $payload i32) (param $head i32) (result i32)
                {handler}
                (i32.const 0)))"#
    )
}

/// Answers with its payload and headers.
pub(crate) fn echo() -> String {
    native(
        "",
        "(call $answer (i32.const 0) (i32.add (i32.const 1024) (local.get $payload)) (local.get $head)
            (i32.const 1024) (local.get $payload))",
    )
}

/// Answers with this text. A head of no headers lies at 32.
pub(crate) fn says(text: &str) -> String {
    native(
        &format!(r#"(data (i32.const 64) "{text}")"#),
        &format!("(call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const {}))", text.len()),
    )
}

/// Fails with kind `bad-input` and message `say please`.
pub(crate) fn fails() -> String {
    native(
        r#"(data (i32.const 64) "bad-inputsay please")"#,
        "(call $answer (i32.const 1) (i32.const 64) (i32.const 9) (i32.const 73) (i32.const 10))",
    )
}

/// Ends as the SDK does after a panic.
pub(crate) fn panics() -> String {
    native(
        r#"(data (i32.const 64) "panicked at src/lib.rs: boom")"#,
        "(call $log (i32.const 0) (i32.const 64) (i32.const 28)) unreachable",
    )
}

pub(crate) fn loops() -> String {
    native("", "(loop $again (br $again))")
}

/// Takes all memory that there is, and fills it by one instruction.
pub(crate) fn fills() -> String {
    native(
        "",
        "(drop (memory.grow (i32.sub (i32.const 8000) (memory.size))))
        (memory.fill (i32.const 65536) (i32.const 7) (i32.mul (i32.sub (memory.size) (i32.const 1)) (i32.const 65536)))
        (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 0))",
    )
}

/// Answers with nothing; takes more memory than there is where its payload begins with a `w`, loops where with an `l`.
pub(crate) fn moody() -> String {
    native(
        "",
        "(if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 119))
            (then (if (i32.eq (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable))))
        (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 108)) (then (loop $again (br $again))))
        (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 0))",
    )
}

/// Answers with nothing; loops where there is a payload.
pub(crate) fn may_loop() -> String {
    native(
        "",
        "(if (local.get $payload) (then (loop $again (br $again))))
        (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 0))",
    )
}

/// Takes memory until it gets no more.
pub(crate) fn takes_memory() -> String {
    native("", "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable")
}

pub(crate) fn recurses() -> String {
    native("", "(drop (call $handle (i32.const 0) (i32.const 0)))")
}

/// Takes the first 20 bytes of its payload for a descriptor, and the next 4 for the descriptor's address.
pub(crate) fn describes() -> String {
    native("", "(return (i32.load (i32.const 1044)))")
}

/// Answers with what it finds of an earlier call in memory, a global and a table (a bit each), and leaves traces there.
pub(crate) fn leaves_traces() -> String {
    native(
        "(global $trace (mut i32) (i32.const 0)) (table $table 4 funcref) (elem declare func $handle)",
        "(i32.store8 (i32.const 64) (i32.or
            (i32.or (i32.ne (i32.load (i32.const 100000)) (i32.const 0))
                (i32.shl (global.get $trace) (i32.const 1)))
            (i32.shl (i32.eqz (ref.is_null (table.get $table (i32.const 2)))) (i32.const 2))))
        (i32.store (i32.const 100000) (i32.const 0xdead))
        (global.set $trace (i32.const 1))
        (table.set $table (i32.const 2) (ref.func $handle))
        (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 1))",
    )
}

/// Answers with whether it finds anything of an earlier call in its memory, where nothing should be but zeros, or its
/// globals (1), or a memory of another size (2). Then leaves canaries in all of them; a payload says what else it does:
/// `s` writes here and there only, `g` takes more memory and writes there too, `t` traps, `l` loops.
pub(crate) fn plants_canaries() -> String {
    native(
        r#"(global $a (mut i32) (i32.const 0)) (global $b (mut i64) (i64.const 0)) (global $c (mut f64) (f64.const 0))
        (global $d (mut v128) (v128.const i64x2 0 0))
        (func $end (result i32) (i32.mul (memory.size) (i32.const 65536)))
        (func $initialize (export "_initialize") (i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (i32.const 1))))
        (func $is (param $letter i32) (result i32) (i32.eq (i32.load8_u (i32.const 1024)) (local.get $letter)))"#,
        "(local $at i32) (local $found i64) (local.set $at (i32.const 4096))
        (loop $next
            (local.set $found (i64.or (local.get $found) (i64.load (local.get $at))))
            (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (call $end))))
        (local.set $found (i64.or (local.get $found) (i64.extend_i32_u (i32.xor (i32.load (i32.const 2048)) (i32.const 1)))))
        (local.set $found (i64.or (local.get $found) (i64.or (i64.extend_i32_u (global.get $a)) (global.get $b))))
        (local.set $found (i64.or (local.get $found) (i64.reinterpret_f64 (global.get $c))))
        (local.set $found (i64.or (local.get $found) (i64x2.extract_lane 1 (global.get $d))))
        (i32.store8 (i32.const 64) (i32.or (i64.ne (local.get $found) (i64.const 0))
            (i32.shl (i32.ne (memory.size) (i32.const 2)) (i32.const 1))))
        (if (call $is (i32.const 103)) (then (drop (memory.grow (i32.const 1)))))
        (if (call $is (i32.const 115))
            (then (i32.store (i32.const 5000) (i32.const -1)) (i32.store (i32.const 70000) (i32.const -1))
                (i32.store (i32.sub (call $end) (i32.const 4)) (i32.const -1)))
            (else (memory.fill (i32.const 4096) (i32.const 0x5a) (i32.sub (call $end) (i32.const 4096)))))
        (global.set $a (i32.const -1)) (global.set $b (i64.const -1)) (global.set $c (f64.const 1))
        (global.set $d (v128.const i64x2 -1 -1))
        (if (call $is (i32.const 116)) (then unreachable))
        (if (call $is (i32.const 108)) (then (loop $again (br $again))))
        (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 1))",
    )
}

/// Answers with the number of calls that its instance has served; traps where the payload is `t`, takes 80 MiB where it
/// is `g`.
pub(crate) fn counts() -> String {
    native(
        "(global $calls (mut i32) (i32.const 0))",
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 116)) (then unreachable))
        (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 103)) (then (drop (memory.grow (i32.const 1280)))))
        (i32.store8 (i32.const 64) (global.get $calls))
        (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 1))",
    )
}

/// Logs the same 26 letters 100 times.
pub(crate) fn chatters() -> String {
    native(
        r#"(data (i32.const 64) "abcdefghijklmnopqrstuvwxyz")"#,
        "(local $left i32) (local.set $left (i32.const 100))
        (loop $again (call $log (i32.const 3) (i32.const 64) (i32.const 26))
            (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 0))",
    )
}

/// Sleeps for the nanoseconds in its payload, through WASI.
pub(crate) fn sleeps() -> String {
    native(
        "",
        "(i32.store (i32.const 528) (i32.const 1))
        (i64.store (i32.const 536) (i64.load (i32.const 1024)))
        (if (call $poll (i32.const 512) (i32.const 640) (i32.const 1) (i32.const 768)) (then unreachable))
        (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 0))",
    )
    .replacen(
        "(module",
        r#"(module (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"#,
        1,
    )
}

/// A program with this `_start`. Standard input lies at 1024 once `$read` was called, which returns its length.
pub(crate) fn command(start: &str) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (memory (export "memory") 32)
            (data (i32.const 64) "nobody told me what to do")
            (func $io (param $fd i32) (param $at i32) (param $len i32) (result i32)
                (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $len))
                (if (result i32) (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))
                    (then (i32.const -1)) (else (i32.load (i32.const 8)))))
            (func $read_from (param $fd i32) (result i32) (local $total i32)
                (loop $again
                    (i32.store (i32.const 0) (i32.add (i32.const 1024) (local.get $total)))
                    (i32.store (i32.const 4) (i32.const 65536))
                    (if (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
                    (local.set $total (i32.add (local.get $total) (i32.load (i32.const 8))))
                    (br_if $again (i32.load (i32.const 8))))
                (local.get $total))
            (func (export "_start") (local $len i32) (local $errno i32) {start}))"#
    )
}

/// Standard input to standard output.
pub(crate) fn cat() -> String {
    command("(drop (call $io (i32.const 1) (i32.const 1024) (call $read_from (i32.const 0))))")
}

/// Writes to standard error and ends with exit code 3.
pub(crate) fn gives_up() -> String {
    command("(drop (call $io (i32.const 2) (i32.const 64) (i32.const 25))) (call $exit (i32.const 3))")
}

/// Opens the path on its standard input with these `oflags` and rights, below the first directory granted; the errno is
/// its exit code. Then `rest`, with the file at address 12.
pub(crate) fn opens(oflags: u32, rights: u64, rest: &str) -> String {
    command(&format!(
        "(local.set $len (call $read_from (i32.const 0)))
        (local.set $errno (call $path_open (i32.const 3) (i32.const 1) (i32.const 1024) (local.get $len)
            (i32.const {oflags}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 12)))
        (if (local.get $errno) (then (call $exit (local.get $errno))))
        {rest}"
    ))
}
