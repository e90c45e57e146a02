//! Bounds on what a computer takes, and what callers are told at them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Estimate, Limits, Outcome, Reason};
use nigh_runtime::{Computer, Config, PrepareError};

use crate::guests;
use crate::set_up::*;

/// Starts a call that runs until it is cancelled.
fn occupy(computer: &Arc<Computer>, name: &str) -> tokio::task::JoinHandle<()> {
    occupy_with(computer, name, "")
}

/// The same with a payload.
fn occupy_with(computer: &Arc<Computer>, name: &str, payload: &str) -> tokio::task::JoinHandle<()> {
    let (computer, call) = (computer.clone(), call(name, payload));
    tokio::spawn(async move { drop(computer.handle(call, Instant::now()).await) })
}

#[tokio::test]
async fn one_function_has_its_concurrency_and_its_queue() {
    let computer = computer();
    deploy(&computer, "loops", &guests::loops(), Limits { concurrency: 2, queue: 1, ..limits() }).await;
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    let calls: Vec<_> = (0..3).map(|_| occupy(&computer, "loops")).collect();
    until("two run and one waits", || computer.load().running == 2 && computer.load().queued == 1).await;
    let (reason, error) = refusal(&computer, call("loops", "")).await;
    assert_eq!(reason, Reason::QueueFull);
    assert!(error.retry_after.is_some() && error.message.contains("--concurrency"), "{error}");
    assert_eq!(answer(&computer, "echo", "others go on").await, b"others go on");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until("all are cancelled", || computer.under_way() == 0).await;
}

#[tokio::test]
async fn a_function_that_breaks_its_limits_in_call_after_call_has_one_at_a_time_until_it_does_not() {
    let computer = computer();
    let limits = || Limits { concurrency: 3, queue: 2, ..limits() };
    deploy(&computer, "moody", &guests::moody(), limits()).await;
    let break_limits = async || {
        for _ in 0..16 {
            assert_eq!(error(&computer, "moody", "wants more").await.0, "memory-limit");
        }
        until("the last one has left", || computer.under_way() == 0).await;
    };
    let three_run = async |what: &str| {
        let calls: Vec<_> = (0..3).map(|_| occupy_with(&computer, "moody", "loops")).collect();
        until(what, || computer.load().running == 3).await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        until("all are cancelled", || computer.under_way() == 0).await;
    };
    three_run("three run at once").await;
    break_limits().await;
    let calls: Vec<_> = (0..3).map(|_| occupy_with(&computer, "moody", "loops")).collect();
    until("one runs and two wait", || computer.load().running == 1 && computer.load().queued == 2).await;
    let (reason, error) = refusal(&computer, call("moody", "")).await;
    assert!(reason == Reason::QueueFull && error.message.contains("higher limits"), "{error}");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until("all are cancelled", || computer.under_way() == 0).await;
    for _ in 0..2 {
        assert_eq!(answer(&computer, "moody", "").await, b"");
    }
    three_run("it is forgiven").await;
    break_limits().await;
    deploy(&computer, "moody", &guests::moody(), Limits { idle: Duration::from_secs(1), ..limits() }).await;
    three_run("another version begins anew").await;
}

