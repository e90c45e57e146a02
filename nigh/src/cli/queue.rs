//! `nigh result` and `nigh queue`: what came of asynchronous calls, and those that were given up.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, Subcommand};
use nigh_client::{CallQueue, DeadLetter, QueueCounts};
use nigh_proto::time::ms_of;
use nigh_proto::{CallId, PlatformError};
use serde_json::{Value, json};

use super::call::Told;
use crate::output::{Column, Output, Table};
use crate::units::{Time, size};

/// How long one request for a result waits at the broker.
const WAIT: Duration = Duration::from_secs(30);
/// The wait before the broker is asked again that could not be.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  id=$(nigh invoke resize --file photo.jpg --async)
  nigh result $id --wait -o small.jpg
  nigh result $id                              fails where there is none yet

The answer goes to standard output byte for byte. Results are kept for a time that the broker's operator sets.")]
pub(super) struct ResultCommand {
    /// The call's id, as `nigh invoke --async` printed it
    call: CallId,
    /// Wait for the result, for ever or for so long
    #[arg(long, value_name = "TIME", num_args = 0..=1)]
    wait: Option<Option<Time>>,
    #[command(flatten)]
    told: Told,
}

impl ResultCommand {
    pub(super) async fn run(self, queue: &CallQueue, output: Output) -> anyhow::Result<()> {
        let until = match self.wait {
            None => Some(Instant::now()),
            Some(limit) => limit.map(|limit| Instant::now() + limit.duration()),
        };
        loop {
            let left = until.map_or(WAIT, |until| until.saturating_duration_since(Instant::now()).min(WAIT));
            match queue.result(&self.call, left).await {
                Ok(Some(Ok(reply))) => return self.told.tell(reply, output),
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) => {}
                // It may be starting again.
                Err(error) if self.wait.is_some() && error.reason.retry_helps() && !is_over(until) => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error.into()),
            }
            if is_over(until) {
                bail!("{} has no result yet; --wait waits for it", self.call);
            }
        }
    }
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| until <= Instant::now())
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh queue                                   how many asynchronous calls wait, run, were given up
  nigh queue dead                              those given up, and why
  nigh queue retry 7c9e6679f3a1 5f2c71d09ab4   have two of them tried again
  nigh queue drop 7c9e6679f3a1                 give one up for good")]
pub(super) struct QueueCommand {
    #[command(subcommand)]
    command: Option<QueueSubcommand>,
}

#[derive(Debug, Subcommand)]
enum QueueSubcommand {
    /// How many calls wait, run, were given up
    #[command(after_help = "Example:\n  nigh queue ls")]
    Ls,
    /// Calls that were given up, and why
    #[command(after_help = "Example:\n  nigh queue dead --limit 20")]
    Dead {
        /// At most so many, those that were first
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Have calls tried again that were given up
    #[command(after_help = "Example:\n  nigh queue retry 7c9e6679f3a1 5f2c71d09ab4")]
    Retry {
        /// Their ids
        #[arg(required = true)]
        calls: Vec<CallId>,
    },
    /// Drop calls that were given up
    #[command(after_help = "Example:\n  nigh queue drop 7c9e6679f3a1")]
    Drop {
        /// Their ids
        #[arg(required = true)]
        calls: Vec<CallId>,
    },
}

impl QueueCommand {
    pub(super) async fn run(self, queue: &CallQueue, output: Output) -> anyhow::Result<()> {
        match self.command {
            None | Some(QueueSubcommand::Ls) => {
                let counts = queue.counts().await?;
                Ok(output.result(&counts_as_json(counts), |_| ForPeople(counts))?)
            }
            Some(QueueSubcommand::Dead { limit }) => {
                let letters = queue.dead_letters(limit).await?;
                if letters.is_empty() && !output.is_json() {
                    output.note("no dead letters");
                    return Ok(());
                }
                let told: Value = letters.iter().map(letter_as_json).collect();
                Ok(output.result(&told, |_| table(&letters))?)
            }
            Some(QueueSubcommand::Retry { calls }) => {
                for_each(&calls, "is tried again", output, async |call| queue.retry(call).await).await
            }
            Some(QueueSubcommand::Drop { calls }) => {
                for_each(&calls, "is dropped", output, async |call| queue.drop_dead(call).await).await
            }
        }
    }
}

async fn for_each(
    calls: &[CallId],
    done: &str,
    output: Output,
    deed: impl AsyncFn(&CallId) -> Result<(), PlatformError>,
) -> anyhow::Result<()> {
    for call in calls {
        deed(call).await?;
        output.result(&json!({ "call": call.as_str(), "done": done }), |_| format!("{call} {done}"))?;
    }
    Ok(())
}

fn counts_as_json(counts: QueueCounts) -> Value {
    json!({ "waiting": counts.waiting, "running": counts.taken, "dead": counts.dead, "bytes": counts.bytes })
}

struct ForPeople(QueueCounts);

impl fmt::Display for ForPeople {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(QueueCounts { waiting, taken, dead, bytes }) = self;
        write!(f, "waiting {waiting}, running {taken}, dead {dead}, {}", size(*bytes))
    }
}

fn letter_as_json(letter: &DeadLetter) -> Value {
    json!({
        "call": letter.call.as_str(),
        "function": letter.function,
        "why": letter.why,
        "accepted_ms": ms_of(letter.accepted),
        "died_ms": ms_of(letter.died),
        "tries": letter.tries,
    })
}

fn table(letters: &[DeadLetter]) -> Table<5> {
    let columns = ["CALL", "FUNCTION", "DIED", "TRIES", "WHY"];
    let [call, function, died, tries, why] = columns;
    let mut table = Table::new([
        Column::words(call),
        Column::words(function),
        Column::words(died),
        Column::numbers(tries),
        Column::words(why),
    ]);
    for letter in letters {
        table.row([
            letter.call.to_string(),
            letter.function.clone(),
            humantime::format_rfc3339_seconds(letter.died).to_string(),
            letter.tries.to_string(),
            letter.why.clone(),
        ]);
    }
    table
}
