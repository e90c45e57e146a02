//! A fake controller: tells what the test wants told.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use nigh_proto::discovery::WatchEvent;
use nigh_proto::v1::controller_server::{Controller, ControllerServer};
use nigh_proto::{Broker, Computer, Deployment, Digest, Endpoint, Kind, Limits, channel, v1};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::listen;

pub(crate) struct FakeController {
    pub(crate) endpoint: Endpoint,
    world: Arc<World>,
    _server: AbortOnDropHandle<()>,
}

struct World {
    events: Mutex<Vec<WatchEvent>>,
    changes: broadcast::Sender<WatchEvent>,
}

struct Service(Arc<World>);

impl FakeController {
    pub(crate) async fn start(events: Vec<WatchEvent>) -> Self {
        let listener = listen().await;
        let endpoint = Endpoint::from(listener.local_addr().unwrap());
        let world = Arc::new(World { events: Mutex::new(events), changes: broadcast::channel(256).0 });
        let service = Service(world.clone());
        let server: JoinHandle<()> = tokio::spawn(async move {
            let server = channel::server().add_service(ControllerServer::new(service));
            server.serve_with_incoming(channel::incoming(listener)).await.unwrap();
        });
        Self { endpoint, world, _server: AbortOnDropHandle::new(server) }
    }

    /// Tells a change to everyone who watches, and to all who will.
    pub(crate) fn change(&self, event: WatchEvent) {
        self.world.events.lock().push(event.clone());
        let _ = self.world.changes.send(event);
    }
}

pub(crate) fn deployed(function: &str) -> WatchEvent {
    WatchEvent::Function(Deployment::new(
        function.parse().unwrap(),
        Digest::of(b"module"),
        6,
        Kind::Native,
        Limits::default(),
        Vec::new(),
    ))
}

pub(crate) fn undeployed(function: &str) -> WatchEvent {
    WatchEvent::FunctionRemoved(function.parse().unwrap())
}

pub(crate) fn computer(name: &str, endpoint: &str, ready: &[&str]) -> WatchEvent {
    WatchEvent::Computer(Computer {
        name: name.parse().unwrap(),
        endpoint: endpoint.parse().unwrap(),
        ready: ready.iter().map(|function| (function.parse().unwrap(), Digest::of(b"version"))).collect(),
        problems: Vec::new(),
        workers: 4,
        directories: Vec::new(),
        own_functions: Vec::new(),
        older: false,
        labels: nigh_proto::Labels::default(),
    })
}

pub(crate) fn computer_gone(name: &str) -> WatchEvent {
    WatchEvent::ComputerRemoved(name.parse().unwrap())
}

pub(crate) fn broker(name: &str, endpoint: &str, http: &str) -> WatchEvent {
    WatchEvent::Broker(Broker {
        name: name.parse().unwrap(),
        endpoint: endpoint.parse().unwrap(),
        table_endpoint: None,
        http_endpoint: Some(http.parse().unwrap()),
        older: false,
    })
}

pub(crate) fn broker_gone(name: &str) -> WatchEvent {
    WatchEvent::BrokerRemoved(name.parse().unwrap())
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::WatchEvent, Status>> + Send>>;

fn elsewhere<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not asked for by this role"))
}

#[tonic::async_trait]
impl Controller for Service {
    type WatchStream = Events;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Events>, Status> {
        let changes = BroadcastStream::new(self.0.changes.subscribe()).map(Result::unwrap);
        let mut known = self.0.events.lock().clone();
        known.push(WatchEvent::Synced);
        let events = futures_util::stream::iter(known).chain(changes).map(|event| Ok(event.to_wire()));
        Ok(Response::new(Box::pin(events)))
    }

    async fn announce(&self, _: Request<v1::AnnounceRequest>) -> Result<Response<v1::AnnounceResponse>, Status> {
        elsewhere()
    }

    async fn attend(&self, _: Request<Streaming<v1::AttendRequest>>) -> Result<Response<v1::AttendResponse>, Status> {
        elsewhere()
    }

    async fn withdraw(&self, _: Request<v1::WithdrawRequest>) -> Result<Response<v1::WithdrawResponse>, Status> {
        elsewhere()
    }

    async fn deploy(&self, _: Request<Streaming<v1::DeployRequest>>) -> Result<Response<v1::DeployResponse>, Status> {
        elsewhere()
    }

    async fn remove(&self, _: Request<v1::RemoveRequest>) -> Result<Response<v1::RemoveResponse>, Status> {
        elsewhere()
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        elsewhere()
    }

    type FetchModuleStream = Pin<Box<dyn Stream<Item = Result<v1::ModuleChunk, Status>> + Send>>;

    async fn fetch_module(
        &self,
        _: Request<v1::FetchModuleRequest>,
    ) -> Result<Response<Self::FetchModuleStream>, Status> {
        elsewhere()
    }
}
