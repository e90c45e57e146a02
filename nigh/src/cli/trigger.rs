//! `nigh trigger`: what has functions called by itself.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use nigh_client::Triggers;
use nigh_proto::asynchronous::CallbackUrl;
use nigh_proto::time::{ms_of, time_of_ms};
use nigh_proto::trigger::{Listed, Login, MissedTicks, Source, State};
use nigh_proto::{Endpoint, FunctionName, Headers, Priority, Trigger, TriggerName};
use serde_json::{Value, json};

use super::call::parse_header;
use crate::output::{Column, Output, Table};
use crate::units::Time;

/// The port of MQTT by convention.
const MQTT_PORT: u16 = 1883;
/// Characters of a failure in a table, at most.
const ERROR_CHARS_MAX: usize = 60;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh trigger add nightly report --cron \"30 2 * * *\" --zone Europe/Rome
  nigh trigger add orders resize --http shop/orders       POST http://BROKER/trigger/shop/orders
  nigh trigger add doors alarm --mqtt 127.0.0.1 --topic shop/+/door
  nigh trigger ls
  nigh trigger rm nightly

The broker needs a store: nigh broker --data-dir DIR or --store nats://…; `nigh up` has one.")]
pub(super) struct TriggerCommand {
    #[command(subcommand)]
    command: TriggerSubcommand,
}

#[derive(Debug, Subcommand)]
enum TriggerSubcommand {
    /// Have a function called by requests, messages or times
    Add(Box<AddCommand>),
    /// List triggers and how they are
    #[command(after_help = "Examples:\n  nigh trigger ls\n  nigh trigger ls --json      with every setting")]
    Ls,
    /// Remove triggers; calls that they have brought stay
    #[command(after_help = "Example:\n  nigh trigger rm orders nightly")]
    Rm {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<TriggerName>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh trigger add orders resize --http shop/orders
  nigh trigger add orders resize --nats nats://127.0.0.1:4222 --subject orders.>
  nigh trigger add orders resize --nats nats://127.0.0.1:4222 --subject orders.> --stream ORDERS
  nigh trigger add doors alarm --mqtt 127.0.0.1:1883 --topic shop/+/door --user ada --password-file secret
  nigh trigger add nightly report --cron \"30 2 * * MON-FRI\" --zone Europe/Rome --missed skip
  nigh trigger add tick probe --cron \"*/10 * * * * *\" --data ping     six fields: every ten seconds

The function is given the message as payload, and headers that tell where it came from.")]
struct AddCommand {
    /// The trigger's name
    name: TriggerName,
    /// What is called
    function: FunctionName,
    #[command(flatten)]
    from: From,
    /// The user at the server of NATS or MQTT
    #[arg(long, requires = "password_file", conflicts_with_all = ["http", "cron"])]
    user: Option<String>,
    /// A file with the password; the broker's store keeps it
    #[arg(long, value_name = "PATH", requires = "user")]
    password_file: Option<PathBuf>,
    /// Messages of NATS: the subject, wildcards included
    #[arg(long, requires = "nats")]
    subject: Option<String>,
    /// Messages of NATS: the stream of JetStream that has them; they are acknowledged then
    #[arg(long, requires = "nats")]
    stream: Option<String>,
    /// Messages of MQTT: the filter of topics
    #[arg(long, requires = "mqtt")]
    topic: Option<String>,
    /// Messages of MQTT: 1 has them acknowledged and kept while no broker listens, 0 not
    #[arg(long, requires = "mqtt", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,
    /// The schedule's time zone [default: UTC]
    #[arg(long, requires = "cron")]
    zone: Option<String>,
    /// What becomes of the schedule's times at which no broker was there
    #[arg(long, requires = "cron", value_enum, default_value_t)]
    missed: Missed,
    /// The payload of a schedule's calls
    #[arg(long, short, value_name = "TEXT", requires = "cron")]
    data: Option<String>,
    /// A header of every call; may be given several times
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// Time for each try of a call [default: the broker's]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Time>,
    /// Running a call twice does no harm
    #[arg(long)]
    retry_safe: bool,
    /// Which calls give way where there is no room for all: low, normal or high
    #[arg(long, default_value_t, value_name = "PRIORITY")]
    priority: Priority,
    /// Messages per second, at most [default: the broker's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Where outcomes are posted to, at a host that the broker's operator allows
    #[arg(long, value_name = "URL")]
    callback: Option<CallbackUrl>,
    /// Take the place of a trigger of this name
    #[arg(long)]
    replace: bool,
}

/// Where calls come from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct From {
    /// Requests: POST /trigger/PATH at the broker's port for HTTP
    #[arg(long, value_name = "PATH")]
    http: Option<String>,
    /// Messages of NATS, from these servers
    #[arg(long, value_name = "nats://HOST:PORT[,…]")]
    nats: Option<String>,
    /// Messages of MQTT, from this server
    #[arg(long, value_name = "HOST[:PORT]")]
    mqtt: Option<String>,
    /// Times: minute, hour, day, month, weekday, before them perhaps second; or @hourly and its like
    #[arg(long, value_name = "SCHEDULE")]
    cron: Option<String>,
}

/// What becomes of times that were missed.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Missed {
    /// One call for all of them
    #[default]
    Once,
    /// None
    Skip,
    /// One call for each, the newest 1000
    All,
}

