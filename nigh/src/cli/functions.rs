//! `nigh ls` and `nigh rm`.

use std::collections::BTreeMap;
use std::fmt;

use clap::Args;
use nigh_client::{Admin, Listing};
use nigh_proto::{Broker, Computer, Deployment, FunctionName, Limits, StateName};
use serde_json::{Value, json};

use crate::output::{Column, Output, Table};
use crate::units;

/// Computers named in a cell; further ones are counted.
const NAMED_MAX: usize = 3;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh ls
  nigh ls --json     functions with their limits, and the computers and brokers alive")]
pub(super) struct LsCommand {}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh rm hello
  nigh rm hello thumbnail

Calls under way finish.")]
pub(super) struct RmCommand {
    /// The functions
    #[arg(required = true, value_name = "NAME")]
    names: Vec<FunctionName>,
}

impl LsCommand {
    pub(super) async fn run(self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let listing = admin.list().await?;
        output.result(&as_json(&listing), |_| ForPeople(&listing))?;
        if !output.is_json() {
            if listing.functions.is_empty() && own(&listing).is_empty() {
                output.note("no function is deployed; deploy one with: nigh deploy FILE.wasm");
            }
            if listing.computers.is_empty() {
                output.note("no computer is alive, so nothing can run; start one with: nigh computer");
            }
        }
        Ok(())
    }
}

impl RmCommand {
    pub(super) async fn run(self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        for name in &self.names {
            admin.remove(name).await?;
            output.result(&json!({ "removed": name.as_str() }), |_| format!("{name} is removed"))?;
        }
        Ok(())
    }
}

/// The computers that can run this very version.
fn ready<'a>(listing: &'a Listing, function: &Deployment) -> Vec<&'a str> {
    let has = |computer: &&Computer| {
        computer.ready.iter().any(|(name, version)| *name == function.name && *version == function.version)
    };
    listing.computers.iter().filter(has).map(|computer| computer.name.as_str()).collect()
}

/// The computers that cannot run this very version, and why.
fn problems<'a>(listing: &'a Listing, function: &Deployment) -> Vec<(&'a str, &'a str)> {
    let of = |computer: &'a Computer| {
        let mut problems = computer.problems.iter();
        let found = problems.find(|one| one.function == function.name && one.version == function.version)?;
        Some((computer.name.as_str(), found.message.as_str()))
    };
    listing.computers.iter().filter_map(of).collect()
}

/// The functions that computers bring themselves, and which computers do.
fn own(listing: &Listing) -> BTreeMap<&FunctionName, Vec<&str>> {
    let mut own: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for computer in &listing.computers {
        for function in &computer.own_functions {
            own.entry(function).or_default().push(computer.name.as_str());
        }
    }
    own
}

struct ForPeople<'a>(&'a Listing);

impl fmt::Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(listing) = self;
        let own = own(listing);
        if listing.functions.is_empty() && own.is_empty() {
            return Ok(());
        }
        let mut table = Table::new([
            Column::words("FUNCTION"),
            Column::words("VERSION"),
            Column::words("KIND"),
            Column::numbers("SIZE"),
            Column::numbers("MEMORY"),
            Column::numbers("TIMEOUT"),
            Column::words("READY"),
            Column::words("ON"),
        ]);
        for function in &listing.functions {
            let ready = ready(listing, function);
            table.row([
                function.name.to_string(),
                function.version.short(),
                function.kind.to_string(),
                units::size(function.module_bytes),
                units::size(function.limits.memory_bytes),
                humantime::format_duration(function.limits.timeout).to_string(),
                format!("{}/{}", ready.len(), allowed(listing, function)),
                named(&ready),
            ]);
        }
        for (function, computers) in own {
            let [version, size, memory, timeout] = std::array::from_fn(|_| "-".to_owned());
            let ready = format!("{}/{}", computers.len(), listing.computers.len());
            let (name, kind) = (function.to_string(), "own".to_owned());
            table.row([name, version, kind, size, memory, timeout, ready, named(&computers)]);
        }
        table.fmt(f)?;
        placed(listing).fmt(f)?;
        for function in &listing.functions {
            for (computer, problem) in problems(listing, function) {
                writeln!(f, "! {computer} cannot run {}: {problem}", function.name)?;
            }
        }
        Ok(())
    }
}

