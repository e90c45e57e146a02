//! `nigh state`: what applications keep beside their calls.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use nigh_client::{Admin, StateContent, StateInfo};
use nigh_proto::state::STATE_BYTES_MAX;
use nigh_proto::{ApplicationName, StateId, StateName};
use serde_json::{Value, json};

use crate::output::{Column, Output, Table};
use crate::units::size;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh state ls                                which states there are, and who holds them
  nigh state get visits                        its content, byte for byte
  nigh state put visits --data 0
  nigh state rm visits
  nigh state ls --application shop             of one application

States are of the application `default` unless calls say otherwise (nigh invoke --application shop).")]
pub(super) struct StateCommand {
    #[command(subcommand)]
    command: StateSubcommand,
}

#[derive(Debug, Subcommand)]
enum StateSubcommand {
    /// Which states there are, and who holds them
    #[command(after_help = "Examples:\n  nigh state ls\n  nigh state ls --application shop --json")]
    Ls {
        /// Only of this application
        #[arg(long, value_name = "NAME")]
        application: Option<ApplicationName>,
    },
    /// The content of a state, as written last
    #[command(
        after_help = "Examples:\n  nigh state get visits\n  nigh state get cart:42 --application shop -o cart.json"
    )]
    Get {
        #[command(flatten)]
        which: Which,
        /// Write it to a file
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Write a state, once no call uses it
    #[command(after_help = "Examples:
  nigh state put visits --data 0
  nigh state put model --file weights.bin --application shop
  nigh state put visits --data 8 --if-version 7      only in place of that version (0: only where there is none)")]
    Put {
        #[command(flatten)]
        which: Which,
        /// The content, as text
        #[arg(long, short, value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
        data: Option<String>,
        /// The content, from a file; `-` is standard input
        #[arg(long, short, value_name = "PATH")]
        file: Option<PathBuf>,
        /// Only in place of this version; 0: only where there is none
        #[arg(long, value_name = "VERSION")]
        if_version: Option<u64>,
    },
    /// Remove states, once no call uses them
    #[command(after_help = "Examples:\n  nigh state rm visits\n  nigh state rm cart:41 cart:42 --application shop")]
    Rm {
        /// Their names
        #[arg(required = true, value_name = "STATE")]
        states: Vec<StateName>,
        /// Their application
        #[arg(long, value_name = "NAME", default_value = ApplicationName::DEFAULT)]
        application: ApplicationName,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Its name
    state: StateName,
    /// Its application
    #[arg(long, value_name = "NAME", default_value = ApplicationName::DEFAULT)]
    application: ApplicationName,
}

impl Which {
    fn id(self) -> StateId {
        StateId { application: self.application, state: self.state }
    }
}

impl StateCommand {
    pub(super) async fn run(self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        match self.command {
            StateSubcommand::Ls { application } => list(admin, application.as_ref(), output).await,
            StateSubcommand::Get { which, output: file } => get(admin, &which.id(), file, output).await,
            StateSubcommand::Put { which, data, file, if_version } => {
                let (id, content) = (which.id(), content(data, file)?);
                let version = admin.put_state(&id, content, if_version).await?;
                Ok(output.result(&json!({ "state": id.to_string(), "version": version }), |_| {
                    format!("{id} has version {version}")
                })?)
            }
            StateSubcommand::Rm { states, application } => {
                for state in states {
                    let id = StateId { application: application.clone(), state };
                    if !admin.remove_state(&id).await? {
                        bail!("there is no state {id}; `nigh state ls` lists those that there are");
                    }
                    output.result(&json!({ "removed": id.to_string() }), |_| format!("{id} is removed"))?;
                }
                Ok(())
            }
        }
    }
}

async fn list(admin: &Admin, application: Option<&ApplicationName>, output: Output) -> anyhow::Result<()> {
    let (states, silent) = admin.states(application).await?;
    for (computer, error) in &silent {
        output.note(format_args!("{computer} cannot be asked: {error}"));
    }
    if states.is_empty() && !output.is_json() {
        output.note("no states");
        return Ok(());
    }
    let told: Value = states.iter().map(as_json).collect();
    Ok(output.result(&told, |_| table(&states))?)
}

async fn get(admin: &Admin, id: &StateId, file: Option<PathBuf>, output: Output) -> anyhow::Result<()> {
    let Some(StateContent { content, version }) = admin.state(id).await? else {
        bail!("there is no state {id}; `nigh state ls` lists those that there are");
    };
    let mut told = json!({ "state": id.to_string(), "version": version, "bytes": content.len() });
    match &file {
        Some(path) => {
            std::fs::write(path, &content).with_context(|| format!("cannot write the state to {}", path.display()))?;
        }
        None if !output.is_json() => return Ok(output.bytes(&content)?),
        None => match std::str::from_utf8(&content) {
            Ok(text) => told["content"] = text.into(),
            Err(_) => told["content_base64"] = base64::engine::general_purpose::STANDARD.encode(&content).into(),
        },
    }
    if output.is_json() { Ok(output.line(told)?) } else { Ok(()) }
}

fn content(data: Option<String>, file: Option<PathBuf>) -> anyhow::Result<Bytes> {
    let Some(path) = file else { return Ok(data.unwrap_or_default().into()) };
    let name = path.display();
    let mut content = Vec::new();
    let limit = STATE_BYTES_MAX as u64 + 1;
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut content)
    } else {
        std::fs::File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut content))
    };
    read.with_context(|| format!("cannot read the content {name}"))?;
    if content.len() > STATE_BYTES_MAX {
        bail!("the content {name} has over {STATE_BYTES_MAX} bytes; no state has as many");
    }
    Ok(content.into())
}

