//! Runs beside each other: every figure with its confidence interval, and how it differs from the first side's.

use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use super::{Batch, Bin, Report};
use crate::dice::{self, Purpose};
use crate::statistics::{CONFIDENCE, Change, Interval, middle};

/// How often batches are drawn anew.
const RESAMPLES: usize = 1000;
/// Fewer batches say nothing of how they vary.
const BATCHES_MIN: usize = 5;
/// The same runs are always told of in the same words.
const RESAMPLING_SEED: u64 = 0;

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
    /// Its value: the mean over runs, or that of all batches together.
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

/// What figures are taken from: a run, or batches put together.
struct Measured {
    answered_per_s: f64,
    unanswered_percent: f64,
    /// Mean, p50, p90, p99 and p99.9, where there was an answer.
    latency_us: Option<[f64; 5]>,
}

struct Figure {
    name: &'static str,
    unit: &'static str,
    more_is_better: bool,
    of: fn(&Measured) -> Option<f64>,
}

impl Figure {
    const fn latency(name: &'static str, of: fn(&Measured) -> Option<f64>) -> Self {
        Self { name, unit: "µs", more_is_better: false, of }
    }
}

const FIGURES: [Figure; 7] = [
    Figure { name: "answers", unit: "calls/s", more_is_better: true, of: |m| Some(m.answered_per_s) },
    Figure { name: "not answered", unit: "%", more_is_better: false, of: |m| Some(m.unanswered_percent) },
    Figure::latency("latency, mean", |m| Some(m.latency_us?[0])),
    Figure::latency("latency, p50", |m| Some(m.latency_us?[1])),
    Figure::latency("latency, p90", |m| Some(m.latency_us?[2])),
    Figure::latency("latency, p99", |m| Some(m.latency_us?[3])),
    Figure::latency("latency, p99.9", |m| Some(m.latency_us?[4])),
];

impl Measured {
    fn run(report: &Report) -> Self {
        let (calls, latency) = (&report.calls, &report.latency);
        let share = if calls.due == 0 { 0.0 } else { calls.unanswered() as f64 / calls.due as f64 };
        let percentiles = [latency.p50, latency.p90, latency.p99, latency.p99_9].map(|us| us as f64);
        let [p50, p90, p99, p99_9] = percentiles;
        Self {
            answered_per_s: report.answered_per_s,
            unanswered_percent: 100.0 * share,
            latency_us: (latency.count > 0).then_some([latency.mean, p50, p90, p99, p99_9]),
        }
    }
}

impl Comparison {
    /// Compares sides, each with a report at least. Intervals rest on whole runs where each side has two or more, else on
    /// consecutive batches of each run.
    pub fn of(sides: &[Side]) -> Self {
        let percent = CONFIDENCE * 100.0;
        let is_repeated = sides.iter().all(|side| side.reports.len() > 1);
        let (method, rows) = if is_repeated {
            let method = "by Student's t over runs, and of changes by Welch's t of the logarithm of the ratio";
            (method.to_owned(), rows(&sides.iter().map(over_runs).collect::<Vec<_>>(), Change::between))
        } else {
            let method = "by bootstrap over consecutive batches of each run. Batches of one run share what is particular to \
                          it: repeat runs to be sure";
            let drawn: Vec<_> = (0..).zip(sides).map(|(place, side)| over_batches(side, place)).collect();
            (method.to_owned(), rows(&drawn, |_, _| None))
        };
        let method = format!("{percent:.0} % confidence intervals {method}");
        Self { method, sides: sides.iter().map(|side| side.label.clone()).collect(), rows }
    }
}

/// One figure of one side, and what tells how sure it is.
enum Known {
    /// The figures of whole runs.
    Runs(Vec<f64>),
    /// The figure itself, and what it would have been with other batches like these.
    Drawn(f64, Vec<f64>),
}

/// The figures of a side, in the order of [`FIGURES`].
type Figures = Vec<Option<Known>>;

fn over_runs(side: &Side) -> Figures {
    let runs: Vec<Measured> = side.reports.iter().map(Measured::run).collect();
    let known = |figure: &Figure| {
        let figures: Vec<f64> = runs.iter().filter_map(figure.of).collect();
        (!figures.is_empty()).then_some(Known::Runs(figures))
    };
    FIGURES.iter().map(known).collect()
}

fn over_batches(side: &Side, place: u32) -> Figures {
    let pool = Pool::new(side.reports.iter().flat_map(|report| &report.batches));
    let whole = match side.reports.as_slice() {
        [report] => Measured::run(report),
        _ => pool.measured(&(0..pool.batches.len()).collect::<Vec<_>>()),
    };
    let mut dice = dice::stream(RESAMPLING_SEED, place, Purpose::Choice);
    let resamples = if pool.batches.len() < BATCHES_MIN { 0 } else { RESAMPLES };
    let drawn: Vec<Measured> = (0..resamples)
        .map(|_| {
            let batches = 0..pool.batches.len();
            pool.measured(&batches.clone().map(|_| dice.random_range(batches.clone())).collect::<Vec<_>>())
        })
        .collect();
    let known =
        |figure: &Figure| Some(Known::Drawn((figure.of)(&whole)?, drawn.iter().filter_map(figure.of).collect()));
    FIGURES.iter().map(known).collect()
}

