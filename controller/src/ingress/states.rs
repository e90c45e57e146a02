//! The door to the directory of states: `nigh.v1.StateDirectory`.

use nigh_proto::v1::state_directory_server::{StateDirectory, StateDirectoryServer};
use nigh_proto::{NodeName, PlatformError, Reason, Role, StateId, access, v1};
use tonic::{Request, Response, Status};

use crate::states::{Claimed, Holder, States};

/// The directory, as computers ask it.
pub(super) struct Door(States);

impl Door {
    pub(super) fn service(states: States) -> StateDirectoryServer<Self> {
        StateDirectoryServer::new(Self(states))
    }
}

#[tonic::async_trait]
impl StateDirectory for Door {
    async fn locate(
        &self,
        request: Request<v1::LocateStateRequest>,
    ) -> Result<Response<v1::LocateStateResponse>, Status> {
        let holder = self.0.locate(StateId::from_wire(request.into_inner().id)?).await?;
        Ok(Response::new(v1::LocateStateResponse { holder: holder.as_ref().map(Holder::to_wire) }))
    }

    async fn claim(&self, request: Request<v1::ClaimStateRequest>) -> Result<Response<v1::ClaimStateResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let name: NodeName = request.name.parse().map_err(PlatformError::from)?;
        access::allow_only(&extensions, Some(Role::Computer), &name)?;
        let endpoint = request.endpoint.parse().map_err(PlatformError::from)?;
        let id = StateId::from_wire(request.id)?;
        match self.0.claim(id, (name, endpoint), request.expected_epoch).await? {
            Claimed::Yes => Ok(Response::new(v1::ClaimStateResponse { claimed: true, holder: None })),
            Claimed::No(holder) => {
                let holder = holder.as_ref().map(Holder::to_wire);
                Ok(Response::new(v1::ClaimStateResponse { claimed: false, holder }))
            }
            Claimed::Full => {
                let message = "the controller knows as many states as it may; remove some (`nigh state rm`), or raise its states_max";
                Err(PlatformError::new(Reason::OutOfBudget, message).into())
            }
        }
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetStateRequest>,
    ) -> Result<Response<v1::ForgetStateResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let name: NodeName = request.name.parse().map_err(PlatformError::from)?;
        access::allow_only(&extensions, Some(Role::Computer), &name)?;
        self.0.forget(StateId::from_wire(request.id)?, name).await?;
        Ok(Response::new(v1::ForgetStateResponse {}))
    }
}
