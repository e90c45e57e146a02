//! What may be said of any call: its payload, headers, deadline; and how its reply is told.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use bytes::Bytes;
use clap::Args;
use nigh_client::CallQueue;
use nigh_proto::asynchronous::CallbackUrl;
use nigh_proto::{
    Acceptance, ApplicationName, Call, Callback, FunctionName, Headers, Limits, Outcome, Priority, Reply, StepRan,
};
use serde_json::{Value, json};

use super::failure::FunctionFailed;
use super::timing::{self, Breakdown, Expected};
use crate::output::Output;
use crate::units::Time;

/// Bytes of a payload, at most: what any function may be deployed to take.
const PAYLOAD_BYTES_MAX: u64 = Limits::MAX.payload_bytes;

#[derive(Debug, Args)]
pub(super) struct CallOptions {
    /// `-` takes the payload from standard input
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["data", "file"])]
    stdin: Option<String>,
    /// The payload, as text
    #[arg(long, short, value_name = "TEXT", conflicts_with = "file")]
    data: Option<String>,
    /// The payload, from a file
    #[arg(long, short, value_name = "PATH")]
    file: Option<PathBuf>,
    /// A header of the request; may be given several times
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// Ask how long it would take; nothing runs
    #[arg(long)]
    dry_run: bool,
    /// Running it twice does no harm: where a computer fails, the broker may try another
    #[arg(long)]
    retry_safe: bool,
    /// Which calls give way where there is no room for all: low, normal or high
    #[arg(long, default_value_t, value_name = "PRIORITY")]
    priority: Priority,
    /// The application whose states it reads and writes [default: default]
    #[arg(long, value_name = "NAME")]
    application: Option<ApplicationName>,
    /// Time for the whole call
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: Time,
    /// Have it run later, at least once, and print its id; `nigh result ID` tells what came of it
    #[arg(long = "async", conflicts_with_all = ["dry_run", "verbose", "output"])]
    is_asynchronous: bool,
    /// With --async: where the outcome is posted to, at a host that the broker's operator allows
    #[arg(long, value_name = "URL", requires = "is_asynchronous")]
    callback: Option<CallbackUrl>,
    #[command(flatten)]
    told: Told,
}

/// How a reply is told.
#[derive(Debug, Args)]
pub(super) struct Told {
    /// Say on standard error where the time went and who ran it
    #[arg(long, short)]
    verbose: bool,
    /// Write the answer to a file
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
}

impl CallOptions {
    /// A call of this function, as it was asked for.
    pub(super) fn call(&self, function: FunctionName) -> anyhow::Result<Call> {
        let mut call = Call::new(function, self.payload()?, self.timeout.duration());
        call.headers = Headers::new(self.header.clone())?;
        call.dry_run = self.dry_run;
        call.retry_safe = self.retry_safe;
        call.priority = self.priority;
        call.application = self.application.clone();
        Ok(call)
    }

    /// Whether the call is to be run later.
    pub(super) fn is_asynchronous(&self) -> bool {
        self.is_asynchronous
    }

    /// Has a call accepted to be run later, and tells its id.
    pub(super) async fn accept(self, call: Call, queue: &CallQueue, output: Output) -> anyhow::Result<()> {
        let (timeout, callback) = (self.timeout.duration(), self.callback.map(Callback::Http));
        let accepted = queue.accept(&Acceptance { call, timeout, callback }).await?;
        Ok(output.result(&json!({ "call": accepted.id.as_str() }), |_| &accepted.id)?)
    }

    /// Whether more than the answer is to be told.
    pub(super) fn is_verbose(&self) -> bool {
        self.told.verbose
    }

    /// Tells of a reply, as it was asked for.
    pub(super) fn tell(self, reply: Reply, output: Output) -> anyhow::Result<()> {
        self.told.tell(reply, output)
    }

    fn payload(&self) -> anyhow::Result<Bytes> {
        match (&self.data, &self.file, &self.stdin) {
            (Some(text), ..) => Ok(text.clone().into()),
            (None, Some(path), _) => {
                let name = path.display();
                let file = std::fs::File::open(path).with_context(|| format!("cannot read the payload {name}"))?;
                read_payload(file, name)
            }
            (None, None, Some(_)) => read_payload(std::io::stdin().lock(), "standard input"),
            (None, None, None) => Ok(Bytes::new()),
        }
    }
}

