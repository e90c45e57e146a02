//! Driving: what a stall does to the figures, limits, several brokers, timing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nigh_load::workload::{Arrivals, Gaps, Timetable, Within};
use nigh_load::{Bounds, Ending, Pacing, Plan, Target};
use nigh_proto::{PlatformError, Reason};

use crate::stub::{Stub, brokers, facts, plan, report, samples, steady, workload};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Answers after a millisecond, but stands still for the fifth second.
fn stalling() -> impl Target {
    Stub::new("computer-1", |now: Duration| {
        let resumes = Duration::from_secs(5);
        let stalls = now >= 4 * SECOND && now < resumes;
        Ok(if stalls { resumes - now + MS } else { MS })
    })
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_felt_by_every_call_that_was_due_during_it() {
    // 100 calls per second for 10 s; those of one second wait for half a second on average, the first for all of it.
    let plan_open = plan(workload(steady(Gaps::Constant, 10 * MS), 1, 0), 10 * SECOND);
    let report_open = report(plan_open.clone(), brokers(vec![stalling()], 0.0, 1)).await;
    let latency = report_open.latency;
    assert_eq!(latency.count, 999);
    assert!((450_000..560_000).contains(&latency.p95), "p95 {}", latency.p95);
    assert!((900_000..960_000).contains(&latency.p99), "p99 {}", latency.p99);
    assert!(latency.p50 < 3000, "p50 {}", latency.p50);

    // One client that waits for its answers makes one slow call; counted from when calls were due it tells the same.
    let serial = Plan { pacing: Pacing::Serial, ..plan_open };
    let report_serial = report(serial, brokers(vec![stalling()], 0.0, 1)).await;
    let (service, latency) = (report_serial.service, report_serial.latency);
    assert!(service.p99 < 3000, "of {} calls one was slow: p99 {}", service.count, service.p99);
    assert!(latency.p99 > 850_000, "p99 {}", latency.p99);
    assert!(report_serial.calls.late_starts > 90, "{:?}", report_serial.calls);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_in_flight_are_counted_and_not_made() {
    let stuck = Stub::new("computer-1", |_| Ok(3 * SECOND));
    let calls = stuck.calls.clone();
    let mut plan = plan(workload(steady(Gaps::Constant, 10 * MS), 1, 0), SECOND);
    plan.bounds.in_flight_max = 10;
    let report = report(plan, brokers(vec![stuck], 0.0, 1)).await;
    assert_eq!((report.calls.answered, report.calls.overflow, report.calls.due), (10, 89, 99));
    assert_eq!(calls.load(Ordering::Relaxed), 10);
    assert_eq!((report.errors[0].of.as_str(), report.errors[0].kind.as_str()), ("client", "too-many-in-flight"));
}

#[tokio::test(start_paused = true)]
async fn the_warm_up_and_the_count_bound_what_is_measured() {
    let quick = || Stub::new("computer-1", |_| Ok(MS));
    let mut warmed = plan(workload(steady(Gaps::Constant, 10 * MS), 1, 0), SECOND);
    warmed.bounds.warm_up = SECOND;
    let report_warmed = report(warmed.clone(), brokers(vec![quick()], 0.0, 1)).await;
    assert_eq!((report_warmed.calls.warm_up, report_warmed.calls.due), (99, 100));
    assert!((report_warmed.answered_per_s - 100.0).abs() < 0.01);
    warmed.bounds.count = Some(150);
    let report = report(warmed, brokers(vec![quick()], 0.0, 1)).await;
    assert_eq!((report.calls.warm_up, report.calls.due), (99, 51));
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_keeps_its_clients_busy_and_lets_them_think() {
    let target = || Stub::new("computer-1", |_| Ok(10 * MS));
    let mut closed = plan(workload(steady(Gaps::Constant, SECOND), 5, 0), 10 * SECOND);
    closed.pacing = Pacing::Closed { gaps: Gaps::Constant, think: Duration::ZERO };
    let busy = report(closed.clone(), brokers(vec![target()], 0.0, 5)).await;
    assert!((busy.answered_per_s - 500.0).abs() < 60.0, "{}", busy.answered_per_s);
    closed.pacing = Pacing::Closed { gaps: Gaps::Poisson, think: 90 * MS };
    let thinking = report(closed, brokers(vec![target()], 0.0, 5)).await;
    assert!((thinking.answered_per_s - 50.0).abs() < 6.0, "{}", thinking.answered_per_s);
}

#[tokio::test(start_paused = true)]
async fn what_a_busy_client_comes_to_after_the_phase_is_left_out() {
    let within = Within::Uniform { min: MS, max: 10 * MS };
    let arrivals = Arrivals::OnOff { on: SECOND, off: SECOND, within };
    let mut serial = plan(workload(arrivals, 1, 4), 60 * SECOND);
    serial.pacing = Pacing::Serial;
    let report = report(serial, brokers(vec![Stub::new("computer-1", |_| Ok(50 * MS))], 0.0, 1)).await;
    assert!(report.calls.expired > 1000 && report.calls.answered > 500, "{:?}", report.calls);
    let expected = 1.0 - report.calls.answered as f64 / report.calls.due as f64;
    assert!((report.loss - expected).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_by_kind_and_do_not_vanish_from_latency() {
    let target = Stub::new("computer-1", |now: Duration| match now.as_secs() {
        0 => Ok(MS),
        _ => Err(PlatformError::new(Reason::QueueFull, "full")),
    });
    let report =
        report(plan(workload(steady(Gaps::Constant, 10 * MS), 1, 0), 2 * SECOND), brokers(vec![target], 0.0, 1)).await;
    assert_eq!((report.calls.answered, report.calls.failed), (99, 100));
    assert_eq!((report.errors[0].kind.as_str(), report.errors[0].count), ("queue-full", 100));
    assert_eq!((report.latency.count, report.latency_all.count), (99, 199));
    assert_eq!(report.functions[0].calls, 199);
}

/// Acceptance case 33: three computers, the third ten times slower. Of 100 calls only the fast two answer, and both do.
#[tokio::test(start_paused = true)]
async fn a_client_of_several_stays_with_those_that_answer_first() {
    let stub = |name, base_ms: u64, salt: u64| {
        // The two fast ones are never quite alike.
        Stub::new(name, move |now: Duration| {
            let wobble = (now.as_micros() as u64 + salt).wrapping_mul(2_654_435_761) >> 7;
            Ok(Duration::from_micros(base_ms * 1000 + wobble % 3000))
        })
    };
    let targets = vec![stub("computer-1", 10, 1), stub("computer-2", 10, 2), stub("computer-3", 100, 3)];
    let calls = targets.iter().map(|target| target.calls.clone()).collect::<Vec<_>>();
    let mut serial = plan(workload(steady(Gaps::Uniform, 30 * MS), 1, 6), 60 * SECOND);
    (serial.pacing, serial.bounds.count) = (Pacing::Serial, Some(100));
    let samples = samples(serial, brokers(targets, 0.5, 1)).await;
    assert_eq!(samples.len(), 100);
    let by = |name: &str| samples.iter().filter(|sample| facts(sample).computer.as_str() == name).count();
    assert!(
        by("computer-1") > 0 && by("computer-2") > 0 && by("computer-3") == 0,
        "{} {}",
        by("computer-1"),
        by("computer-2")
    );
    assert!(samples.iter().all(|sample| facts(sample).responder.is_some()));
    // Each call goes to its first and, half of the time, to each of the others.
    let made: u64 = calls.iter().map(|calls| calls.load(Ordering::Relaxed)).sum();
    assert!((175..225).contains(&made), "{made}");
}

#[tokio::test(start_paused = true)]
async fn without_persistence_one_broker_is_called_and_with_certainty_all_are() {
    for (persistence, expected) in [(0.0, [99, 0]), (1.0, [99, 99])] {
        let targets: Vec<_> = ["computer-1", "computer-2"].map(|name| Stub::new(name, |_| Ok(MS))).into();
        let calls = targets.iter().map(|target| target.calls.clone()).collect::<Vec<_>>();
        let plan = plan(workload(steady(Gaps::Constant, 10 * MS), 1, 0), SECOND);
        samples(plan, brokers(targets, persistence, 1)).await;
        assert_eq!([0, 1].map(|place: usize| calls[place].load(Ordering::Relaxed)), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_noticed_and_the_other_becomes_the_first() {
    let away = |_: Duration| Err(PlatformError::new(Reason::Unreachable, "away"));
    let here = |_: Duration| Ok(MS);
    type Answer = Box<dyn Fn(Duration) -> Result<Duration, PlatformError> + Send + Sync>;
    let targets: Vec<Stub<Answer>> =
        vec![Stub::new("computer-1", Box::new(away)), Stub::new("computer-2", Box::new(here))];
    let samples =
        samples(plan(workload(steady(Gaps::Constant, 10 * MS), 1, 3), SECOND), brokers(targets, 0.3, 1)).await;
    let first_answer = samples.iter().position(|sample| matches!(sample.ending, Ending::Answered(_))).unwrap();
    assert!(first_answer < 20, "{first_answer}");
    assert!(samples[first_answer..].iter().all(|sample| matches!(sample.ending, Ending::Answered(_))));
}

#[test]
fn brokers_are_checked() {
    let stub = || Stub::new("computer-1", |_: Duration| Ok(MS));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let endpoint: nigh_proto::Endpoint = "127.0.0.1:1".parse().unwrap();
    let new = |count: usize, persistence| {
        let targets = (0..count).map(|_| (endpoint.clone(), stub())).collect();
        nigh_load::Brokers::new(targets, persistence, 1).map(drop)
    };
    assert!(new(0, 0.0).unwrap_err().to_string().contains("no broker"));
    assert!(new(65, 0.0).unwrap_err().to_string().contains("at most 64"));
    assert!(new(1, 1.5).unwrap_err().to_string().contains("from 0 to 1"));
    assert!(new(1, f64::NAN).is_err());
    assert!(new(64, 1.0).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_timetable_is_replayed_at_its_times_to_its_brokers() {
    let text: String =
        (0..1000).map(|n| format!("{:.4} echo 127.0.0.1:{} {n}\n", f64::from(n) * 0.0137, 10_000 + n % 2)).collect();
    let timetable = Timetable::read(text.as_bytes()).unwrap();
    let mut replay = plan(workload(Arrivals::Timetable(Arc::new(timetable.clone())), 1, 0), 60 * SECOND);
    replay.payloads = nigh_load::workload::Payloads::filled(nigh_load::workload::Fill::Letters, 2000, 0);
    let targets: Vec<_> = ["computer-0", "computer-1"].map(|name| Stub::new(name, |_| Ok(MS))).into();
    let mut samples = samples(replay, brokers(targets, 0.0, 1)).await;
    samples.sort_by_key(|sample| sample.due);
    assert_eq!(samples.len(), 1000);
    for (n, (sample, entry)) in samples.iter().zip(&timetable.entries).enumerate() {
        assert_eq!((sample.due, sample.request_bytes), (entry.at, n));
        assert_eq!(facts(sample).computer.as_str(), format!("computer-{}", n % 2));
        // The runtime's timer counts in milliseconds.
        assert!(sample.start_delay() <= 2 * MS, "{:?}", sample.start_delay());
    }
}

#[tokio::test]
async fn the_pacing_thread_keeps_time_and_stops_when_told() {
    let target = || Stub::new("computer-1", |_| Ok(Duration::ZERO));
    let mut real = plan(workload(steady(Gaps::Constant, MS), 1, 0), SECOND / 5);
    real.timer = nigh_load::Timer::Thread;
    let done = samples(real.clone(), brokers(vec![target()], 0.0, 1)).await;
    assert_eq!(done.len(), 199);
    assert!(done.iter().all(|sample| sample.sent >= sample.due), "none comes before its time");

    real.bounds = Bounds { duration: None, ..real.bounds };
    let stop = tokio_util::sync::CancellationToken::new();
    let (sender, mut taken) = tokio::sync::mpsc::channel(100_000);
    let run = tokio::spawn(nigh_load::drive(real, brokers(vec![target()], 0.0, 1), sender, stop.clone()));
    taken.recv().await.unwrap();
    stop.cancel();
    let ended = run.await.unwrap();
    assert!(ended.stopped_early && ended.horizon.is_some());
}
