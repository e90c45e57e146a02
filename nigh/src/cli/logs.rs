//! `nigh logs`: what functions have logged, from all computers that are alive.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use clap::Args;
use console::Style;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nigh_client::{Admin, LogLevel, LogLine, LogQuery};
use nigh_proto::{CallId, Computer, FunctionName, NodeName, PlatformError};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::output::Output;
use crate::units::Time;

/// How often new computers are looked for while following.
const LISTING_INTERVAL: Duration = Duration::from_secs(2);
/// Digits of a call's id shown to people; `--call` is content with them.
const CALL_DIGITS: usize = 8;
/// Lines that are held to be sorted; of more, the oldest are left out.
const LINES_MAX: usize = 50_000;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh logs hello
  nigh logs hello -f                    go on with what is logged from now on, also on computers that join
  nigh logs --call 1b30f2c8             one call, wherever it ran; the first digits of its id suffice
  nigh logs --since 10m --level warn    warnings, errors and panics of all functions
  nigh logs --json | jq .text

A function's standard error is logged as warnings, as is the standard output of functions that are no programs. Computers
keep the last 1000 lines of each function.")]
pub(super) struct LogsCommand {
    /// Only this function
    name: Option<FunctionName>,
    /// Go on with new lines
    #[arg(long, short)]
    follow: bool,
    /// Only calls whose id begins like this
    #[arg(long, value_name = "ID", value_parser = call_id)]
    call: Option<String>,
    /// Only the lines of this much time until now, by the computers' clocks
    #[arg(long, value_name = "TIME")]
    since: Option<Time>,
    /// Only lines as serious as this: panic, error, warn, info or debug
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    level: Option<LogLevel>,
    /// Only the last lines, so many
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<usize>,
}

fn call_id(given: &str) -> Result<String, String> {
    given.parse::<CallId>().map(|_| given.to_owned()).map_err(|error| error.message)
}

fn level(given: &str) -> Result<LogLevel, String> {
    let found = LogLevel::ALL.into_iter().find(|level| level.to_string() == given);
    found.ok_or_else(|| "choose among panic, error, warn, info and debug".to_owned())
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
        let teller = Teller::new(output);
        let since = self.since.map(|time| SystemTime::now() - time.duration());
        let query = LogQuery { function: self.name, follow: false, call: self.call, since, level: self.level };
        let followed = kept(admin, &listing.computers, &query, self.tail.unwrap_or(usize::MAX), &teller).await?;
        if self.follow { follow(admin, query, followed, &teller).await } else { Ok(()) }
    }
}

/// Tells what is kept now, in the order of time. Returns how far each computer was read.
async fn kept(
    admin: &Admin,
    computers: &[Computer],
    query: &LogQuery,
    tail: usize,
    teller: &Teller,
) -> anyhow::Result<BTreeMap<NodeName, Followed>> {
    let mut streams: Streams = computers.iter().map(|computer| stream(admin, computer, query.clone())).collect();
    let (mut lines, mut followed, mut left_out) = (Vec::new(), BTreeMap::<NodeName, Followed>::new(), 0);
    while let Some(event) = streams.next().await {
        match event {
            Event::Line(computer, line) => {
                followed.entry(computer.clone()).or_default().is_new(&line);
                lines.push((computer, line));
                if lines.len() >= 2 * LINES_MAX {
                    left_out += keep_last(&mut lines, LINES_MAX);
                }
            }
            Event::Trouble(computer, error) => teller.output.note(format_args!("{computer}: {error}")),
            Event::End(_) => {}
        }
    }
    left_out += keep_last(&mut lines, LINES_MAX);
    keep_last(&mut lines, tail);
    if left_out > 0 {
        teller.output.note(format_args!("{left_out} older lines are left out; narrow it down with --since or --call"));
    }
    lines.iter().try_for_each(|(computer, line)| teller.tell(computer, line))?;
    Ok(followed)
}

/// Sorts lines by time and drops all but the last; returns how many.
fn keep_last(lines: &mut Vec<(NodeName, LogLine)>, count: usize) -> usize {
    lines.sort_by_key(|(_, line)| line.time);
    let too_many = lines.len().saturating_sub(count);
    lines.drain(..too_many);
    too_many
}

/// Tells lines as they come. Computers that join are followed too; one that was lost is taken up where it was left.
async fn follow(
    admin: &Admin,
    query: LogQuery,
    mut followed: BTreeMap<NodeName, Followed>,
    teller: &Teller,
) -> anyhow::Result<()> {
    let query = LogQuery { follow: true, ..query };
    let mut streams = Streams::new();
    let mut listings = tokio::time::interval(LISTING_INTERVAL);
    listings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(event) = streams.next() => match event {
                Event::Line(computer, line) => {
                    if followed.entry(computer.clone()).or_default().is_new(&line) {
                        teller.tell(&computer, &line)?;
                    }
                }
                Event::Trouble(computer, error) => teller.output.note(format_args!("{computer}: {error}")),
                Event::End(computer) => followed.entry(computer).or_default().is_open = false,
            },
            _ = listings.tick() => {
                // While the controller is away the streams go on.
                for computer in admin.list().await.map(|listing| listing.computers).unwrap_or_default() {
                    let known = followed.entry(computer.name.clone()).or_default();
                    if !std::mem::replace(&mut known.is_open, true) {
                        streams.push(stream(admin, &computer, query.clone()));
                    }
                }
            }
        }
    }
}

