//! The older door: `uiiit.rpc.EdgeServer` in front of a [`Handler`]. Whatever goes wrong is told in the response's `retcode`,
//! with status OK, as callers of that protocol expect.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};

use super::rpc::edge_server_server::{EdgeServer, EdgeServerServer};
use super::rpc::{LambdaRequest, LambdaResponse, State};
use super::{OK, message};
use crate::asynchronous::{Acceptance, Callback};
use crate::call::{Call, CallLimits};
use crate::channel;
use crate::deadline::answer_time;
use crate::ingress::Handler;
use crate::status::PlatformError;
use crate::tls::connection::Peer;

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
        let timeout = answer_time(&request, arrived);
        let from = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        let mut request = request.into_inner();
        let (name, hops) = (request.name.clone(), request.hops);
        let callback = request.callback.clone();
        // Those that no function depends on travel along.
        let mut states = std::mem::take(&mut request.states);
        let call = match message::call(request, &states, timeout, &self.limits, arrived) {
            Ok(call) => call,
            Err(error) => return Ok(Response::new(refused(&name, hops, &error))),
        };
        if !callback.is_empty() && !call.dry_run {
            let accepted = self.accept(call, &callback, states, from).await;
            return Ok(Response::new(accepted.unwrap_or_else(|error| refused(&name, hops, &error))));
        }
        let answer = self.handler.handle(call, arrived).await;
        let response = match answer {
            Ok(reply) => {
                message::update_states(&mut states, &reply.states);
                LambdaResponse { states, ..message::response(reply) }
            }
            Err(error) => refused(&name, hops, &error),
        };
        Ok(Response::new(response))
    }
}

impl<H: Handler> EdgeIngress<H> {
    /// Accepts a call whose outcome goes to a callback, with the states that travel along.
    async fn accept(
        &self,
        call: Call,
        callback: &str,
        states: HashMap<String, State>,
        from: Option<IpAddr>,
    ) -> Result<LambdaResponse, PlatformError> {
        let hops = call.hops.saturating_add(1);
        let callback = Callback::Older {
            endpoint: callback.parse()?,
            response: Box::new(LambdaResponse { states, ..LambdaResponse::default() }),
        };
        let timeout = call.time_left(Instant::now());
        self.handler.accept(Acceptance { call, timeout, callback: Some(callback) }, from).await?;
        Ok(LambdaResponse { retcode: OK.to_owned(), hops, asynchronous: true, ..LambdaResponse::default() })
    }
}

fn refused(name: &str, hops: u32, error: &PlatformError) -> LambdaResponse {
    let retcode = format!("invalid '{name}' request: {error}");
    LambdaResponse { retcode, hops: hops.saturating_add(1), ..LambdaResponse::default() }
}
