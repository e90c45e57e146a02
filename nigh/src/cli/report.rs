//! `nigh report`: runs of `nigh load`, one by itself or several beside each other.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;
use nigh_load::report::{self, Cell, Comparison, Row, Side, Verdict};

use super::load::{ForPeople, time};
use crate::output::{Column, Output, Table};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh report run-1                              what came of it, once more
  nigh report before after                       how the second differs from the first
  nigh report old=a1,a2,a3 new=b1,b2,b3 --html comparison.html    runs that repeat each other

Every figure comes with its 95 % confidence interval: by Student's t over runs where each side has two or more, else by
bootstrap over consecutive batches of each run. A change whose interval holds zero is told as `no difference shown`.")]
pub(super) struct ReportCommand {
    /// Folders that `nigh load --out` wrote; runs that repeat each other are joined by commas
    #[arg(value_name = "[LABEL=]RUN[,RUN…]", required = true)]
    sides: Vec<SideOption>,
    /// Write a page to look at
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
}

/// Runs of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SideOption {
    label: Option<String>,
    runs: Vec<PathBuf>,
}

impl FromStr for SideOption {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let (label, runs) = match given.split_once('=') {
            // A folder of such a name is meant as it is.
            Some(_) if PathBuf::from(given).exists() => (None, given),
            Some((label, runs)) => (Some(label.to_owned()), runs),
            None => (None, given),
        };
        let runs: Vec<PathBuf> = runs.split(',').filter(|run| !run.is_empty()).map(PathBuf::from).collect();
        if runs.is_empty() {
            Err("name a folder that `nigh load --out` wrote".to_owned())
        } else {
            Ok(Self { label, runs })
        }
    }
}

impl SideOption {
    fn read(&self) -> anyhow::Result<Side> {
        let reports = self.runs.iter().map(|run| report::read(run)).collect::<Result<Vec<_>, _>>()?;
        let label = self.label.clone().or_else(|| reports.first().map(|report| report.label.clone()));
        Ok(Side { label: label.unwrap_or_default(), reports })
    }
}

impl ReportCommand {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let sides = self.sides.iter().map(SideOption::read).collect::<anyhow::Result<Vec<_>>>()?;
        let alone = match sides.as_slice() {
            [Side { reports, .. }] => match reports.as_slice() {
                [report] => Some(report),
                _ => None,
            },
            _ => None,
        };
        let comparison = Comparison::of(&sides);
        if let Some(path) = &self.html {
            let page = alone.map_or_else(|| report::comparison_page(&comparison, &sides), report::page);
            std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
        }
        match alone {
            Some(report) => output.result(report, |_| ForPeople(report))?,
            None => output.result(&comparison, |_| Beside(&comparison))?,
        }
        Ok(())
    }
}

/// A comparison as text: for each figure a row of each side.
struct Beside<'a>(&'a Comparison);

impl fmt::Display for Beside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(comparison) = self;
        let mut table = Table::new([
            Column::words("FIGURE"),
            Column::words("RUN"),
            Column::numbers("VALUE"),
            Column::words("95 % INTERVAL"),
            Column::numbers("CHANGE"),
            Column::words("95 % INTERVAL"),
            Column::words("VERDICT"),
        ]);
        for row in &comparison.rows {
            for (place, (side, cell)) in comparison.sides.iter().zip(&row.cells).enumerate() {
                let figure = if place == 0 { row.figure.clone() } else { String::new() };
                let interval = cell.interval.map(|interval| (value(row, interval.low), value(row, interval.high)));
                let change = cell.change.map(|change| told(&change, change.change)).unwrap_or_default();
                table.row([
                    figure,
                    side.clone(),
                    value(row, cell.value),
                    interval.map(|(low, high)| format!("{low} … {high}")).unwrap_or_default(),
                    change,
                    change_interval(cell),
                    if cell.verdict == Verdict::Baseline { String::new() } else { cell.verdict.as_str().to_owned() },
                ]);
            }
        }
        write!(f, "{table}\n{}.", comparison.method)
    }
}

fn value(row: &Row, value: f64) -> String {
    match row.unit.as_str() {
        "µs" => time(value.max(0.0)),
        "%" => format!("{value:.2} %"),
        _ => format!("{value:.1}"),
    }
}

fn change_interval(cell: &Cell) -> String {
    let told = cell.change.map(|change| (told(&change, change.low), told(&change, change.high)));
    told.map(|(low, high)| format!("{low} … {high}")).unwrap_or_default()
}

/// A change in percent, or in points where the figures are percentages with zero among them.
fn told(change: &nigh_load::statistics::Change, value: f64) -> String {
    if change.is_relative { format!("{:+.1} %", 100.0 * value) } else { format!("{value:+.2}") }
}