#[tokio::test]
async fn a_function_that_goes_on_breaking_its_limits_rests_between_calls_and_others_do_not() {
    let computer = computer();
    deploy(&computer, "moody", &guests::moody(), limits()).await;
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    let queued = async |name: &str, payload: &str| {
        let reply = invoke(&computer, call(name, payload)).await.unwrap();
        reply.timing.queue
    };
    let mut longest = Duration::ZERO;
    for _ in 0..140 {
        longest = longest.max(queued("moody", "wants more").await);
        assert!(queued("echo", "hello").await < Duration::from_millis(50));
    }
    assert!(longest >= Duration::from_millis(90), "{longest:?}");
    let estimate = invoke(&computer, Call { dry_run: true, ..call("moody", "wants more") }).await.unwrap();
    let Outcome::Estimate(Estimate { queue, .. }) = estimate.outcome else { panic!() };
    assert!(queue >= Duration::from_millis(40), "who asks is told: {queue:?}");
    assert_eq!(answer(&computer, "moody", "").await, b"");
    assert!(queued("moody", "").await < Duration::from_millis(50), "after one that keeps to them");
    // Whoever ends the computer does not wait for it.
    for _ in 0..140 {
        queued("moody", "wants more").await;
    }
    computer.close();
    let ended = Instant::now();
    until("its place is given up", || computer.under_way() == 0).await;
    assert!(ended.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_place_or_its_guest() {
    let computer = Computer::new(Config { workers: 1, ..config() }).unwrap();
    deploy(&computer, "loops", &guests::loops(), limits()).await;
    let running = occupy(&computer, "loops");
    until("it runs", || computer.load().running == 1).await;
    let waiting = occupy(&computer, "loops");
    until("it waits", || computer.load().queued == 1).await;
    waiting.abort();
    until("its place is free", || computer.load().queued == 0).await;
    assert_eq!(computer.load().running, 1);
    running.abort();
    until("the guest is stopped", || computer.under_way() == 0).await;
}

#[tokio::test]
async fn a_function_with_a_backlog_does_not_starve_the_others() {
    let computer = Computer::new(Config { workers: 1, ..config() }).unwrap();
    let quick = Limits { timeout: Duration::from_millis(20), ..limits() };
    deploy(&computer, "loops", &guests::loops(), quick).await;
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    let calls: Vec<_> = (0..50).map(|_| occupy(&computer, "loops")).collect();
    until("there is a backlog", || computer.load().queued >= 48).await;
    assert_eq!(answer(&computer, "echo", "soon").await, b"soon");
    assert!(computer.load().queued > 40, "echo waited behind the backlog");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_computers_own_queue_is_bounded_and_so_are_its_payloads() {
    let computer =
        Computer::new(Config { workers: 1, queue_max: 1, payload_bytes_total_max: 100, ..config() }).unwrap();
    deploy(&computer, "loops", &guests::loops(), Limits { concurrency: 1, ..limits() }).await;
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    assert_eq!(refusal(&computer, call("echo", [0; 101])).await.0, Reason::OutOfBudget);
    let running = occupy(&computer, "loops");
    until("it runs", || computer.load().running == 1).await;
    let waiting = occupy(&computer, "loops");
    until("it waits", || computer.load().queued == 1).await;
    let (reason, error) = refusal(&computer, call("loops", "")).await;
    assert_eq!(reason, Reason::QueueFull);
    assert!(error.message.contains("another computer"), "{error}");
    running.abort();
    waiting.abort();
}

#[tokio::test]
async fn instances_together_stay_within_the_memory_budget() {
    let computer = Computer::new(Config { memory_bytes_max: 10 << 20, ..config() }).unwrap();
    let four = |reuse| Limits { memory_bytes: 4 << 20, reuse, ..limits() };
    deploy(&computer, "loops", &guests::loops(), four(1)).await;
    let calls: Vec<_> = (0..4).map(|_| occupy(&computer, "loops")).collect();
    until("only two fit", || computer.load().running == 2 && computer.load().queued == 2).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    until("all are cancelled", || computer.under_way() == 0).await;
    // Kept instances give way to calls.
    deploy(&computer, "counts", &guests::counts(), four(100)).await;
    assert_eq!(answer(&computer, "counts", "").await, [1]);
    deploy(&computer, "echo", &guests::echo(), Limits { memory_bytes: 10 << 20, ..limits() }).await;
    assert_eq!(answer(&computer, "echo", "all of it").await, b"all of it");
    let more = Limits { memory_bytes: 11 << 20, ..limits() };
    let refused = try_deploy(&computer, "echo", &guests::echo(), more).await.unwrap_err();
    assert!(matches!(refused, PrepareError::MemoryOverBudget { .. }));
}

#[tokio::test]
async fn a_call_that_cannot_make_its_deadline_is_refused_at_once() {
    let computer = Computer::new(Config { workers: 1, ..config() }).unwrap();
    deploy(&computer, "sleeps", &guests::sleeps(), Limits { concurrency: 1, ..limits() }).await;
    let over = Call { deadline: Instant::now(), ..call("sleeps", "") };
    assert_eq!(refusal(&computer, over).await.0, Reason::Late);
    let sleep = |ms: u64| call("sleeps", (ms * 1_000_000).to_le_bytes());
    for _ in 0..10 {
        invoke(&computer, sleep(40)).await.unwrap();
    }
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let (computer, call) = (computer.clone(), sleep(40));
            tokio::spawn(async move { computer.handle(call, Instant::now()).await.unwrap() })
        })
        .collect();
    until("there is a backlog", || computer.load().queued >= 8).await;
    let start = Instant::now();
    let hasty = Call { deadline: start + Duration::from_millis(100), ..sleep(1) };
    let (reason, error) = refusal(&computer, hasty).await;
    assert_eq!(reason, Reason::TooBusy);
    assert!(error.message.contains("would wait for about") && error.message.contains("its deadline"), "{error}");
    assert!(error.retry_after.is_some_and(|wait| wait >= Duration::from_millis(1)), "{error:?}");
    assert!(start.elapsed() < Duration::from_millis(50), "it was not refused at once");
    let dry = Call { dry_run: true, ..sleep(1) };
    let Outcome::Estimate(Estimate { queue, run, samples, .. }) = invoke(&computer, dry).await.unwrap().outcome else {
        panic!("a dry run gives an estimate")
    };
    assert!(
        samples >= 10 && run > Duration::from_millis(20) && queue > Duration::from_millis(100),
        "{queue:?} {run:?}"
    );
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_call_waits_for_its_turn_no_longer_than_its_function_allows() {
    let computer = Computer::new(Config { workers: 1, ..config() }).unwrap();
    let impatient = Limits { concurrency: 1, queue_wait: Duration::from_millis(250), ..limits() };
    deploy(&computer, "sleeps", &guests::sleeps(), impatient).await;
    let sleep = |ms: u64| call("sleeps", (ms * 1_000_000).to_le_bytes());
    let (sleeper, nap) = (computer.clone(), sleep(2000));
    let asleep = tokio::spawn(async move { invoke(&sleeper, nap).await });
    until("it sleeps", || computer.load().running == 1).await;
    // Nothing is known yet, so it is let in, and gives up when its time to wait is over.
    let began = Instant::now();
    let (reason, error) = refusal(&computer, sleep(1)).await;
    assert_eq!(reason, Reason::TooBusy);
    assert!(error.message.contains("250 ms") && error.message.contains("--queue-wait"), "{error}");
    assert!(began.elapsed() >= Duration::from_millis(250) && error.retry_after.is_some());
    assert_eq!(computer.load().queued, 0);
    // A call that has had its turn is not cut off by it.
    assert!(matches!(asleep.await.unwrap().unwrap().outcome, Outcome::Answer { .. }));
    // Once known, it is refused at once.
    for _ in 0..10 {
        invoke(&computer, sleep(60)).await.unwrap();
    }
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (computer, call) = (computer.clone(), sleep(60));
            tokio::spawn(async move { computer.handle(call, Instant::now()).await.map_err(|error| error.reason) })
        })
        .collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap().map(drop));
    }
    assert!(outcomes.contains(&Err(Reason::TooBusy)) && outcomes.contains(&Ok(())), "{outcomes:?}");
}

