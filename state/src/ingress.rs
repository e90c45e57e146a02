//! The doors to a computer's states: `nigh.v1.State`, for other computers and for operators, and `uiiit.rpc.StateServer`, for
//! clients and computers of the older system.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nigh_proto::older::rpc::state_server_server::{StateServer, StateServerServer};
use nigh_proto::older::{self, rpc};
use nigh_proto::state::STATE_BYTES_MAX;
use nigh_proto::v1::state_server::{State, StateServer as StateService};
use nigh_proto::{ApplicationName, Endpoint, NodeName, PlatformError, Reason, Role, StateId, access, channel, v1};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::directory::Given;
use crate::error::StateError;
use crate::keeper::{Info, Keeper};
use crate::lease::{self, Change};

/// How long a request waits for a state that calls use.
const PATIENCE: Duration = Duration::from_secs(9);
/// Bytes of a list of states, at most.
const LIST_BYTES_MAX: usize = 16 << 20;

/// Both doors to one keeper.
#[derive(Debug, Clone)]
pub struct Door(Arc<Keeper>);

impl Door {
    /// To this one.
    pub fn new(keeper: Arc<Keeper>) -> Self {
        Self(keeper)
    }

    /// The door for this system's computers and operators.
    pub fn service(&self) -> StateService<Self> {
        StateService::new(self.clone())
            .max_decoding_message_size(channel::message_bytes_max(STATE_BYTES_MAX))
            .max_encoding_message_size(channel::message_bytes_max(LIST_BYTES_MAX))
    }

    /// The door for the older system.
    pub fn older_service(&self) -> StateServerServer<Self> {
        StateServerServer::new(self.clone())
            .max_decoding_message_size(channel::message_bytes_max(STATE_BYTES_MAX))
            .max_encoding_message_size(channel::message_bytes_max(STATE_BYTES_MAX))
    }

    async fn write(&self, id: &StateId, content: Bytes, version: Option<u64>) -> Result<u64, PlatformError> {
        if content.len() > STATE_BYTES_MAX {
            let message =
                format!("{} bytes are too many for a state; at most {STATE_BYTES_MAX} are kept", content.len());
            return Err(PlatformError::new(Reason::TooLarge, message));
        }
        let mut leased = self.0.lease(id, Instant::now() + PATIENCE, PATIENCE).await?;
        let found = if leased.content().is_some() { leased.version() } else { 0 };
        if let Some(expected) = version.filter(|expected| *expected != found) {
            let message = match (expected, found) {
                (0, _) => format!("there is a state {id} already, of version {found}"),
                (_, 0) => format!("there is no state {id}"),
                _ => format!("the state {id} has version {found}, not {expected}; read it again"),
            };
            return Err(PlatformError::new(Reason::StateConflict, message));
        }
        lease::commit(&self.0, &mut [(&mut leased, Change::Put(content))]).await?;
        Ok(leased.version())
    }
}

