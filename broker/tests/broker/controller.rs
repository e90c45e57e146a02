//! A fake controller: tells what the test wants told, and remembers who has announced and withdrawn.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use nigh_proto::discovery::WatchEvent;
use nigh_proto::v1::controller_server::{Controller, ControllerServer};
use nigh_proto::{Computer, Deployment, Digest, Kind, Limits};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status, Streaming};

use super::*;

/// What lasts beyond a restart.
struct World {
    events: Mutex<Vec<WatchEvent>>,
    changes: broadcast::Sender<WatchEvent>,
    announced: Mutex<Vec<v1::BrokerInfo>>,
    withdrawn: Mutex<Vec<String>>,
}

pub(crate) struct FakeController {
    pub(crate) endpoint: Endpoint,
    world: Arc<World>,
    server: Option<JoinHandle<()>>,
    connections: CancellationToken,
}

struct Service {
    world: Arc<World>,
    connections: CancellationToken,
}

impl FakeController {
    pub(crate) async fn start(events: Vec<WatchEvent>) -> Self {
        let endpoint = Endpoint::from(listen().await.local_addr().unwrap());
        let world = Arc::new(World {
            events: Mutex::new(events),
            changes: broadcast::channel(64).0,
            announced: Mutex::default(),
            withdrawn: Mutex::default(),
        });
        let mut controller = Self { endpoint, world, server: None, connections: CancellationToken::new() };
        controller.restart().await;
        controller
    }

    pub(crate) async fn stop(&mut self) {
        self.connections.cancel();
        if let Some(server) = self.server.take() {
            server.await.unwrap();
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.connections = CancellationToken::new();
        let listener = TcpListener::bind(self.endpoint.as_str()).await.unwrap();
        let service = Service { world: self.world.clone(), connections: self.connections.clone() };
        let stop = self.connections.clone().cancelled_owned();
        self.server = Some(tokio::spawn(async move {
            let server = channel::server().add_service(ControllerServer::new(service));
            server.serve_with_incoming_shutdown(channel::incoming(listener), stop).await.unwrap();
        }));
    }

    /// Puts these in place of what a new watcher is told, without telling those who watch.
    pub(crate) fn set(&self, events: Vec<WatchEvent>) {
        *self.world.events.lock() = events;
    }

    /// Tells a change to everyone who watches.
    pub(crate) fn change(&self, event: WatchEvent) {
        self.world.events.lock().push(event.clone());
        let _ = self.world.changes.send(event);
    }

    pub(crate) fn announced(&self) -> Vec<v1::BrokerInfo> {
        self.world.announced.lock().clone()
    }

    pub(crate) fn withdrawn(&self) -> Vec<String> {
        self.world.withdrawn.lock().clone()
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

pub(crate) fn alive(name: &str, endpoint: &Endpoint, ready: &[&str]) -> WatchEvent {
    WatchEvent::Computer(Computer {
        name: name.parse().unwrap(),
        endpoint: endpoint.clone(),
        ready: ready.iter().map(|function| (function.parse().unwrap(), Digest::of(b"version"))).collect(),
        problems: Vec::new(),
        workers: 4,
        directories: Vec::new(),
        own_functions: Vec::new(),
        older: false,
        labels: nigh_proto::Labels::default(),
    })
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::WatchEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Controller for Service {
    async fn announce(&self, request: Request<v1::AnnounceRequest>) -> Result<Response<v1::AnnounceResponse>, Status> {
        if let Some(v1::announce_request::Node::Broker(broker)) = request.into_inner().node {
            self.world.announced.lock().push(broker);
        }
        Ok(Response::new(v1::AnnounceResponse { lease_ms: 300, beat_ms: 0 }))
    }

    async fn attend(&self, _: Request<Streaming<v1::AttendRequest>>) -> Result<Response<v1::AttendResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn withdraw(&self, request: Request<v1::WithdrawRequest>) -> Result<Response<v1::WithdrawResponse>, Status> {
        self.world.withdrawn.lock().push(request.into_inner().name);
        Ok(Response::new(v1::WithdrawResponse {}))
    }

    type WatchStream = Events;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Events>, Status> {
        let changes = BroadcastStream::new(self.world.changes.subscribe()).map(Result::unwrap);
        let mut known = self.world.events.lock().clone();
        known.push(WatchEvent::Synced);
        let events = futures_util::stream::iter(known).chain(changes).map(|event| Ok(event.to_wire()));
        let stop = self.connections.clone().cancelled_owned();
        Ok(Response::new(Box::pin(events.take_until(stop))))
    }

    async fn deploy(&self, _: Request<Streaming<v1::DeployRequest>>) -> Result<Response<v1::DeployResponse>, Status> {
        Err(Status::unimplemented("not asked for by brokers"))
    }

    async fn remove(&self, _: Request<v1::RemoveRequest>) -> Result<Response<v1::RemoveResponse>, Status> {
        Err(Status::unimplemented("not asked for by brokers"))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        Err(Status::unimplemented("not asked for by brokers"))
    }

    type FetchModuleStream = Pin<Box<dyn Stream<Item = Result<v1::ModuleChunk, Status>> + Send>>;

    async fn fetch_module(
        &self,
        _: Request<v1::FetchModuleRequest>,
    ) -> Result<Response<Self::FetchModuleStream>, Status> {
        Err(Status::unimplemented("not asked for by brokers"))
    }
}
