//! The door to the forwarding table: `nigh.v1.Broker`.

use std::sync::Arc;

use nigh_proto::v1;
use nigh_proto::v1::broker_server::{Broker, BrokerServer};
use nigh_proto::{Endpoint, FunctionName, PlatformError};
use nigh_routing::{Scope, State};
use tonic::{Request, Response, Status};

use crate::routes::{Listed, Routes};

/// The service, ready to be added to a server.
pub(crate) fn service(routes: Arc<Routes>) -> BrokerServer<TableDoor> {
    BrokerServer::new(TableDoor { routes })
}

/// Reads and edits the table.
#[derive(Debug)]
pub(crate) struct TableDoor {
    routes: Arc<Routes>,
}

#[tonic::async_trait]
impl Broker for TableDoor {
    async fn routes(&self, request: Request<v1::RoutesRequest>) -> Result<Response<v1::RoutesResponse>, Status> {
        let request = request.into_inner();
        let scope = match request.table() {
            v1::Table::Overall => Scope::Overall,
            v1::Table::Final => Scope::Final,
        };
        let function = if request.function.is_empty() { None } else { Some(checked_function(&request.function)?) };
        let routes = self.routes.list(function.as_ref(), scope)?;
        let route = |(function, destinations): (FunctionName, Vec<Listed>)| v1::Route {
            function: function.as_str().to_owned(),
            destinations: destinations.iter().map(to_wire).collect(),
        };
        let routes = routes.into_iter().map(route).collect();
        Ok(Response::new(v1::RoutesResponse { routes, policy: self.routes.strategy().policy.to_string() }))
    }

    async fn set_route(&self, request: Request<v1::SetRouteRequest>) -> Result<Response<v1::SetRouteResponse>, Status> {
        let request = request.into_inner();
        let (function, endpoint) = (checked_function(&request.function)?, checked_endpoint(&request.endpoint)?);
        let (weight, is_final) = (request.weight, request.is_final.unwrap_or(true));
        self.routes.set_by_hand(&function, &endpoint, Some(weight), is_final)?;
        tracing::info!(%function, %endpoint, weight, is_final, "route set by hand");
        Ok(Response::new(v1::SetRouteResponse {}))
    }

    async fn remove_route(
        &self,
        request: Request<v1::RemoveRouteRequest>,
    ) -> Result<Response<v1::RemoveRouteResponse>, Status> {
        let request = request.into_inner();
        let (function, endpoint) = (checked_function(&request.function)?, checked_endpoint(&request.endpoint)?);
        self.routes.remove(&function, &endpoint)?;
        tracing::info!(%function, %endpoint, "route removed by hand");
        Ok(Response::new(v1::RemoveRouteResponse {}))
    }

    async fn flush_routes(
        &self,
        _: Request<v1::FlushRoutesRequest>,
    ) -> Result<Response<v1::FlushRoutesResponse>, Status> {
        self.routes.flush();
        tracing::info!("all routes removed by hand");
        Ok(Response::new(v1::FlushRoutesResponse {}))
    }
}

fn checked_function(given: &str) -> Result<FunctionName, PlatformError> {
    Ok(given.parse()?)
}

fn checked_endpoint(given: &str) -> Result<Endpoint, PlatformError> {
    Ok(given.parse()?)
}

fn to_wire(listed: &Listed) -> v1::RouteDestination {
    let state = match listed.state {
        State::InUse => "in-use",
        State::SetAside(_) => "set-aside",
        State::Probing(_) => "probing",
    };
    v1::RouteDestination {
        endpoint: listed.endpoint.as_str().to_owned(),
        weight: listed.latency_ms.unwrap_or(0.0),
        state: state.to_owned(),
        in_flight: listed.in_flight,
        calls: listed.calls,
        failures: listed.failures,
        by_hand: listed.by_hand,
        is_final: listed.is_final,
    }
}
