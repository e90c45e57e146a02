//! A report for people: counts, percentiles, where the time went, who did the work.

use std::fmt::{self, Write as _};
use std::time::Duration;

use nigh_load::report::{Group, Percentiles, Progress, Report};

use crate::output::{Column, Table};

/// Width of the longest bar.
const BAR_WIDTH: usize = 24;
/// Rows of a table, at most; the files have all of them.
const ROWS_MAX: usize = 20;

/// A report as text.
pub(crate) struct ForPeople<'a>(pub(crate) &'a Report);

impl fmt::Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        for (name, value) in &report.settings {
            writeln!(f, "  {name:<12}{value}")?;
        }
        writeln!(
            f,
            "  {:<12}{:.1} s{}",
            "measured",
            report.seconds,
            if report.stopped_early { ", stopped early" } else { "" }
        )?;
        let calls = &report.calls;
        write!(f, "  {:<12}{} due, {} answered", "calls", calls.due, calls.answered)?;
        for (count, what) in [
            (calls.function_errors, "failed in the function"),
            (calls.failed, "failed on the platform"),
            (calls.overflow, "not made: too many in flight"),
            (calls.expired, "not made: expired"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        writeln!(f, "\n  {:<12}{:.1}/s due, {:.1}/s answered", "rate", report.offered_per_s, report.answered_per_s)?;
        writeln!(f, "\n{}", latencies(report))?;
        parts(f, report)?;
        if report.functions.len() > 1 {
            write!(f, "\n{}", groups("FUNCTION", &report.functions))?;
        }
        if !report.computers.is_empty() {
            write!(f, "\n{}", groups("COMPUTER", &report.computers))?;
        }
        if !report.errors.is_empty() {
            let mut table = Table::new([Column::words("ERROR"), Column::words("OF"), Column::numbers("CALLS")]);
            for error in report.errors.iter().take(ROWS_MAX) {
                table.row([error.kind.clone(), error.of.clone(), error.count.to_string()]);
            }
            write!(f, "\n{table}")?;
        }
        remarks(f, report)
    }
}

fn latencies(report: &Report) -> Table<9> {
    let numbers = Column::numbers;
    let mut table = Table::new([
        Column::words("TIME"),
        numbers("CALLS"),
        numbers("MEAN"),
        numbers("P50"),
        numbers("P90"),
        numbers("P99"),
        numbers("P99.9"),
        numbers("P99.99"),
        numbers("MAX"),
    ]);
    let mut row = |name: &str, times: &Percentiles| {
        let [mean, p50, p90, p99, p99_9, p99_99, max] = [
            times.mean,
            times.p50 as f64,
            times.p90 as f64,
            times.p99 as f64,
            times.p99_9 as f64,
            times.p99_99 as f64,
            times.max as f64,
        ]
        .map(time);
        table.row([name.to_owned(), times.count.to_string(), mean, p50, p90, p99, p99_9, p99_99, max]);
    };
    row("latency", &report.latency);
    if report.latency_all.count > report.latency.count {
        row("latency, failed calls included", &report.latency_all);
    }
    row("service time", &report.service);
    table
}

fn parts(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let total: f64 = report.parts.iter().map(|part| part.mean).sum();
    if total <= 0.0 {
        return Ok(());
    }
    let mut table = Table::new([
        Column::words("WHERE IT WENT"),
        Column::numbers("MEAN"),
        Column::numbers("P50"),
        Column::numbers("P99"),
        Column::words("SHARE"),
    ]);
    for part in &report.parts {
        let [mean, p50, p99] = [part.mean, part.p50 as f64, part.p99 as f64].map(time);
        table.row([part.name.clone(), mean, p50, p99, bar(part.mean / total)]);
    }
    write!(f, "{table}")
}

fn groups(title: &'static str, groups: &[Group]) -> Table<8> {
    let numbers = Column::numbers;
    let mut table = Table::new([
        Column::words(title),
        numbers("CALLS"),
        numbers("ANSWERED"),
        numbers("P50"),
        numbers("P99"),
        numbers("RUN P50"),
        numbers("LOAD"),
        Column::words("SHARE"),
    ]);
    for group in groups.iter().take(ROWS_MAX) {
        let [p50, p99, run] = [group.latency.p50, group.latency.p99, group.run.p50].map(|us| time(us as f64));
        let load = if group.load > 0.0 { format!("{:.0} %", group.load) } else { String::new() };
        let (calls, answered) = (group.calls.to_string(), group.answered.to_string());
        table.row([group.name.clone(), calls, answered, p50, p99, run, load, bar(group.share)]);
    }
    table
}

/// What should be known before the figures are believed.
fn remarks(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let calls = &report.calls;
    if calls.overflow > 0 {
        let count = calls.overflow;
        writeln!(
            f,
            "\n{count} calls were not made since too many were under way: what was offered is more than is answered."
        )?;
    }
    if report.start_delay.p99 > 2000 && calls.late_starts > 0 {
        let delay = time(report.start_delay.p99 as f64);
        writeln!(
            f,
            "\nThis client was late: one call in a hundred began {delay} or more after it was due. It waited for answers \
             (--serial), or is short of processor time; latency includes it as the part `client`."
        )?;
    }
    Ok(())
}

/// A share as a bar and a number.
fn bar(share: f64) -> String {
    let full = usize::try_from(per_mille(share)).unwrap_or_default() * BAR_WIDTH / 1000;
    let mut bar = "█".repeat(full);
    // Writing to a string cannot fail.
    let _ = write!(bar, "{}{:.1} %", if full > 0 { " " } else { "" }, 100.0 * share);
    bar
}

/// Microseconds in the unit that fits.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} µs"),
        us if us < 100_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 10_000_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.1} s", us / 1e6),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made to fit")]
pub(super) fn per_mille(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * 1000.0) as u64
}

/// How it goes, in one line: progress since the last look, and the time between looks.
pub(super) struct Line(pub(super) Progress, pub(super) Duration);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(progress, since) = self;
        let rate = progress.answered_lately as f64 / since.as_secs_f64();
        write!(f, "{} calls, {rate:.0}/s", progress.ended)?;
        if progress.answered_lately > 0 {
            write!(f, ", p50 {}, p99 {}", time(progress.p50 as f64), time(progress.p99 as f64))?;
        }
        if progress.unanswered > 0 {
            write!(f, ", {} not answered", progress.unanswered)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        let told = [0.0, 999.0, 1500.0, 99_990.0, 250_000.0, 12_345_678.0].map(time);
        assert_eq!(told, ["0 µs", "999 µs", "1.50 ms", "99.99 ms", "250 ms", "12.3 s"]);
    }

    #[test]
    fn progress_says_what_matters() {
        let progress = Progress { ended: 120, unanswered: 3, answered_lately: 50, p50: 900, p99: 4000 };
        let line = Line(progress, Duration::from_millis(500)).to_string();
        assert_eq!(line, "120 calls, 100/s, p50 900 µs, p99 4.00 ms, 3 not answered");
        assert_eq!(Line(Progress::default(), Duration::from_secs(1)).to_string(), "0 calls, 0/s");
    }
}
