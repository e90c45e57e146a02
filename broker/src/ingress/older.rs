//! The older system's door to the forwarding tables: `uiiit.rpc.EdgeRouter`. Errors are told in the answer's text, with status
//! OK, as its clients expect. What is written here counts as set by hand.

use std::sync::Arc;

use nigh_proto::PlatformError;
use nigh_proto::older::rpc;
use nigh_routing::Scope;
use rpc::edge_router_conf::Action;
use rpc::edge_router_server::{EdgeRouter, EdgeRouterServer};
use tonic::{Request, Response, Status};

use crate::routes::Routes;

/// The tables by their numbers there.
const TABLES: [Scope; 2] = [Scope::Overall, Scope::Final];
/// The weight of a destination that has not been measured yet.
const WEIGHT_UNMEASURED: f32 = 1.0;

/// The service, ready to be added to a server.
pub(super) fn service(routes: Arc<Routes>) -> EdgeRouterServer<OlderTableDoor> {
    EdgeRouterServer::new(OlderTableDoor { routes })
}

/// Reads and edits the tables.
pub(super) struct OlderTableDoor {
    routes: Arc<Routes>,
}

#[tonic::async_trait]
impl EdgeRouter for OlderTableDoor {
    async fn configure(&self, request: Request<rpc::EdgeRouterConf>) -> Result<Response<rpc::Return>, Status> {
        let msg = match self.change(&request.into_inner()) {
            Ok(()) => "OK".to_owned(),
            Err(error) => format!("Error: {error}"),
        };
        Ok(Response::new(rpc::Return { msg }))
    }

    async fn get_table(&self, request: Request<rpc::TableId>) -> Result<Response<rpc::ForwardingTable>, Status> {
        let number = usize::try_from(request.into_inner().value).unwrap_or(usize::MAX);
        let Some(&scope) = TABLES.get(number) else { return Ok(Response::new(rpc::ForwardingTable::default())) };
        let mut entries = Vec::new();
        for (function, destinations) in self.routes.list(None, scope)? {
            for listed in destinations {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "a latency, told in the precision of that protocol"
                )]
                let weight = listed.latency_ms.map_or(WEIGHT_UNMEASURED, |ms| ms as f32);
                entries.push(rpc::forwarding_table::Entry {
                    lambda: function.to_string(),
                    destination: listed.endpoint.to_string(),
                    weight,
                    r#final: listed.is_final,
                });
            }
        }
        Ok(Response::new(rpc::ForwardingTable { entries }))
    }

    async fn get_num_tables(&self, _: Request<rpc::Void>) -> Result<Response<rpc::NumTables>, Status> {
        Ok(Response::new(rpc::NumTables { value: u32::try_from(TABLES.len()).unwrap_or(u32::MAX) }))
    }
}

impl OlderTableDoor {
    fn change(&self, wanted: &rpc::EdgeRouterConf) -> Result<(), PlatformError> {
        let action = Action::try_from(wanted.action)
            .map_err(|_| PlatformError::malformed(format!("unknown action {}", wanted.action)))?;
        if action == Action::Flush {
            self.routes.flush();
            tracing::info!("all routes removed by hand");
            return Ok(());
        }
        let (function, endpoint) = (wanted.lambda.parse()?, wanted.destination.parse()?);
        if action == Action::Remove {
            // What is not there need not be removed; whoever cleans up may come twice.
            let _ = self.routes.remove(&function, &endpoint);
            return Ok(());
        }
        self.routes.set_by_hand(&function, &endpoint, Some(wanted.weight.into()), wanted.r#final)
    }
}
