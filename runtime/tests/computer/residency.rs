//! Many functions, of which only some have their code in memory.

use std::time::{Duration, Instant};

use nigh_proto::{Call, Outcome, Reason};
use nigh_runtime::{Computer, Config};

use crate::guests;
use crate::set_up::*;

#[tokio::test]
async fn code_that_is_not_used_leaves_memory_and_comes_back_when_called() {
    let computer = Computer::new(Config { resident_functions_max: 8, ..config() }).unwrap();
    for n in 0..50 {
        deploy(&computer, &format!("says-{n}"), &guests::says(&format!("{n}")), limits()).await;
        assert!(computer.resident().0 <= 8, "{:?}", computer.resident());
    }
    for n in (0..50).rev().chain(0..50) {
        assert_eq!(answer(&computer, &format!("says-{n}"), "").await, n.to_string().into_bytes());
        let (functions, bytes) = computer.resident();
        assert!((1..=8).contains(&functions) && bytes > 0, "{functions} {bytes}");
    }
}

#[tokio::test]
async fn bytes_of_code_are_bounded_too() {
    let computer = Computer::new(Config { resident_code_bytes_max: 100 << 10, ..config() }).unwrap();
    for n in 0..20 {
        deploy(&computer, &format!("says-{n}"), &guests::says(&format!("{n}")), limits()).await;
    }
    assert!(computer.resident().1 <= 100 << 10, "{:?}", computer.resident());
    assert_eq!(answer(&computer, "says-0", "").await, b"0");
}

#[tokio::test]
async fn a_function_in_use_stays_while_others_leave() {
    let computer = Computer::new(Config { resident_functions_max: 4, ..config() }).unwrap();
    deploy(&computer, "sleeps", &guests::sleeps(), limits()).await;
    let (sleeper, nap) = (computer.clone(), call("sleeps", 200_000_000u64.to_le_bytes()));
    let asleep = tokio::spawn(async move { invoke(&sleeper, nap).await });
    until("it sleeps", || computer.load().running == 1).await;
    for n in 0..12 {
        deploy(&computer, &format!("says-{n}"), &guests::says(&format!("{n}")), limits()).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(matches!(asleep.await.unwrap().unwrap().outcome, Outcome::Answer { .. }), "its call went on");
}

#[tokio::test]
async fn many_calls_of_one_function_bring_it_back_together() {
    let computer = Computer::new(Config { resident_functions_max: 1, ..config() }).unwrap();
    for name in ["echo", "other"] {
        deploy(&computer, name, &guests::echo(), limits()).await;
    }
    let calls: Vec<_> = (0..50)
        .map(|n: u32| {
            let (computer, name) = (computer.clone(), if n.is_multiple_of(5) { "other" } else { "echo" });
            tokio::spawn(async move { answer(&computer, name, n.to_le_bytes()).await })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), u32::try_from(n).unwrap().to_le_bytes());
    }
}

#[tokio::test]
async fn a_dry_run_loads_nothing() {
    let computer = Computer::new(Config { resident_functions_max: 1, ..config() }).unwrap();
    for name in ["first", "second"] {
        deploy(&computer, name, &guests::says(name), limits()).await;
    }
    let before = computer.resident();
    for name in ["first", "second"] {
        let dry = Call { dry_run: true, ..call(name, "") };
        assert!(matches!(invoke(&computer, dry).await.unwrap().outcome, Outcome::Estimate(_)));
    }
    assert_eq!(computer.resident(), before);
}

#[tokio::test]
async fn code_that_is_gone_from_the_cache_is_told_and_can_be_deployed_again() {
    let folder = tempfile::tempdir().unwrap();
    let cached = Config { resident_functions_max: 1, cache: Some(folder.path().to_owned()), ..config() };
    let computer = Computer::new(cached).unwrap();
    for name in ["first", "second"] {
        deploy(&computer, name, &guests::says(name), limits()).await;
    }
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let began = Instant::now();
    let lost = if computer.resident().0 == 0 { "second" } else { "first" };
    let (reason, error) = refusal(&computer, call(lost, "")).await;
    assert_eq!(reason, Reason::NotReady);
    assert!(error.message.contains("gone") && error.retry_after.is_some(), "{error}");
    assert!(began.elapsed() < LONG / 2);
    deploy(&computer, lost, &guests::says(lost), limits()).await;
    assert_eq!(answer(&computer, lost, "").await, lost.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_functions_are_ready_of_which_few_are_in_memory() {
    const FUNCTIONS: usize = 2000;
    const MODULES: usize = 40;
    let computer = Computer::new(Config { resident_functions_max: 50, ..config() }).unwrap();
    let modules: Vec<_> = (0..MODULES).map(|n| guests::says(&format!("{n}"))).collect();
    // Texts are parsed once: the point is the computer.
    let parsed: Vec<_> = modules.iter().map(|text| deployment("f", text, limits(), Vec::new())).collect();
    for n in 0..FUNCTIONS {
        let (like, module) = &parsed[n % MODULES];
        let name = format!("says-{n}").parse().unwrap();
        let deployment = nigh_proto::Deployment { name, ..like.clone() };
        computer.deploy(deployment, module.clone()).await.unwrap();
    }
    assert!(computer.resident().0 <= 50, "{:?}", computer.resident());
    for n in (0..FUNCTIONS).step_by(37) {
        let expected = (n % MODULES).to_string().into_bytes();
        assert_eq!(answer(&computer, &format!("says-{n}"), "").await, expected);
    }
    assert!(computer.resident().0 <= 50, "{:?}", computer.resident());
}
