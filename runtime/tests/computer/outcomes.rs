//! How a call can end, by the function's doing.

use std::time::{Duration, Instant};

use nigh_proto::module::ModuleError;
use nigh_proto::{Call, Deployment, Digest, Kind, Limits, Outcome, Reason};
use nigh_runtime::PrepareError;
use proptest::prelude::*;

use crate::guests;
use crate::set_up::*;

#[tokio::test]
async fn payload_and_headers_go_in_and_come_out() {
    let computer = computer();
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    let call = Call { headers: headers(&[("colour", "grün"), ("empty", "")]), ..call("echo", "hello") };
    let reply = invoke(&computer, call.clone()).await.unwrap();
    let Outcome::Answer { payload, headers } = reply.outcome else { panic!("{:?}", reply.outcome) };
    assert_eq!((&payload[..], headers), (&b"hello"[..], call.headers));
    assert_eq!((reply.computer.as_str(), reply.call), ("computer-1", call.id));
    assert_eq!(answer(&computer, "echo", vec![7; 1 << 20]).await, vec![7; 1 << 20]);
    assert_eq!(answer(&computer, "echo", "").await, b"");
}

#[tokio::test]
async fn each_way_to_fail_has_its_kind_and_says_what_to_do() {
    let computer = computer();
    let quick = Limits { timeout: Duration::from_millis(50), ..limits() };
    for (kind, says, guest) in [
        ("bad-input", "say please", guests::fails()),
        ("panic", "src/lib.rs: boom", guests::panics()),
        ("trap", "unreachable", guests::native("", "unreachable")),
        ("trap", "divide by zero", guests::native("", "(drop (i32.div_u (i32.const 1) (i32.const 0)))")),
        (
            "trap",
            "does not lie in memory",
            guests::native("", "(call $log (i32.const 3) (i32.const -9) (i32.const 99))"),
        ),
        ("time-limit", "50 ms", guests::loops()),
        ("memory-limit", "4194304 bytes", guests::takes_memory()),
        ("stack-limit", "recurse", guests::recurses()),
        ("malformed-answer", "descriptor", guests::native("", "(return (i32.const -20))")),
        (
            "malformed-answer",
            "nigh_alloc_v1 returned",
            guests::echo().replace("(i32.const 1024))\n", "(i32.const -1))\n"),
        ),
        (
            "answer-too-large",
            "1048576",
            guests::native(
                "",
                "(drop (memory.grow (i32.const 20)))
            (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 1048577))",
            ),
        ),
        ("exit", "exit code 3: nobody told me", guests::gives_up()),
        ("exit", "exit code 134", guests::command("(call $exit (i32.const 134))")),
        ("trap", "unreachable", guests::command("unreachable")),
        ("time-limit", "50 ms", guests::command("(loop $again (br $again))")),
    ] {
        deploy(&computer, "f", &guest, quick.clone()).await;
        let (found, message) = error(&computer, "f", "x").await;
        assert_eq!(found, kind, "{message}");
        assert!(message.contains(says), "{kind}: {message}");
    }
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    assert_eq!(answer(&computer, "echo", "still well").await, b"still well");
}

#[tokio::test]
async fn a_trap_while_an_instance_begins_is_the_functions_too() {
    let computer = computer();
    let starts_badly = guests::echo().replacen("(memory", "(func $begin unreachable) (start $begin) (memory", 1);
    deploy(&computer, "f", &starts_badly, limits()).await;
    assert_eq!(error(&computer, "f", "").await.0, "trap");
    let loops = guests::echo().replacen("(memory", r#"(func (export "_initialize") (loop $l (br $l))) (memory"#, 1);
    deploy(&computer, "f", &loops, Limits { timeout: Duration::from_millis(30), ..limits() }).await;
    assert_eq!(error(&computer, "f", "").await.0, "time-limit");
}

#[tokio::test]
async fn programs_read_and_write_within_the_payload_limit() {
    let computer = computer();
    deploy(&computer, "cat", &guests::cat(), limits()).await;
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[0]).collect();
    assert_eq!(answer(&computer, "cat", large.clone()).await, large);
    deploy(&computer, "cat", &guests::cat(), Limits { payload_bytes: 10, ..limits() }).await;
    assert_eq!(answer(&computer, "cat", "0123456789").await, b"0123456789");
    let doubles = guests::command(
        "(local.set $len (call $read_from (i32.const 0)))
        (drop (call $io (i32.const 1) (i32.const 1024) (local.get $len)))
        (drop (call $io (i32.const 1) (i32.const 1024) (local.get $len)))",
    );
    deploy(&computer, "cat", &doubles, Limits { payload_bytes: 10, ..limits() }).await;
    assert_eq!(answer(&computer, "cat", "01234").await, b"0123401234");
    assert_eq!(error(&computer, "cat", "012345").await.0, "answer-too-large");
}