#[tonic::async_trait]
impl State for Door {
    async fn take(&self, request: Request<v1::TakeStateRequest>) -> Result<Response<v1::TakeStateResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let name: NodeName = request.name.parse().map_err(PlatformError::from)?;
        access::allow_only(&extensions, Some(Role::Computer), &name)?;
        let endpoint: Endpoint = request.endpoint.parse().map_err(PlatformError::from)?;
        let id = StateId::from_wire(request.id)?;
        let given = self.0.give(&id, &name, &endpoint, Instant::now() + PATIENCE).await;
        let response = match given.map_err(PlatformError::from)? {
            Some(Given { epoch, version, content }) => v1::TakeStateResponse { given: true, epoch, version, content },
            None => v1::TakeStateResponse::default(),
        };
        Ok(Response::new(response))
    }

    async fn taken(&self, request: Request<v1::StateTakenRequest>) -> Result<Response<v1::StateTakenResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let name: NodeName = request.name.parse().map_err(PlatformError::from)?;
        access::allow_only(&extensions, Some(Role::Computer), &name)?;
        let id = StateId::from_wire(request.id)?;
        self.0.was_taken(&id, &name, request.epoch).await.map_err(PlatformError::from)?;
        Ok(Response::new(v1::StateTakenResponse {}))
    }

    async fn list_states(
        &self,
        request: Request<v1::ListStatesRequest>,
    ) -> Result<Response<v1::ListStatesResponse>, Status> {
        let application = request.into_inner().application;
        let application: Option<ApplicationName> =
            if application.is_empty() { None } else { Some(application.parse().map_err(PlatformError::from)?) };
        let infos = self.0.list(application.as_ref()).await.map_err(PlatformError::from)?;
        let states = infos.into_iter().map(|Info { id, version, bytes, is_held, is_shared }| v1::StateInfo {
            id: Some(id.to_wire()),
            version,
            bytes: bytes as u64,
            held: is_held,
            shared: is_shared,
        });
        Ok(Response::new(v1::ListStatesResponse { states: states.collect() }))
    }

    async fn get_state(&self, request: Request<v1::GetStateRequest>) -> Result<Response<v1::GetStateResponse>, Status> {
        let id = StateId::from_wire(request.into_inner().id)?;
        let found = self.0.look(&id).await.map_err(PlatformError::from)?;
        let (version, content) = found.map_or((0, None), |(version, content)| (version, Some(content)));
        Ok(Response::new(v1::GetStateResponse { content, version }))
    }

    async fn put_state(&self, request: Request<v1::PutStateRequest>) -> Result<Response<v1::PutStateResponse>, Status> {
        let v1::PutStateRequest { id, content, version } = request.into_inner();
        let version = self.write(&StateId::from_wire(id)?, content, version).await?;
        Ok(Response::new(v1::PutStateResponse { version }))
    }

    async fn remove_state(
        &self,
        request: Request<v1::RemoveStateRequest>,
    ) -> Result<Response<v1::RemoveStateResponse>, Status> {
        let id = StateId::from_wire(request.into_inner().id)?;
        let removed = self.0.remove(&id, Instant::now() + PATIENCE).await.map_err(PlatformError::from)?;
        Ok(Response::new(v1::RemoveStateResponse { removed }))
    }
}

/// What goes wrong is told in the `retcode`, as callers of that protocol expect.
#[tonic::async_trait]
impl StateServer for Door {
    async fn get(&self, request: Request<rpc::State>) -> Result<Response<rpc::StateResponse>, Status> {
        let name = request.into_inner().name;
        let found = async {
            let id = older_id(&name)?;
            Ok::<_, PlatformError>(self.0.look(&id).await?)
        };
        Ok(Response::new(match found.await {
            Ok(Some((_, content))) => {
                let state = rpc::State { name, content, ..rpc::State::default() };
                rpc::StateResponse { retcode: older::OK.to_owned(), state: Some(state) }
            }
            Ok(None) => unknown(&name),
            Err(error) => failed(&error),
        }))
    }

    async fn put(&self, request: Request<rpc::State>) -> Result<Response<rpc::StateResponse>, Status> {
        let rpc::State { name, content, .. } = request.into_inner();
        let written = async { self.write(&older_id(&name)?, content, None).await };
        Ok(Response::new(match written.await {
            Ok(_) => rpc::StateResponse { retcode: older::OK.to_owned(), state: None },
            Err(error) => failed(&error),
        }))
    }

    async fn del(&self, request: Request<rpc::State>) -> Result<Response<rpc::StateResponse>, Status> {
        let name = request.into_inner().name;
        let removed = async {
            let id = older_id(&name)?;
            Ok::<_, PlatformError>(self.0.remove(&id, Instant::now() + PATIENCE).await?)
        };
        Ok(Response::new(match removed.await {
            Ok(true) => rpc::StateResponse { retcode: older::OK.to_owned(), state: None },
            Ok(false) => unknown(&name),
            Err(error) => failed(&error),
        }))
    }
}

fn older_id(name: &str) -> Result<StateId, PlatformError> {
    Ok(StateId { application: ApplicationName::OLDER.parse()?, state: name.parse()? })
}

fn unknown(name: &str) -> rpc::StateResponse {
    let name: String = name.chars().take(64).collect();
    rpc::StateResponse { retcode: format!("there is no state {name:?} here"), state: None }
}

fn failed(error: &PlatformError) -> rpc::StateResponse {
    rpc::StateResponse { retcode: error.message.clone(), state: None }
}

impl Keeper {
    /// Version and content of a state that is held here, as written last.
    ///
    /// # Errors
    /// [`StateError::Unreadable`].
    async fn look(&self, id: &StateId) -> Result<Option<(u64, Bytes)>, StateError> {
        let record = self.peek(id).await?;
        Ok(record.and_then(|record| Some((record.version, record.content?))))
    }
}
