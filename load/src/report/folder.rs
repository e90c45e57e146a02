//! A run as a folder of files: every call, the figures, the raw histogram, a page to look at.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError};
use nigh_proto::FunctionName;

use super::tally::Slices;
use super::text::OlderFormat;
use super::{FORM, Group, Report, html};
use crate::sample::{Ending, Sample};

/// The file that a report is read from.
const REPORT: &str = "report.json";
/// Bytes of a report, at most.
const REPORT_BYTES_MAX: u64 = 64 << 20;
/// Lines of calls in one folder, at most.
const LINES_MAX: u64 = 50_000_000;

/// Why a run's folder could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A report cannot be read.
    #[error("cannot read {}: {error}; is this a folder that `nigh load --out` wrote?", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is no report.
    #[error("{} is no report of this release ({why}); measure again with `nigh load --out`", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is a run in it already.
    #[error("{} holds a run already; choose another folder, or say --overwrite", .0.display())]
    Taken(PathBuf),
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |error| FolderError::Write { path, error }
}

/// Every call as it ends: as `calls.csv` and, in the form of an older client, as `calls.txt` or to any other writer.
pub struct Calls {
    functions: Vec<FunctionName>,
    csv: Option<Box<dyn Write + Send>>,
    lines: Vec<Box<dyn Write + Send>>,
    format: OlderFormat,
    /// Added to the times of lines.
    offset: Duration,
    written: u64,
    failure: Option<io::Error>,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("format", &self.format).field("written", &self.written).finish_non_exhaustive()
    }
}

const CSV_HEAD: &str = "client,function,due_s,sent_s,ended_s,latency_us,service_us,outcome,computer,responder,hops,load1,\
                        network_us,broker_us,queue_us,init_us,run_us,request_bytes,answer_bytes\n";

impl Calls {
    /// Of calls of these functions; writes nothing yet.
    pub fn new(functions: &[FunctionName], format: OlderFormat, offset: Duration) -> Self {
        let functions = functions.to_vec();
        Self { functions, csv: None, lines: Vec::new(), format, offset, written: 0, failure: None }
    }

    /// Also writes the lines here.
    #[must_use]
    pub fn lines_to(mut self, to: impl Write + Send + 'static) -> Self {
        self.lines.push(Box::new(to));
        self
    }

    /// Also writes `calls.csv` and `calls.txt` into a folder, which is made where it is missing; with `append`, `calls.txt`
    /// goes on where another run ended.
    ///
    /// # Errors
    /// [`FolderError::Taken`] where there is a run already and it is neither to be gone on with nor to be overwritten.
    pub fn in_folder(mut self, folder: &Path, append: bool, overwrite: bool) -> Result<Self, FolderError> {
        if folder.join(REPORT).exists() && !append && !overwrite {
            return Err(FolderError::Taken(folder.to_owned()));
        }
        fs::create_dir_all(folder).map_err(writing(folder))?;
        let path = folder.join("calls.csv");
        let mut csv = BufWriter::new(File::create(&path).map_err(writing(&path))?);
        csv.write_all(CSV_HEAD.as_bytes()).map_err(writing(&path))?;
        self.csv = Some(Box::new(csv));
        let path = folder.join("calls.txt");
        let mut options = fs::OpenOptions::new();
        options.create(true).write(true).append(append).truncate(!append);
        self.lines.push(Box::new(BufWriter::new(options.open(&path).map_err(writing(&path))?)));
        Ok(self)
    }

    /// Writes one call. After a failure, such as a full disk, nothing more is written; the run goes on.
    pub fn write(&mut self, sample: &Sample) {
        if self.failure.is_some() {
            return;
        }
        self.written += 1;
        if self.written > LINES_MAX {
            self.failure =
                Some(io::Error::other(format!("over {LINES_MAX} calls; later ones are in the figures only")));
        } else if let Err(error) = self.try_write(sample) {
            self.failure = Some(error);
        }
    }

    fn try_write(&mut self, sample: &Sample) -> io::Result<()> {
        if let Some(csv) = &mut self.csv {
            write_csv(csv, sample, &self.functions)?;
        }
        for lines in &mut self.lines {
            self.format.write(lines, sample, &self.functions, self.offset)?;
        }
        Ok(())
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// Why calls could not be written, from that one on.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.csv.iter_mut().chain(&mut self.lines).try_for_each(Write::flush)
    }
}

fn write_csv(mut to: impl Write, sample: &Sample, functions: &[FunctionName]) -> io::Result<()> {
    let function = usize::try_from(sample.function).ok().and_then(|place| functions.get(place));
    let (due, sent, ended) = (sample.due.as_secs_f64(), sample.sent.as_secs_f64(), sample.ended.as_secs_f64());
    let (latency, service) = (sample.latency().as_micros(), sample.service().as_micros());
    let name = function.map_or("", FunctionName::as_str);
    write!(to, "{},{name},{due:.6},{sent:.6},{ended:.6},{latency},{service},", sample.client)?;
    let (outcome, facts) = match &sample.ending {
        Ending::Answered(facts) => ("answer", Some(facts)),
        Ending::FunctionError(kind, facts) => (kind.as_str(), Some(facts)),
        Ending::Failed(reason) => (reason.word(), None),
        Ending::Overflow => ("too-many-in-flight", None),
        Ending::Expired => ("expired", None),
    };
    write_field(&mut to, outcome)?;
    match facts {
        Some(facts) => {
            let responder = facts.responder.as_ref().map_or("", |endpoint| endpoint.as_str());
            let times =
                [facts.timing.network, facts.timing.broker, facts.timing.queue, facts.timing.init, facts.timing.run];
            write!(to, ",{},{responder},{},{}", facts.computer, facts.hops, facts.load1)?;
            for time in times {
                write!(to, ",{}", time.as_micros())?;
            }
            writeln!(to, ",{},{}", sample.request_bytes, facts.answer_bytes)
        }
        None => writeln!(to, ",,,,,,,,,,{},", sample.request_bytes),
    }
}

