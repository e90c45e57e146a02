//! From samples, one by one, to a report, in bounded memory however long the run.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use nigh_proto::time::us;
use nigh_proto::{FunctionName, Timing};

use super::{Batch, Bin, Counts, ErrorCount, FORM, Group, Part, Percentiles, Point, Report, Slice};
use crate::sample::{Ending, Facts, Sample};

/// Digits that the histograms of the whole run keep exactly.
const DIGITS: u8 = 3;
/// The same of parts, of which there are many.
const DIGITS_OF_PARTS: u8 = 2;
/// Slices of time kept, at most; where there are more, two become one each.
const SLICES_MAX: usize = 600;
/// The length of slices to begin with.
const SLICE: Duration = Duration::from_millis(100);
/// Slices that a report tells of, at least, if there are as many.
const SLICES_TOLD_MIN: usize = 20;
/// The same, at most.
const SLICES_TOLD_MAX: usize = 120;
/// Answers in each on average, where there are more than a few slices.
const ANSWERS_OF_SLICE_MIN: u64 = 100;
/// Batches that confidence intervals rest on, at most.
const BATCHES_MAX: usize = 20;
/// Computers told apart, at most; further ones are `other`. The same for kinds of errors.
const GROUPS_MAX: usize = 1000;
/// Bytes of a kind of error, at most.
const KIND_BYTES_MAX: usize = 64;
/// A call that was made later than this was late.
const LATE: Duration = Duration::from_millis(1);
/// The longest time told apart.
const TIME_MAX_US: u64 = 24 * 3600 * 1_000_000;
const PARTS: [&str; 6] = ["client", "network", "broker", "queue", "init", "run"];

/// How a run goes, for those who watch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Calls that have ended or were not made, those of the warm-up included.
    pub ended: u64,
    /// Those without an answer among them.
    pub unanswered: u64,
    /// Answers since the last look.
    pub answered_lately: u64,
    /// The median of those, in microseconds.
    pub p50: u64,
    /// Their 99th percentile.
    pub p99: u64,
}

/// Takes samples in.
#[derive(Debug)]
pub struct Tally {
    warm_up: Duration,
    counts: Counts,
    latency: Histogram<u64>,
    latency_all: Histogram<u64>,
    service: Histogram<u64>,
    start_delay: Histogram<u64>,
    parts: [Histogram<u32>; 6],
    parts_sum_us: [u64; 6],
    errors: BTreeMap<(&'static str, String), u64>,
    functions: Vec<Grouped>,
    computers: BTreeMap<String, Grouped>,
    slices: Slices,
    /// When the last call ended.
    last_ended: Duration,
    progress: Progress,
    recent: Histogram<u32>,
}

#[derive(Debug)]
struct Grouped {
    name: String,
    calls: u64,
    answered: u64,
    latency: Histogram<u32>,
    run: Histogram<u32>,
    load_sum: u64,
}

fn histogram<C: hdrhistogram::Counter>(digits: u8) -> Histogram<C> {
    Histogram::new(digits).expect("one to five digits make a histogram")
}

/// Counts a time in; one of over a day counts as a day.
fn put<C: hdrhistogram::Counter>(histogram: &mut Histogram<C>, us: u64) {
    // Histograms grow to whatever comes, up to that limit.
    let _ = histogram.record(us.min(TIME_MAX_US));
}

impl Grouped {
    fn new(name: &str) -> Self {
        let (latency, run) = (histogram(DIGITS_OF_PARTS), histogram(DIGITS_OF_PARTS));
        Self { name: name.to_owned(), calls: 0, answered: 0, latency, run, load_sum: 0 }
    }

    fn answer(&mut self, latency: u64, facts: &Facts) {
        self.answered += 1;
        put(&mut self.latency, latency);
        put(&mut self.run, us(facts.timing.run));
        self.load_sum += u64::from(facts.load1);
    }

