//! A computer over gRPC against a bare tonic server that echoes the same messages, client and server in this process,
//! over loopback, at 1 and 64 calls in flight.
//!
//! `cargo bench -p nigh-runtime --bench grpc`

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::future::join_all;
use nigh_proto::ingress::Ingress;
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::v1::functions_server::{Functions, FunctionsServer};
use nigh_proto::{Call, CallLimits, Deployment, Digest, Endpoint, Kind, Limits, channel, v1};
use nigh_runtime::{Computer, Config};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

const GUEST: &str = r#"(module
    (memory (export "memory") 2)
    (func (export "nigh_alloc_v1") (param i32) (result i32) (i32.const 1024))
    (func (export "nigh_handle_v1") (param $payload i32) (param $head i32) (result i32)
        (i32.store (i32.const 4) (i32.add (i32.const 1024) (local.get $payload)))
        (i32.store (i32.const 8) (local.get $head))
        (i32.store (i32.const 12) (i32.const 1024))
        (i32.store (i32.const 16) (local.get $payload))
        (i32.const 0)))"#;
const PAYLOAD: usize = 100;

/// A server that does nothing but answer.
struct Bare;

#[tonic::async_trait]
impl Functions for Bare {
    async fn invoke(&self, request: Request<v1::InvokeRequest>) -> Result<Response<v1::InvokeResponse>, Status> {
        let request = request.into_inner();
        let answer = v1::Answer { payload: request.payload, headers: request.headers };
        let outcome = Some(v1::invoke_response::Outcome::Answer(answer));
        Ok(Response::new(v1::InvokeResponse { outcome, call_id: request.call_id, ..Default::default() }))
    }

    type InvokeStreamStream = tokio_stream::Empty<Result<v1::InvokeFrame, Status>>;

    async fn invoke_stream(
        &self,
        _: Request<Streaming<v1::InvokeFrame>>,
    ) -> Result<Response<Self::InvokeStreamStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = listener.local_addr().expect("bound").into();
    (listener, endpoint)
}

async fn bare() -> Endpoint {
    let (listener, endpoint) = listen().await;
    let server = channel::server().add_service(FunctionsServer::new(Bare));
    tokio::spawn(server.serve_with_incoming(channel::incoming(listener)));
    endpoint
}

async fn computer(reuse: u32) -> Endpoint {
    let computer = Computer::new(Config::new("bench".parse().expect("a valid name"))).expect("a computer");
    let module = Bytes::from(wat::parse_str(GUEST).expect("the guest is valid"));
    let deployment = Deployment::new(
        "echo".parse().expect("a valid name"),
        Digest::of(&module),
        module.len() as u64,
        Kind::Native,
        Limits { concurrency: 64, reuse, ..Limits::default() },
        Vec::new(),
    );
    computer.deploy(deployment, module).await.expect("the guest fits");
    let (listener, endpoint) = listen().await;
    let server = channel::server().add_service(Ingress::service(computer, CallLimits::default()));
    tokio::spawn(server.serve_with_incoming(channel::incoming(listener)));
    endpoint
}

async fn invoke(client: &mut FunctionsClient<Channel>, payload: &Bytes) {
    let call = Call::new("echo".parse().expect("a valid name"), payload.clone(), Duration::from_secs(30));
    let response = client.invoke(call.to_request(Instant::now())).await.expect("echo answers").into_inner();
    assert!(
        matches!(response.outcome, Some(v1::invoke_response::Outcome::Answer(answer)) if answer.payload.len() == PAYLOAD)
    );
}

/// So many callers on one connection, each one call after the other; the time for `iterations` calls in all.
async fn drive(client: &FunctionsClient<Channel>, callers: u64, iterations: u64, payload: &Bytes) -> Duration {
    let start = Instant::now();
    let callers = (0..callers).map(|_| {
        let (mut client, payload) = (client.clone(), payload.clone());
        tokio::spawn(async move {
            for _ in 0..iterations.div_ceil(callers) {
                invoke(&mut client, &payload).await;
            }
        })
    });
    join_all(callers).await;
    start.elapsed()
}

fn bench(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let servers = [
        ("bare tonic", runtime.block_on(bare())),
        ("computer", runtime.block_on(computer(1))),
        ("computer, reuse 1000", runtime.block_on(computer(1000))),
    ];
    let mut group = criterion.benchmark_group("echo over gRPC");
    group.measurement_time(Duration::from_secs(4)).sample_size(30);
    for in_flight in [1, 64] {
        for (name, endpoint) in &servers {
            let client = runtime.block_on(async { FunctionsClient::new(channel::connect_lazy(endpoint)) });
            let id = BenchmarkId::new(*name, format!("{in_flight} in flight"));
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|iterations| runtime.block_on(drive(&client, in_flight, iterations, &payload)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
