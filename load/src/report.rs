//! What came back: a report of one run as plain data, and the forms in which it is told.

mod charts;
mod compare;
mod folder;
mod html;
mod svg;
mod tally;
mod text;

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

pub use self::compare::{Cell, Comparison, Row, Side, Verdict};
pub use self::folder::{Calls, FolderError, read, write};
pub use self::html::{comparison_page, page};
pub use self::tally::{Progress, Tally};
pub use self::text::OlderFormat;

/// The version of this form; a report of another is not read.
const FORM: u32 = 1;

/// Everything that is told of one run. Times are in microseconds unless their name says otherwise; calls of the warm-up are
/// left out of all but [`Counts::warm_up`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form.
    pub form: u32,
    /// What it is called where runs are compared.
    pub label: String,
    /// When the run began, as people write it.
    pub began: String,
    /// How calls were made, in the words of the command line.
    pub settings: Vec<(String, String)>,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Whether it was stopped before its time.
    pub stopped_early: bool,
    /// How many calls came to what.
    pub calls: Counts,
    /// Calls due per second.
    pub offered_per_s: f64,
    /// Answers per second.
    pub answered_per_s: f64,
    /// From when a call was due to its answer.
    pub latency: Percentiles,
    /// The same of all calls that were made, failed ones included.
    pub latency_all: Percentiles,
    /// From when a call was made to its answer.
    pub service: Percentiles,
    /// How much later than due calls were made.
    pub start_delay: Percentiles,
    /// Where the time of answered calls went, in the order of their way.
    pub parts: Vec<Part>,
    /// Kinds of failures, the most frequent first.
    pub errors: Vec<ErrorCount>,
    /// By function, in the order in which they were named.
    pub functions: Vec<Group>,
    /// By computer, by name.
    pub computers: Vec<Group>,
    /// How it went over time.
    pub slices: Vec<Slice>,
    /// The same in few parts of about equal length, with all of their latency: what confidence intervals rest on.
    pub batches: Vec<Batch>,
    /// Shares of answers, and the latency that so many did not exceed.
    pub distribution: Vec<Point>,
    /// How many answers took how long.
    pub bins: Vec<Bin>,
    /// For timetables and phases with calls: the share of calls due that had no answer.
    pub loss: f64,
}

/// How many calls came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Due; the sum of the next five.
    pub due: u64,
    /// Answered.
    pub answered: u64,
    /// Ended with the function's own error.
    pub function_errors: u64,
    /// Ended with an error of the platform.
    pub failed: u64,
    /// Not made, since too many were under way.
    pub overflow: u64,
    /// Not made, since they had expired before their client was free.
    pub expired: u64,
    /// Made over a millisecond late.
    pub late_starts: u64,
    /// Due in the warm-up.
    pub warm_up: u64,
    /// Bytes sent.
    pub request_bytes: u64,
    /// Bytes of answers.
    pub answer_bytes: u64,
}

impl Counts {
    /// Calls that did not end with an answer.
    pub fn unanswered(&self) -> u64 {
        self.due - self.answered.min(self.due)
    }
}

/// A distribution of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub count: u64,
    pub min: u64,
    pub mean: f64,
    pub stdev: f64,
    pub p50: u64,
    pub p75: u64,
    pub p90: u64,
    pub p95: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub p99_99: u64,
    pub max: u64,
}

impl Percentiles {
    fn of<C: Counter>(histogram: &Histogram<C>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            stdev: histogram.stdev(),
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: histogram.max(),
        }
    }

    /// The percentiles under their names, in order.
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("p50", self.p50),
            ("p75", self.p75),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("p99.99", self.p99_99),
        ]
    }
}

/// One part of the way of calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Part {
    /// `client`, `network`, `broker`, `queue`, `init` or `run`.
    pub name: String,
    pub mean: f64,
    pub p50: u64,
    pub p99: u64,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// Who failed: `function`, `platform` or `client`.
    pub of: String,
    /// The kind of the function's error, the platform's reason, or what kept the client from making the call.
    pub kind: String,
    /// How many.
    pub count: u64,
}

/// Calls of one function, or at one computer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Whose.
    pub name: String,
    /// Calls made that somebody is known to have ended.
    pub calls: u64,
    /// Those among them with an answer.
    pub answered: u64,
    /// Their share of all answers.
    pub share: f64,
    /// From when a call was due to its answer.
    pub latency: Percentiles,
    /// In the function.
    pub run: Percentiles,
    /// Mean percent of the computer in use, as its replies told; 0 for a function.
    pub load: f64,
}

/// Calls that were due in one part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// When it began, from the end of the warm-up.
    pub begins_s: f64,
    /// How long it was.
    pub seconds: f64,
    /// Calls due.
    pub due: u64,
    /// Answers.
    pub answered: u64,
    /// From when a call was due to its answer.
    pub latency: Percentiles,
}

/// One part of the run with all of its latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// How long it was.
    pub seconds: f64,
    /// Calls due.
    pub due: u64,
    /// Answers, by how long they took; to two digits.
    pub latency: Vec<Bin>,
}

/// A share of calls, and the time that so many did not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// From 0 to 1.
    pub quantile: f64,
    /// Microseconds.
    pub us: u64,
}

/// Answers that took up to so long, and longer than those of the bin before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bin {
    /// The longest of them, in microseconds.
    pub upto_us: u64,
    /// How many.
    pub count: u64,
}
