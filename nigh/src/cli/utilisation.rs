//! `nigh utilisation`: how busy processors are, a line each second for each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use clap::Args;
use futures_util::{Stream, StreamExt as _, stream};
use nigh_client::{Admin, Utilisation};
use nigh_proto::{Endpoint, Load, PlatformError};
use serde_json::{Value, json};

use crate::output::Output;
use crate::signals::StopSignals;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh utilisation                       every computer that the controller knows, until Ctrl-C
  nigh utilisation 127.0.0.1:10000       one computer; also one of ServerlessOnEdge, by its endpoint for utilisation
  nigh utilisation --samples 60 > utilisation.dat
  nigh utilisation --json                with the load of the whole computer

A line is: seconds since the start, processor, share of its cores that was busy in the last second. Of several computers, the
name of the computer and a slash stand before that of the processor.")]
pub(super) struct UtilisationCommand {
    /// Computers, by where they take calls [default: all that the controller knows]
    #[arg(value_name = "HOST:PORT")]
    computers: Vec<Endpoint>,
    /// End after so many samples of each
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
}

/// What one computer says at one time.
type Sample<'a> = (&'a str, Result<Utilisation, PlatformError>);

impl UtilisationCommand {
    pub(super) async fn run(self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let mut signals = StopSignals::listen()?;
        tokio::select! {
            ended = self.print(admin, output) => ended,
            () = signals.next() => Ok(()),
        }
    }

    async fn print(&self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let computers = self.computers(admin).await?;
        let began = Instant::now();
        let mut streams = stream::SelectAll::new();
        for (name, endpoint) in &computers {
            streams.push(Box::pin(self.samples_of(admin, name, endpoint).await?));
        }
        let mut silent = 0;
        while let Some((name, sample)) = streams.next().await {
            match sample {
                Ok(sample) if output.is_json() => output.line(as_json(began, name, &sample))?,
                Ok(sample) => output.line(lines(began, (computers.len() > 1).then_some(name), &sample))?,
                // One that is gone keeps nobody from reading of the others.
                Err(error) if computers.len() > 1 => {
                    silent += 1;
                    output.note(format!("{name}: {error}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::ensure!(silent < computers.len(), "no computer is left");
        Ok(())
    }

    /// Whom to ask, by name.
    async fn computers(&self, admin: &Admin) -> anyhow::Result<BTreeMap<String, Endpoint>> {
        if !self.computers.is_empty() {
            return Ok(self.computers.iter().map(|endpoint| (endpoint.to_string(), endpoint.clone())).collect());
        }
        let listed = admin.list().await?.computers;
        // Those of the older system stream elsewhere, and nobody says where.
        let listed = listed.into_iter().filter(|computer| !computer.older);
        let computers: BTreeMap<_, _> = listed.map(|computer| (computer.name.to_string(), computer.endpoint)).collect();
        anyhow::ensure!(!computers.is_empty(), "no computer is alive; start one: nigh computer");
        Ok(computers)
    }

    async fn samples_of<'a>(
        &self,
        admin: &Admin,
        name: &'a str,
        endpoint: &Endpoint,
    ) -> anyhow::Result<impl Stream<Item = Sample<'a>> + Send + use<'a>> {
        let samples = admin.inspect(endpoint.clone()).utilisation().await?;
        Ok(samples.take(self.samples.unwrap_or(usize::MAX)).map(move |sample| (name, sample)))
    }
}

fn lines(began: Instant, computer: Option<&str>, sample: &Utilisation) -> String {
    let (seconds, mut lines) = (began.elapsed().as_secs_f64(), String::new());
    let computer = computer.map(|name| format!("{name}/")).unwrap_or_default();
    for one in &sample.processors {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{seconds:.6} {computer}{} {}", one.processor, one.share);
    }
    lines
}

fn as_json(began: Instant, computer: &str, sample: &Utilisation) -> Value {
    let processors: Value = sample.processors.iter().map(|one| (one.processor.clone(), json!(one.share))).collect();
    let load = sample.load.map(|Load { running, queued, workers, utilisation, .. }| {
        json!({ "running": running, "queued": queued, "workers": workers, "utilisation": utilisation })
    });
    json!({ "seconds": began.elapsed().as_secs_f64(), "computer": computer, "processors": processors, "load": load })
}

#[cfg(test)]
mod tests {
    use nigh_client::ProcessorShare;

    use super::*;

    fn sample() -> Utilisation {
        let share = |processor: &str, share| ProcessorShare { processor: processor.into(), share };
        Utilisation {
            load: Some(Load { running: 1, ..Load::default() }),
            processors: vec![share("arm", 0.25), share("gpu", 1.0)],
        }
    }

    #[test]
    fn a_line_has_three_columns_as_the_older_client_writes_them() {
        let told = lines(Instant::now(), None, &sample());
        let columns: Vec<Vec<&str>> = told.lines().map(|line| line.split(' ').collect()).collect();
        assert!(columns.iter().all(|line| line.len() == 3 && line[0].parse::<f64>().is_ok()), "{told}");
        assert_eq!((columns[0][1], columns[0][2]), ("arm", "0.25"));
        assert_eq!((columns[1][1], columns[1][2]), ("gpu", "1"));
        assert!(lines(Instant::now(), Some("computer-1"), &sample()).contains(" computer-1/arm 0.25\n"));
    }

    #[test]
    fn programs_get_the_load_too() {
        let told = as_json(Instant::now(), "computer-1", &sample());
        assert_eq!((&told["processors"]["arm"], &told["load"]["running"]), (&json!(0.25), &json!(1)));
    }
}
