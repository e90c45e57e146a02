//! What the benches share: their arguments, a runtime for each role, and servers that do nothing, to measure against.

use std::str::FromStr;

use nigh_proto::v1::functions_server::{Functions, FunctionsServer};
use nigh_proto::v1::invoke_frame::Frame;
use nigh_proto::{Endpoint, channel, v1};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tokio_stream::adapters::Map;
use tonic::{Request, Response, Status, Streaming};

/// Threads of each server's and each client's runtime.
pub const THREADS: usize = 2;

/// What stands after `name` on the command line, where it says something.
#[must_use]
pub fn argument<T: FromStr>(name: &str, default: T) -> T {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The middle one of several figures.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A runtime of its own for each role, as if each were a process; it lives as long as the bench.
///
/// # Panics
/// If threads cannot be had.
#[must_use]
pub fn runtime(name: &str) -> &'static Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name(name).enable_all();
    Box::leak(Box::new(builder.build().expect("a runtime")))
}

/// Starts a role on a runtime of its own, and tells where it listens.
///
/// # Panics
/// If no port can be had.
pub fn start<F, Fut>(name: &str, role: F) -> Endpoint
where
    F: FnOnce(TcpListener) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let runtime = runtime(name);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let endpoint = listener.local_addr().expect("an address").into();
    runtime.spawn(async move { role(listener).await });
    endpoint
}

/// Starts a server of calls with nothing around it.
///
/// # Panics
/// If no port can be had, or the server ends.
pub fn bare<S: Functions>(name: &str, service: S) -> Endpoint {
    start(name, |listener| async move {
        let server = channel::server().add_service(FunctionsServer::new(service));
        server.serve_with_incoming(channel::incoming(listener)).await.expect("serves until the bench ends");
    })
}

/// Streams that a bare server does not have.
pub type NoFrames = tokio_stream::Empty<Result<v1::InvokeFrame, Status>>;
/// Parts of exchanges that a bare server does not have.
pub type NoParts = tokio_stream::Empty<Result<v1::ExchangeResponse, Status>>;

/// Answers with the payload and does nothing else, whether calls come by themselves or on a stream.
#[derive(Debug)]
pub struct BareEcho;

/// The answers of a stream, as its frames come.
pub type EchoedFrames = Map<Streaming<v1::InvokeFrame>, fn(Echoed) -> Echoed>;
type Echoed = Result<v1::InvokeFrame, Status>;

fn echoed(request: v1::InvokeRequest) -> v1::InvokeResponse {
    let answer = v1::Answer { payload: request.payload, headers: Vec::new() };
    let outcome = Some(v1::invoke_response::Outcome::Answer(answer));
    // Callers of the platform read both.
    let (computer, call_id) = ("computer-1".to_owned(), request.call_id);
    v1::InvokeResponse { outcome, computer, call_id, ..Default::default() }
}

fn echoed_frame(frame: Echoed) -> Echoed {
    let v1::InvokeFrame { id, frame } = frame?;
    match frame {
        Some(Frame::Open(v1::OpenCall { request: Some(request), more: false, .. })) => {
            Ok(v1::InvokeFrame { id, frame: Some(Frame::Reply(echoed(request))) })
        }
        _ => Err(Status::unimplemented("not measured")),
    }
}

#[tonic::async_trait]
impl Functions for BareEcho {
    async fn invoke(&self, request: Request<v1::InvokeRequest>) -> Result<Response<v1::InvokeResponse>, Status> {
        Ok(Response::new(echoed(request.into_inner())))
    }

    type InvokeStreamStream = EchoedFrames;

    async fn invoke_stream(
        &self,
        frames: Request<Streaming<v1::InvokeFrame>>,
    ) -> Result<Response<EchoedFrames>, Status> {
        let echoed_frame: fn(_) -> _ = echoed_frame;
        Ok(Response::new(frames.into_inner().map(echoed_frame)))
    }

    type ExchangeStream = NoParts;

    async fn exchange(&self, _: Request<Streaming<v1::ExchangeRequest>>) -> Result<Response<NoParts>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}
