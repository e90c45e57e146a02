//! `nigh load timetable`: drawing a timetable.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use nigh_load::workload::{Generator, Sizes};
use nigh_proto::{Endpoint, FunctionName};

use super::options::Rate;
use crate::cli::{Global, local};
use crate::config::ports;
use crate::output::Output;
use crate::units::Time;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh load timetable echo --clients 5 --rate 2 --duration 60s > day.txt
  nigh load timetable echo --size 100..500 --to 10.0.0.2:6473 --start 10s --seed 7 --out day.txt --append

Each line is `time lambda server size`: seconds, a function, a broker, bytes.")]
pub(super) struct TimetableCommand {
    /// The function
    function: FunctionName,
    /// The broker [default: --broker]
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<Endpoint>,
    /// Bytes sent: a number, a range as 100..500, or a choice as 100,1000,10000
    #[arg(long, value_name = "SIZES", default_value = "100..500", value_parser = Sizes::from_str)]
    size: Sizes,
    /// Calls per second of each client, at random times
    #[arg(long, value_name = "PER_SECOND", default_value = "1")]
    rate: Rate,
    /// Clients
    #[arg(long, value_name = "N", default_value_t = 5)]
    clients: u32,
    /// When the clients begin
    #[arg(long, value_name = "TIME")]
    start: Option<Time>,
    /// For how long they go on
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Time,
    /// Write to a file
    #[arg(long, short, value_name = "PATH")]
    out: Option<PathBuf>,
    /// At the end of that file
    #[arg(long, requires = "out")]
    append: bool,
    /// What randomness starts from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl TimetableCommand {
    pub(super) fn run(self, global: &Global, output: Output) -> anyhow::Result<()> {
        let broker = self.to.or_else(|| global.broker.clone()).unwrap_or_else(|| local(ports::CALLS));
        let generator = Generator {
            function: self.function,
            broker,
            sizes: self.size,
            every: Duration::from_secs_f64(1.0 / self.rate.0),
            clients: self.clients,
            begins: self.start.map_or(Duration::ZERO, |time| time.duration()),
            lasts: self.duration.duration(),
            seed: self.seed,
        };
        let text = generator.draw()?.to_text();
        let Some(path) = self.out else { return Ok(output.bytes(text.as_bytes())?) };
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(self.append).truncate(!self.append);
        let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write the timetable to {}", path.display()))
    }
}
