//! Deploying, removing and listing functions.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nigh_proto::v1::controller_client::ControllerClient;
use nigh_proto::v1::deploy_request::Part;
use nigh_proto::{
    AllowedHost, Broker, Computer, Deployment, Digest, DirectoryGrant, Endpoint, FunctionName, Limits, Placement,
    PlatformError, Reason, Remote, Role, StateName, channel, v1,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::inspect::Inspect;
use crate::peer::{Peer, foreign};
use crate::ready::{self, Readiness, ReadyError};

/// Bytes of a module in one message.
const PART_BYTES: usize = 256 << 10;
/// Parts that wait for the connection.
const PARTS_QUEUED_MAX: usize = 2;
/// Time in which a controller has to accept the next part of a module.
const UPLOAD_IDLE: Duration = Duration::from_secs(30);
/// Time for a controller to judge and store a module once it has all of it.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a controller to hand out a module.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a listing, at most; a controller sends no more either.
const LISTING_BYTES_MAX: usize = 64 << 20;

/// Time for a controller to be reached, where there are others.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);

/// What is to be deployed, beside the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployRequest {
    /// The name to call it by.
    pub name: FunctionName,
    /// Its limits on each computer.
    pub limits: Limits,
    /// The directories that it may reach.
    pub directories: Vec<DirectoryGrant>,
    /// The hosts that it may send HTTP requests to; for http functions only.
    pub hosts: Vec<AllowedHost>,
    /// On which computers it is to run.
    pub placement: Placement,
    /// The application's states that it may read and write.
    pub states: Vec<StateName>,
}

impl DeployRequest {
    /// With the limits that functions have by default, on any computer, reaching nothing.
    pub fn new(name: FunctionName) -> Self {
        Self {
            name,
            limits: Limits::default(),
            directories: Vec::new(),
            hosts: Vec::new(),
            placement: Placement::default(),
            states: Vec::new(),
        }
    }
}

/// What a deployment came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The function as it is deployed now.
    pub deployment: Deployment,
    /// False where the very same version was there already.
    pub changed: bool,
}

/// All that the controller knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Functions deployed, by name.
    pub functions: Vec<Deployment>,
    /// Computers alive, by name.
    pub computers: Vec<Computer>,
    /// Brokers alive, by name.
    pub brokers: Vec<Broker>,
}

/// Deploys, removes and lists functions at one controller. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Admin {
    peer: Peer,
    client: ControllerClient<Channel>,
}

