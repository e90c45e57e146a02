//! A run's folder: what is in it, read back, and what strangers put there.

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use nigh_load::report::{self, Calls, FolderError, OlderFormat};
use nigh_load::workload::Gaps;
use nigh_load::{Recorder, Tally};
use tokio_util::sync::CancellationToken;

use crate::stub::{Stub, brokers, plan, steady, workload};

const MS: Duration = Duration::from_millis(1);

/// Makes a run of 199 calls into a folder.
async fn run_into(folder: &std::path::Path, append: bool) -> report::Report {
    let plan = plan(workload(steady(Gaps::Constant, 10 * MS), 1, 0), Duration::from_secs(2));
    let calls =
        Calls::new(&plan.functions, OlderFormat::Client, Duration::ZERO).in_folder(folder, append, false).unwrap();
    let (recorder, samples) = Recorder::start(Tally::new(&plan.functions, Duration::ZERO), Some(calls)).unwrap();
    let brokers = brokers(vec![Stub::new("computer-1", |_| Ok(5 * MS))], 0.0, 1);
    let ended = nigh_load::drive(plan, brokers, samples, CancellationToken::new()).await;
    let (tally, calls) = recorder.finish().await;
    calls.unwrap().finish().unwrap();
    let (report, slices) = tally.report("run".into(), "now".into(), Vec::new(), ended.horizon, false);
    report::write(folder, &report, &slices, SystemTime::UNIX_EPOCH).unwrap();
    report
}

#[tokio::test(start_paused = true)]
async fn a_folder_holds_the_run_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let report = run_into(folder.path(), false).await;
    let again = report::read(folder.path()).unwrap();
    assert_eq!((again.calls, again.latency, &again.slices), (report.calls, report.latency, &report.slices));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();

    let lines = read("calls.txt");
    assert_eq!(lines.lines().count(), 199);
    // Directly from a computer: its endpoint is not known, so that there are two blanks.
    assert!(lines.lines().all(|line| line.split(' ').count() == 6 && line.ends_with("  echo 1")), "{lines}");
    let csv = read("calls.csv");
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().count() == 200 && csv.lines().all(|line| line.split(',').count() == columns));
    for name in ["slices.csv", "functions.csv", "computers.csv", "distribution.csv"] {
        let text = read(name);
        let columns = text.lines().next().unwrap().split(',').count();
        assert!(
            text.lines().count() > 1 && text.lines().all(|line| line.split(',').count() == columns),
            "{name}: {text}"
        );
    }
    assert_eq!(read("loss.txt"), "0.000000\n");

    let log = read("latency.hlog");
    let mut whole = Histogram::<u64>::new(3).unwrap();
    let mut deserializer = hdrhistogram::serialization::Deserializer::new();
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            let encoded = base64(interval.encoded_histogram());
            let histogram: Histogram<u64> = deserializer.deserialize(&mut encoded.as_slice()).unwrap();
            whole.add(histogram).unwrap();
        }
    }
    assert_eq!(whole.len(), 199);
    assert!((4900..7000).contains(&whole.value_at_quantile(0.5)), "{}", whole.value_at_quantile(0.5));

    let taken = Calls::new(&[], OlderFormat::Client, Duration::ZERO).in_folder(folder.path(), false, false);
    assert!(matches!(taken.unwrap_err(), FolderError::Taken(_)));
    run_into(folder.path(), true).await;
    assert_eq!(read("calls.txt").lines().count(), 2 * 199);
}

/// Decodes without a dependency of its own.
fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> =
        text.bytes().filter_map(|byte| Some(alphabet.iter().position(|letter| *letter == byte)? as u32)).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}

#[test]
fn what_is_no_report_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    assert!(matches!(report::read(folder.path()).unwrap_err(), FolderError::Read { .. }));
    for text in ["", "{}", "[1,2", "\u{1}", "{\"form\":2}"] {
        std::fs::write(&path, text).unwrap();
        let error = report::read(folder.path()).unwrap_err();
        assert!(matches!(error, FolderError::Foreign { .. }), "{text:?}: {error}");
    }
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(report::read(&path).unwrap_err(), FolderError::Foreign { .. }));
}
