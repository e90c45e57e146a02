//! A target in memory, and runs against it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nigh_load::workload::{Arrivals, Body, Fill, Gaps, Mix, Payloads, Sizes, Workload};
use nigh_load::{
    Bounds, Brokers, Ending, Facts, Pacing, Plan, Recorder, Report, Sample, Tally, Target, Template, Timer,
};
use nigh_proto::{Call, Headers, Load, Outcome, PlatformError, Reply, Timing};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Answers after a time that depends on when the call comes.
pub(crate) struct Stub<F> {
    pub(crate) name: &'static str,
    pub(crate) answer: F,
    pub(crate) calls: Arc<AtomicU64>,
    began: tokio::time::Instant,
}

impl<F> Stub<F> {
    pub(crate) fn new(name: &'static str, answer: F) -> Self {
        Self { name, answer, calls: Arc::default(), began: tokio::time::Instant::now() }
    }
}

impl<F> Target for Stub<F>
where
    F: Fn(Duration) -> Result<Duration, PlatformError> + Send + Sync + 'static,
{
    async fn call(&self, call: Call) -> Result<Reply, PlatformError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep((self.answer)(self.began.elapsed())?).await;
        Ok(Reply {
            outcome: Outcome::Answer { payload: call.payload, headers: Headers::default() },
            computer: self.name.parse().unwrap(),
            responder: None,
            version: None,
            call: call.id,
            hops: 0,
            load: Load::default(),
            timing: Timing::default(),
            steps: Vec::new(),
            states: Vec::new(),
        })
    }
}

pub(crate) fn workload(arrivals: Arrivals, clients: u32, seed: u64) -> Workload {
    Workload { seed, clients, arrivals, mix: Mix::new(&[1.0], Sizes::Constant(16)).unwrap() }
}

pub(crate) fn steady(gaps: Gaps, every: Duration) -> Arrivals {
    Arrivals::Steady { gaps, every }
}

/// A plan of an open loop by the runtime's clock, which tests pause.
pub(crate) fn plan(workload: Workload, duration: Duration) -> Plan {
    Plan {
        workload,
        functions: vec!["echo".parse().unwrap()],
        payloads: Payloads::filled(Fill::Letters, 64, 0),
        pacing: Pacing::Open,
        timer: Timer::Runtime,
        bounds: Bounds {
            timeout: Duration::from_secs(30),
            in_flight_max: 10_000,
            warm_up: Duration::ZERO,
            duration: Some(duration),
            count: None,
        },
        template: Template::default(),
    }
}

pub(crate) fn brokers<T: Target>(targets: Vec<T>, persistence: f64, clients: u32) -> Brokers<T> {
    let endpoint = |place: usize| format!("127.0.0.1:{}", 10_000 + place).parse().unwrap();
    let targets = targets.into_iter().enumerate().map(|(place, target)| (endpoint(place), target)).collect();
    Brokers::new(targets, persistence, clients).unwrap()
}

/// The report of a run.
pub(crate) async fn report<T: Target>(plan: Plan, brokers: Brokers<T>) -> Report {
    let tally = Tally::new(&plan.functions, plan.bounds.warm_up);
    let (recorder, samples) = Recorder::start(tally, None).unwrap();
    let ended = nigh_load::drive(plan, brokers, samples, CancellationToken::new()).await;
    let (tally, _) = recorder.finish().await;
    tally.report("run".into(), String::new(), Vec::new(), ended.horizon, ended.stopped_early).0
}

/// Every sample of a run, in the order in which calls ended.
pub(crate) async fn samples<T: Target>(plan: Plan, brokers: Brokers<T>) -> Vec<Sample> {
    let (sender, mut taken) = mpsc::channel(100_000);
    nigh_load::drive(plan, brokers, sender, CancellationToken::new()).await;
    let mut samples = Vec::new();
    while let Some(sample) = taken.recv().await {
        samples.push(sample);
    }
    samples
}

pub(crate) fn facts(sample: &Sample) -> &Facts {
    match &sample.ending {
        Ending::Answered(facts) => facts,
        other => panic!("expected an answer, got {other:?}"),
    }
}

pub(crate) fn bytes(body: Body) -> u32 {
    match body {
        Body::Size(bytes) => bytes,
        Body::Given(_) | Body::Work(_) => panic!("{body:?} is not drawn"),
    }
}