fn as_json(info: &StateInfo) -> Value {
    json!({
        "application": info.id.application.as_str(),
        "state": info.id.state.as_str(),
        "version": info.version,
        "bytes": info.bytes,
        "computer": info.computer.as_ref().map(ToString::to_string),
        "held": info.is_held,
    })
}

fn table(states: &[StateInfo]) -> impl fmt::Display {
    let mut table = Table::new([
        Column::words("APPLICATION"),
        Column::words("STATE"),
        Column::numbers("VERSION"),
        Column::numbers("SIZE"),
        Column::words("HELD BY"),
    ]);
    for info in states {
        let holder = match (&info.computer, info.is_held) {
            (None, _) => "all, in their store".to_owned(),
            (Some(computer), true) => computer.to_string(),
            (Some(computer), false) => format!("{computer} (on its way)"),
        };
        let (application, state) = (info.id.application.to_string(), info.id.state.to_string());
        table.row([application, state, info.version.to_string(), size(info.bytes), holder]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(computer: Option<&str>, is_held: bool) -> StateInfo {
        let id = StateId { application: "shop".parse().unwrap(), state: "cart:42".parse().unwrap() };
        StateInfo { id, version: 7, bytes: 2048, computer: computer.map(|name| name.parse().unwrap()), is_held }
    }

    #[test]
    fn people_see_who_holds_a_state() {
        let text = table(&[info(Some("computer-1"), true), info(Some("b"), false), info(None, true)]).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].contains("cart:42") && lines[1].ends_with("computer-1"), "{text}");
        assert!(lines[2].ends_with("b (on its way)") && lines[3].ends_with("all, in their store"), "{text}");
    }

    #[test]
    fn programs_get_everything() {
        let told = as_json(&info(Some("computer-1"), true));
        assert_eq!((&told["application"], &told["version"]), (&json!("shop"), &json!(7)));
        assert!(as_json(&info(None, true))["computer"].is_null());
    }

    #[test]
    fn content_is_text_or_a_file_within_its_limit() {
        assert_eq!(content(Some("8".into()), None).unwrap(), "8");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::write(&path, vec![0; STATE_BYTES_MAX + 1]).unwrap();
        assert!(content(None, Some(path)).unwrap_err().to_string().contains("523264"));
        assert!(content(None, Some("no/such".into())).unwrap_err().to_string().contains("no/such"));
    }
}