impl TriggerCommand {
    pub(super) async fn run(self, triggers: &Triggers, output: Output) -> anyhow::Result<()> {
        match self.command {
            TriggerSubcommand::Add(add) => add.run(triggers, output).await,
            TriggerSubcommand::Ls => list(triggers, output).await,
            TriggerSubcommand::Rm { names } => {
                for name in &names {
                    triggers.remove(name).await?;
                    output.result(&json!({ "removed": name.as_str() }), |_| format!("{name} is removed"))?;
                }
                Ok(())
            }
        }
    }
}

impl AddCommand {
    async fn run(self, triggers: &Triggers, output: Output) -> anyhow::Result<()> {
        let replace = self.replace;
        let trigger = self.trigger()?;
        let unchanged = triggers.add(&trigger, replace).await?;
        let told = json!({ "trigger": trigger.name.as_str(), "unchanged": unchanged });
        let Trigger { name, function, source, .. } = &trigger;
        let done = if unchanged { "is there already" } else { "is added" };
        Ok(output.result(&told, |_| format!("{name} {done}: {source} calls {function}"))?)
    }

    fn trigger(self) -> anyhow::Result<Trigger> {
        let source = self.source()?;
        Ok(Trigger {
            name: self.name,
            function: self.function,
            source,
            timeout: self.timeout.map(Time::duration),
            retry_safe: self.retry_safe,
            priority: self.priority,
            rate_max: self.rate,
            callback: self.callback,
            headers: Headers::new(self.header)?,
        })
    }

    fn source(&self) -> anyhow::Result<Source> {
        let From { http, nats, mqtt, cron } = &self.from;
        if let Some(path) = http {
            return Ok(Source::Http { path: path.trim_start_matches('/').to_owned() });
        }
        if let Some(servers) = nats {
            let Some(subject) = self.subject.clone() else { bail!("--nats needs --subject: which messages?") };
            return Ok(Source::Nats {
                servers: servers.clone(),
                subject,
                stream: self.stream.clone(),
                login: self.login()?,
            });
        }
        if let Some(server) = mqtt {
            let Some(topic) = self.topic.clone() else { bail!("--mqtt needs --topic: which messages?") };
            let server = mqtt_server(server)?;
            return Ok(Source::Mqtt { server, topic, acknowledged: self.qos == 1, login: self.login()? });
        }
        let Some(schedule) = cron.clone() else { bail!("say where calls come from: --http, --nats, --mqtt or --cron") };
        Ok(Source::Cron {
            schedule,
            zone: self.zone.clone().unwrap_or_else(|| Trigger::ZONE.to_owned()),
            missed: match self.missed {
                Missed::Once => MissedTicks::Once,
                Missed::Skip => MissedTicks::Skip,
                Missed::All => MissedTicks::All,
            },
            payload: self.data.clone().unwrap_or_default().into(),
        })
    }

    fn login(&self) -> anyhow::Result<Option<Login>> {
        let (Some(user), Some(file)) = (&self.user, &self.password_file) else { return Ok(None) };
        let password =
            std::fs::read_to_string(file).with_context(|| format!("cannot read the password {}", file.display()))?;
        Ok(Some(Login { user: user.clone(), password: password.trim_end_matches(['\r', '\n']).to_owned() }))
    }
}

/// `HOST`, `HOST:PORT` or `mqtt://HOST[:PORT]`.
fn mqtt_server(given: &str) -> anyhow::Result<Endpoint> {
    if let Some((scheme, _)) = given.split_once("://").filter(|(scheme, _)| *scheme != "mqtt") {
        bail!("--mqtt {given}: {scheme}:// is not spoken; write HOST[:PORT]");
    }
    let host = given.strip_prefix("mqtt://").unwrap_or(given).trim_end_matches('/');
    Ok(host.parse().or_else(|_| format!("{host}:{MQTT_PORT}").parse())?)
}

