//! `nigh routes`: a broker's forwarding table.

use std::fmt;

use clap::{Args, Subcommand};
use nigh_client::{Destination, Inspect, Routes};
use nigh_proto::{Endpoint, FunctionName};
use serde_json::{Value, json};

use crate::output::{Column, Output, Table};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh routes                                  where calls go, and how fast
  nigh routes --function echo --json
  nigh routes set echo 10.0.0.7:10000          a destination by hand
  nigh routes rm echo 10.0.0.7:10000")]
pub(super) struct RoutesCommand {
    /// Only this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    #[command(subcommand)]
    edit: Option<Edit>,
}

#[derive(Debug, Subcommand)]
enum Edit {
    /// Add a destination by hand, or change its weight
    #[command(after_help = "Example:\n  nigh routes set echo 10.0.0.7:10000 --weight 2.5")]
    Set {
        /// The function
        function: FunctionName,
        /// A computer or a broker
        destination: Endpoint,
        /// Latency in milliseconds to assume until it is measured
        #[arg(long, value_name = "MS", default_value_t = 1.0)]
        weight: f64,
    },
    /// Remove a destination that was added by hand
    #[command(after_help = "Example:\n  nigh routes rm echo 10.0.0.7:10000")]
    Rm {
        /// The function
        function: FunctionName,
        /// The destination
        destination: Endpoint,
    },
}

impl RoutesCommand {
    pub(super) async fn run(self, broker: &Inspect, output: Output) -> anyhow::Result<()> {
        let told = match &self.edit {
            None => {
                let routes = broker.routes(self.function.as_ref()).await?;
                if routes.routes.is_empty() && !output.is_json() {
                    output.note("no routes: nothing is deployed, or no computer is ready yet");
                }
                return Ok(output.result(&as_json(&routes), |_| ForPeople(&routes))?);
            }
            Some(Edit::Set { function, destination, weight }) => {
                broker.set_route(function, destination, *weight).await?;
                format!("{function} also goes to {destination}")
            }
            Some(Edit::Rm { function, destination }) => {
                broker.remove_route(function, destination).await?;
                format!("{function} no longer goes to {destination} by hand")
            }
        };
        Ok(output.result(&json!({ "done": told }), |_| &told)?)
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
        })
    };
    let route = |route: &nigh_client::Route| {
        json!({
            "function": route.function.as_str(),
            "destinations": route.destinations.iter().map(destination).collect::<Value>(),
        })
    };
    json!({ "policy": routes.policy, "routes": routes.routes.iter().map(route).collect::<Value>() })
}

#[cfg(test)]
mod tests {
    use nigh_client::{DestinationState, Route};

    use super::*;

    #[test]
    fn a_table_shows_what_is_not_measured_yet_as_such() {
        let destination = Destination {
            endpoint: "127.0.0.1:10000".parse().unwrap(),
            weight_ms: None,
            state: DestinationState::InUse,
            in_flight: 1,
            calls: 2,
            failures: 0,
            by_hand: true,
        };
        let route = Route { function: "echo".parse().unwrap(), destinations: vec![destination] };
        let routes = Routes { policy: "random".into(), routes: vec![route] };
        let text = ForPeople(&routes).to_string();
        let row: Vec<_> = text.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row, ["echo", "127.0.0.1:10000", "-", "in-use", "1", "2", "0", "hand"]);
        assert!(as_json(&routes)["routes"][0]["destinations"][0]["weight_ms"].is_null());
    }
}
