//! The edge as real processes that are killed, stopped and started again under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nigh_client::{Caller, CallerLimits, DeployRequest};
use nigh_proto::{Call, Limits, Outcome, Placement, PlatformError, Reason};
use nigh_tests::edge::answer;
use nigh_tests::guests;
use nigh_tests::processes::{Processes, Role, nigh};
use tokio::task::JoinHandle;

/// Calls that go on until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Vec<PlatformError>>>,
}

impl Load {
    fn start(edge: &Processes, function: &str, retry_safe: bool) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let callers = (0..8)
            .map(|_| {
                let caller = Caller::new(edge.broker.endpoint.clone(), CallerLimits::default());
                let (stop, answered, function) = (stop.clone(), answered.clone(), function.parse().unwrap());
                tokio::spawn(async move {
                    let mut failed = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let mut call =
                            Call::new(nigh_proto::FunctionName::clone(&function), "x", Duration::from_secs(10));
                        call.retry_safe = retry_safe;
                        match caller.invoke(call).await {
                            Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => failed.push(error),
                        }
                    }
                    failed
                })
            })
            .collect();
        Self { stop, answered, callers }
    }

    /// Waits until so many more calls have been answered.
    async fn answers(&self, more: u64) {
        let (before, began) = (self.answered.load(Ordering::Relaxed), Instant::now());
        while self.answered.load(Ordering::Relaxed) < before + more {
            assert!(began.elapsed() < Duration::from_secs(30), "calls do not go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the load; the calls that failed.
    async fn end(self) -> Vec<PlatformError> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for caller in self.callers {
            failed.extend(caller.await.unwrap());
        }
        failed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_killed_under_load_fails_no_retry_safe_call() {
    let mut edge = Processes::start(2).await;
    edge.deploy("echo", guests::echo()).await;
    let load = Load::start(&edge, "echo", true);
    load.answers(200).await;
    edge.computers[0].kill();
    load.answers(200).await;
    edge.computers[0].start_again().await;
    edge.until_ready("echo").await;
    load.answers(200).await;
    edge.computers[1].kill();
    load.answers(200).await;
    assert_eq!(load.end().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_that_is_stopped_drains_and_fails_no_call() {
    let mut edge = Processes::start(2).await;
    edge.deploy("echo", guests::echo()).await;
    let load = Load::start(&edge, "echo", false);
    load.answers(200).await;
    let status = edge.computers[0].terminate().await;
    assert!(status.success(), "{status}");
    load.answers(200).await;
    assert_eq!(load.end().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_while_the_controller_is_away_and_nothing_deployed_is_lost() {
    let mut edge = Processes::start(2).await;
    edge.deploy("echo", guests::echo()).await;
    let load = Load::start(&edge, "echo", false);
    load.answers(100).await;
    edge.controller.kill();
    load.answers(500).await;
    // Longer than any lease: the broker must not forget what it knows.
    tokio::time::sleep(Duration::from_secs(4)).await;
    load.answers(500).await;
    edge.controller.start_again().await;
    edge.until_ready("echo").await;
    load.answers(500).await;
    assert_eq!(load.end().await, []);
    edge.deploy("later", guests::constant("deployed after the restart")).await;
    assert_eq!(edge.answer("later", "").await, "deployed after the restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_edge_started_again_has_what_was_deployed() {
    let mut edge = Processes::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    edge.broker.kill();
    edge.controller.kill();
    edge.computers[0].kill();
    edge.controller.start_again().await;
    edge.computers[0].start_again().await;
    edge.broker.start_again().await;
    edge.until_ready("echo").await;
    assert_eq!(edge.answer("echo", "back").await, "back");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_clients_are_told_at_once_and_recover() {
    let mut edge = Processes::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    let caller = Caller::new(edge.broker.endpoint.clone(), CallerLimits::default());
    let call = || Call::new("echo".parse().unwrap(), "x", Duration::from_secs(10));
    caller.invoke(call()).await.unwrap();
    edge.broker.kill();
    let began = Instant::now();
    let error = caller.invoke(call()).await.unwrap_err();
    assert!(matches!(error.reason, Reason::Unreachable | Reason::Disconnected), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "at once, not after {:?}", began.elapsed());
    edge.broker.start_again().await;
    edge.until_ready("echo").await;
    assert_eq!(answer(caller.invoke(call()).await.unwrap()), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redeploy_under_load_fails_no_call() {
    let edge = Processes::start(2).await;
    edge.deploy("versioned", guests::constant("one")).await;
    let load = Load::start(&edge, "versioned", false);
    for version in ["two", "three"] {
        load.answers(200).await;
        edge.deploy("versioned", guests::constant(version)).await;
        assert_eq!(edge.answer("versioned", "").await, version);
    }
    load.answers(200).await;
    assert_eq!(load.end().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_takes_a_function_from_new_to_invoke() {
    let edge = Processes::start(1).await;
    let folder = tempfile::TempDir::new().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = nigh();
        command.current_dir(folder.path()).args(arguments);
        command
            .env("NIGH_CONTROLLER", edge.controller.endpoint.as_str())
            .env("NIGH_BROKER", edge.broker.endpoint.as_str());
        command.output().unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    assert!(run(&["new", "hello"]).status.success());
    let built = run(&["build", "hello", "--json"]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let built: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
    let module = built["path"].as_str().unwrap();

    let deployed = run(&["deploy", module, "--name", "hello", "--timeout", "2s", "--memory", "32MiB"]);
    assert!(deployed.status.success(), "{}", text(&deployed.stderr));
    let invoked = run(&["invoke", "hello", "--data", "to be or not to be", "-v"]);
    assert!(invoked.status.success(), "{}", text(&invoked.stderr));
    // The function of a new project counts words.
    assert!(text(&invoked.stdout).contains("2 be"), "{}", text(&invoked.stdout));
    for part in ["network", "broker", "queue", "init", "run"] {
        assert!(text(&invoked.stderr).contains(part), "{part} in {}", text(&invoked.stderr));
    }

    let listed: serde_json::Value = serde_json::from_slice(&run(&["ls", "--json"]).stdout).unwrap();
    assert!(listed.to_string().contains("hello"), "{listed}");
    assert!(run(&["rm", "hello"]).status.success());
    let unknown = run(&["invoke", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("nobody"), "{}", text(&unknown.stderr));
    assert_eq!(run(&["invoke", "--no-such-flag"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_runs_within_two_gigabytes_of_address_space() {
    let edge = Processes::start_within(1, Some(2 << 30)).await;
    edge.deploy("echo", guests::echo()).await;
    let calls = (0..40).map(|n| {
        let caller = Caller::new(edge.broker.endpoint.clone(), CallerLimits::default());
        let call = Call::new("echo".parse().unwrap(), format!("{n}"), Duration::from_secs(20));
        tokio::spawn(async move { answer(caller.invoke(call).await.unwrap()) })
    });
    for (n, called) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(called.await.unwrap(), n.to_string());
    }
    // A guest that runs into its own memory limit harms nobody.
    edge.deploy(
        "grows",
        guests::native(
            "",
            "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 256)) (i32.const -1)))) unreachable",
        ),
    )
    .await;
    let caller = Caller::new(edge.broker.endpoint.clone(), CallerLimits::default());
    let grown = caller.invoke(Call::new("grows".parse().unwrap(), "", Duration::from_secs(20))).await.unwrap();
    assert!(matches!(&grown.outcome, Outcome::Error { kind, .. } if kind == "memory-limit"), "{grown:?}");
    assert_eq!(edge.answer("echo", "still here").await, "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_runs_only_on_computers_with_the_labels_that_it_asks_for() {
    let edge = Processes::start(1).await;
    let data = tempfile::tempdir().unwrap();
    let (controller, folder) = (edge.controller.endpoint.to_string(), data.path().join("shop"));
    let own = ["--name", "shop", "--label", "zone=shop,gpu=no", "--data-dir", folder.to_str().unwrap()];
    let arguments = [&["--controller", &controller, "--memory", "1GiB"], &own[..]].concat();
    let _shop = Role::start("computer", "endpoint", &arguments);
    let deploy = async |placement: &[&str]| {
        let placement = Placement::new(placement.iter().map(|one| one.parse().unwrap())).unwrap();
        let request = DeployRequest {
            name: "echo".parse().unwrap(),
            limits: Limits::default(),
            directories: Vec::new(),
            hosts: Vec::new(),
            placement,
            states: Vec::new(),
        };
        let deployed = edge.admin().deploy(request, guests::echo(), |_| {}).await.unwrap().deployment;
        edge.admin().await_ready(&deployed.name, deployed.version, Duration::from_secs(30), |_| {}).await
    };
    edge.until("the shop's computer is announced", async || {
        edge.admin().list().await.is_ok_and(|listing| listing.computers.len() == 2)
    })
    .await;
    let everywhere = deploy(&[]).await.unwrap();
    assert_eq!(everywhere.ready.len(), 2);
    for (placement, expected) in [(&["zone in shop,depot", "gpu!=yes"][..], "shop"), (&["zone!=shop"], "computer-0")] {
        let readiness = deploy(placement).await.unwrap();
        assert_eq!(readiness.ready.iter().map(|name| name.as_str()).collect::<Vec<_>>(), [expected]);
        edge.until("only that one is called", async || {
            let call = || Call::new("echo".parse().unwrap(), "x", Duration::from_secs(10));
            let by = async || edge.caller().invoke(call()).await.unwrap().computer.to_string();
            by().await == expected && by().await == expected && by().await == expected
        })
        .await;
    }
    let error = deploy(&["zone=shop", "gpu=yes"]).await.unwrap_err().to_string();
    for told in
        ["no computer matches gpu=yes and zone=shop", "zone=shop: shop", "gpu=yes: nobody", "computer-0 (no labels)"]
    {
        assert!(error.contains(told), "{told}: {error}");
    }
}