    fn told(&self, answered: u64, with_load: bool) -> Group {
        Group {
            name: self.name.clone(),
            calls: self.calls,
            answered: self.answered,
            share: ratio(self.answered, answered),
            latency: Percentiles::of(&self.latency),
            run: Percentiles::of(&self.run),
            load: if with_load { ratio(self.load_sum, self.answered) } else { 0.0 },
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Tally {
    /// For calls of these functions, those due before `warm_up` left out.
    pub fn new(functions: &[FunctionName], warm_up: Duration) -> Self {
        Self {
            warm_up,
            counts: Counts::default(),
            latency: histogram(DIGITS),
            latency_all: histogram(DIGITS),
            service: histogram(DIGITS),
            start_delay: histogram(DIGITS),
            parts: std::array::from_fn(|_| histogram(DIGITS_OF_PARTS)),
            parts_sum_us: [0; 6],
            errors: BTreeMap::new(),
            functions: functions.iter().map(|name| Grouped::new(name.as_str())).collect(),
            computers: BTreeMap::new(),
            slices: Slices { length: SLICE, slices: Vec::new() },
            last_ended: Duration::ZERO,
            progress: Progress::default(),
            recent: histogram(DIGITS_OF_PARTS),
        }
    }

    /// Takes one sample in.
    pub fn record(&mut self, sample: &Sample) {
        let latency = us(sample.latency());
        self.progress.ended += 1;
        match sample.ending {
            Ending::Answered(_) => {
                self.progress.answered_lately += 1;
                put(&mut self.recent, latency);
            }
            Ending::FunctionError(..) | Ending::Failed(_) | Ending::Overflow | Ending::Expired => {
                self.progress.unanswered += 1;
            }
        }
        let Some(due) = sample.due.checked_sub(self.warm_up) else {
            self.counts.warm_up += 1;
            return;
        };
        self.counts.due += 1;
        self.last_ended = self.last_ended.max(sample.ended);
        if sample.was_made() {
            self.counts.request_bytes += sample.request_bytes as u64;
            self.counts.late_starts += u64::from(sample.start_delay() > LATE);
            put(&mut self.start_delay, us(sample.start_delay()));
            put(&mut self.latency_all, latency);
        }
        let slice = self.slices.at(due);
        slice.due += 1;
        if let Ending::Answered(facts) = &sample.ending {
            slice.answered += 1;
            put(&mut slice.latency, latency);
            self.answer(sample, facts);
        } else {
            self.failure(sample);
        }
    }

    fn answer(&mut self, sample: &Sample, facts: &Facts) {
        let latency = us(sample.latency());
        self.counts.answered += 1;
        self.counts.answer_bytes += facts.answer_bytes as u64;
        put(&mut self.latency, latency);
        put(&mut self.service, us(sample.service()));
        let Timing { network, broker, queue, init, run, .. } = facts.timing;
        let times = [sample.start_delay(), network, broker, queue, init, run].map(us);
        for ((part, sum), time) in self.parts.iter_mut().zip(&mut self.parts_sum_us).zip(times) {
            put(part, time);
            *sum = sum.saturating_add(time);
        }
        if let Some(function) = self.function(sample) {
            function.calls += 1;
            function.answer(latency, facts);
        }
        let computer = self.computer(facts);
        computer.calls += 1;
        computer.answer(latency, facts);
    }

    fn failure(&mut self, sample: &Sample) {
        let counts = &mut self.counts;
        let (count, of, kind) = match &sample.ending {
            Ending::FunctionError(kind, _) => (&mut counts.function_errors, "function", kind.as_str()),
            Ending::Failed(reason) => (&mut counts.failed, "platform", reason.word()),
            Ending::Overflow => (&mut counts.overflow, "client", "too-many-in-flight"),
            Ending::Expired | Ending::Answered(_) => (&mut counts.expired, "client", "expired"),
        };
        *count += 1;
        // Kinds come from functions, which may say anything.
        let kind: String =
            kind.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(KIND_BYTES_MAX).collect();
        let key = (of, kind);
        let key =
            if self.errors.len() < GROUPS_MAX || self.errors.contains_key(&key) { key } else { (of, "other".into()) };
        *self.errors.entry(key).or_default() += 1;
        if !sample.was_made() {
            return;
        }
        if let Some(function) = self.function(sample) {
            function.calls += 1;
        }
        if let Ending::FunctionError(_, facts) = &sample.ending {
            self.computer(facts).calls += 1;
        }
    }

    fn function(&mut self, sample: &Sample) -> Option<&mut Grouped> {
        self.functions.get_mut(usize::try_from(sample.function).ok()?)
    }

    fn computer(&mut self, facts: &Facts) -> &mut Grouped {
        let name = facts.computer.as_str();
        let is_known = self.computers.contains_key(name);
        let name = if is_known || self.computers.len() < GROUPS_MAX { name } else { "other" };
        // Names are looked up with each call, and made once.
        if !self.computers.contains_key(name) {
            self.computers.insert(name.to_owned(), Grouped::new(name));
        }
        self.computers.get_mut(name).expect("it was there, or was put there just now")
    }

    /// How it goes; what happened lately is from the last time that this was asked.
    pub fn progress(&mut self) -> Progress {
        let mut progress = self.progress;
        progress.p50 = self.recent.value_at_quantile(0.5);
        progress.p99 = self.recent.value_at_quantile(0.99);
        self.recent.reset();
        self.progress.answered_lately = 0;
        progress
    }

    /// The report of a run that was to go on until `horizon`, if there was such a time, and what the command line said. The
    /// slices of time with their histograms come with it.
    pub fn report(
        self,
        label: String,
        began: String,
        settings: Vec<(String, String)>,
        horizon: Option<Duration>,
        stopped_early: bool,
    ) -> (Report, Slices) {
        let Self { warm_up, counts, .. } = self;
        let measured = horizon.unwrap_or(self.last_ended).saturating_sub(warm_up);
        let seconds = measured.as_secs_f64();
        let per_s = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let mut errors: Vec<_> = self
            .errors
            .iter()
            .map(|((of, kind), count)| ErrorCount { of: (*of).to_owned(), kind: kind.clone(), count: *count })
            .collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        let part = |((name, part), sum): ((&&str, &Histogram<u32>), &u64)| Part {
            name: (*name).to_owned(),
            mean: ratio(*sum, counts.answered),
            p50: part.value_at_quantile(0.5),
            p99: part.value_at_quantile(0.99),
        };
        let slices = self.slices;
        let report = Report {
            form: FORM,
            label,
            began,
            settings,
            seconds,
            stopped_early,
            calls: counts,
            offered_per_s: per_s(counts.due),
            answered_per_s: per_s(counts.answered),
            latency: Percentiles::of(&self.latency),
            latency_all: Percentiles::of(&self.latency_all),
            service: Percentiles::of(&self.service),
            start_delay: Percentiles::of(&self.start_delay),
            parts: PARTS.iter().zip(&self.parts).zip(&self.parts_sum_us).map(part).collect(),
            errors,
            functions: self.functions.iter().map(|function| function.told(counts.answered, false)).collect(),
            computers: self.computers.values().map(|computer| computer.told(counts.answered, true)).collect(),
            slices: slices.told(parts(counts.answered), measured),
            batches: slices.batches(measured),
            distribution: distribution(&self.latency),
            bins: bins(&self.latency),
            loss: ratio(counts.unanswered(), counts.due),
        };
        (report, slices)
    }
}

/// Calls by when they were due.
#[derive(Debug)]
pub struct Slices {
    length: Duration,
    slices: Vec<Sliced>,
}

#[derive(Debug, Clone)]
struct Sliced {
    due: u64,
    answered: u64,
    latency: Histogram<u32>,
}

impl Sliced {
    fn new() -> Self {
        Self { due: 0, answered: 0, latency: histogram(DIGITS_OF_PARTS) }
    }

    fn absorb(&mut self, other: &Self) {
        self.due += other.due;
        self.answered += other.answered;
        // Both grow as they must, so that one can always take the other in.
        let _ = self.latency.add(&other.latency);
    }
}

impl Slices {
    fn at(&mut self, due: Duration) -> &mut Sliced {
        let place = |length: Duration| usize::try_from(due.as_nanos() / length.as_nanos()).unwrap_or(usize::MAX);
        while place(self.length) >= SLICES_MAX {
            let halves = std::mem::take(&mut self.slices);
            self.slices = halves.chunks(2).map(merged).collect();
            self.length *= 2;
        }
        let place = place(self.length);
        if self.slices.len() <= place {
            self.slices.resize_with(place + 1, Sliced::new);
        }
        &mut self.slices[place]
    }

    /// Each slice with its beginning and its length.
    pub(super) fn histograms(&self) -> impl Iterator<Item = (Duration, Duration, &Histogram<u32>)> {
        let begins = (0_u32..).map(|place| self.length * place);
        begins.zip(&self.slices).map(|(begins, slice)| (begins, self.length, &slice.latency))
    }

    /// In up to so many parts of about equal length, which end where what was measured ends: each with its beginning and its
    /// length in seconds.
    fn parts(&self, parts: usize, measured: Duration) -> impl Iterator<Item = (f64, f64, Sliced)> {
        let length = self.length.as_secs_f64();
        let slices = self.slices.len();
        let parts = parts.min(slices);
        (0..parts).map(move |part| {
            let (from, to) = (part * slices / parts, (part + 1) * slices / parts);
            let begins = from as f64 * length;
            let ends = if part + 1 == parts { measured.as_secs_f64().max(begins) } else { to as f64 * length };
            (rounded(begins), rounded(ends - begins), merged(&self.slices[from..to]))
        })
    }

    fn told(&self, parts: usize, measured: Duration) -> Vec<Slice> {
        let slice = |(begins_s, seconds, slice): (f64, f64, Sliced)| Slice {
            begins_s,
            seconds,
            due: slice.due,
            answered: slice.answered,
            latency: Percentiles::of(&slice.latency),
        };
        self.parts(parts, measured).map(slice).collect()
    }

    fn batches(&self, measured: Duration) -> Vec<Batch> {
        let bin = |value: hdrhistogram::iterators::IterationValue<u32>| Bin {
            upto_us: value.value_iterated_to(),
            count: value.count_at_value().into(),
        };
        let batch = |(_, seconds, slice): (f64, f64, Sliced)| Batch {
            seconds,
            due: slice.due,
            latency: slice.latency.iter_recorded().map(bin).collect(),
        };
        self.parts(BATCHES_MAX, measured).map(batch).collect()
    }
}

/// Parts of a run that are told of, given its answers: few enough that percentiles of each say something.
fn parts(answered: u64) -> usize {
    usize::try_from(answered / ANSWERS_OF_SLICE_MIN).unwrap_or(usize::MAX).clamp(SLICES_TOLD_MIN, SLICES_TOLD_MAX)
}

/// To microseconds, for those who read it.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn merged(slices: &[Sliced]) -> Sliced {
    let mut whole = Sliced::new();
    for slice in slices {
        whole.absorb(slice);
    }
    whole
}

/// As a curve of few points, which lie the closer the rarer the latencies.
fn distribution(latency: &Histogram<u64>) -> Vec<Point> {
    latency
        .iter_quantiles(5)
        .map(|point| Point { quantile: point.quantile_iterated_to(), us: point.value_iterated_to() })
        .collect()
}

/// In bins whose bounds grow by a tenth.
fn bins(latency: &Histogram<u64>) -> Vec<Bin> {
    let mut bins: Vec<Bin> = Vec::new();
    for value in latency.iter_recorded() {
        let (us, count) = (value.value_iterated_to(), value.count_at_value());
        match bins.last_mut() {
            Some(bin) if us <= bin.upto_us => bin.count += count,
            _ => bins.push(Bin { upto_us: upper_bound(us), count }),
        }
    }
    bins
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bound is over zero and far from the largest"
)]
fn upper_bound(us: u64) -> u64 {
    let step = (us.max(1) as f64).log(1.1).ceil();
    (1.1_f64.powf(step).ceil() as u64).max(us)
}
