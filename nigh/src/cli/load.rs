//! `nigh load`: calls as a workload says, and what came back.

mod device;
mod drive;
mod flows;
mod options;
mod plan;
mod timetable;
mod view;

use clap::{Args, Subcommand};

use self::options::LoadOptions;
use self::timetable::TimetableCommand;
use super::Global;
use crate::output::Output;

pub(super) use self::view::{ForPeople, time};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  nigh load echo --rate 200 --gaps poisson --duration 30s --warm-up 5s --out run-1
  nigh load echo=3 sha256=1 --in-flight 16 --think 10ms --count 10000    a closed loop over two functions
  nigh load face-detect --pictures photos --every 500ms --clients 4 --duration 1m    four cameras
  nigh load echo --gaps ipp --on 2s --off 3s --rate 50 --size 100..500 --duration 1m
  nigh load timetable echo --clients 5 --rate 2 --duration 60s > day.txt    draw a timetable
  nigh load --flow chain.json --states --in-flight 1 --count 100    chains and graphs, with the states of their file
  nigh load --replay day.txt --to 10.0.0.2:6473,10.0.0.3:6473 --persistence 0.1
  nigh load echo sha256 --replay invocations_per_function_md.anon.d01.csv --from 8h --length 10m --sample 0.01

Calls are made when they are due, whatever became of others, unless --in-flight or --serial says otherwise. Latency counts from
when a call was due. The same --seed makes the same calls. Ctrl-C ends a run and reports what was measured."
)]
pub(super) struct LoadCommand {
    #[command(subcommand)]
    command: Option<LoadSubcommand>,
    #[command(flatten)]
    options: LoadOptions,
}

#[derive(Debug, Subcommand)]
enum LoadSubcommand {
    /// Draw a timetable: lines `time lambda server size` for --replay
    Timetable(TimetableCommand),
}

impl LoadCommand {
    pub(super) async fn run(self, global: &Global, output: Output) -> anyhow::Result<()> {
        match self.command {
            Some(LoadSubcommand::Timetable(command)) => command.run(global, output),
            None => drive::run(&self.options, global, output).await,
        }
    }
}
