//! `nigh top`: how busy computers and functions are.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use clap::Args;
use console::Term;
use futures_util::future::join_all;
use nigh_client::{Admin, ComputerStatus, FunctionStatus, Inspect};
use nigh_proto::{Endpoint, FunctionName, NodeName, PlatformError};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::timing::ms;
use crate::output::{Column, Output, Table};
use crate::signals::StopSignals;
use crate::units;

/// How often the screen is drawn anew.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time for a computer to say how it is; it is shown as silent after that.
const STATUS_TIMEOUT: Duration = Duration::from_millis(900);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh top                   refreshed each second, until Ctrl-C
  nigh top --once
  nigh top --json            one sample, for programs")]
pub(super) struct TopCommand {
    /// Print one sample and end, as it also does where standard output is no terminal
    #[arg(long)]
    once: bool,
}

/// How everybody was at one time.
struct Sample {
    taken: Instant,
    computers: Vec<(NodeName, Endpoint, Result<ComputerStatus, PlatformError>)>,
}

impl TopCommand {
    pub(super) async fn run(self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let terminal = Term::stdout();
        if self.once || output.is_json() || !terminal.is_term() {
            let sample = Sample::take(admin, &mut BTreeMap::new()).await?;
            return Ok(output.result(&sample.as_json(), |_| View { sample: &sample, before: None })?);
        }
        let mut signals = StopSignals::listen()?;
        let screen = Screen::open(terminal)?;
        tokio::select! {
            ended = refresh(admin, &screen) => ended,
            () = signals.next() => Ok(()),
        }
    }
}

async fn refresh(admin: &Admin, screen: &Screen) -> anyhow::Result<()> {
    let mut connections = BTreeMap::new();
    let mut before = None;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match Sample::take(admin, &mut connections).await {
            Ok(sample) => {
                screen.draw(&View { sample: &sample, before: before.as_ref() }.to_string())?;
                before = Some(sample);
            }
            Err(error) => screen.draw(&error.to_string())?,
        }
    }
}

impl Sample {
    /// Asks every computer that the controller knows; `connections` are kept for the next time.
    async fn take(admin: &Admin, connections: &mut BTreeMap<Endpoint, Inspect>) -> Result<Self, PlatformError> {
        let computers = admin.list().await?.computers;
        connections.retain(|endpoint, _| computers.iter().any(|computer| computer.endpoint == *endpoint));
        let statuses = computers.into_iter().map(|computer| {
            let connect = || admin.inspect(computer.endpoint.clone());
            let inspect = connections.entry(computer.endpoint.clone()).or_insert_with(connect).clone();
            async move {
                let status = tokio::time::timeout(STATUS_TIMEOUT, inspect.status()).await;
                let silent = |_| PlatformError::new(nigh_proto::Reason::Late, "no answer in time");
                (computer.name, computer.endpoint, status.unwrap_or_else(|late| Err(silent(late))))
            }
        });
        Ok(Self { computers: join_all(statuses).await, taken: Instant::now() })
    }

    fn functions(&self) -> impl Iterator<Item = (&NodeName, &FunctionStatus)> {
        let answered = self.computers.iter().filter_map(|(name, _, status)| Some((name, status.as_ref().ok()?)));
        answered.flat_map(|(name, status)| status.functions.iter().map(move |function| (name, function)))
    }

    fn calls(&self, computer: &NodeName, function: &FunctionName) -> Option<u64> {
        self.functions()
            .find(|(name, status)| *name == computer && status.function == *function)
            .map(|(_, status)| status.calls)
    }

    fn as_json(&self) -> Value {
        let function = |function: &FunctionStatus| {
            json!({
                "function": function.function.as_str(),
                "version": function.version.to_string(),
                "calls": function.calls,
                "function_errors": function.function_errors,
                "refused": function.refused,
                "running": function.running,
                "queued": function.queued,
                "p50_us": u64::try_from(function.p50.as_micros()).unwrap_or(u64::MAX),
                "p99_us": u64::try_from(function.p99.as_micros()).unwrap_or(u64::MAX),
            })
        };
        let computer = |(name, endpoint, status): &(NodeName, Endpoint, Result<ComputerStatus, PlatformError>)| {
            let mut told = json!({ "name": name.as_str(), "endpoint": endpoint.as_str() });
            match status {
                Ok(status) => {
                    told["running"] = status.load.running.into();
                    told["queued"] = status.load.queued.into();
                    told["workers"] = status.load.workers.into();
                    told["utilisation"] = json!(status.load.utilisation);
                    told["resident_bytes"] = status.resident_bytes.into();
                    told["instances_max"] = status.instances_max.into();
                    told["functions"] = status.functions.iter().map(function).collect();
                }
                Err(error) => told["error"] = error.message.clone().into(),
            }
            told
        };
        json!({ "computers": self.computers.iter().map(computer).collect::<Value>() })
    }
}

/// A sample for people; rates need the one before.
struct View<'a> {
    sample: &'a Sample,
    before: Option<&'a Sample>,
}

