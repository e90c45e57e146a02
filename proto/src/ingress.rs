//! The door that brokers and computers share: `nigh.v1.Functions` in front of anything that handles calls, and [`http`].

pub mod gate;
pub mod http;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::asynchronous::{Acceptance, Accepted};
use crate::call::{Call, CallLimits};
use crate::connections::ServerLimits;
use crate::deadline::answer_time;
use crate::exchange::{Exchange, Exchanged, WireAnswer};
use crate::reply::Reply;
use crate::status::{PlatformError, Reason};
use crate::stream::callee::{Serving, Session};
use crate::v1::functions_server::{Functions, FunctionsServer};
use crate::{channel, v1};

/// What brings a call to its outcome. Dropping the future means that the caller no longer wants the answer.
pub trait Handler: Send + Sync + 'static {
    /// A call may take the thread that it came on for a while, so that those which come together are to be spread over all.
    const COMPUTES: bool = false;

    /// Handles one call; `arrived` is when its message was complete.
    fn handle(&self, call: Call, arrived: Instant) -> impl Future<Output = Result<Reply, PlatformError>> + Send;

    /// Accepts a call that is to run later; `from` is where its caller is. Once this is done, the call has an outcome some day.
    fn accept(
        &self,
        acceptance: Acceptance,
        _from: Option<IpAddr>,
    ) -> impl Future<Output = Result<Accepted, PlatformError>> + Send {
        std::future::ready(Err(not_offered(&acceptance.call.function)))
    }

    /// Handles one call of an http function up to the head of its answer; the rest comes with the answer's parts.
    fn exchange(
        &self,
        exchange: Exchange,
        _arrived: Instant,
    ) -> impl Future<Output = Result<Exchanged, PlatformError>> + Send {
        let message = format!("{} takes no HTTP requests here", exchange.call.function);
        std::future::ready(Err(PlatformError::malformed(message)))
    }
}

/// What is told of calls that run later by who takes none.
fn not_offered(what: &dyn std::fmt::Display) -> PlatformError {
    PlatformError::new(
        Reason::NotAllowed,
        format!("{what}: nothing runs later here; asynchronous calls go to a broker"),
    )
}

/// `nigh.v1.Functions` in front of a [`Handler`].
pub struct Ingress<H> {
    handler: Arc<H>,
    serving: Serving,
    stall_max: Duration,
}

impl<H: Handler> Ingress<H> {
    /// The service, ready to be added to a server.
    pub fn service(handler: Arc<H>, limits: CallLimits) -> FunctionsServer<Self> {
        Self::service_within(handler, limits, &ServerLimits::default(), CancellationToken::new())
    }

    /// The same for a door with these limits, whose streams take no more calls from `stop` on and end with those they have.
    pub fn service_within(
        handler: Arc<H>,
        limits: CallLimits,
        server: &ServerLimits,
        stop: CancellationToken,
    ) -> FunctionsServer<Self> {
        let bytes_max = channel::message_bytes_max(limits.payload_bytes_max);
        let serving = Serving::new(limits, server, stop);
        FunctionsServer::new(Self { handler, serving, stall_max: server.stall_max })
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(usize::MAX)
    }
}

impl<H> std::fmt::Debug for Ingress<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingress").field("serving", &self.serving).finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl<H: Handler> Functions for Ingress<H> {
    async fn invoke(&self, request: Request<v1::InvokeRequest>) -> Result<Response<v1::InvokeResponse>, Status> {
        let arrived = Instant::now();
        let timeout = answer_time(&request, arrived);
        let call = Call::from_wire(request.into_inner(), timeout, &self.serving.calls, arrived)?;
        Ok(Response::new(self.handler.handle(call, arrived).await?.into_wire()))
    }

    type InvokeStreamStream = Session<H>;

    async fn invoke_stream(
        &self,
        request: Request<Streaming<v1::InvokeFrame>>,
    ) -> Result<Response<Self::InvokeStreamStream>, Status> {
        Ok(Response::new(Session::new(self.handler.clone(), self.serving.clone(), request)))
    }

    type ExchangeStream = std::pin::Pin<Box<dyn Stream<Item = Result<v1::ExchangeResponse, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<v1::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let arrived = Instant::now();
        let timeout = answer_time(&request, arrived);
        let exchange = Exchange::from_wire(request.into_inner(), timeout, &self.serving.calls, arrived).await?;
        let exchanged = self.handler.exchange(exchange, arrived).await?;
        Ok(Response::new(Box::pin(WireAnswer::new(exchanged.read_within(self.stall_max)))))
    }
}
