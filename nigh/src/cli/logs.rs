//! `nigh logs`: what functions have logged, from all computers that are alive.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use clap::Args;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt as _, stream};
use nigh_client::{Admin, LogLine, LogQuery};
use nigh_proto::{Computer, FunctionName, NodeName, PlatformError};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::output::Output;

/// How often new computers are looked for while following.
const LISTING_INTERVAL: Duration = Duration::from_secs(2);
/// Digits of a call's id shown to people.
const CALL_DIGITS: usize = 8;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh logs hello
  nigh logs hello -f            go on with what is logged from now on, also on computers that join
  nigh logs --json | jq .text   of all functions")]
pub(super) struct LogsCommand {
    /// Only this function
    name: Option<FunctionName>,
    /// Go on with new lines
    #[arg(long, short)]
    follow: bool,
}

/// What a computer's stream brings; `End` is the last.
enum Event {
    Line(NodeName, LogLine),
    Trouble(NodeName, PlatformError),
    End(NodeName),
}

type Streams = SelectAll<BoxStream<'static, Event>>;

impl LogsCommand {
    pub(super) async fn run(self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let listing = admin.list().await?;
        if let Some(name) = &self.name
            && !listing.functions.iter().any(|function| function.name == *name)
        {
            return Err(PlatformError::unknown_function(name).into());
        }
        if listing.computers.is_empty() {
            output.note("no computer is alive, so there is nobody to ask");
        }
        if self.follow { self.follow(admin, output).await } else { self.kept(admin, &listing.computers, output).await }
    }

    /// What is kept now, in the order of time.
    async fn kept(&self, admin: &Admin, computers: &[Computer], output: Output) -> anyhow::Result<()> {
        let mut streams: Streams = computers.iter().map(|computer| self.stream(admin, computer)).collect();
        let mut lines = Vec::new();
        while let Some(event) = streams.next().await {
            match event {
                Event::Line(computer, line) => lines.push((computer, line)),
                Event::Trouble(computer, error) => output.note(format_args!("{computer}: {error}")),
                Event::End(_) => {}
            }
        }
        lines.sort_by_key(|(_, line)| line.time);
        lines.iter().try_for_each(|(computer, line)| tell(output, computer, line))
    }

    /// Lines as they come. Computers that join are followed too; one that was lost is taken up where it was left.
    async fn follow(&self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let mut streams = Streams::new();
        let mut followed: BTreeMap<NodeName, Followed> = BTreeMap::new();
        let mut listings = tokio::time::interval(LISTING_INTERVAL);
        listings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(event) = streams.next() => match event {
                    Event::Line(computer, line) => {
                        let known = followed.entry(computer.clone()).or_default();
                        if known.last.is_none_or(|last| line.time > last) {
                            known.last = Some(line.time);
                            tell(output, &computer, &line)?;
                        }
                    }
                    Event::Trouble(computer, error) => output.note(format_args!("{computer}: {error}")),
                    Event::End(computer) => followed.entry(computer).or_default().is_open = false,
                },
                _ = listings.tick() => {
                    // While the controller is away the streams go on.
                    for computer in admin.list().await.map(|listing| listing.computers).unwrap_or_default() {
                        let known = followed.entry(computer.name.clone()).or_default();
                        if !std::mem::replace(&mut known.is_open, true) {
                            streams.push(self.stream(admin, &computer));
                        }
                    }
                }
            }
        }
    }

    /// One computer's lines, then how that ended.
    fn stream(&self, admin: &Admin, computer: &Computer) -> BoxStream<'static, Event> {
        let (name, inspect) = (computer.name.clone(), admin.inspect(computer.endpoint.clone()));
        let query = LogQuery { function: self.name.clone(), follow: self.follow };
        let end = Event::End(name.clone());
        let opened = async move {
            match inspect.logs(query).await {
                Err(error) => stream::iter([Event::Trouble(name, error)]).boxed(),
                Ok(lines) => lines
                    .map(move |line| match line {
                        Ok(line) => Event::Line(name.clone(), line),
                        Err(error) => Event::Trouble(name.clone(), error),
                    })
                    .boxed(),
            }
        };
        stream::once(opened).flatten().chain(stream::iter([end])).boxed()
    }
}

/// How far one computer has been followed.
#[derive(Default)]
struct Followed {
    is_open: bool,
    last: Option<SystemTime>,
}

fn tell(output: Output, computer: &NodeName, line: &LogLine) -> anyhow::Result<()> {
    if line.lost > 0 {
        output.note(format_args!("{computer}: {} lines are missing here, they came too fast", line.lost));
    }
    Ok(output.result(&as_json(computer, line), |_| ForPeople { computer, line })?)
}

struct ForPeople<'a> {
    computer: &'a NodeName,
    line: &'a LogLine,
}

impl fmt::Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { computer, line } = self;
        let time = humantime::format_rfc3339_millis(line.time);
        // A function must not steer the terminal of whoever reads its log.
        let text: String =
            line.text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        let call: String = line.call.chars().take(CALL_DIGITS).collect();
        let call = if call.is_empty() { "-" } else { &call };
        write!(f, "{time} {computer} {} {call} {:<5} {text}", line.function, line.level)
    }
}

fn as_json(computer: &NodeName, line: &LogLine) -> Value {
    json!({
        "time": humantime::format_rfc3339_micros(line.time).to_string(),
        "computer": computer.as_str(),
        "function": line.function.as_str(),
        "call": line.call,
        "level": line.level.to_string(),
        "text": line.text,
        "lost": line.lost,
    })
}

#[cfg(test)]
mod tests {
    use nigh_client::LogLevel;

    use super::*;

    #[test]
    fn a_line_tells_when_where_and_what_and_cannot_steer_the_terminal() {
        let line = LogLine {
            function: "hello".parse().unwrap(),
            call: "0123456789abcdef".into(),
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            level: LogLevel::Info,
            text: "greeting \u{1b}[2JAda".into(),
            lost: 0,
        };
        let computer = "computer-10000".parse().unwrap();
        assert_eq!(
            ForPeople { computer: &computer, line: &line }.to_string(),
            "2023-11-14T22:13:20.123Z computer-10000 hello 01234567 info  greeting \u{fffd}[2JAda"
        );
        let json = as_json(&computer, &line);
        assert_eq!((&json["call"], &json["level"]), (&"0123456789abcdef".into(), &"info".into()));
    }
}