impl Told {
    /// Tells of a reply: the answer to where it was asked for, the rest to standard error.
    pub(super) fn tell(self, reply: Reply, output: Output) -> anyhow::Result<()> {
        if self.verbose {
            output.note(Breakdown(&reply));
        }
        let told = output.is_json().then(|| as_json(&reply, self.output.is_none()));
        match reply.outcome {
            Outcome::Error { kind, message } => return Err(FunctionFailed { kind, message }.into()),
            Outcome::Answer { payload, .. } => match (&self.output, &told) {
                (Some(path), _) => std::fs::write(path, &payload)
                    .with_context(|| format!("cannot write the answer to {}", path.display()))?,
                (None, Some(_)) => {}
                (None, None) => output.bytes(&payload)?,
            },
            Outcome::Estimate(estimate) if told.is_none() => output.line(Expected(&estimate, &reply.computer))?,
            Outcome::Estimate(_) => {}
        }
        Ok(told.map_or(Ok(()), |told| output.line(told))?)
    }
}

/// Everything that a payload's source has, up to [`PAYLOAD_BYTES_MAX`].
fn read_payload(source: impl Read, name: impl fmt::Display) -> anyhow::Result<Bytes> {
    let mut payload = Vec::new();
    let read = source.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut payload);
    read.with_context(|| format!("cannot read the payload {name}"))?;
    if payload.len() as u64 > PAYLOAD_BYTES_MAX {
        bail!("the payload {name} has over {PAYLOAD_BYTES_MAX} bytes; no function takes as many");
    }
    Ok(payload.into())
}

pub(super) fn parse_header(given: &str) -> Result<(String, String), String> {
    match given.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".into()),
    }
}

/// A reply for programs. The payload is text where it is UTF-8, else Base64.
fn as_json(reply: &Reply, with_payload: bool) -> Value {
    let mut told = json!({
        "computer": reply.computer.as_str(),
        "responder": reply.responder.as_ref().map(ToString::to_string),
        "version": reply.version.map(|version| version.to_string()),
        "call": reply.call.as_str(),
        "hops": reply.hops,
        "timing_us": timing::as_json(&reply.timing),
        "load": {
            "running": reply.load.running,
            "queued": reply.load.queued,
            "workers": reply.load.workers,
            "utilisation": reply.load.utilisation,
        },
    });
    if !reply.steps.is_empty() {
        told["steps"] = reply.steps.iter().map(step_as_json).collect();
    }
    match &reply.outcome {
        Outcome::Answer { payload, headers } => {
            told["headers"] = headers.iter().map(|(name, value)| json!([name, value])).collect();
            if with_payload {
                match std::str::from_utf8(payload) {
                    Ok(text) => told["payload"] = text.into(),
                    Err(_) => {
                        told["payload_base64"] = base64::engine::general_purpose::STANDARD.encode(payload).into();
                    }
                }
            }
        }
        Outcome::Estimate(estimate) => told["estimate_us"] = timing::estimate_as_json(estimate),
        Outcome::Error { kind, message } => told["error"] = json!({ "kind": kind, "message": message }),
    }
    told
}

fn step_as_json(ran: &StepRan) -> Value {
    json!({
        "step": ran.step.as_ref().map(ToString::to_string),
        "function": ran.function.as_str(),
        "computer": ran.computer.as_str(),
        "timing_us": timing::as_json(&ran.timing),
    })
}

#[cfg(test)]
mod tests {
    use nigh_proto::{CallId, Digest, Load, Timing};

    use super::*;

    #[test]
    fn headers_may_hold_further_equal_signs() {
        assert_eq!(parse_header("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse_header("a="), Ok(("a".into(), String::new())));
        assert!(parse_header("=b").is_err() && parse_header("ab").is_err());
    }

    #[test]
    fn a_payload_has_an_end() {
        let endless = std::io::repeat(7);
        let error = read_payload(endless, "standard input").unwrap_err().to_string();
        assert!(error.contains("67108864"), "{error}");
        assert_eq!(read_payload(&b"some"[..], "x").unwrap(), "some");
    }

    #[test]
    fn an_answer_for_programs_is_text_or_base64() {
        let reply = |payload: &'static [u8]| Reply {
            outcome: Outcome::Answer { payload: payload.into(), headers: Headers::default() },
            computer: "c".parse().unwrap(),
            responder: None,
            version: Some(Digest::of(b"")),
            call: CallId::random(),
            hops: 1,
            load: Load::default(),
            timing: Timing::default(),
            steps: Vec::new(),
            states: Vec::new(),
        };
        assert_eq!(as_json(&reply(b"text"), true)["payload"], "text");
        assert_eq!(as_json(&reply(b"\xff\x00"), true)["payload_base64"], "/wA=");
        assert!(as_json(&reply(b"text"), false).get("payload").is_none());
    }
}
