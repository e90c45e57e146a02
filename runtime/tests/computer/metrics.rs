//! What a computer tells those who watch it, read by a parser that is not ours.

use std::time::Duration;

use nigh_proto::{Limits, Reason};
use nigh_runtime::{Computer, Config};
use nigh_telemetry::{FUNCTIONS_MAX, OTHER, Telemetry};
use prometheus_parse::{HistogramCount, Scrape, Value};

use crate::guests;
use crate::set_up::*;

/// What was told at one time.
struct Told(Scrape);

impl Told {
    fn of(telemetry: &Telemetry) -> Self {
        let text = telemetry.metrics().unwrap();
        Self(Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap())
    }

    fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<&Value> {
        let has = |sample: &&prometheus_parse::Sample| {
            sample.metric == name && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(*value))
        };
        self.0.samples.iter().find(has).map(|sample| &sample.value)
    }

    /// A counter or gauge; what was never counted is not told.
    fn number(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        match self.find(name, labels) {
            Some(Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value)) => *value,
            None => 0.0,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn buckets(&self, name: &str, function: &str) -> &[HistogramCount] {
        match self.find(name, &[("function", function)]) {
            Some(Value::Histogram(buckets)) => buckets,
            other => panic!("{name} of {function}: {other:?}"),
        }
    }

    /// Times that took longer than so many seconds.
    fn longer(&self, name: &str, function: &str, than: f64) -> f64 {
        let buckets = self.buckets(name, function);
        let all = buckets.last().unwrap().count;
        all - buckets.iter().rfind(|bucket| bucket.less_than <= than).map_or(0.0, |bucket| bucket.count)
    }
}

#[tokio::test]
async fn values_move_as_calls_are_made() {
    let config = config();
    let telemetry = config.telemetry.clone();
    let computer = Computer::new(config).unwrap();
    let limits = Limits { concurrency: 1, queue: 1, ..limits() };
    deploy(&computer, "echo", &guests::echo(), limits.clone()).await;
    deploy(&computer, "fails", &guests::fails(), limits.clone()).await;
    deploy(&computer, "panics", &guests::panics(), limits.clone()).await;
    deploy(&computer, "sleeps", &guests::sleeps(), limits).await;
    for _ in 0..3 {
        answer(&computer, "echo", "hello").await;
    }
    error(&computer, "fails", "").await;
    error(&computer, "panics", "").await;
    refusal(&computer, call("echo", vec![0; 2 << 20])).await;
    refusal(&computer, call("no-such-function", "")).await;

    let told = Told::of(&telemetry);
    let calls =
        |function, outcome| told.number("nigh_computer_calls_total", &[("function", function), ("outcome", outcome)]);
    assert_eq!((calls("echo", "answer"), calls("fails", "error"), calls("panics", "panic")), (3.0, 1.0, 1.0));
    let refused = |function, reason: Reason| {
        told.number("nigh_computer_refused_total", &[("function", function), ("reason", reason.word())])
    };
    assert_eq!((refused("echo", Reason::TooLarge), refused(OTHER, Reason::UnknownFunction)), (1.0, 1.0));
    assert_eq!(told.buckets("nigh_computer_run_seconds", "echo").last().unwrap().count, 3.0);
    assert_eq!(told.number("nigh_computer_functions", &[]), 4.0);
    assert!(told.find("nigh_computer_compile_seconds", &[]).is_some());
    assert!(told.number("nigh_computer_memory_resident_bytes", &[]) > 1e6);
    assert_eq!(told.number("nigh_computer_instances_max", &[]), 16.0);
    assert_eq!(told.number("nigh_computer_workers", &[]), 4.0);
}

#[tokio::test]
async fn a_queue_shows_while_it_is_there_and_in_the_times_afterwards() {
    let config = config();
    let telemetry = config.telemetry.clone();
    let computer = Computer::new(config).unwrap();
    deploy(&computer, "sleeps", &guests::sleeps(), Limits { concurrency: 1, queue: 1, ..limits() }).await;
    let nap = |ms: u64| call("sleeps", (ms * 1_000_000).to_le_bytes());
    let start = |ms| {
        let (computer, nap) = (computer.clone(), nap(ms));
        tokio::spawn(async move { invoke(&computer, nap).await })
    };
    let gauge = |name: &str| Told::of(&telemetry).number(name, &[("function", "sleeps")]);
    let first = start(15_000);
    until("one runs", || gauge("nigh_computer_running") == 1.0).await;
    let live = || Told::of(&telemetry).number("nigh_computer_instances", &[("state", "live")]);
    until("it has an instance", || live() >= 1.0).await;
    let second = start(300);
    until("one waits", || gauge("nigh_computer_queued") == 1.0).await;
    assert_eq!(refusal(&computer, nap(1)).await.0, Reason::QueueFull);
    tokio::time::sleep(Duration::from_millis(140)).await;
    // The caller of the first goes away, and the second has its turn.
    first.abort();
    second.await.unwrap().unwrap();
    until("nothing runs", || gauge("nigh_computer_running") == 0.0).await;
    let told = Told::of(&telemetry);
    let full = [("function", "sleeps"), ("reason", Reason::QueueFull.word())];
    assert_eq!(told.number("nigh_computer_refused_total", &full), 1.0);
    assert!(told.longer("nigh_computer_run_seconds", "sleeps", 0.262_144) >= 1.0);
    assert!(told.longer("nigh_computer_queue_seconds", "sleeps", 0.131_072) >= 1.0);
}

#[tokio::test]
async fn a_caller_that_goes_away_is_counted_too() {
    let config = config();
    let telemetry = config.telemetry.clone();
    let computer = Computer::new(config).unwrap();
    deploy(&computer, "sleeps", &guests::sleeps(), Limits { concurrency: 1, ..limits() }).await;
    let nap = || call("sleeps", Duration::from_secs(10).as_nanos().to_le_bytes()[..8].to_vec());
    for _ in 0..2 {
        // One runs and one waits when their callers go.
        let gone = tokio::time::timeout(Duration::from_millis(20), async {
            tokio::join!(invoke(&computer, nap()), invoke(&computer, nap()))
        });
        assert!(gone.await.is_err());
    }
    let cancelled = [("function", "sleeps"), ("outcome", Reason::Cancelled.word())];
    until("all four are counted", || Told::of(&telemetry).number("nigh_computer_calls_total", &cancelled) == 4.0).await;
}

#[tokio::test]
async fn labels_stay_bounded_however_many_functions_are_deployed() {
    let config = Config { instances_max: 8, ..config() };
    let telemetry = config.telemetry.clone();
    let computer = Computer::new(config).unwrap();
    for number in 0..FUNCTIONS_MAX + 20 {
        let name = format!("f{number}");
        deploy(&computer, &name, &guests::echo(), limits()).await;
        answer(&computer, &name, "").await;
    }
    let told = Told::of(&telemetry);
    let of_calls = |sample: &&prometheus_parse::Sample| sample.metric == "nigh_computer_calls_total";
    assert_eq!(told.0.samples.iter().filter(of_calls).count(), FUNCTIONS_MAX + 1);
    assert_eq!(told.number("nigh_computer_calls_total", &[("function", OTHER)]), 20.0);
    let running = told.0.samples.iter().filter(|sample| sample.metric == "nigh_computer_running");
    assert_eq!(running.count(), FUNCTIONS_MAX + 1);
}