#[tokio::test]
async fn predictions_go_by_the_size_of_the_payload() {
    let computer = computer();
    deploy(&computer, "sleeps", &guests::sleeps(), limits()).await;
    let call_of = |ms: u64, bytes: usize| {
        let mut payload = (ms * 1_000_000).to_le_bytes().to_vec();
        payload.resize(bytes, 0);
        call("sleeps", payload)
    };
    let dry = async |bytes| {
        let dry = Call { dry_run: true, ..call_of(1, bytes) };
        match invoke(&computer, dry).await.unwrap().outcome {
            Outcome::Estimate(estimate) => estimate,
            other => panic!("no estimate: {other:?}"),
        }
    };
    assert_eq!(dry(8).await.samples, 0, "nothing is known, and that is told");
    for _ in 0..10 {
        invoke(&computer, call_of(2, 10)).await.unwrap();
        invoke(&computer, call_of(40, 50_000)).await.unwrap();
    }
    let (small, large, between) = (dry(12).await, dry(50_000).await, dry(25_000).await);
    assert!(small.run * 2 < large.run, "{small:?} {large:?}");
    assert!(small.run < between.run && between.run < large.run, "{between:?}");
    assert_eq!((small.samples, small.similar, large.similar, between.similar), (20, 10, 10, 0));
    assert!(large.run_spread.p10 <= large.run && large.run_spread.p90 > Duration::from_millis(20), "{large:?}");
    until("only the answers were waited for", || computer.load().running == 0).await;
}