/// Computers that may run a function, by their labels.
fn allowed(listing: &Listing, function: &Deployment) -> usize {
    listing.computers.iter().filter(|computer| function.placement.allows(&computer.labels)).count()
}

/// Functions that do not run everywhere, and where; those with states, and which; below them the computers' labels. Nothing
/// where there is nothing of the kind.
fn placed(listing: &Listing) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for function in listing.functions.iter().filter(|function| !function.placement.is_anywhere()) {
        let _ = writeln!(text, "{} runs only where {}", function.name, function.placement);
    }
    for function in listing.functions.iter().filter(|function| !function.states.is_empty()) {
        let states: Vec<_> = function.states.iter().map(StateName::as_str).collect();
        let _ = writeln!(text, "{} depends on {} {}", function.name, plural(&states), states.join(", "));
    }
    for computer in listing.computers.iter().filter(|computer| !computer.labels.is_empty()) {
        let _ = writeln!(text, "{} is labelled {}", computer.name, computer.labels);
    }
    text
}

fn plural(states: &[&str]) -> &'static str {
    if states.len() == 1 { "state" } else { "states" }
}

fn named(computers: &[&str]) -> String {
    let shown = computers[..computers.len().min(NAMED_MAX)].join(" ");
    match computers.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} +{more}"),
    }
}

fn as_json(listing: &Listing) -> Value {
    let function = |function: &Deployment| {
        let problem = |(computer, message): (&str, &str)| json!({ "computer": computer, "message": message });
        let grant = |grant: &nigh_proto::DirectoryGrant| json!({ "name": grant.name, "path": grant.guest_path, "writable": grant.writable });
        json!({
            "name": function.name.as_str(),
            "version": function.version.to_string(),
            "module": function.module.to_string(),
            "bytes": function.module_bytes,
            "kind": function.kind.to_string(),
            "limits": limits_as_json(&function.limits),
            "directories": function.directories.iter().map(grant).collect::<Value>(),
            "where": function.placement.to_wire(),
            "states": function.states.iter().map(StateName::as_str).collect::<Value>(),
            "ready": ready(listing, function),
            "problems": problems(listing, function).into_iter().map(problem).collect::<Value>(),
        })
    };
    let computer = |computer: &Computer| {
        json!({
            "name": computer.name.as_str(),
            "endpoint": computer.endpoint.as_str(),
            "workers": computer.workers,
            "directories": computer.directories,
            "own_functions": computer.own_functions.iter().map(FunctionName::as_str).collect::<Value>(),
            "labels": computer.labels.to_wire(),
        })
    };
    let broker = |broker: &Broker| {
        json!({
            "name": broker.name.as_str(),
            "calls": broker.endpoint.as_str(),
            "table": broker.table_endpoint.as_ref().map(ToString::to_string),
            "http": broker.http_endpoint.as_ref().map(ToString::to_string),
        })
    };
    json!({
        "functions": listing.functions.iter().map(function).collect::<Value>(),
        "computers": listing.computers.iter().map(computer).collect::<Value>(),
        "brokers": listing.brokers.iter().map(broker).collect::<Value>(),
    })
}

fn limits_as_json(limits: &Limits) -> Value {
    json!({
        "memory_bytes": limits.memory_bytes,
        "timeout_ms": u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
        "concurrency": limits.concurrency,
        "queue": limits.queue,
        "payload_bytes": limits.payload_bytes,
        "reuse": limits.reuse,
        "log_bytes": limits.log_bytes,
        "idle_ms": u64::try_from(limits.idle.as_millis()).unwrap_or(u64::MAX),
        "state_bytes": limits.state_bytes,
    })
}