/// One computer's lines, then how that ended.
fn stream(admin: &Admin, computer: &Computer, query: LogQuery) -> BoxStream<'static, Event> {
    let (name, inspect) = (computer.name.clone(), admin.inspect(computer.endpoint.clone()));
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

/// How far one computer has been read.
#[derive(Debug, Default)]
struct Followed {
    is_open: bool,
    /// The last line of each function: its number and time.
    last: BTreeMap<FunctionName, (u64, SystemTime)>,
}

impl Followed {
    /// Whether a line was not told before. A computer tells anew what it has kept when it is asked again; and one that
    /// started again numbers anew, but not in the past.
    fn is_new(&mut self, line: &LogLine) -> bool {
        let is_old = |(number, time): &(u64, SystemTime)| line.number <= *number && line.time <= *time;
        if self.last.get(&line.function).is_some_and(is_old) {
            return false;
        }
        self.last.insert(line.function.clone(), (line.number, line.time));
        true
    }
}

/// Tells lines to whoever asked.
struct Teller {
    output: Output,
    zone: TimeZone,
}

impl Teller {
    fn new(output: Output) -> Self {
        Self { output, zone: TimeZone::system() }
    }

    fn tell(&self, computer: &NodeName, line: &LogLine) -> anyhow::Result<()> {
        if line.lost > 0 {
            self.output.note(format_args!("{computer}: {} lines are missing here, they came too fast", line.lost));
        }
        let for_people = |_: &Value| ForPeople { computer, line, zone: &self.zone };
        Ok(self.output.result(&as_json(computer, line), for_people)?)
    }
}

struct ForPeople<'a> {
    computer: &'a NodeName,
    line: &'a LogLine,
    zone: &'a TimeZone,
}

impl fmt::Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { computer, line, zone } = self;
        let time = Timestamp::try_from(line.time).unwrap_or_default().to_zoned((*zone).clone());
        let time = time.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
        // A function must not steer the terminal of whoever reads its log.
        let text: String =
            line.text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        let call: String = line.call.chars().filter(|c| !c.is_control()).take(CALL_DIGITS).collect();
        let call = if call.is_empty() { "-" } else { &call };
        let style = match line.level {
            LogLevel::Panic => Style::new().red().bold(),
            LogLevel::Error => Style::new().red(),
            LogLevel::Warn => Style::new().yellow(),
            LogLevel::Info => Style::new().green(),
            LogLevel::Debug => Style::new().dim(),
        };
        let (dim, level) = (Style::new().dim(), format!("{:<5}", line.level));
        write!(f, "{} {computer} {} ", dim.apply_to(time), line.function)?;
        write!(f, "{} {} {text}", dim.apply_to(call), style.apply_to(level))
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
    use super::*;

    fn line(number: u64, ms: u64) -> LogLine {
        LogLine {
            function: "hello".parse().unwrap(),
            call: "0123456789abcdef".into(),
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + ms),
            level: LogLevel::Info,
            text: "greeting \u{1b}[2JAda".into(),
            lost: 0,
            number,
        }
    }

    #[test]
    fn a_line_tells_when_where_and_what_and_cannot_steer_the_terminal() {
        let (computer, line) = ("computer-10000".parse().unwrap(), line(0, 123));
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let told = ForPeople { computer: &computer, line: &line, zone: &zone }.to_string();
        assert_eq!(
            console::strip_ansi_codes(&told),
            "2023-11-14 23:13:20.123 computer-10000 hello 01234567 info  greeting \u{fffd}[2JAda"
        );
        let json = as_json(&computer, &line);
        assert_eq!((&json["call"], &json["level"]), (&"0123456789abcdef".into(), &"info".into()));
        assert_eq!(json["time"], "2023-11-14T22:13:20.123000Z");
    }

    #[test]
    fn a_line_is_told_once_though_computers_repeat_themselves_and_start_again() {
        let mut followed = Followed::default();
        // Two lines of one microsecond are two lines.
        assert!(followed.is_new(&line(0, 1)) && followed.is_new(&line(1, 1)));
        assert!(!followed.is_new(&line(0, 1)) && !followed.is_new(&line(1, 1)));
        assert!(followed.is_new(&line(0, 2)), "numbered anew after a start");
        let other = LogLine { function: "other".parse().unwrap(), ..line(0, 0) };
        assert!(followed.is_new(&other), "the order of time is a function's own");
    }

    #[test]
    fn what_is_held_is_bounded_and_the_newest() {
        let computer: NodeName = "c".parse().unwrap();
        let mut lines: Vec<_> = (0..10).rev().map(|n| (computer.clone(), line(n, n))).collect();
        assert_eq!(keep_last(&mut lines, 3), 7);
        assert_eq!(lines.iter().map(|(_, line)| line.number).collect::<Vec<_>>(), [7, 8, 9]);
    }

    #[test]
    fn levels_and_ids_are_checked() {
        assert_eq!(level("warn"), Ok(LogLevel::Warn));
        assert!(level("loud").unwrap_err().contains("debug"));
        assert!(call_id("").is_err() && call_id("a b").is_err() && call_id("1b30f2c8").is_ok());
    }
}
