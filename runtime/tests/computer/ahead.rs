//! Instances of components made ahead, or made as new in place: as fresh as any, few of them, and gone when they have to be.

use std::sync::Arc;
use std::time::Duration;

use nigh_proto::Limits;
use nigh_runtime::{Computer, Config};
use nigh_telemetry::Telemetry;

use crate::set_up::*;

/// Handles a request without answering it where it finds nothing of another call, and traps where it does.
const PLANTS: &str = "
    global.get $mark
    i32.const 70000 i32.load i32.or
    memory.size i32.const 2 i32.ne i32.or
    if unreachable end
    i32.const 1 global.set $mark
    i32.const 70000 i32.const 1 i32.store
    i32.const 1 memory.grow drop";

/// A component that does this when it is made, and that in each call.
fn component(start: &str, handle: &str) -> String {
    format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (import "wasi:random/random@0.2.0" (instance $random (export "get-random-u64" (func (result u64)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core func $ask (canon lower (func $random "get-random-u64")))
            (core module $module
                (import "host" "ask" (func $ask (result i64)))
                (memory 2)
                (global $mark (mut i32) (i32.const 0))
                {start}
                (func (export "handle") (param i32 i32) {handle}))
            (core instance $instance (instantiate $module (with "host" (instance (export "ask" (func $ask))))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $instance "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    )
}

/// A component that does this in each call and then gives back all its handles: four of fields it takes and gives back in an
/// order of which the next would tell. It traps where its handles, its memory or its globals tell of another call.
fn tidy_component(handle: &str) -> String {
    format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))
                (export "fields" (type $fields (sub resource)))
                (export "[constructor]fields" (func (result (own $fields))))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (alias export $types "fields" (type $fields))
            (core func $take (canon lower (func $types "[constructor]fields")))
            (core func $drop (canon resource.drop $fields))
            (core func $drop-request (canon resource.drop $request))
            (core func $drop-out (canon resource.drop $out))
            (core module $module
                (import "host" "take" (func $take (result i32)))
                (import "host" "drop" (func $drop (param i32)))
                (import "host" "drop-request" (func $drop-request (param i32)))
                (import "host" "drop-out" (func $drop-out (param i32)))
                (memory (export "memory") 2)
                (global $mark (mut i32) (i32.const 0))
                (func (export "handle") (param $request i32) (param $out i32)
                    (i32.ne (local.get $request) (i32.const 1)) (i32.ne (local.get $out) (i32.const 2)) i32.or
                    (i32.ne (call $take) (i32.const 3)) i32.or (i32.ne (call $take) (i32.const 4)) i32.or
                    (i32.ne (call $take) (i32.const 5)) i32.or (i32.ne (call $take) (i32.const 6)) i32.or
                    global.get $mark i32.or (i32.load (i32.const 70000)) i32.or
                    if unreachable end
                    i32.const 1 global.set $mark
                    (i32.store (i32.const 70000) (i32.const 1))
                    {handle}
                    (call $drop-request (i32.const 1))
                    (call $drop (i32.const 5)) (call $drop (i32.const 3)) (call $drop (i32.const 6)) (call $drop (i32.const 4))
                    (call $drop-out (i32.const 2))))
            (core instance $instance (instantiate $module (with "host" (instance
                (export "take" (func $take)) (export "drop" (func $drop))
                (export "drop-request" (func $drop-request)) (export "drop-out" (func $drop-out))))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $instance "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    )
}

fn start(body: &str) -> String {
    format!("(func $start (local $left i32) {body}) (start $start)")
}

/// A computer, and what it tells of the instances that are in this state.
fn watched(config: Config) -> (Arc<Computer>, impl Fn(&str) -> u64) {
    let telemetry: Telemetry = config.telemetry.clone();
    let computer = Computer::new(config).unwrap();
    let count = move |state: &str| {
        let text = telemetry.metrics().unwrap();
        let label = format!("state=\"{state}\"");
        let line = text.lines().find(|line| line.starts_with("nigh_computer_instances{") && line.contains(&label));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    (computer, count)
}

/// Makes a call that finds no trace of another; says whether its instance was made ahead.
async fn is_made_ahead(computer: &Computer, name: &str) -> bool {
    let reply = invoke(computer, call(name, "")).await.unwrap();
    let nigh_proto::Outcome::Error { kind, message } = reply.outcome else { panic!("it cannot answer") };
    assert_eq!(kind, "no-answer", "{message}");
    !reply.timing.reset.is_zero()
}

#[tokio::test]
async fn an_instance_made_ahead_shows_nothing_of_the_call_before() {
    let (computer, count) = watched(config());
    deploy(&computer, "plants", &component("", PLANTS), limits()).await;
    assert!(!is_made_ahead(&computer, "plants").await, "nobody has used one before");
    for _ in 0..30 {
        until("another is made", || count("kept") > 0).await;
        assert!(is_made_ahead(&computer, "plants").await);
    }
    deploy(&computer, "reused", &component("", PLANTS), Limits { reuse: 2, ..limits() }).await;
    let outcomes = [error(&computer, "reused", "").await.0, error(&computer, "reused", "").await.0];
    assert_eq!(outcomes, ["no-answer", "trap"], "the traces are real");
}

#[tokio::test]
async fn an_instance_made_as_new_in_place_shows_nothing_of_the_call_before() {
    let (computer, count) = watched(config());
    deploy(&computer, "tidy", &tidy_component(""), limits()).await;
    assert!(!is_made_ahead(&computer, "tidy").await, "nobody has used one before");
    until("another is made", || count("kept") == 1).await;
    for _ in 0..30 {
        assert!(is_made_ahead(&computer, "tidy").await);
        // No other has to be made: this one is there again before its caller can be.
        until("it is as new", || count("kept") == 1).await;
    }
    // What has grown, or still holds a handle, is not to be had as new, and another is made in its stead.
    let untidy = ["i32.const 1 memory.grow drop", "call $take drop"];
    for (name, does) in ["grows", "holds"].into_iter().zip(untidy) {
        deploy(&computer, name, &tidy_component(does), limits()).await;
        let before = count("kept");
        for _ in 0..10 {
            is_made_ahead(&computer, name).await;
            until("another is made", || count("kept") > before).await;
        }
    }
    deploy(&computer, "reused", &tidy_component(""), Limits { reuse: 2, ..limits() }).await;
    let outcomes = [error(&computer, "reused", "").await.0, error(&computer, "reused", "").await.0];
    assert_eq!(outcomes, ["no-answer", "trap"], "the traces are real");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_share_no_instance_and_few_are_kept() {
    let (computer, count) = watched(Config { instances_max: 64, ..config() });
    let limits = Limits { concurrency: 32, ..limits() };
    deploy(&computer, "plants", &component("", PLANTS), limits.clone()).await;
    let callers = (0..16).map(|_| {
        let computer = computer.clone();
        tokio::spawn(async move {
            let mut made_ahead = 0;
            for _ in 0..40 {
                made_ahead += u32::from(is_made_ahead(&computer, "plants").await);
            }
            made_ahead
        })
    });
    let mut made_ahead = 0;
    for caller in callers.collect::<Vec<_>>() {
        made_ahead += caller.await.unwrap();
    }
    assert!(made_ahead > 0);
    until("only those kept are left", || count("live") == count("kept")).await;
    // Four for each thread that runs guests: those of the computer, and one for each core.
    let threads = 4 + std::thread::available_parallelism().unwrap().get() as u64;
    assert!((1..=4 * threads).contains(&count("kept")), "{}", count("kept"));

    deploy(&computer, "plants", &component("", "nop"), limits).await;
    until("those of the version before are gone", || count("live") == 0).await;
    is_made_ahead(&computer, "plants").await;
    until("one of the new version is made", || count("kept") == 1).await;
    computer.remove(&"plants".parse().unwrap());
    until("those of a function that is gone are gone", || count("live") == 0).await;
}

#[tokio::test]
async fn what_is_made_ahead_is_given_back_in_time_and_gives_way_to_calls() {
    // As many places as instances that may be kept and those that run.
    let (computer, count) = watched(Config { workers: 2, instances_max: 4, ..config() });
    let idle = Limits { idle: Duration::from_millis(100), ..limits() };
    deploy(&computer, "idles", &component("", PLANTS), idle).await;
    is_made_ahead(&computer, "idles").await;
    until("one is made", || count("kept") == 1).await;
    until("it has been idle for long enough", || count("live") == 0).await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        deploy(&computer, name, &component("", PLANTS), limits()).await;
    }
    for _ in 0..3 {
        for name in ["a", "b", "c", "d", "e", "f"] {
            let calls: Vec<_> = (0..4)
                .map(|_| {
                    let computer = computer.clone();
                    tokio::spawn(async move { is_made_ahead(&computer, name).await })
                })
                .collect();
            for call in calls {
                call.await.unwrap();
            }
            assert!(count("kept") <= 2, "{}", count("kept"));
        }
    }
}

/// Twelve calls of a function whose instances may not be made ahead.
async fn none_is_made_ahead(start_body: &str) {
    let (computer, count) = watched(config());
    deploy(&computer, "starts", &component(&start(start_body), "nop"), limits()).await;
    let mut made_ahead = 0;
    for _ in 0..12 {
        made_ahead += u32::from(is_made_ahead(&computer, "starts").await);
        until("its instance is gone", || count("live") == count("kept")).await;
    }
    assert_eq!((made_ahead, count("live")), (0, 0));
}

#[tokio::test]
async fn what_asks_its_host_while_it_is_made_is_made_in_its_call() {
    none_is_made_ahead("call $ask drop").await;
}

#[tokio::test]
async fn what_computes_for_long_while_it_is_made_is_made_in_its_call() {
    none_is_made_ahead(
        "i32.const 30000000 local.set $left
         loop $on local.get $left i32.const 1 i32.sub local.tee $left br_if $on end",
    )
    .await;
}

#[tokio::test]
async fn nothing_is_made_in_the_stead_of_an_instance_that_trapped() {
    let (computer, count) = watched(config());
    deploy(&computer, "traps", &component("", "unreachable"), limits()).await;
    for _ in 0..12 {
        assert_eq!(error(&computer, "traps", "").await.0, "trap");
    }
    until("all are gone", || count("live") == 0).await;
}
