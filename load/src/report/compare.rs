//! Runs beside each other: every figure with its confidence interval, and how it differs from the first side's.

use serde::{Deserialize, Serialize};

use super::{Percentiles, Report, Slice};
use crate::statistics::{CONFIDENCE, Change, Interval};

/// Runs of one kind: one, or several that repeat each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// What they are called.
    pub label: String,
    /// What came of them.
    pub reports: Vec<Report>,
}

/// Sides beside each other, the first of which is what the others are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What the intervals rest on, for people.
    pub method: String,
    /// What the sides are called.
    pub sides: Vec<String>,
    /// One row for each figure.
    pub rows: Vec<Row>,
}

/// One figure of all sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub figure: String,
    /// Its unit: `calls/s`, `µs`, `%`.
    pub unit: String,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// Of each side.
    pub cells: Vec<Cell>,
}

/// One figure of one side.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Its value: the mean over runs or batches.
    pub value: f64,
    /// Where the true one lies, if there is enough to tell.
    pub interval: Option<Interval>,
    /// How it differs from the first side's, if there is enough to tell; none for the first.
    pub change: Option<Change>,
    /// What that means.
    pub verdict: Verdict,
}

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// This is the side that others are compared with.
    Baseline,
    /// Certainly better, as far as such intervals are certain.
    Better,
    /// Certainly worse.
    Worse,
    /// The interval holds zero: none was shown.
    NoneShown,
    /// Too few figures to tell.
    Unknown,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoneShown => "no difference shown",
            Self::Unknown => "too few figures",
        }
    }
}

/// What a figure is taken from: a whole run, or a batch of one.
struct Measured<'a> {
    latency: &'a Percentiles,
    answered_per_s: f64,
    unanswered_share: f64,
}

impl<'a> Measured<'a> {
    fn run(report: &'a Report) -> Self {
        let calls = &report.calls;
        let unanswered_share = if calls.due == 0 { 0.0 } else { calls.unanswered() as f64 / calls.due as f64 };
        Self { latency: &report.latency, answered_per_s: report.answered_per_s, unanswered_share }
    }

    fn batch(batch: &'a Slice) -> Self {
        let unanswered_share = batch.unanswered_share();
        Self { latency: &batch.latency, answered_per_s: batch.answered_per_s(), unanswered_share }
    }
}

