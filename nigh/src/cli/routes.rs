//! `nigh routes`: a broker's forwarding tables.

use std::fmt::{self, Write as _};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nigh_client::{Destination, Inspect, Route, Routes, Table as Which};
use nigh_proto::{Endpoint, FunctionName};
use nigh_routing::forwarding::{Row, TableText};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::output::{Column, Output, Table};
use crate::units::Time;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh routes                                  where calls go, and how fast
  nigh routes --function echo --json
  nigh routes dump                             both tables as plain rows: function, [weight], destination, (F) if final
  nigh routes set echo 10.0.0.7:10000          a computer by hand
  nigh routes set echo 10.0.0.2:6473 --forward   a broker by hand
  nigh routes remove echo 10.0.0.7:10000
  nigh routes watch --every 500ms

Calls straight from a caller go by the overall table. Calls that another broker has passed on go by the final one, which
has only computers.")]
pub(super) struct RoutesCommand {
    /// Only this function
    #[arg(long, value_name = "NAME", global = true)]
    function: Option<FunctionName>,
    /// The final table instead of the overall one
    #[arg(long = "final")]
    is_final: bool,
    #[command(subcommand)]
    command: Option<RoutesSubcommand>,
}

#[derive(Debug, Subcommand)]
enum RoutesSubcommand {
    /// Print both tables as plain rows
    #[command(after_help = "Example:\n  nigh routes dump")]
    Dump,
    /// Add a destination by hand, or change its weight
    #[command(after_help = "Example:\n  nigh routes set echo 10.0.0.7:10000 --weight 2.5")]
    Set {
        /// The function
        function: FunctionName,
        /// A computer, or with --forward a broker
        destination: Endpoint,
        /// Latency in milliseconds to assume until it is measured
        #[arg(long, value_name = "MS", default_value_t = 1.0)]
        weight: f64,
        /// The destination is another broker: calls that a broker has passed on already do not go there
        #[arg(long)]
        forward: bool,
    },
    /// Remove a destination from both tables
    #[command(visible_alias = "rm", after_help = "Example:\n  nigh routes remove echo 10.0.0.7:10000")]
    Remove {
        /// The function
        function: FunctionName,
        /// The destination
        destination: Endpoint,
    },
    /// Remove every destination of every function; those that a controller announces come back
    #[command(after_help = "Example:\n  nigh routes flush")]
    Flush,
    /// Print a table again and again
    #[command(after_help = "Example:\n  nigh routes watch --every 500ms")]
    Watch {
        /// How often
        #[arg(long, value_name = "TIME", default_value = "1s")]
        every: Time,
    },
}

impl RoutesCommand {
    pub(super) async fn run(self, broker: &Inspect, output: Output) -> anyhow::Result<()> {
        let which = if self.is_final { Which::Final } else { Which::Overall };
        let function = self.function.as_ref();
        let told = match &self.command {
            None => {
                let routes = broker.routes(function, which).await?;
                if routes.routes.is_empty() && !output.is_json() {
                    output.note("no routes: nothing is deployed, or no computer is ready yet");
                }
                return Ok(output.result(&as_json(&routes), |_| ForPeople(&routes))?);
            }
            Some(RoutesSubcommand::Dump) => return dump(broker, function, output).await,
            Some(RoutesSubcommand::Watch { every }) => return watch(broker, function, which, *every, output).await,
            Some(RoutesSubcommand::Set { function, destination, weight, forward }) => {
                broker.set_route(function, destination, *weight, !forward).await?;
                format!("{function} also goes to {destination}")
            }
            Some(RoutesSubcommand::Remove { function, destination }) => {
                broker.remove_route(function, destination).await?;
                format!("{function} no longer goes to {destination}")
            }
            Some(RoutesSubcommand::Flush) => {
                broker.flush_routes().await?;
                "all routes are removed; what the controller announces comes back with its next change".to_owned()
            }
        };
        Ok(output.result(&json!({ "done": told }), |_| &told)?)
    }
}

async fn dump(broker: &Inspect, function: Option<&FunctionName>, output: Output) -> anyhow::Result<()> {
    let mut tables = Vec::with_capacity(Which::ALL.len());
    for which in Which::ALL {
        tables.push(broker.routes(function, which).await?);
    }
    let text = |tables: &[Routes]| {
        let mut text = String::new();
        for (number, table) in tables.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(text, "Table#{number}\n{}", TableText::new(rows(table)));
        }
        text
    };
    let told = json!({ "tables": tables.iter().map(as_json).collect::<Value>() });
    Ok(output.result(&told, |_| text(&tables))?)
}

