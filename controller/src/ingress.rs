//! The door: `nigh.v1.Controller`, messages to checked values and back; [`states`] is the one to the directory of states,
//! [`documents`] the one to what doors keep of functions.

mod documents;
mod states;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use nigh_proto::channel::{self, Door};
use nigh_proto::discovery::{WatchEvent, check_protocol};
use nigh_proto::membership::{Node, Topics};
use nigh_proto::v1::controller_server::{Controller, ControllerServer};
use nigh_proto::v1::deploy_request;
use nigh_proto::{Deployment, Endpoint, NodeName, PlatformError, Reason, Role, access, v1};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::config::Config;
use crate::deploy::{Deployments, Part};
use crate::documents::Documents;
use crate::error::{DeployError, Error};
use crate::fetch::{Fetch, Fetches};
use crate::older::{EdgeIngress, Nodes};
use crate::presence::Attendance;
use crate::publish::Subscription;
use crate::registry::{EVERYTHING, Registry};
use crate::states::States;

/// Bytes of a listing, at most; clients accept no more either.
const LISTING_BYTES_MAX: usize = 64 << 20;

/// The rooms behind the door.
pub(crate) struct Ingress {
    pub(crate) registry: Arc<Registry>,
    pub(crate) deployments: Deployments,
    pub(crate) fetches: Fetches,
    pub(crate) older: Arc<Nodes>,
    pub(crate) beat: Duration,
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Ingress {
    /// Serves until `shutdown`, and then until every request under way is answered.
    pub(crate) async fn serve(
        self,
        states: States,
        documents: Arc<Documents>,
        listener: TcpListener,
        config: &Config,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let message_bytes_max = config.announcement_bytes_max.max(config.upload_part_bytes_max);
        let older = EdgeIngress::service(self.older.clone());
        let service = ControllerServer::new(self)
            .max_decoding_message_size(channel::message_bytes_max(message_bytes_max))
            .max_encoding_message_size(channel::message_bytes_max(LISTING_BYTES_MAX));
        let services = channel::server_within(&config.server)
            .add_service(service)
            .add_service(states::Door::service(states))
            .add_service(documents::Door::service(documents))
            .add_service(older);
        channel::serve(services, Door::new(listener, config.tls.clone()).within(&config.server), shutdown)
            .await
            .map_err(|error| Error::Server(error.into()))
    }
}

#[tonic::async_trait]
impl Controller for Ingress {
    async fn deploy(
        &self,
        request: Request<Streaming<v1::DeployRequest>>,
    ) -> Result<Response<v1::DeployResponse>, Status> {
        let parts = request.into_inner().map(|part| match part {
            Ok(part) => checked_part(part),
            Err(status) => Err(broken_off(status)),
        });
        let (deployment, changed) = self.deployments.deploy(parts).await.map_err(PlatformError::from)?;
        Ok(Response::new(v1::DeployResponse { deployment: Some(deployment.to_wire()), changed }))
    }

    async fn remove(&self, request: Request<v1::RemoveRequest>) -> Result<Response<v1::RemoveResponse>, Status> {
        let name = request.into_inner().name.parse().map_err(PlatformError::from)?;
        self.deployments.remove(name).await.map_err(PlatformError::from)?;
        Ok(Response::new(v1::RemoveResponse {}))
    }

    async fn list(&self, _request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let mut listing = v1::ListResponse::default();
        for event in self.registry.snapshot(EVERYTHING) {
            match &*event {
                WatchEvent::Function(function) => listing.functions.push(function.to_wire()),
                WatchEvent::Computer(computer) => listing.computers.push(computer.to_wire()),
                WatchEvent::Broker(broker) => listing.brokers.push(broker.to_wire()),
                // A snapshot holds none of these.
                WatchEvent::FunctionRemoved(_)
                | WatchEvent::ComputerRemoved(_)
                | WatchEvent::BrokerRemoved(_)
                | WatchEvent::Hierarchy(_)
                | WatchEvent::Synced => {}
            }
        }
        let bytes = listing.encoded_len();
        if bytes > LISTING_BYTES_MAX {
            let message = format!("the listing has {bytes} bytes; the limit is {LISTING_BYTES_MAX}; watch instead");
            return Err(PlatformError::new(Reason::TooLarge, message).into());
        }
        Ok(Response::new(listing))
    }

