//! The door to calls that run later: `nigh.v1.Asynchronous`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::time::ms_of;
use nigh_proto::v1::asynchronous_server::{Asynchronous, AsynchronousServer};
use nigh_proto::{Acceptance, CallId, PlatformError, asynchronous, channel, v1};
use tonic::{Request, Response, Status};

use crate::call::Broker;

/// Dead letters told where nobody says how many.
const DEAD_TOLD: usize = 100;

/// The service, ready to be added to a server.
pub(super) fn service(broker: Arc<Broker>) -> AsynchronousServer<AsynchronousDoor> {
    let bytes_max = channel::message_bytes_max(broker.limits().payload_bytes_max);
    AsynchronousServer::new(AsynchronousDoor { broker })
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(usize::MAX)
}

/// Accepts calls, tells results, and lets dead letters be looked after.
#[derive(Debug)]
pub(super) struct AsynchronousDoor {
    broker: Arc<Broker>,
}

#[tonic::async_trait]
impl Asynchronous for AsynchronousDoor {
    async fn accept(&self, request: Request<v1::AcceptRequest>) -> Result<Response<v1::AcceptResponse>, Status> {
        let acceptance = Acceptance::from_wire(request.into_inner(), self.broker.limits(), Instant::now())?;
        let accepted = self.broker.asynchronous().accept(acceptance, None).await?;
        Ok(Response::new(v1::AcceptResponse { call_id: accepted.id.to_string(), known: accepted.known }))
    }

    async fn result(&self, request: Request<v1::ResultRequest>) -> Result<Response<v1::ResultResponse>, Status> {
        let request = request.into_inner();
        let wait = Duration::from_millis(request.wait_ms);
        let known = self.broker.asynchronous().result(&checked(&request.call_id)?, wait).await?;
        Ok(Response::new(asynchronous::result_to_wire(known)))
    }

    async fn queue(&self, _: Request<v1::QueueRequest>) -> Result<Response<v1::QueueResponse>, Status> {
        let counts = self.broker.asynchronous().counts().await?;
        Ok(Response::new(v1::QueueResponse {
            waiting: counts.waiting,
            taken: counts.taken,
            dead: counts.dead,
            bytes: counts.bytes,
        }))
    }

    async fn dead_letters(
        &self,
        request: Request<v1::DeadLettersRequest>,
    ) -> Result<Response<v1::DeadLettersResponse>, Status> {
        let limit = match request.into_inner().limit {
            0 => DEAD_TOLD,
            limit => limit as usize,
        };
        let dead = self.broker.asynchronous().dead(limit).await?.into_iter();
        let letters = dead.map(|(dead, function)| v1::DeadLetter {
            call_id: dead.id.to_string(),
            function,
            why: dead.why,
            accepted_ms: ms_of(dead.enqueued),
            died_ms: ms_of(dead.died),
            tries: dead.attempts,
        });
        Ok(Response::new(v1::DeadLettersResponse { letters: letters.collect() }))
    }

    async fn retry_dead_letter(
        &self,
        request: Request<v1::RetryDeadLetterRequest>,
    ) -> Result<Response<v1::RetryDeadLetterResponse>, Status> {
        let id = checked(&request.into_inner().call_id)?;
        self.broker.asynchronous().retry(&id).await?;
        tracing::info!(%id, "a dead letter is tried again");
        Ok(Response::new(v1::RetryDeadLetterResponse {}))
    }

    async fn drop_dead_letter(
        &self,
        request: Request<v1::DropDeadLetterRequest>,
    ) -> Result<Response<v1::DropDeadLetterResponse>, Status> {
        let id = checked(&request.into_inner().call_id)?;
        self.broker.asynchronous().drop_dead(&id).await?;
        tracing::info!(%id, "a dead letter was dropped by hand");
        Ok(Response::new(v1::DropDeadLetterResponse {}))
    }
}

fn checked(id: &str) -> Result<CallId, PlatformError> {
    id.parse()
}