/// Batches that are put together anew again and again.
struct Pool<'a> {
    batches: Vec<&'a Batch>,
    /// Every latency that occurs, in order.
    values: Vec<u64>,
    /// How many answers of each batch took how long: places among the values, with counts.
    counts: Vec<Vec<(usize, u64)>>,
}

impl<'a> Pool<'a> {
    fn new(batches: impl Iterator<Item = &'a Batch>) -> Self {
        let batches: Vec<_> = batches.collect();
        let mut values: Vec<u64> =
            batches.iter().flat_map(|batch| batch.latency.iter().map(|bin| bin.upto_us)).collect();
        values.sort_unstable();
        values.dedup();
        let place = |bin: &Bin| (values.partition_point(|value| *value < bin.upto_us), bin.count);
        let counts = batches.iter().map(|batch| batch.latency.iter().map(place).collect()).collect();
        Self { batches, values, counts }
    }

    /// The figures of these batches, of which one may be there several times.
    fn measured(&self, places: &[usize]) -> Measured {
        let (mut due, mut seconds) = (0, 0.0);
        let mut counts = vec![0_u64; self.values.len()];
        for place in places {
            due += self.batches[*place].due;
            seconds += self.batches[*place].seconds;
            for (value, count) in &self.counts[*place] {
                counts[*value] = counts[*value].saturating_add(*count);
            }
        }
        let answered: u64 = counts.iter().fold(0, |sum, count| sum.saturating_add(*count));
        let of = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let latency = || {
            let sum: f64 = self.values.iter().zip(&counts).map(|(value, count)| *value as f64 * *count as f64).sum();
            let [p50, p90, p99, p99_9] = quantiles(&self.values, &counts, answered, [0.5, 0.9, 0.99, 0.999]);
            [sum / answered as f64, p50, p90, p99, p99_9]
        };
        Measured {
            answered_per_s: of(answered as f64, seconds),
            unanswered_percent: 100.0 * of(due as f64 - answered as f64, due as f64).max(0.0),
            latency_us: (answered > 0).then(latency),
        }
    }
}

/// The values that these shares, in rising order, do not exceed.
fn quantiles<const N: usize>(values: &[u64], counts: &[u64], total: u64, shares: [f64; N]) -> [f64; N] {
    let (mut sum, mut place) = (0.0, 0);
    shares.map(|share| {
        while place + 1 < values.len() && sum + (counts[place] as f64) < share * total as f64 {
            sum += counts[place] as f64;
            place += 1;
        }
        values.get(place).map_or(0.0, |value| *value as f64)
    })
}

fn rows(sides: &[Figures], between: impl Fn(&[f64], &[f64]) -> Option<Change>) -> Vec<Row> {
    let row = |(place, figure): (usize, &Figure)| {
        let cells = sides.iter().enumerate().map(|(side, figures)| {
            let baseline = (side > 0).then(|| sides[0][place].as_ref());
            Cell::of(figures[place].as_ref(), baseline, figure.more_is_better, &between)
        });
        Row {
            figure: figure.name.to_owned(),
            unit: figure.unit.to_owned(),
            more_is_better: figure.more_is_better,
            cells: cells.collect(),
        }
    };
    FIGURES.iter().enumerate().map(row).collect()
}

impl Cell {
    fn of(
        known: Option<&Known>,
        baseline: Option<Option<&Known>>,
        more_is_better: bool,
        between: impl Fn(&[f64], &[f64]) -> Option<Change>,
    ) -> Self {
        let (value, interval) = match known {
            None => (0.0, None),
            Some(Known::Runs(figures)) => (figures.iter().sum::<f64>() / figures.len() as f64, Interval::of(figures)),
            Some(Known::Drawn(value, drawn)) => {
                let interval = middle(&mut drawn.clone());
                (*value, interval.map(|(low, high)| Interval { mean: *value, low, high, count: drawn.len() }))
            }
        };
        let change = match (baseline.flatten(), known) {
            (Some(Known::Runs(before)), Some(Known::Runs(after))) => between(before, after),
            (Some(Known::Drawn(before, drawn_before)), Some(Known::Drawn(after, drawn))) => {
                change(*before, drawn_before, *after, drawn)
            }
            _ => None,
        };
        let verdict = match (baseline, &change) {
            (None, _) => Verdict::Baseline,
            (Some(_), None) => Verdict::Unknown,
            (Some(_), Some(change)) if !change.is_significant() => Verdict::NoneShown,
            (Some(_), Some(change)) if (change.change > 0.0) == more_is_better => Verdict::Better,
            (Some(_), Some(_)) => Verdict::Worse,
        };
        Self { value, interval, change, verdict }
    }
}

/// How two figures differ, given what each might have been.
fn change(before: f64, drawn_before: &[f64], after: f64, drawn_after: &[f64]) -> Option<Change> {
    let is_relative = before > 0.0 && drawn_before.iter().all(|before| *before > 0.0);
    let told = |before: f64, after: f64| if is_relative { after / before - 1.0 } else { after - before };
    let mut drawn: Vec<f64> =
        drawn_before.iter().zip(drawn_after).map(|(before, after)| told(*before, *after)).collect();
    let (low, high) = middle(&mut drawn)?;
    Some(Change { change: told(before, after), low, high, is_relative })
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
        short.batches.truncate(4);
        let comparison = Comparison::of(&[side("before", vec![short.clone()]), side("after", vec![short])]);
        assert_eq!(cell(&comparison, "latency, p50").verdict, Verdict::Unknown);
    }
}
