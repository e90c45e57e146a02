//! Hostile and broken modules and requests: each gets its typed error, and a neighbour is served as before.

use nigh_proto::{Outcome, Reason};
use nigh_tests::edge::Edge;
use nigh_tests::guests;

/// What a call of `module` with no payload comes to, on an edge whose neighbour must still answer afterwards.
async fn outcome(module: bytes::Bytes) -> (String, String) {
    let edge = Edge::start(1).await;
    edge.deploy("neighbour", guests::echo()).await;
    edge.deploy("hostile", module).await;
    let reply = edge.call("hostile", "").await.expect("an error of the function is an outcome");
    let neighbour = edge.call("neighbour", "still here").await.unwrap();
    assert!(matches!(neighbour.outcome, Outcome::Answer { payload, .. } if payload == "still here"));
    edge.stop().await;
    match reply.outcome {
        Outcome::Error { kind, message } => (kind, message),
        other => panic!("expected an error of the function, got {other:?}"),
    }
}

/// Why a module is refused at deploy.
async fn refusal(module: impl Into<bytes::Bytes>) -> (Reason, String) {
    let edge = Edge::start(1).await;
    let error = edge.try_deploy("hostile", module.into(), Default::default()).await.unwrap_err();
    assert_eq!(edge.listing().await.functions.len(), 0, "a refused module leaves nothing behind");
    edge.stop().await;
    (error.reason, error.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_ends_at_the_functions_time_limit() {
    let edge = Edge::start(1).await;
    edge.deploy("neighbour", guests::echo()).await;
    let limits = nigh_proto::Limits { timeout: std::time::Duration::from_millis(200), ..Default::default() };
    edge.try_deploy("hostile", guests::native("", "(loop $for_ever (br $for_ever)) unreachable"), limits)
        .await
        .unwrap();
    let looping = edge.call("hostile", "");
    let neighbour = edge.call("neighbour", "meanwhile");
    let (looping, neighbour) = tokio::join!(looping, neighbour);
    assert!(matches!(looping.unwrap().outcome, Outcome::Error { kind, .. } if kind == "time-limit"));
    assert!(matches!(neighbour.unwrap().outcome, Outcome::Answer { .. }));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_meets_the_memory_limit() {
    let bomb = "(loop $more
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const 1))
        (br $more)) unreachable";
    assert_eq!(outcome(guests::native("", bomb)).await.0, "memory-limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_recursion_meets_the_stack_limit() {
    let recursion = "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))";
    assert_eq!(outcome(guests::native(recursion, "(call $deeper (i32.const 0))")).await.0, "stack-limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_the_functions_error_and_says_what_happened() {
    let (kind, message) = outcome(guests::native("", "(i32.div_s (i32.const 1) (i32.const 0))")).await;
    assert_eq!(kind, "trap");
    assert!(message.contains("divide by zero"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_outside_memory_is_malformed() {
    for handler in [
        // the descriptor itself, its payload's address, a length that overflows
        "i32.const -4",
        "(i32.store (i32.const 76) (i32.const 0x7fff0000)) (i32.store (i32.const 80) (i32.const 16)) i32.const 64",
        "(i32.store (i32.const 76) (i32.const 1024)) (i32.store (i32.const 80) (i32.const -1)) i32.const 64",
    ] {
        assert_eq!(outcome(guests::native("", handler)).await.0, "malformed-answer", "{handler}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_tells_its_message() {
    let edge = Edge::start(1).await;
    edge.deploy("misbehaving", guests::built("misbehaving")).await;
    let reply = edge.call("misbehaving", "panic at the disco").await.unwrap();
    assert!(
        matches!(&reply.outcome, Outcome::Error { kind, message } if kind == "panic" && message.contains("at the disco")),
        "{reply:?}"
    );
    let reply = edge.call("misbehaving", "fail short and stout").await.unwrap();
    assert_eq!(reply.outcome, Outcome::Error { kind: "teapot".into(), message: "short and stout".into() });
    edge.stop().await;
}

/// `PAGEMAP_SCAN` came with Linux 6.7.
fn kernel_tells_written_pages() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version: Vec<u32> = release.split('.').map_while(|part| part.parse().ok()).collect();
    version >= vec![6, 7]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_sees_what_another_left() {
    let edge = Edge::start(1).await;
    edge.deploy("misbehaving", guests::built("misbehaving")).await;
    let mut resets = 0;
    for _ in 0..20 {
        let reply = edge.call("misbehaving", "count").await.unwrap();
        assert!(matches!(&reply.outcome, Outcome::Answer { payload, .. } if payload == "1"), "{reply:?}");
        resets += u32::from(!reply.timing.reset.is_zero());
    }
    // What the SDK builds is made as new between calls, where the kernel can tell what was written.
    assert!(resets > 0 || !kernel_tells_written_pages(), "each of the instances was made anew");
    let limits = nigh_proto::Limits { reuse: 3, concurrency: 1, ..Default::default() };
    edge.try_deploy("reused", guests::built("misbehaving"), limits).await.unwrap();
    let mut counts = Vec::new();
    for _ in 0..4 {
        counts.push(edge.answer("reused", "count").await);
    }
    assert_eq!(counts, ["1", "2", "3", "1"], "asked for, an instance serves so many calls and no more");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_no_files_and_no_environment() {
    let edge = Edge::start(1).await;
    edge.deploy("misbehaving", guests::built("misbehaving")).await;
    assert_eq!(edge.answer("misbehaving", "environment").await, "");
    for path in ["/etc/passwd", "../../etc/passwd", "Cargo.toml"] {
        let reply = edge.call("misbehaving", format!("read {path}")).await.unwrap();
        assert!(matches!(&reply.outcome, Outcome::Error { kind, .. } if kind == "failed"), "{path}: {reply:?}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_the_payload_limit_is_refused() {
    let edge = Edge::start(1).await;
    let limits = nigh_proto::Limits { payload_bytes: 1000, ..Default::default() };
    edge.try_deploy("misbehaving", guests::built("misbehaving"), limits).await.unwrap();
    assert_eq!(edge.answer("misbehaving", "answer 1000").await.len(), 1000);
    let reply = edge.call("misbehaving", "answer 1001").await.unwrap();
    assert!(matches!(&reply.outcome, Outcome::Error { kind, .. } if kind == "answer-too-large"), "{reply:?}");
    let error = edge.call("misbehaving", "x".repeat(1001)).await.unwrap_err();
    assert_eq!(error.reason, Reason::TooLarge);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_function_is_refused_at_deploy() {
    let good = guests::echo();
    assert_eq!(refusal("GIF89a is not Wasm").await.0, Reason::Malformed);
    assert_eq!(refusal(good.slice(..good.len() / 2)).await.0, Reason::Malformed);
    let (reason, message) = refusal(guests::from_text("(module)")).await;
    assert_eq!(reason, Reason::Malformed);
    assert!(message.contains("nigh_handle_v1"), "{message}");
    let importing = r#"(module (import "env" "system" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
    let (reason, message) = refusal(guests::from_text(importing)).await;
    assert_eq!(reason, Reason::Malformed);
    assert!(message.contains("env::system"), "{message}");
    let gibibyte = r#"(module (memory (export "memory") 16384) (func (export "_start")))"#;
    let (reason, message) = refusal(guests::from_text(gibibyte)).await;
    assert_eq!(reason, Reason::Malformed);
    assert!(message.contains("--memory"), "{message}");
    let (reason, message) = refusal(guests::from_text("(component)")).await;
    assert_eq!(reason, Reason::Malformed);
    assert!(message.contains("wasi:http/incoming-handler"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_over_the_size_limit_is_refused_while_it_arrives() {
    let mut module = guests::echo().to_vec();
    // A custom section as large as the limit makes any module too large.
    let filler = (64 << 20) + 16;
    module.push(0);
    let mut size = filler as u32;
    while size >= 0x80 {
        module.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    module.push(size as u8);
    module.resize(module.len() + filler, 0);
    assert_eq!(refusal(module).await.0, Reason::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused_by_reason() {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    assert_eq!(edge.call("nobody", "").await.unwrap_err().reason, Reason::UnknownFunction);
    assert_eq!(edge.raw_call("no/such name", None).await.unwrap_err().reason, Reason::Malformed);
    assert_eq!(edge.raw_call("Echo", None).await.unwrap_err().reason, Reason::Malformed);
    assert_eq!(edge.raw_call("echo", Some(std::time::Duration::ZERO)).await.unwrap_err().reason, Reason::Late);
    assert_eq!(edge.call("echo", vec![0; (16 << 20) + 1]).await.unwrap_err().reason, Reason::TooLarge);
    assert_eq!(edge.call_of_another_protocol().await.reason, Reason::Protocol);
    assert_eq!(edge.answer("echo", "still here").await, "still here");
    edge.stop().await;
}