    type FetchModuleStream = Events<v1::ModuleChunk>;

    async fn fetch_module(
        &self,
        request: Request<v1::FetchModuleRequest>,
    ) -> Result<Response<Self::FetchModuleStream>, Status> {
        let digest = request.into_inner().digest.parse().map_err(PlatformError::from)?;
        let fetch = self.fetches.fetch(digest).await.map_err(PlatformError::from)?;
        let chunks = stream::unfold(fetch, |mut fetch: Fetch| async move {
            let part = fetch.next().await?;
            let chunk = part.map(|data| v1::ModuleChunk { data }).map_err(|error| PlatformError::from(error).into());
            Some((chunk, fetch))
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn announce(&self, request: Request<v1::AnnounceRequest>) -> Result<Response<v1::AnnounceResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let node = Node::from_wire(request)?;
        access::allow_only(&extensions, Some(role_of(&node)), node.name())?;
        let lease = self.registry.announce(node).map_err(PlatformError::from)?;
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let beat_ms = u64::try_from(self.beat.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(v1::AnnounceResponse { lease_ms, beat_ms }))
    }

    async fn attend(
        &self,
        request: Request<Streaming<v1::AttendRequest>>,
    ) -> Result<Response<v1::AttendResponse>, Status> {
        let (_, extensions, mut beats) = request.into_parts();
        let Some(v1::AttendRequest { name, endpoint }) = beats.message().await? else {
            return Err(PlatformError::malformed("an attendance of nobody").into());
        };
        let name: NodeName = name.parse().map_err(PlatformError::from)?;
        let endpoint: Endpoint = endpoint.parse().map_err(PlatformError::from)?;
        access::allow_only(&extensions, None, &name)?;
        if let Some(attendance) = Attendance::begin(&self.registry, name, &endpoint) {
            // However it ends, also by this being dropped with its connection, the attendance ends with it.
            while beats.message().await?.is_some() && attendance.beat() {}
        }
        Ok(Response::new(v1::AttendResponse {}))
    }

    async fn withdraw(&self, request: Request<v1::WithdrawRequest>) -> Result<Response<v1::WithdrawResponse>, Status> {
        let (_, extensions, v1::WithdrawRequest { name, endpoint }) = request.into_parts();
        let name = name.parse().map_err(PlatformError::from)?;
        access::allow_only(&extensions, None, &name)?;
        let endpoint = if endpoint.is_empty() { None } else { Some(endpoint.parse().map_err(PlatformError::from)?) };
        self.registry.withdraw(&name, endpoint.as_ref());
        Ok(Response::new(v1::WithdrawResponse {}))
    }

    type WatchStream = Events<v1::WatchEvent>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let v1::WatchRequest { protocol, functions, computers, brokers } = request.into_inner();
        check_protocol(protocol)?;
        let topics = Topics { functions, computers, brokers };
        let subscription = self.registry.watch(topics).map_err(PlatformError::from)?;
        let events = stream::unfold(subscription, |mut subscription: Subscription| async move {
            let event = subscription.next().await?;
            let event = event.map(|event| event.to_wire()).map_err(|error| PlatformError::from(error).into());
            Some((event, subscription))
        });
        Ok(Response::new(Box::pin(events)))
    }
}

fn role_of(node: &Node) -> Role {
    match node {
        Node::Computer(_) => Role::Computer,
        Node::Broker(_) => Role::Broker,
    }
}

fn checked_part(part: v1::DeployRequest) -> Result<Part, DeployError> {
    match part.part {
        Some(deploy_request::Part::Head(head)) => Ok(Part::Head(Deployment::check_head(head)?)),
        Some(deploy_request::Part::Module(bytes)) => Ok(Part::Module(bytes)),
        None => Err(DeployError::EmptyPart),
    }
}

/// A message over the limit is refused by the transport, before any room sees it; everything else is a lost connection.
fn broken_off(status: Status) -> DeployError {
    let error = PlatformError::from(status);
    if error.reason == Reason::TooLarge { DeployError::Refused(error) } else { DeployError::BrokenOff(error) }
}
