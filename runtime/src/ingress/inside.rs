//! A look inside a computer that brings its functions itself: how busy it is, and what of its calls. It has no logs.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_computer_server::EdgeComputer;
use nigh_proto::v1::computer_server::Computer as ComputerService;
use nigh_proto::{Load, v1};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Outgoing, processor_shares, samples};

/// What there is to see of a computer.
pub(crate) trait Watched: Send + Sync + 'static {
    /// All of it.
    fn status(&self) -> v1::StatusResponse;

    /// How busy it is.
    fn load(&self) -> Load;

    /// By name, the share of each processor that was busy in the last second.
    fn processors(&self) -> Vec<(String, f32)>;
}

/// A look inside a computer.
pub(crate) struct Inside<C> {
    computer: Arc<C>,
    shutdown: CancellationToken,
}

impl<C: Watched> Inside<C> {
    /// Until `shutdown`.
    pub(crate) fn new(computer: Arc<C>, shutdown: CancellationToken) -> Self {
        Self { computer, shutdown }
    }

    /// What is read off the computer once a second, until it stops.
    fn each_second<T: Send + 'static, Read: Fn(&C) -> T + Send + 'static>(
        &self,
        read: Read,
    ) -> impl Stream<Item = Result<T, Status>> + Send + use<C, T, Read> {
        let samples = samples(self.computer.clone(), move |computer| Ok(read(computer)));
        samples.take_until(self.shutdown.clone().cancelled_owned())
    }
}

impl<C> Clone for Inside<C> {
    fn clone(&self) -> Self {
        Self { computer: self.computer.clone(), shutdown: self.shutdown.clone() }
    }
}

#[tonic::async_trait]
impl<C: Watched> ComputerService for Inside<C> {
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

    /// There are none; whoever follows waits for as long as the computer is there.
    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        if request.into_inner().follow {
            let silence = stream::pending().take_until(self.shutdown.clone().cancelled_owned());
            return Ok(Response::new(Box::pin(silence)));
        }
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.computer.status()))
    }
}

#[tonic::async_trait]
impl<C: Watched> EdgeComputer for Inside<C> {
    type StreamUtilStream = Outgoing<rpc::Utilization>;

    async fn stream_util(&self, _: Request<rpc::Void>) -> Result<Response<Self::StreamUtilStream>, Status> {
        let samples =
            self.each_second(|computer| rpc::Utilization { values: computer.processors().into_iter().collect() });
        Ok(Response::new(Box::pin(samples)))
    }
}