fn rows(table: &Routes) -> impl Iterator<Item = Row<'_>> {
    table.routes.iter().flat_map(|route| {
        route.destinations.iter().map(|destination| Row {
            function: route.function.as_str(),
            destination: destination.endpoint.as_str(),
            weight: destination.weight_ms.unwrap_or(WEIGHT_UNMEASURED),
            is_final: destination.is_final,
        })
    })
}

/// The weight that a destination has before anything is known of it.
const WEIGHT_UNMEASURED: f64 = 1.0;

async fn watch(
    broker: &Inspect,
    function: Option<&FunctionName>,
    which: Which,
    every: Time,
    output: Output,
) -> anyhow::Result<()> {
    let screen = console::Term::stdout();
    let mut ticks = tokio::time::interval(every.duration());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let routes = broker.routes(function, which).await?;
        if screen.is_term() && !output.is_json() {
            screen.clear_screen().context("cannot write to the terminal")?;
        }
        output.result(&as_json(&routes), |_| ForPeople(&routes))?;
    }
}

struct ForPeople<'a>(&'a Routes);

impl fmt::Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Routes { policy, routes }) = self;
        let mut table = Table::new([
            Column::words("FUNCTION"),
            Column::words("DESTINATION"),
            Column::numbers("LATENCY"),
            Column::words("STATE"),
            Column::numbers("IN FLIGHT"),
            Column::numbers("CALLS"),
            Column::numbers("FAILURES"),
            Column::words("SET BY"),
            Column::words("FINAL"),
        ]);
        for route in routes {
            for destination in &route.destinations {
                table.row([
                    route.function.to_string(),
                    destination.endpoint.to_string(),
                    destination.weight_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3} ms")),
                    destination.state.to_string(),
                    destination.in_flight.to_string(),
                    destination.calls.to_string(),
                    destination.failures.to_string(),
                    if destination.by_hand { "hand" } else { "controller" }.to_owned(),
                    if destination.is_final { "yes" } else { "no" }.to_owned(),
                ]);
            }
        }
        write!(f, "policy {policy}\n{table}")
    }
}

fn as_json(routes: &Routes) -> Value {
    let destination = |destination: &Destination| {
        json!({
            "endpoint": destination.endpoint.as_str(),
            "weight_ms": destination.weight_ms,
            "state": destination.state.to_string(),
            "in_flight": destination.in_flight,
            "calls": destination.calls,
            "failures": destination.failures,
            "by_hand": destination.by_hand,
            "final": destination.is_final,
        })
    };
    let route = |route: &Route| {
        json!({
            "function": route.function.as_str(),
            "destinations": route.destinations.iter().map(destination).collect::<Value>(),
        })
    };
    json!({ "policy": routes.policy, "routes": routes.routes.iter().map(route).collect::<Value>() })
}

#[cfg(test)]
mod tests {
    use nigh_client::DestinationState;

    use super::*;

    fn routes() -> Routes {
        let destination = Destination {
            endpoint: "127.0.0.1:10000".parse().unwrap(),
            weight_ms: None,
            state: DestinationState::InUse,
            in_flight: 1,
            calls: 2,
            failures: 0,
            by_hand: true,
            is_final: true,
        };
        let broker = Destination {
            endpoint: "127.0.0.1:6473".parse().unwrap(),
            weight_ms: Some(12.5),
            is_final: false,
            ..destination.clone()
        };
        let route = Route { function: "echo".parse().unwrap(), destinations: vec![destination, broker] };
        Routes { policy: "random".into(), routes: vec![route] }
    }

    #[test]
    fn a_table_shows_what_is_not_measured_yet_as_such() {
        let text = ForPeople(&routes()).to_string();
        let row: Vec<_> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row, ["echo", "127.0.0.1:10000", "-", "in-use", "1", "2", "0", "hand", "yes"]);
        assert!(as_json(&routes())["routes"][0]["destinations"][0]["weight_ms"].is_null());
    }

    #[test]
    fn a_dump_has_the_rows_in_order() {
        let text = TableText::new(rows(&routes())).to_string();
        assert_eq!(text, "echo [1]    127.0.0.1:10000 (F)\n     [12.5] 127.0.0.1:6473\n");
    }
}