impl View<'_> {
    fn computers(&self) -> Table<7> {
        let mut table = Table::new([
            Column::words("COMPUTER"),
            Column::numbers("RUNNING"),
            Column::numbers("QUEUED"),
            Column::numbers("1 S"),
            Column::numbers("10 S"),
            Column::numbers("30 S"),
            Column::numbers("RESIDENT"),
        ]);
        for (name, _, status) in &self.sample.computers {
            let Ok(ComputerStatus { load, resident_bytes, .. }) = status else { continue };
            let [one, ten, thirty] = load.utilisation.map(|share| format!("{:.0} %", share * 100.0));
            table.row([
                name.to_string(),
                format!("{}/{}", load.running, load.workers),
                load.queued.to_string(),
                one,
                ten,
                thirty,
                units::size(*resident_bytes),
            ]);
        }
        table
    }

    fn functions(&self) -> Table<10> {
        let mut table = Table::new([
            Column::words("FUNCTION"),
            Column::words("COMPUTER"),
            Column::numbers("CALLS/S"),
            Column::numbers("CALLS"),
            Column::numbers("ERRORS"),
            Column::numbers("REFUSED"),
            Column::numbers("RUNNING"),
            Column::numbers("QUEUED"),
            Column::numbers("P50"),
            Column::numbers("P99"),
        ]);
        let mut functions: Vec<_> = self.sample.functions().collect();
        functions.sort_by(|one, other| (&one.1.function, one.0).cmp(&(&other.1.function, other.0)));
        for (computer, status) in functions {
            table.row([
                status.function.to_string(),
                computer.to_string(),
                self.rate(computer, status).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
                status.calls.to_string(),
                status.function_errors.to_string(),
                status.refused.to_string(),
                status.running.to_string(),
                status.queued.to_string(),
                ms(status.p50),
                ms(status.p99),
            ]);
        }
        table
    }

    /// Calls per second since the sample before.
    fn rate(&self, computer: &NodeName, status: &FunctionStatus) -> Option<f64> {
        let before = self.before?;
        // Fewer calls than before: the computer has started anew.
        let calls = status.calls.checked_sub(before.calls(computer, &status.function)?)?;
        let calls = u32::try_from(calls).map_or(f64::INFINITY, f64::from);
        let seconds = self.sample.taken.duration_since(before.taken).as_secs_f64();
        (seconds > 0.0).then(|| calls / seconds)
    }
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sample.computers.is_empty() {
            return write!(f, "no computer is alive; start one with: nigh computer");
        }
        write!(f, "{}\n{}", self.computers(), self.functions())?;
        for (name, endpoint, status) in &self.sample.computers {
            if let Err(error) = status {
                writeln!(f, "! {name} at {endpoint}: {error}")?;
            }
        }
        Ok(())
    }
}

/// A terminal that is drawn over and given back as it was.
struct Screen(Term);

impl Screen {
    fn open(terminal: Term) -> std::io::Result<Self> {
        terminal.hide_cursor()?;
        let screen = Self(terminal);
        screen.0.clear_screen()?;
        Ok(screen)
    }

    /// Draws what fits; lines are overwritten in place, so that nothing flickers.
    fn draw(&self, text: &str) -> std::io::Result<()> {
        let (rows, columns) = self.0.size();
        self.0.move_cursor_to(0, 0)?;
        for line in text.lines().take(usize::from(rows).saturating_sub(1)) {
            self.0.clear_line()?;
            self.0.write_line(&console::truncate_str(line, columns.into(), "…"))?;
        }
        self.0.clear_to_end_of_screen()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Best effort: the terminal may be gone.
        let _ = self.0.show_cursor();
    }
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Digest, Load, Reason};

    use super::*;

    fn sample(taken: Instant, calls: u64) -> Sample {
        let function = FunctionStatus {
            function: "echo".parse().unwrap(),
            version: Digest::of(b"x"),
            calls,
            function_errors: 1,
            refused: 2,
            running: 3,
            queued: 4,
            p50: Duration::from_micros(1500),
            p99: Duration::from_millis(20),
        };
        let name: NodeName = "computer-1".parse().unwrap();
        let status = ComputerStatus {
            name: name.clone(),
            load: Load { running: 3, queued: 4, workers: 8, utilisation: [0.5, 0.25, 0.125], service: Duration::ZERO },
            functions: vec![function],
            resident_bytes: 64 << 20,
            instances_max: 256,
        };
        let gone = PlatformError::new(Reason::Unreachable, "cannot connect");
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        let computers = vec![
            (name, endpoint("127.0.0.1:1"), Ok(status)),
            ("computer-2".parse().unwrap(), endpoint("127.0.0.1:2"), Err(gone)),
        ];
        Sample { taken, computers }
    }

    #[test]
    fn rates_come_from_two_samples() {
        let began = Instant::now();
        let (before, sample) = (sample(began, 100), sample(began + Duration::from_secs(2), 150));
        let first = View { sample: &before, before: None }.to_string();
        assert!(first.lines().any(|line| line.starts_with("echo") && line.contains(" - ")), "{first}");
        let second = View { sample: &sample, before: Some(&before) }.to_string();
        assert!(second.lines().any(|line| line.starts_with("echo") && line.contains("25.0")), "{second}");
        assert!(second.contains("3/8") && second.contains("50 %") && second.contains("1.500 ms"), "{second}");
        assert!(second.contains("! computer-2 at 127.0.0.1:2: cannot connect"), "{second}");
    }

    #[test]
    fn a_computer_that_started_anew_has_no_rate_yet() {
        let began = Instant::now();
        let (before, sample) = (sample(began, 100), sample(began + Duration::from_secs(1), 3));
        let view = View { sample: &sample, before: Some(&before) };
        let (computer, status) = sample.functions().next().unwrap();
        assert_eq!(view.rate(computer, status), None);
    }

    #[test]
    fn programs_also_learn_who_did_not_answer() {
        let json = sample(Instant::now(), 7).as_json();
        assert_eq!(json["computers"][0]["functions"][0]["p50_us"], 1500);
        assert_eq!(json["computers"][1]["error"], "cannot connect");
    }
}
