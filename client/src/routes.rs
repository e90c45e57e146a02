//! What a broker tells of its forwarding table.

use std::fmt;

use nigh_proto::{Endpoint, FunctionName, PlatformError, v1};

use crate::peer::foreign;

/// Which of a broker's two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Every destination: for calls straight from a caller.
    Overall,
    /// Destinations that run calls themselves: for calls that have passed a broker already.
    Final,
}

impl Table {
    /// Both, in the order in which they are numbered.
    pub const ALL: [Self; 2] = [Self::Overall, Self::Final];

    pub(crate) fn to_wire(self) -> v1::Table {
        match self {
            Self::Overall => v1::Table::Overall,
            Self::Final => v1::Table::Final,
        }
    }
}

/// A broker's forwarding table.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// The policy that picks among destinations.
    pub policy: String,
    /// One route for each function, by name.
    pub routes: Vec<Route>,
}

/// Where a broker sends the calls of one function.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The function.
    pub function: FunctionName,
    /// Its destinations.
    pub destinations: Vec<Destination>,
}

/// One destination of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Measured latency in milliseconds, or the weight set by hand; `None` where nothing has been measured yet.
    pub weight_ms: Option<f64>,
    /// Whether it gets calls.
    pub state: DestinationState,
    /// Calls under way to it.
    pub in_flight: u32,
    /// Calls sent to it.
    pub calls: u64,
    /// Those among them that it did not bring to an outcome.
    pub failures: u64,
    /// Set by hand, so that it stays whatever the controller says.
    pub by_hand: bool,
    /// It runs calls itself; false for another broker.
    pub is_final: bool,
}

/// Whether a destination gets calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationState {
    /// It gets calls.
    InUse,
    /// It failed of late and gets none.
    SetAside,
    /// It failed and is being tried again with single calls.
    Probing,
}

impl fmt::Display for DestinationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::InUse => "in-use",
            Self::SetAside => "set-aside",
            Self::Probing => "probing",
        })
    }
}

impl Routes {
    pub(crate) fn from_wire(wire: v1::RoutesResponse) -> Result<Self, PlatformError> {
        let route = |wire: v1::Route| {
            let destinations = wire.destinations.into_iter().map(Destination::from_wire);
            Ok(Route {
                function: wire.function.parse().map_err(|_| foreign("broker", "function"))?,
                destinations: destinations.collect::<Result<_, _>>()?,
            })
        };
        let routes = wire.routes.into_iter().map(route).collect::<Result<_, PlatformError>>()?;
        Ok(Self { policy: wire.policy, routes })
    }
}

impl Destination {
    fn from_wire(wire: v1::RouteDestination) -> Result<Self, PlatformError> {
        let state = match wire.state.as_str() {
            "in-use" => DestinationState::InUse,
            "set-aside" => DestinationState::SetAside,
            "probing" => DestinationState::Probing,
            _ => return Err(foreign("broker", "state of a destination")),
        };
        Ok(Self {
            endpoint: wire.endpoint.parse().map_err(|_| foreign("broker", "endpoint"))?,
            weight_ms: (wire.weight > 0.0).then_some(wire.weight),
            state,
            in_flight: wire.in_flight,
            calls: wire.calls,
            failures: wire.failures,
            by_hand: wire.by_hand,
            is_final: wire.is_final,
        })
    }
}
