//! The door to triggers: `nigh.v1.Triggers`.

use std::sync::Arc;

use nigh_proto::trigger::Listed;
use nigh_proto::v1::triggers_server::{Triggers, TriggersServer};
use nigh_proto::{PlatformError, Trigger, TriggerName, v1};
use tonic::{Request, Response, Status};

use crate::call::Broker;

/// The service, ready to be added to a server.
pub(super) fn service(broker: Arc<Broker>) -> TriggersServer<TriggersDoor> {
    TriggersServer::new(TriggersDoor { broker })
}

/// Adds, lists and removes triggers.
#[derive(Debug)]
pub(super) struct TriggersDoor {
    broker: Arc<Broker>,
}

#[tonic::async_trait]
impl Triggers for TriggersDoor {
    async fn add_trigger(
        &self,
        request: Request<v1::AddTriggerRequest>,
    ) -> Result<Response<v1::AddTriggerResponse>, Status> {
        let request = request.into_inner();
        let wire = request.trigger.ok_or_else(|| PlatformError::malformed("a request to add a trigger has none"))?;
        let unchanged = self.broker.triggers().add(Trigger::from_wire(wire)?, request.replace).await?;
        Ok(Response::new(v1::AddTriggerResponse { unchanged }))
    }

    async fn list_triggers(
        &self,
        _: Request<v1::ListTriggersRequest>,
    ) -> Result<Response<v1::ListTriggersResponse>, Status> {
        let listed = self.broker.triggers().list().await?;
        Ok(Response::new(v1::ListTriggersResponse { triggers: listed.iter().map(Listed::to_wire).collect() }))
    }

    async fn remove_trigger(
        &self,
        request: Request<v1::RemoveTriggerRequest>,
    ) -> Result<Response<v1::RemoveTriggerResponse>, Status> {
        let name: TriggerName = request.into_inner().name.parse().map_err(PlatformError::from)?;
        self.broker.triggers().remove(&name).await?;
        Ok(Response::new(v1::RemoveTriggerResponse {}))
    }
}
