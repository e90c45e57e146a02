//! A computer whose hardware is modelled, over real sockets. What the model says is exact; how soon it is told depends on the
//! machine that the tests run on, so of that there are only lower bounds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use nigh_model::Hardware;
use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_computer_client::EdgeComputerClient;
use nigh_proto::older::rpc::edge_server_client::EdgeServerClient;
use nigh_proto::v1::computer_client::ComputerClient;
use nigh_proto::{Call, Estimate, Outcome, Reason, Reply, v1};
use nigh_runtime::{Backend, Config, Error};
use tokio::task::JoinHandle;

use crate::role::{FakeController, Running, start};
use crate::set_up::*;

/// A millisecond for each byte, and a function that takes no time at all and says always the same, on another processor.
const HARDWARE: &str = r#"
    [[processor]]
    name = "slow"
    speed = 1e6
    cores = 1
    memory = 100_000

    [[processor]]
    name = "other"
    kind = "gpu"
    speed = 1e15
    cores = 4
    memory = 1

    [[container]]
    function = "paced"
    processor = "slow"
    workers = 1
    queue = 2
    ops = { coefficient = 1000 }
    memory = { coefficient = 10 }

    [[container]]
    function = "at-once"
    processor = "other"
    workers = 4
    ops = 1
    output = "done"
"#;

fn modelled(text: &str) -> Config {
    Config { backend: Backend::Modelled(Hardware::from_text(text).unwrap()), ..config() }
}

async fn computer() -> Arc<Running> {
    Arc::new(start(modelled(HARDWARE)).await)
}

/// A call that takes so many milliseconds.
fn paced(ms: usize) -> Call {
    call("paced", vec![b'x'; ms])
}

fn within(ms: u64, mut call: Call) -> Call {
    call.deadline = Instant::now() + Duration::from_millis(ms);
    call
}

fn begin(computer: &Arc<Running>, call: Call) -> JoinHandle<Result<Reply, nigh_proto::PlatformError>> {
    let computer = computer.clone();
    tokio::spawn(async move { computer.invoke(call).await })
}

async fn status(computer: &Running) -> v1::StatusResponse {
    let mut client = ComputerClient::new(computer.channel());
    client.status(v1::StatusRequest {}).await.unwrap().into_inner()
}