/// A field that a function chose: nothing in it can end the field, or begin a formula.
fn write_field(to: &mut impl Write, text: &str) -> io::Result<()> {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ' | ':');
    let text: String = text.chars().filter(plain).take(64).collect();
    to.write_all(text.trim_start_matches('-').as_bytes())
}

/// Writes everything but the single calls: `report.json`, `report.html`, `latency.hlog`, `slices.csv`, `functions.csv`,
/// `computers.csv`, `distribution.csv`, `loss.txt`.
///
/// # Errors
/// [`FolderError::Write`].
pub fn write(folder: &Path, report: &Report, slices: &Slices, began: SystemTime) -> Result<(), FolderError> {
    fs::create_dir_all(folder).map_err(writing(folder))?;
    let json = serde_json::to_string_pretty(report).map_err(io::Error::from);
    let path = folder.join(REPORT);
    json.and_then(|json| fs::write(&path, json + "\n")).map_err(writing(&path))?;
    let path = folder.join("latency.hlog");
    histogram_log(slices, began).and_then(|log| fs::write(&path, log)).map_err(writing(&path))?;
    let texts = [
        ("report.html", html::page(report)),
        ("slices.csv", slices_csv(report)),
        ("functions.csv", groups_csv("function", &report.functions)),
        ("computers.csv", groups_csv("computer", &report.computers)),
        ("distribution.csv", distribution_csv(report)),
        ("loss.txt", format!("{:.6}\n", report.loss)),
    ];
    for (name, text) in texts {
        let path = folder.join(name);
        fs::write(&path, text).map_err(writing(&path))?;
    }
    Ok(())
}

/// The slices as an interval log of HdrHistogram, which its tools read: latency in microseconds, told in milliseconds.
fn histogram_log(slices: &Slices, began: SystemTime) -> io::Result<Vec<u8>> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("Latency from when each call was due, in microseconds; maxima in milliseconds.")
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1000.0);
    let mut writer = builder.begin_log_with(&mut log, &mut serializer)?;
    for (begins, length, histogram) in slices.histograms() {
        writer.write_histogram(histogram, begins, length, None).map_err(|error| match error {
            IntervalLogWriterError::IoError(error) => error,
            IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
        })?;
    }
    Ok(log)
}

fn slices_csv(report: &Report) -> String {
    let mut csv = "begins_s,seconds,due,answered,mean_us,p50_us,p90_us,p99_us,max_us\n".to_owned();
    for slice in &report.slices {
        let latency = &slice.latency;
        // Writing to a string cannot fail.
        let _ = writeln!(
            csv,
            "{:.3},{:.3},{},{},{:.1},{},{},{},{}",
            slice.begins_s,
            slice.seconds,
            slice.due,
            slice.answered,
            latency.mean,
            latency.p50,
            latency.p90,
            latency.p99,
            latency.max
        );
    }
    csv
}

fn groups_csv(of: &str, groups: &[Group]) -> String {
    let mut csv =
        format!("{of},calls,answered,share,mean_us,p50_us,p90_us,p99_us,p99.9_us,max_us,run_p50_us,run_p99_us,load\n");
    for group in groups {
        let (latency, run) = (&group.latency, &group.run);
        let _ = writeln!(
            csv,
            "{},{},{},{:.6},{:.1},{},{},{},{},{},{},{},{:.1}",
            group.name,
            group.calls,
            group.answered,
            group.share,
            latency.mean,
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p99_9,
            latency.max,
            run.p50,
            run.p99,
            group.load
        );
    }
    csv
}

fn distribution_csv(report: &Report) -> String {
    let points = report.distribution.iter().map(|point| format!("{:.9},{}\n", point.quantile, point.us));
    "quantile,latency_us\n".to_owned() + &points.collect::<String>()
}

/// Reads a report from the folder of its run, or from the file itself.
///
/// # Errors
/// [`FolderError`].
pub fn read(path: &Path) -> Result<Report, FolderError> {
    let path = if path.is_dir() { path.join(REPORT) } else { path.to_owned() };
    let reading = |error| FolderError::Read { path: path.clone(), error };
    let foreign = |why: String| FolderError::Foreign { path: path.clone(), why };
    let mut text = String::new();
    let read = File::open(&path).map_err(reading)?.take(REPORT_BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 > REPORT_BYTES_MAX => return Err(foreign(format!("over {REPORT_BYTES_MAX} bytes"))),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(foreign("not text".to_owned())),
        Err(error) => return Err(reading(error)),
    }
    let report: Report = serde_json::from_str(&text).map_err(|error| foreign(error.to_string()))?;
    if report.form == FORM { Ok(report) } else { Err(foreign(format!("form {}, expected {FORM}", report.form))) }
}