#[tokio::test]
async fn tables_grow_to_their_functions_limit() {
    let computer = computer();
    let grows = |by: u32| {
        guests::native(
            "(table $table 10 funcref)",
            &format!(
                "(if (i32.eq (table.grow $table (ref.null func) (i32.const {by})) (i32.const -1)) (then unreachable))
                (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 0))"
            ),
        )
    };
    let small = || Limits { table_elements: 100, ..limits() };
    deploy(&computer, "fits", &grows(90), small()).await;
    assert_eq!(answer(&computer, "fits", "").await, b"");
    deploy(&computer, "grows", &grows(91), small()).await;
    let (kind, message) = error(&computer, "grows", "").await;
    assert!(kind == "table-limit" && message.contains("--table-elements"), "{kind}: {message}");
    // What a module begins with counts too.
    deploy(&computer, "large", &grows(0), Limits { table_elements: 9, ..limits() }).await;
    assert_eq!(error(&computer, "large", "").await.0, "table-limit");
}

#[tokio::test]
async fn a_payload_over_the_functions_own_limit_is_refused() {
    let computer = computer();
    deploy(&computer, "echo", &guests::echo(), Limits { payload_bytes: 3, ..limits() }).await;
    assert_eq!(answer(&computer, "echo", "abc").await, b"abc");
    assert_eq!(refusal(&computer, call("echo", "abcd")).await.0, Reason::TooLarge);
}

#[tokio::test]
async fn a_closed_computer_finishes_and_takes_no_more() {
    let computer = computer();
    deploy(&computer, "sleeps", &guests::sleeps(), limits()).await;
    let (running, napping) = (computer.clone(), call("sleeps", 50_000_000u64.to_le_bytes()));
    let running = tokio::spawn(async move { running.handle(napping, Instant::now()).await });
    until("it runs", || computer.load().running == 1).await;
    computer.close();
    assert_eq!(refusal(&computer, call("sleeps", [0; 8])).await.0, Reason::NotServing);
    assert!(matches!(running.await.unwrap().unwrap().outcome, Outcome::Answer { .. }));
}

#[tokio::test]
async fn contradicting_settings_are_refused() {
    for wrong in [
        Config { workers: 0, ..config() },
        Config { instances_max: 1, ..config() },
        Config {
            directories: vec![nigh_runtime::OfferedDirectory {
                name: "data".into(),
                path: "/no/such/place".into(),
                writable: false,
            }],
            ..config()
        },
    ] {
        assert!(Computer::new(wrong).is_err());
    }
}

/// A guest with one import of WASI, which its handler calls.
fn calls_wasi(import: &str, handler: &str) -> String {
    let import = format!(r#"(module (import "wasi_snapshot_preview1" {import})"#);
    guests::native(
        "",
        &format!("{handler} (call $answer (i32.const 0) (i32.const 32) (i32.const 4) (i32.const 64) (i32.const 1))"),
    )
    .replacen("(module", &import, 1)
}

#[tokio::test]
async fn randomness_by_the_megabyte_ends_at_the_time_limit_too() {
    let computer = Computer::new(Config { workers: 1, ..config() }).unwrap();
    let guest = calls_wasi(
        r#""random_get" (func $random (param i32 i32) (result i32))"#,
        "(drop (memory.grow (i32.const 8000))) (loop $more
            (if (call $random (i32.const 0) (i32.const 500000000)) (then unreachable)) (br $more))",
    );
    let limits = Limits { memory_bytes: 1 << 30, timeout: Duration::from_millis(20), ..limits() };
    deploy(&computer, "random", &guest, limits).await;
    let start = Instant::now();
    assert_eq!(error(&computer, "random", "").await.0, "time-limit");
    assert!(start.elapsed() < LONG / 4, "it was not interrupted within one call of the host");
}

#[tokio::test]
async fn randomness_is_whole_random_and_within_memory() {
    let computer = computer();
    let guest = calls_wasi(
        r#""random_get" (func $random (param i32 i32) (result i32))"#,
        "(drop (memory.grow (i32.const 2)))
        (i32.store8 (i32.const 64) (i32.add
            (call $random (i32.const 1024) (i32.const 200000))
            (call $random (i32.const 1024) (i32.const 1000000))))
        (if (i64.eqz (i64.load (i32.const 201016))) (then unreachable))",
    );
    deploy(&computer, "random", &guest, limits()).await;
    assert_eq!(answer(&computer, "random", "").await, [21], "success, then a fault");
}

#[tokio::test]
async fn there_are_no_sockets() {
    let computer = computer();
    let guest = calls_wasi(
        r#""sock_accept" (func $accept (param i32 i32 i32) (result i32))"#,
        "(i32.store8 (i32.const 64) (call $accept (i32.const 3) (i32.const 0) (i32.const 128)))",
    );
    deploy(&computer, "accepts", &guest, limits()).await;
    assert_eq!(answer(&computer, "accepts", "").await, [57]);
}