struct Figure {
    name: &'static str,
    unit: &'static str,
    more_is_better: bool,
    /// Nothing where there was no answer to take it from.
    of: fn(&Measured<'_>) -> Option<f64>,
}

fn latency(measured: &Measured<'_>, of: impl Fn(&Percentiles) -> f64) -> Option<f64> {
    (measured.latency.count > 0).then(|| of(measured.latency))
}

const FIGURES: [Figure; 7] = [
    Figure { name: "answers", unit: "calls/s", more_is_better: true, of: |m| Some(m.answered_per_s) },
    Figure { name: "not answered", unit: "%", more_is_better: false, of: |m| Some(100.0 * m.unanswered_share) },
    Figure { name: "latency, mean", unit: "µs", more_is_better: false, of: |m| latency(m, |l| l.mean) },
    Figure { name: "latency, p50", unit: "µs", more_is_better: false, of: |m| latency(m, |l| l.p50 as f64) },
    Figure { name: "latency, p90", unit: "µs", more_is_better: false, of: |m| latency(m, |l| l.p90 as f64) },
    Figure { name: "latency, p99", unit: "µs", more_is_better: false, of: |m| latency(m, |l| l.p99 as f64) },
    Figure { name: "latency, p99.9", unit: "µs", more_is_better: false, of: |m| latency(m, |l| l.p99_9 as f64) },
];

impl Comparison {
    /// Compares sides, each with a report at least. Intervals rest on whole runs where each side has two or more, else on
    /// consecutive batches of each run.
    pub fn of(sides: &[Side]) -> Self {
        let repeated = sides.iter().all(|side| side.reports.len() > 1);
        let percent = CONFIDENCE * 100.0;
        let method = if repeated {
            format!("{percent:.0} % confidence intervals by Student's t over runs; changes by Welch's t of logarithms")
        } else {
            format!(
                "{percent:.0} % confidence intervals by Student's t over consecutive batches of each run; changes by \
                 Welch's t of logarithms. Batches of one run share what is particular to it: repeat runs to be sure"
            )
        };
        let rows = FIGURES.iter().map(|figure| {
            let measured = |side: &Side| -> Vec<f64> {
                let reports = side.reports.iter();
                match repeated {
                    true => reports.filter_map(|report| (figure.of)(&Measured::run(report))).collect(),
                    false => reports
                        .flat_map(|report| &report.batches)
                        .filter_map(|batch| (figure.of)(&Measured::batch(batch)))
                        .collect(),
                }
            };
            let measured: Vec<Vec<f64>> = sides.iter().map(measured).collect();
            let cells = measured.iter().enumerate().map(|(place, figures)| {
                let baseline = (place > 0).then(|| measured[0].as_slice());
                Cell::of(figures, baseline, figure.more_is_better)
            });
            Row {
                figure: figure.name.to_owned(),
                unit: figure.unit.to_owned(),
                more_is_better: figure.more_is_better,
                cells: cells.collect(),
            }
        });
        Self { method, sides: sides.iter().map(|side| side.label.clone()).collect(), rows: rows.collect() }
    }
}

impl Cell {
    fn of(figures: &[f64], baseline: Option<&[f64]>, more_is_better: bool) -> Self {
        let value = figures.iter().sum::<f64>() / figures.len().max(1) as f64;
        let change = baseline.and_then(|baseline| Change::between(baseline, figures));
        let verdict = match (baseline, &change) {
            (None, _) => Verdict::Baseline,
            (Some(_), None) => Verdict::Unknown,
            (Some(_), Some(change)) if !change.is_significant() => Verdict::NoneShown,
            (Some(_), Some(change)) if (change.change > 0.0) == more_is_better => Verdict::Better,
            (Some(_), Some(_)) => Verdict::Worse,
        };
        Self { value, interval: Interval::of(figures), change, verdict }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::Tally;
    use crate::sample::{Ending, Facts, Sample};

    /// A run of 10 s in which call `n` took what `latency_us` says.
    fn run(latency_us: impl Fn(u64) -> u64) -> Report {
        let mut tally = Tally::new(&["echo".parse().unwrap()], Duration::ZERO);
        for n in 0..1000 {
            let due = Duration::from_millis(10 * n);
            let facts = Facts {
                computer: "computer-1".parse().unwrap(),
                responder: None,
                load1: 0,
                hops: 0,
                answer_bytes: 0,
                timing: nigh_proto::Timing::default(),
                estimate: None,
            };
            let ended = due + Duration::from_micros(latency_us(n));
            let ending = Ending::Answered(facts);
            tally.record(&Sample { due, sent: due, ended, client: 0, function: 0, request_bytes: 0, ending });
        }
        tally.report("run".into(), String::new(), Vec::new(), Some(Duration::from_secs(10)), false).0
    }

    fn side(label: &str, reports: Vec<Report>) -> Side {
        Side { label: label.to_owned(), reports }
    }

    fn cell<'a>(comparison: &'a Comparison, figure: &str) -> &'a Cell {
        &comparison.rows.iter().find(|row| row.figure == figure).unwrap().cells[1]
    }

    #[test]
    fn half_the_latency_is_better_and_the_same_latency_is_no_difference() {
        let noisy = |n: u64| 1000 + n * 7919 % 400;
        let comparison =
            Comparison::of(&[side("before", vec![run(noisy)]), side("after", vec![run(|n| noisy(n) / 2)])]);
        let mean = cell(&comparison, "latency, mean");
        assert_eq!(mean.verdict, Verdict::Better, "{mean:?}");
        assert!((mean.change.unwrap().change + 0.5).abs() < 0.02, "{mean:?}");
        assert_eq!(cell(&comparison, "answers").verdict, Verdict::NoneShown);
        assert!(comparison.method.contains("batches"));

        let again = |n: u64| 1000 + n * 104_729 % 400;
        let comparison = Comparison::of(&[side("before", vec![run(noisy)]), side("again", vec![run(again)])]);
        assert_eq!(cell(&comparison, "latency, mean").verdict, Verdict::NoneShown);
    }

    #[test]
    fn repeated_runs_are_compared_as_wholes() {
        let runs = |base: u64| (0..3).map(|k| run(|n| base + 10 * k + n % 50)).collect::<Vec<_>>();
        let comparison = Comparison::of(&[side("before", runs(1000)), side("after", runs(1500))]);
        assert!(comparison.method.contains("over runs"));
        let p99 = cell(&comparison, "latency, p99");
        assert_eq!((p99.verdict, p99.interval.unwrap().count), (Verdict::Worse, 3));
    }

    #[test]
    fn a_single_figure_tells_of_no_difference() {
        let mut short = run(|_| 1000);
        short.batches.truncate(1);
        let comparison = Comparison::of(&[side("before", vec![short.clone()]), side("after", vec![short])]);
        assert_eq!(cell(&comparison, "latency, p50").verdict, Verdict::Unknown);
    }
}
