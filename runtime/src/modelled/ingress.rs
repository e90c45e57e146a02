//! A modelled computer's doors: the same services as of any other.

use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt as _, stream};
use http::StatusCode;
use nigh_proto::ingress::Handler as _;
use nigh_proto::ingress::http::HttpHandler;
use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_computer_server::EdgeComputer;
use nigh_proto::v1::computer_server::Computer as ComputerService;
use nigh_proto::{Call, CallLimits, Exchange, Exchanged, FunctionName, Kind, PlatformError, Priority, Reply, v1};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::Modelled;
use crate::error::Error;
use crate::ingress::{Doors, Outgoing, function_status, processor_shares, samples, serve_with};
use crate::probe;
use crate::serve::Computing;

/// Serves the doors until `shutdown`, and then until all calls under way have been answered.
pub(super) async fn serve(
    computer: Arc<Modelled>,
    doors: Doors,
    limits: CallLimits,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let inside = Inside { computer: computer.clone(), shutdown: shutdown.clone() };
    let states = nigh_state::ingress::Door::new(computer.states.clone());
    serve_with(computer, inside, states, doors, limits, shutdown).await
}

/// What the door for HTTP leads to.
impl HttpHandler for Modelled {
    type Place = ();

    fn kind(&self, function: &FunctionName) -> Option<Kind> {
        self.functions.contains_key(function).then_some(Kind::Native)
    }

    fn admit(&self, _priority: Priority) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn handle_in(&self, _place: (), call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        self.handle(call, arrived).await
    }

    async fn exchange_in(&self, _place: (), exchange: Exchange, arrived: Instant) -> Result<Exchanged, PlatformError> {
        self.exchange(exchange, arrived).await
    }

    fn readiness(&self) -> Result<(), String> {
        Computing::readiness(self)
    }

    fn answered(&self, status: StatusCode) {
        self.http.count(status.as_u16());
    }
}

/// A look inside the computer.
#[derive(Clone)]
struct Inside {
    computer: Arc<Modelled>,
    shutdown: CancellationToken,
}

impl Inside {
    /// What is read off the computer once a second, until it stops.
    fn each_second<T: Send + 'static, Read: Fn(&Modelled) -> T + Send + 'static>(
        &self,
        read: Read,
    ) -> impl Stream<Item = Result<T, Status>> + Send + use<T, Read> {
        let samples = samples(self.computer.clone(), move |computer| Ok(read(computer)));
        samples.take_until(self.shutdown.clone().cancelled_owned())
    }
}

#[tonic::async_trait]
impl ComputerService for Inside {
    type StreamUtilisationStream = Outgoing<v1::UtilisationSample>;

    async fn stream_utilisation(
        &self,
        _: Request<v1::UtilisationRequest>,
    ) -> Result<Response<Self::StreamUtilisationStream>, Status> {
        let samples = self.each_second(|computer| v1::UtilisationSample {
            load: Some(computer.load().to_wire()),
            processors: processor_shares(computer.processors()),
        });
        Ok(Response::new(Box::pin(samples)))
    }

    type LogsStream = Outgoing<v1::LogLine>;

    /// What is modelled logs nothing; whoever follows waits for as long as the computer is there.
    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        if request.into_inner().follow {
            let silence = stream::pending().take_until(self.shutdown.clone().cancelled_owned());
            return Ok(Response::new(Box::pin(silence)));
        }
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let functions = self
            .computer
            .function_statuses()
            .map(|status| function_status(status.name, None, status.summary, (status.running, status.queued)));
        Ok(Response::new(v1::StatusResponse {
            name: self.computer.name().as_str().to_owned(),
            load: Some(self.computer.load().to_wire()),
            functions: functions.collect(),
            resident_bytes: probe::resident_bytes(),
            instances_max: 0,
            instances: 0,
            processors: processor_shares(self.computer.processors()),
            modelled: true,
        }))
    }
}

#[tonic::async_trait]
impl EdgeComputer for Inside {
    type StreamUtilStream = Outgoing<rpc::Utilization>;

    async fn stream_util(&self, _: Request<rpc::Void>) -> Result<Response<Self::StreamUtilStream>, Status> {
        let samples =
            self.each_second(|computer| rpc::Utilization { values: computer.processors().into_iter().collect() });
        Ok(Response::new(Box::pin(samples)))
    }
}
