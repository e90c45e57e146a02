//! A look inside a computer, whatever runs its functions: how busy it is, and what of its calls and logs. It is also what
//! the door for HTTP leads to.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, stream};
use http::StatusCode;
use nigh_proto::ingress::http::HttpHandler;
use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_computer_server::EdgeComputer;
use nigh_proto::time::us;
use nigh_proto::v1::computer_server::Computer as ComputerService;
use nigh_proto::{Call, Exchange, Exchanged, FunctionName, Kind, PlatformError, Priority, Reply, v1};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::logs;
use crate::computing::{Computing, FunctionStatus};
use crate::probe;

/// Time between two samples of the utilisation.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A look inside a computer; for clients of the older system, at its utilisation alone.
pub(super) struct Inside<C> {
    computer: Arc<C>,
    shutdown: CancellationToken,
}

/// A stream to whoever looks.
type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<C: Computing> Inside<C> {
    /// Until `shutdown`.
    pub(super) fn new(computer: Arc<C>, shutdown: CancellationToken) -> Self {
        Self { computer, shutdown }
    }

    /// A stream that ends when the computer stops.
    fn outgoing<T: 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Response<Outgoing<T>> {
        Response::new(Box::pin(stream.take_until(self.shutdown.clone().cancelled_owned())))
    }

    /// What is read off the computer, once a second from now on.
    fn each_second<T: Send + 'static>(&self, read: impl Fn(&C) -> T + Send + 'static) -> Response<Outgoing<T>> {
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let samples = stream::unfold((self.computer.clone(), ticks, read), |(computer, mut ticks, read)| async move {
            ticks.tick().await;
            Some((Ok(read(&computer)), (computer, ticks, read)))
        });
        self.outgoing(samples)
    }
}

impl<C> Clone for Inside<C> {
    fn clone(&self) -> Self {
        Self { computer: self.computer.clone(), shutdown: self.shutdown.clone() }
    }
}

#[tonic::async_trait]
impl<C: Computing> ComputerService for Inside<C> {
    type StreamUtilisationStream = Outgoing<v1::UtilisationSample>;

    async fn stream_utilisation(
        &self,
        _: Request<v1::UtilisationRequest>,
    ) -> Result<Response<Self::StreamUtilisationStream>, Status> {
        Ok(self.each_second(|computer| v1::UtilisationSample {
            load: Some(computer.load().to_wire()),
            processors: processor_shares(computer),
        }))
    }

    type LogsStream = Outgoing<v1::LogLine>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        Ok(match self.computer.deployed() {
            Some(functions) => self.outgoing(logs::read(functions, request)?),
            // There are none; whoever follows waits for as long as the computer is there.
            None if request.follow => self.outgoing(stream::pending()),
            None => self.outgoing(stream::empty()),
        })
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let computer = &*self.computer;
        let (instances, instances_max) = computer.instances();
        Ok(Response::new(v1::StatusResponse {
            name: computer.name().as_str().to_owned(),
            functions: computer.function_statuses().into_iter().map(function_status).collect(),
            load: Some(computer.load().to_wire()),
            resident_bytes: probe::resident_bytes(),
            instances_max,
            instances,
            processors: processor_shares(computer),
            modelled: computer.is_modelled(),
        }))
    }
}

#[tonic::async_trait]
impl<C: Computing> EdgeComputer for Inside<C> {
    type StreamUtilStream = Outgoing<rpc::Utilization>;

    async fn stream_util(&self, _: Request<rpc::Void>) -> Result<Response<Self::StreamUtilStream>, Status> {
        Ok(self.each_second(|computer| rpc::Utilization { values: computer.processors().into_iter().collect() }))
    }
}

impl<C: Computing> HttpHandler for Inside<C> {
    // A call finds its place, or is refused, once it is whole; what is on its way in is bounded by the door.
    type Place = ();

    fn kind(&self, function: &FunctionName) -> Option<Kind> {
        self.computer.kind(function)
    }

    fn admit(&self, _priority: Priority) -> Result<(), PlatformError> {
        Ok(())
    }

    fn handle_in(
        &self,
        _place: (),
        call: Call,
        arrived: Instant,
    ) -> impl Future<Output = Result<Reply, PlatformError>> + Send {
        self.computer.handle(call, arrived)
    }

    fn exchange_in(
        &self,
        _place: (),
        exchange: Exchange,
        arrived: Instant,
    ) -> impl Future<Output = Result<Exchanged, PlatformError>> + Send {
        self.computer.exchange(exchange, arrived)
    }

    fn readiness(&self) -> Result<(), String> {
        self.computer.readiness()
    }

    fn answered(&self, status: StatusCode) {
        self.computer.http_responses().count(status.as_u16());
    }
}

/// Shares of processors as they are told.
fn processor_shares(computer: &impl Computing) -> Vec<v1::ProcessorUtilisation> {
    let share = |(name, share)| v1::ProcessorUtilisation { name, share };
    computer.processors().into_iter().map(share).collect()
}

/// One function as it is told of.
fn function_status(status: FunctionStatus) -> v1::FunctionStatus {
    let FunctionStatus { name, version, summary, running, queued, held_back } = status;
    let bucket = |(upto, calls): (Duration, u32)| v1::LatencyBucket { upto_us: us(upto), calls: calls.into() };
    v1::FunctionStatus {
        function: name.to_string(),
        version: version.map(|version| version.to_string()).unwrap_or_default(),
        calls: summary.calls,
        function_errors: summary.function_errors,
        refused: summary.refused,
        running,
        queued,
        p50_us: us(summary.p50),
        p99_us: us(summary.p99),
        latency: summary.latency.into_iter().map(bucket).collect(),
        queue_us: us(summary.mean.queue),
        init_us: us(summary.mean.init),
        run_us: us(summary.mean.run),
        reset_us: us(summary.mean.reset),
        held_back,
    }
}