#[cfg(test)]
mod tests {
    use nigh_proto::{ComputerProblem, Digest, Kind};

    use super::*;

    fn listing() -> Listing {
        let function = |name: &str| {
            let module = Digest::of(name.as_bytes());
            Deployment::new(name.parse().unwrap(), module, 2048, Kind::Native, Limits::default(), Vec::new())
        };
        let functions = vec![function("echo"), function("heavy")];
        let computer = |number: u16| Computer {
            name: format!("computer-{number}").parse().unwrap(),
            endpoint: format!("127.0.0.1:{number}").parse().unwrap(),
            ready: vec![(functions[0].name.clone(), functions[0].version)],
            problems: vec![ComputerProblem {
                function: functions[1].name.clone(),
                version: functions[1].version,
                message: "too large".into(),
            }],
            workers: 4,
            directories: Vec::new(),
            own_functions: Vec::new(),
            older: false,
            labels: nigh_proto::Labels::default(),
        };
        Listing { computers: (1..=5).map(computer).collect(), functions, brokers: Vec::new() }
    }

    #[test]
    fn people_see_where_functions_are_ready_and_why_not() {
        let text = ForPeople(&listing()).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].contains("5/5") && lines[1].contains("computer-3 +2"), "{text}");
        assert!(lines[2].contains("0/5"), "{text}");
        assert_eq!(lines[3], "! computer-1 cannot run heavy: too large");
    }

    #[test]
    fn a_version_that_is_not_the_deployed_one_does_not_count() {
        let mut listing = listing();
        listing.computers[0].ready[0].1 = Digest::of(b"older");
        assert_eq!(ready(&listing, &listing.functions[0]).len(), 4);
    }

    #[test]
    fn what_computers_bring_themselves_is_shown_too() {
        let mut listing = Listing { functions: Vec::new(), ..listing() };
        listing.computers[1].own_functions = vec!["clambda0".parse().unwrap()];
        let text = ForPeople(&listing).to_string();
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("clambda0") && line.contains("own") && line.contains("1/5"), "{text}");
        assert_eq!(as_json(&listing)["computers"][1]["own_functions"][0], "clambda0");
    }

    #[test]
    fn where_functions_run_is_told() {
        let mut listing = listing();
        let placement = nigh_proto::Placement::from_wire(&["zone=shop".into()]).unwrap();
        listing.functions[1] = listing.functions[1].clone().placed(placement);
        listing.computers[2].labels = nigh_proto::Labels::new(["zone=shop".parse().unwrap()]).unwrap();
        let text = ForPeople(&listing).to_string();
        assert!(text.contains("heavy runs only where zone=shop\n"), "{text}");
        assert!(text.contains("computer-3 is labelled zone=shop\n"), "{text}");
        assert!(text.lines().nth(2).unwrap().contains("0/1"), "{text}");
        let json = as_json(&listing);
        assert_eq!(
            (&json["functions"][1]["where"][0], &json["computers"][2]["labels"]["zone"]),
            (&json!("zone=shop"), &json!("shop"))
        );
    }

    #[test]
    fn states_are_told() {
        let mut listing = listing();
        let states = ["cart", "visits"].map(|state| state.parse().unwrap()).to_vec();
        listing.functions[1] = listing.functions[1].clone().depending_on(states);
        let text = ForPeople(&listing).to_string();
        assert!(text.contains("heavy depends on states cart, visits\n"), "{text}");
        assert_eq!(as_json(&listing)["functions"][1]["states"], json!(["cart", "visits"]));
    }

    #[test]
    fn programs_get_everything() {
        let json = as_json(&listing());
        assert_eq!(json["functions"][0]["name"], "echo");
        assert_eq!(json["functions"][0]["ready"].as_array().unwrap().len(), 5);
        assert_eq!(json["functions"][1]["problems"][0]["message"], "too large");
        assert_eq!(json["computers"][4]["endpoint"], "127.0.0.1:5");
    }
}
