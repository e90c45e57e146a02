//! The older door: `uiiit.rpc.EdgeServer` in front of a [`Handler`]. Whatever goes wrong is told in the response's `retcode`,
//! with status OK, as callers of that protocol expect.

use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};

use super::message;
use super::rpc::edge_server_server::{EdgeServer, EdgeServerServer};
use super::rpc::{LambdaRequest, LambdaResponse};
use crate::call::{CallLimits, timeout_of};
use crate::channel;
use crate::ingress::Handler;
use crate::status::PlatformError;

/// `uiiit.rpc.EdgeServer` in front of a [`Handler`].
pub struct EdgeIngress<H> {
    handler: Arc<H>,
    limits: CallLimits,
}

impl<H: Handler> EdgeIngress<H> {
    /// The service, ready to be added to a server.
    pub fn service(handler: Arc<H>, limits: CallLimits) -> EdgeServerServer<Self> {
        let bytes_max = channel::message_bytes_max(limits.payload_bytes_max);
        EdgeServerServer::new(Self { handler, limits })
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(usize::MAX)
    }
}

impl<H> std::fmt::Debug for EdgeIngress<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeIngress").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl<H: Handler> EdgeServer for EdgeIngress<H> {
    async fn run_lambda(&self, request: Request<LambdaRequest>) -> Result<Response<LambdaResponse>, Status> {
        let arrived = Instant::now();
        let timeout = timeout_of(request.metadata());
        let mut request = request.into_inner();
        let (name, hops) = (request.name.clone(), request.hops);
        // A lambda neither reads nor changes them; they travel along.
        let states = std::mem::take(&mut request.states);
        let answer = match message::call(request, &states, timeout, &self.limits, arrived) {
            Ok(call) => self.handler.handle(call, arrived).await,
            Err(error) => Err(error),
        };
        let response = match answer {
            Ok(reply) => LambdaResponse { states, ..message::response(reply) },
            Err(error) => refused(&name, hops, &error),
        };
        Ok(Response::new(response))
    }
}

fn refused(name: &str, hops: u32, error: &PlatformError) -> LambdaResponse {
    let retcode = format!("invalid '{name}' request: {error}");
    LambdaResponse { retcode, hops: hops.saturating_add(1), ..LambdaResponse::default() }
}