#[tokio::test]
async fn a_program_sees_its_name_and_no_environment() {
    let computer = computer();
    let looks = guests::command(
        "(drop (call $environ (i32.const 200) (i32.const 204)))
        (drop (call $args (i32.const 208) (i32.const 212)))
        (drop (call $args_get (i32.const 220) (i32.const 300)))
        (drop (call $io (i32.const 1) (i32.const 200) (i32.const 16)))
        (drop (call $io (i32.const 1) (i32.const 300) (i32.const 5)))",
    );
    deploy(&computer, "looks", &looks, limits()).await;
    let answer = answer(&computer, "looks", "").await;
    assert_eq!(answer[..16], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(&answer[16..], b"looks");
}

#[tokio::test]
async fn sleeping_is_waiting_under_the_calls_limits() {
    let computer = computer();
    deploy(&computer, "sleeps", &guests::sleeps(), Limits { timeout: LONG, ..limits() }).await;
    let start = Instant::now();
    assert_eq!(answer(&computer, "sleeps", 20_000_000u64.to_le_bytes()).await, b"");
    assert!(start.elapsed() >= Duration::from_millis(20));
    // An hour, were it not for the limit.
    deploy(&computer, "sleeps", &guests::sleeps(), Limits { timeout: Duration::from_millis(20), ..limits() }).await;
    assert_eq!(error(&computer, "sleeps", 3_600_000_000_000u64.to_le_bytes()).await.0, "time-limit");
}

#[tokio::test]
async fn the_callers_deadline_ends_a_running_guest() {
    let computer = computer();
    for guest in [guests::loops(), guests::sleeps()] {
        deploy(&computer, "f", &guest, limits()).await;
        let payload = u64::MAX.to_le_bytes().to_vec();
        let brief = Call::new("f".parse().unwrap(), payload, Duration::from_millis(30));
        let (reason, error) = refusal(&computer, brief).await;
        assert_eq!(reason, Reason::Late, "{error}");
        until("the worker is free", || computer.under_way() == 0).await;
    }
}

#[tokio::test]
async fn what_cannot_run_here_is_refused_when_deployed() {
    let computer = computer();
    let module = bytes::Bytes::from(wat::parse_str(guests::echo()).unwrap());
    let digest = Digest::of(&module);
    let name = || "f".parse().unwrap();
    let deployment = |digest, kind, limits| Deployment::new(name(), digest, module.len() as u64, kind, limits, vec![]);

    let other = deployment(Digest::of(b"other"), Kind::Native, limits());
    assert!(matches!(computer.deploy(other, module.clone()).await, Err(PrepareError::OtherModule { .. })));
    let kind = deployment(digest, Kind::Command, limits());
    assert!(matches!(computer.deploy(kind, module.clone()).await, Err(PrepareError::OtherKind { .. })));
    let http = deployment(digest, Kind::Http, limits());
    assert!(matches!(computer.deploy(http, module.clone()).await, Err(PrepareError::OtherKind { .. })));

    let wrong = guests::echo().replace("(param $len i32) (result i32)", "(param $len i32) (param i64) (result i32)");
    let refused = try_deploy(&computer, "f", &wrong, limits()).await.unwrap_err();
    assert!(matches!(refused, PrepareError::Signature { export: "nigh_alloc_v1", .. }), "{refused}");
    let wrong = guests::echo().replace("$log (param i32 i32 i32)", "$log (param i64)");
    let refused = try_deploy(&computer, "f", &wrong, limits()).await.unwrap_err();
    assert!(matches!(refused, PrepareError::Imports(_)), "{refused}");
    let large = guests::echo().replace(r#"(export "memory") 2"#, r#"(export "memory") 100"#);
    let refused = try_deploy(&computer, "f", &large, limits()).await.unwrap_err();
    assert!(matches!(refused, PrepareError::Module(ModuleError::MemoryOverLimit { .. })), "{refused}");

    let (reason, error) = refusal(&computer, call("f", "")).await;
    assert_eq!(reason, Reason::NotReady);
    assert!(error.message.contains("memory"), "the last problem is told: {error}");
    assert_eq!(refusal(&computer, call("g", "")).await.0, Reason::UnknownFunction);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever a guest says of its answer, the computer answers, and the next call is served.
    #[test]
    fn any_descriptor_is_survived(
        words in prop::array::uniform5(prop_oneof![0u32..8, 0u32..200_000, any::<u32>()]),
        address in prop_oneof![Just(1024u32), 0u32..140_000, any::<u32>()],
    ) {
        static COMPUTER: std::sync::OnceLock<(tokio::runtime::Runtime, std::sync::Arc<nigh_runtime::Computer>)> =
            std::sync::OnceLock::new();
        let (runtime, computer) = COMPUTER.get_or_init(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let computer = runtime.block_on(async {
                let computer = computer();
                deploy(&computer, "describes", &guests::describes(), limits()).await;
                computer
            });
            (runtime, computer)
        });
        let payload: Vec<u8> = words.iter().chain([&address]).flat_map(|word| word.to_le_bytes()).collect();
        let outcome = runtime.block_on(invoke(computer, call("describes", payload))).unwrap().outcome;
        match outcome {
            Outcome::Answer { payload, .. } => prop_assert!(payload.len() <= 1 << 20),
            Outcome::Error { kind, .. } => prop_assert!(!kind.is_empty()),
            Outcome::Estimate(_) => prop_assert!(false),
        }
    }
}