/// Waits until so many calls run and wait.
async fn until_there_are(computer: &Running, running: u32, queued: u32) {
    let began = Instant::now();
    loop {
        let load = status(computer).await.load.unwrap();
        if (load.running, load.queued) == (running, queued) {
            return;
        }
        assert!(began.elapsed() < LONG, "{load:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_when_its_hardware_would() {
    let computer = computer().await;
    let began = Instant::now();
    let (first, second) = (begin(&computer, paced(150)), begin(&computer, paced(50)));
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert!(began.elapsed() >= Duration::from_millis(200), "one after the other");
    assert_eq!((first.timing.run, second.timing.run), (Duration::from_millis(150), Duration::from_millis(50)));
    assert!(first.timing.queue.min(second.timing.queue).is_zero() && first.timing.queue <= second.timing.run);
    assert!(second.timing.queue <= first.timing.run, "{:?}", second.timing);
    let Outcome::Answer { payload, .. } = &second.outcome else { panic!("{second:?}") };
    assert_eq!(payload.len(), 50, "its input");
    assert_eq!((second.computer.as_str(), second.version, second.load.workers), ("computer-1", None, 1));
    let third = computer.invoke(paced(1)).await.unwrap();
    assert_eq!(third.load.service, Duration::from_millis(100), "the mean of the calls before");

    let reply = computer.invoke(call("at-once", "anything")).await.unwrap();
    assert!(matches!(&reply.outcome, Outcome::Answer { payload, .. } if payload == "done"), "{reply:?}");
    let unknown = computer.invoke(call("other", "")).await.unwrap_err();
    assert_eq!(unknown.reason, Reason::UnknownFunction);
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_answered_by_the_model_and_runs_nothing() {
    let computer = computer().await;
    let dry = |ms| Call { dry_run: true, ..paced(ms) };
    let estimate = |reply: Reply| match reply.outcome {
        Outcome::Estimate(estimate) => estimate,
        other => panic!("{other:?}"),
    };
    let Estimate { queue, run, modelled, .. } = estimate(computer.invoke(dry(300)).await.unwrap());
    assert_eq!((queue, run, modelled), (Duration::ZERO, Duration::from_millis(300), true));
    let long = begin(&computer, paced(5000));
    until_there_are(&computer, 1, 0).await;
    let Estimate { queue, run, .. } = estimate(computer.invoke(dry(300)).await.unwrap());
    assert!(
        queue > Duration::ZERO && queue <= Duration::from_secs(5) && run == Duration::from_millis(300),
        "{queue:?}"
    );
    assert_eq!(status(&computer).await.functions[1].calls, 0);
    long.abort();
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_want_to_wait_makes_room_for_others() {
    let computer = computer().await;
    let late = computer.invoke(within(50, paced(9000))).await.unwrap_err();
    assert_eq!(late.reason, Reason::Late, "{late}");
    // Its worker is free again, though it would have been busy for seconds.
    let gone = begin(&computer, paced(9000));
    until_there_are(&computer, 1, 0).await;
    let second = begin(&computer, paced(10));
    until_there_are(&computer, 1, 1).await;
    gone.abort();
    let second = second.await.unwrap().unwrap();
    assert!(second.timing.queue < Duration::from_secs(8), "{:?}", second.timing);
    until_there_are(&computer, 0, 0).await;
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_in_time_or_finds_no_room_is_refused_at_once() {
    let computer = computer().await;
    let running = begin(&computer, paced(9000));
    until_there_are(&computer, 1, 0).await;
    let busy = computer.invoke(within(1000, paced(1))).await.unwrap_err();
    assert_eq!(busy.reason, Reason::TooBusy, "{busy}");
    assert!(busy.retry_after.is_some());
    let waiting = [begin(&computer, paced(1)), begin(&computer, paced(1))];
    until_there_are(&computer, 1, 2).await;
    let full = computer.invoke(paced(1)).await.unwrap_err();
    assert_eq!(full.reason, Reason::QueueFull, "{full}");
    assert!(full.message.contains("2 operations wait") && full.retry_after.is_some(), "{full}");
    let large = computer.invoke(paced(10_001)).await.unwrap_err();
    assert_eq!(large.reason, Reason::TooLarge);
    assert!(large.message.contains("100010 bytes") && large.message.contains("100000"), "{large}");
    let told = status(&computer).await;
    let paced = told.functions.iter().find(|one| one.function == "paced").unwrap();
    assert_eq!((paced.refused, paced.running, paced.queued), (3, 1, 2));
    waiting.iter().chain([&running]).for_each(JoinHandle::abort);
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_whole_computer_hold_for_all_containers() {
    let limits = Config { queue_max: 1, payload_bytes_total_max: 10_000, ..modelled(HARDWARE) };
    let computer = Arc::new(start(limits).await);
    let long = begin(&computer, paced(9000));
    until_there_are(&computer, 1, 0).await;
    let calls = [long, begin(&computer, paced(10))];
    until_there_are(&computer, 1, 1).await;
    let full = computer.invoke(paced(10)).await.unwrap_err();
    assert_eq!((full.reason, full.message.contains("the computer's queue is full")), (Reason::QueueFull, true));
    let payloads = computer.invoke(paced(3000)).await.unwrap_err();
    assert_eq!(payloads.reason, Reason::OutOfBudget, "{payloads}");
    assert!(computer.invoke(call("at-once", "")).await.is_ok(), "what need not wait is not refused");
    calls.iter().for_each(JoinHandle::abort);
    until_there_are(&computer, 0, 0).await;
    assert!(computer.invoke(within(60_000, paced(1))).await.is_ok());
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn its_processors_tell_how_busy_they_are_to_both_systems_and_to_monitoring() {
    let config = modelled(HARDWARE);
    let telemetry = config.telemetry.clone();
    let computer = Arc::new(start(config).await);
    let long = begin(&computer, paced(9000));
    until_there_are(&computer, 1, 0).await;
    let mut ours = ComputerClient::new(computer.channel());
    let mut ours = ours.stream_utilisation(v1::UtilisationRequest {}).await.unwrap().into_inner();
    let mut theirs = EdgeComputerClient::new(computer.channel());
    let mut theirs = theirs.stream_util(rpc::Void {}).await.unwrap().into_inner();
    let busy = tokio::time::timeout(LONG, async {
        loop {
            let sample = ours.next().await.unwrap().unwrap();
            let values = theirs.next().await.unwrap().unwrap().values;
            let names: Vec<&str> = sample.processors.iter().map(|one| one.name.as_str()).collect();
            assert_eq!(names, ["slow", "other"]);
            assert_eq!((values.len(), values["other"]), (2, 0.0));
            if sample.processors[0].share == 1.0 && values["slow"] == 1.0 {
                break sample.load.unwrap();
            }
        }
    });
    let load = busy.await.expect("a core that is always busy shows as such");
    assert!((load.utilisation_1s - 0.2).abs() < 0.001, "one of five cores: {load:?}");
    let told = status(&computer).await;
    assert!(told.modelled && told.instances_max == 0 && told.processors.len() == 2, "{told:?}");
    let metrics = telemetry.metrics().unwrap();
    for line in [
        r#"nigh_computer_processor_utilisation_ratio{processor="slow"} 1"#,
        r#"nigh_computer_running{function="paced"} 1"#,
        "nigh_computer_workers 5",
        "nigh_computer_functions 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    long.abort();
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_the_older_system_are_served() {
    let computer = computer().await;
    let mut client = EdgeServerClient::new(computer.channel());
    let request = |input: &str| rpc::LambdaRequest { name: "paced".into(), input: input.into(), ..Default::default() };
    let answer = client.run_lambda(request("twenty bytes of text")).await.unwrap().into_inner();
    assert_eq!((answer.retcode.as_str(), answer.output.as_str(), answer.hops), ("OK", "twenty bytes of text", 1));
    assert_eq!(answer.ptime, 20);
    let dry = client.run_lambda(rpc::LambdaRequest { dry: true, ..request("ten bytes!") }).await.unwrap().into_inner();
    assert_eq!((dry.retcode.as_str(), dry.ptime, dry.output.as_str()), ("OK", 10, ""));
    let both = rpc::LambdaRequest { datain: vec![0, 255].into(), ..request("é") };
    let both = client.run_lambda(both).await.unwrap().into_inner();
    assert_eq!((both.output.as_str(), &both.dataout[..], both.ptime), ("é", &[0, 255][..], 4), "both arguments count");
    let large = client.run_lambda(request(&"x".repeat(10_001))).await.unwrap().into_inner();
    assert!(large.retcode.starts_with("invalid 'paced' request") && large.retcode.contains("100010"), "{large:?}");
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_announced_with_what_it_brings_and_drains_as_any_other() {
    let (controller, at) = FakeController::start().await;
    let computer = Arc::new(start(Config { controller: Some(at.into()), ..modelled(HARDWARE) }).await);
    until("it is announced", || controller.announced.lock().is_some()).await;
    let announced = controller.announced.lock().clone().unwrap();
    assert_eq!((announced.own_functions.as_slice(), announced.workers), (&["at-once".into(), "paced".into()][..], 5));
    let under_way = begin(&computer, paced(3000));
    until_there_are(&computer, 1, 0).await;
    computer.shutdown.cancel();
    assert!(under_way.await.unwrap().is_ok(), "a call under way is cut off");
    until("it ends", || computer.ended.is_finished()).await;
    assert!(*controller.withdrawn.lock());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_outlast_the_drain_are_ended() {
    let computer = Arc::new(start(Config { drain: Duration::from_millis(50), ..modelled(HARDWARE) }).await);
    let endless = begin(&computer, paced(9000));
    until_there_are(&computer, 1, 0).await;
    computer.shutdown.cancel();
    let error = endless.await.unwrap().unwrap_err();
    assert_eq!(error.reason, Reason::Disconnected, "{error}");
    until("it ends", || computer.ended.is_finished()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hardware_whose_functions_have_no_names_does_not_start() {
    let running = start(modelled(&HARDWARE.replace("\"at-once\"", "\"At Once\""))).await;
    let error = running.ended.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::Config(why) if why.contains("At Once")), "{error}");
}