impl Admin {
    /// For whichever of several controllers that share a store can be reached, the first before the others.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn of_any(controllers: impl Into<Remote>) -> Self {
        let each = controllers.into().each();
        let mut chosen = None;
        for controller in each.iter().filter(|_| each.len() > 1) {
            let connecting = TcpStream::connect(controller.endpoint.as_str());
            if matches!(tokio::time::timeout(REACH_TIMEOUT, connecting).await, Ok(Ok(_))) {
                chosen = Some(controller.clone());
                break;
            }
        }
        // Where none can be reached, the failure is told by the request.
        let first = each.into_iter().next();
        Self::new(chosen.or(first).expect("each is one at least"))
    }

    /// For this controller; connects with the first request and again whenever the connection is lost.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(controller: impl Into<Remote>) -> Self {
        let peer = Peer::new("controller", controller.into(), &[Role::Controller]);
        let client = ControllerClient::new(peer.channel())
            .max_decoding_message_size(channel::message_bytes_max(LISTING_BYTES_MAX));
        Self { peer, client }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Looks into a node of the same edge, proving itself in the same way.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn inspect(&self, node: Endpoint) -> Inspect {
        Inspect::new(Remote::new(node, self.peer.remote().tls.clone()))
    }

    /// Uploads a module and deploys it under a name; `progress` is told the bytes handed to the connection so far.
    ///
    /// # Errors
    /// [`PlatformError`]: refused, with what to do, or the controller cannot be reached. Nothing was changed then, unless
    /// its reason is `Disconnected` or `Late`: then it is unknown, and deploying again does no harm.
    pub async fn deploy(
        &self,
        request: DeployRequest,
        module: Bytes,
        progress: impl FnMut(u64),
    ) -> Result<Deployed, PlatformError> {
        let (parts, outgoing) = mpsc::channel(PARTS_QUEUED_MAX);
        let mut client = self.client.clone();
        let answer = client.deploy(ReceiverStream::new(outgoing));
        tokio::pin!(answer);
        let answered = tokio::select! {
            // A controller that refuses need not hear all of it first.
            answered = &mut answer => Some(answered),
            uploaded = self.upload(request, module, parts, progress) => uploaded.map(|()| None)?,
        };
        let answered = match answered {
            Some(answered) => answered.map_err(|status| self.peer.explain(status))?.into_inner(),
            None => self.peer.request_within(DEPLOY_TIMEOUT, answer).await?,
        };
        let deployment = answered.deployment.ok_or_else(|| foreign("controller", "deployment"))?;
        Ok(Deployed { deployment: Deployment::from_wire(deployment)?, changed: answered.changed })
    }

    /// Removes a function.
    ///
    /// # Errors
    /// [`Reason::UnknownFunction`] where there is none of this name; as [`Admin::list`].
    pub async fn remove(&self, name: &FunctionName) -> Result<(), PlatformError> {
        let request = v1::RemoveRequest { name: name.to_string() };
        let v1::RemoveResponse {} = self.peer.request(self.client.clone().remove(request)).await?;
        Ok(())
    }

    /// Lists what is deployed and who is alive.
    ///
    /// # Errors
    /// [`PlatformError`] where the controller cannot be reached, or does not speak this protocol.
    pub async fn list(&self) -> Result<Listing, PlatformError> {
        let v1::ListResponse { functions, computers, brokers } =
            self.peer.request(self.client.clone().list(v1::ListRequest {})).await?;
        Ok(Listing {
            functions: functions.into_iter().map(Deployment::from_wire).collect::<Result<_, _>>()?,
            computers: computers.into_iter().map(Computer::from_wire).collect::<Result<_, _>>()?,
            brokers: brokers.into_iter().map(Broker::from_wire).collect::<Result<_, _>>()?,
        })
    }

    /// The module of a deployment, whole.
    ///
    /// # Errors
    /// [`PlatformError`] where it is gone or more than it was said to be, or the controller cannot be reached or does not hand it out.
    pub async fn module(&self, deployment: &Deployment) -> Result<Bytes, PlatformError> {
        let fetching = async {
            let request = v1::FetchModuleRequest { digest: deployment.module.to_string() };
            let fetched = self.client.clone().fetch_module(request).await;
            let mut chunks = fetched.map_err(|status| self.peer.explain(status))?.into_inner();
            let mut module = BytesMut::new();
            while let Some(chunk) = chunks.message().await.map_err(|status| self.peer.explain(status))? {
                module.extend_from_slice(&chunk.data);
                if module.len() as u64 > deployment.module_bytes {
                    break;
                }
            }
            if Digest::of(&module) == deployment.module {
                return Ok(module.freeze());
            }
            let message = format!("the controller handed out another module than {}'s", deployment.name);
            Err(PlatformError::new(Reason::Internal, message))
        };
        tokio::time::timeout(FETCH_TIMEOUT, fetching).await.unwrap_or_else(|_| Err(self.peer.silent(FETCH_TIMEOUT)))
    }

    /// Waits until every computer alive has this version ready or says why it cannot run it, and at least one has it
    /// ready. `on_change` is told of each step. Goes on through restarts of the controller.
    ///
    /// # Errors
    /// [`ReadyError`]: no computer can run it, it was replaced or removed, or `timeout` passed.
    pub async fn await_ready(
        &self,
        name: &FunctionName,
        version: Digest,
        timeout: Duration,
        on_change: impl FnMut(&Readiness),
    ) -> Result<Readiness, ReadyError> {
        ready::await_ready(self.peer.remote().clone(), name, version, timeout, on_change).await
    }

    async fn upload(
        &self,
        request: DeployRequest,
        mut module: Bytes,
        parts: mpsc::Sender<v1::DeployRequest>,
        mut progress: impl FnMut(u64),
    ) -> Result<(), PlatformError> {
        let mut part = Some(Part::Head(head(request)));
        let mut sent = 0;
        while let Some(next) = part.take() {
            if let Part::Module(bytes) = &next {
                sent += bytes.len() as u64;
            }
            match parts.send_timeout(v1::DeployRequest { part: Some(next) }, UPLOAD_IDLE).await {
                Ok(()) => progress(sent),
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Err(self.peer.silent(UPLOAD_IDLE)),
                // The request is over already; its answer tells why.
                Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(()),
            }
            if !module.is_empty() {
                part = Some(Part::Module(module.split_to(module.len().min(PART_BYTES))));
            }
        }
        Ok(())
    }
}

fn head(request: DeployRequest) -> v1::DeployHead {
    let grant = |grant: DirectoryGrant| v1::DirectoryGrant {
        name: grant.name,
        guest_path: grant.guest_path,
        writable: grant.writable,
    };
    v1::DeployHead {
        name: request.name.to_string(),
        limits: Some(request.limits.to_wire()),
        directories: request.directories.into_iter().map(grant).collect(),
        hosts: request.hosts.iter().map(ToString::to_string).collect(),
        placement: request.placement.to_wire(),
        states: request.states.iter().map(ToString::to_string).collect(),
    }
}
