//! A broker between real sockets: fake computers and a fake controller on one side, gRPC and plain HTTP on the other.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by panicking")]

mod asynchronous;
mod calls;
mod computer;
mod controller;
mod discovery;
mod drain;
mod failures;
mod guards;
mod http;
mod mosquitto;
#[path = "../../../store/tests/it/nats_server.rs"]
mod nats_server;
mod older;
mod table;
mod triggers;

use std::future::Future;
use std::time::{Duration, Instant};

use nigh_broker::{Config, Error, Listeners};
use nigh_proto::v1::broker_client::BrokerClient;
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::{Call, Endpoint, Outcome, PlatformError, Reply, channel, v1};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// For what should happen at once but may be held up by a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A broker that runs in this process.
struct TestBroker {
    calls: Endpoint,
    table: Endpoint,
    http: Endpoint,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
    client: FunctionsClient<Channel>,
}

impl TestBroker {
    async fn start(config: Config) -> Self {
        let [calls, table, http] = [listen().await, listen().await, listen().await];
        let [calls_at, table_at, http_at] = [&calls, &table, &http].map(|l| Endpoint::from(l.local_addr().unwrap()));
        let shutdown = CancellationToken::new();
        let listeners = Listeners { calls, table: Some(table), http: Some(http), doors: Vec::new() };
        let task = tokio::spawn(nigh_broker::run(listeners, config, shutdown.clone()));
        let client = FunctionsClient::new(channel::connect_lazy(&calls_at));
        Self { calls: calls_at, table: table_at, http: http_at, shutdown, task, client }
    }

    /// A broker whose function `f` is served by these.
    async fn with_routes(endpoints: &[&Endpoint]) -> Self {
        Self::start(config_with_routes(endpoints)).await
    }

    async fn invoke(&self, call: &Call) -> Result<Reply, PlatformError> {
        let answer = self.client.clone().invoke(call.to_request(Instant::now())).await?;
        Reply::from_wire(answer.into_inner())
    }

    async fn routes(&self) -> Vec<v1::Route> {
        self.table_of(v1::Table::Overall).await
    }

    async fn table_of(&self, table: v1::Table) -> Vec<v1::Route> {
        let request = v1::RoutesRequest { table: table.into(), ..Default::default() };
        self.table_client().routes(request).await.unwrap().into_inner().routes
    }

    fn table_client(&self) -> BrokerClient<Channel> {
        BrokerClient::new(channel::connect_lazy(&self.table))
    }

    /// The destination of `f` at this endpoint.
    async fn destination(&self, endpoint: &Endpoint) -> v1::RouteDestination {
        let routes = self.routes().await;
        let destinations = routes.into_iter().find(|route| route.function == "f").unwrap().destinations;
        destinations.into_iter().find(|destination| destination.endpoint == endpoint.as_str()).unwrap()
    }
}

fn config() -> Config {
    Config::new("broker-1".parse().unwrap())
}

fn config_with_routes(endpoints: &[&Endpoint]) -> Config {
    let routes = endpoints.iter().map(|&endpoint| ("f".parse().unwrap(), endpoint.clone())).collect();
    Config { routes, ..config() }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A call of `f`.
fn call(payload: &'static str) -> Call {
    Call::new("f".parse().unwrap(), payload.as_bytes(), PATIENCE)
}

fn retry_safe(payload: &'static str) -> Call {
    Call { retry_safe: true, ..call(payload) }
}

fn payload(reply: &Reply) -> &[u8] {
    match &reply.outcome {
        Outcome::Answer { payload, .. } => payload,
        other => panic!("{other:?} is no answer"),
    }
}

/// Waits until something is so.
async fn eventually<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < deadline, "never so: {what}");
        tokio::time::sleep(10 * MS).await;
    }
}