async fn list(triggers: &Triggers, output: Output) -> anyhow::Result<()> {
    let listed = triggers.list().await?;
    if listed.is_empty() && !output.is_json() {
        output.note("no triggers; add one with: nigh trigger add NAME FUNCTION --http PATH");
        return Ok(());
    }
    let told: Value = listed.iter().map(as_json).collect();
    Ok(output.result(&told, |_| table(&listed))?)
}

fn state_of(listed: &Listed) -> &'static str {
    match listed.record.state() {
        State::Waiting => "waiting",
        State::Connecting => "connecting",
        State::Listening => "listening",
        State::Retrying => "retrying",
        State::Holding => "holding",
    }
}

fn as_json(listed: &Listed) -> Value {
    let Trigger { name, function, source, timeout, retry_safe, priority, rate_max, callback, headers } =
        &listed.trigger;
    let record = &listed.record;
    let some_ms = |ms: u64| (ms > 0).then_some(ms);
    json!({
        "name": name.as_str(),
        "function": function.as_str(),
        "source": source_as_json(source),
        "timeout_ms": timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        "retry_safe": retry_safe,
        "priority": priority.as_str(),
        "rate": rate_max,
        "callback": callback.as_ref().map(ToString::to_string),
        "headers": headers.iter().collect::<Vec<_>>(),
        "state": state_of(listed),
        "broker": if record.broker.is_empty() { None } else { Some(&record.broker) },
        "delivered": record.delivered,
        "refused": record.refused,
        "delivered_ms": some_ms(record.delivered_ms),
        "error": if record.error.is_empty() { None } else { Some(&record.error) },
        "error_ms": some_ms(record.error_ms),
        "added_ms": ms_of(listed.added),
        "next_ms": listed.next.map(ms_of),
    })
}

fn source_as_json(source: &Source) -> Value {
    let user = |login: &Option<Login>| login.as_ref().map(|login| login.user.clone());
    let mut told = match source {
        Source::Http { path } => json!({ "path": format!("/trigger/{path}") }),
        Source::Nats { servers, subject, stream, login } => {
            json!({ "servers": servers, "subject": subject, "stream": stream, "user": user(login) })
        }
        Source::Mqtt { server, topic, acknowledged, login } => {
            json!({ "server": server.as_str(), "topic": topic, "qos": u8::from(*acknowledged), "user": user(login) })
        }
        Source::Cron { schedule, zone, missed, .. } => {
            let missed = match missed {
                MissedTicks::Skip => "skip",
                MissedTicks::All => "all",
                MissedTicks::Once | MissedTicks::Unspecified => "once",
            };
            json!({ "schedule": schedule, "zone": zone, "missed": missed })
        }
    };
    told["kind"] = source.word().into();
    told
}

fn table(listed: &[Listed]) -> Table<8> {
    let [name, function, source, state, broker, delivered, refused, error] =
        ["NAME", "FUNCTION", "SOURCE", "STATE", "BROKER", "DELIVERED", "REFUSED", "LAST ERROR"];
    let mut table = Table::new([
        Column::words(name),
        Column::words(function),
        Column::words(source),
        Column::words(state),
        Column::words(broker),
        Column::numbers(delivered),
        Column::numbers(refused),
        Column::words(error),
    ]);
    for one in listed {
        table.row([
            one.trigger.name.to_string(),
            one.trigger.function.to_string(),
            one.trigger.source.to_string(),
            state_of(one).to_owned(),
            one.record.broker.clone(),
            one.record.delivered.to_string(),
            one.record.refused.to_string(),
            last_error(one),
        ]);
    }
    table
}

/// What failed last, and how long ago.
fn last_error(listed: &Listed) -> String {
    if listed.record.error.is_empty() {
        return String::new();
    }
    let ago = SystemTime::now().duration_since(time_of_ms(listed.record.error_ms)).unwrap_or_default();
    let ago = humantime::format_duration(Duration::from_secs(ago.as_secs()));
    let mut error: String = listed.record.error.chars().take(ERROR_CHARS_MAX).collect();
    if error.len() < listed.record.error.len() {
        error.push('…');
    }
    format!("{ago} ago: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_mqtt_may_go_without_its_port() {
        assert_eq!(mqtt_server("hub").unwrap().as_str(), "hub:1883");
        assert_eq!(mqtt_server("mqtt://10.0.0.1:1884/").unwrap().as_str(), "10.0.0.1:1884");
        assert_eq!(mqtt_server("[::1]").unwrap().as_str(), "[::1]:1883");
        assert!(mqtt_server("mqtts://hub").is_err() && mqtt_server("").is_err());
    }
}
