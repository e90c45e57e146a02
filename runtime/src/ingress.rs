//! The computer's doors: calls (`nigh.v1.Functions`), and what people and tools want to see of it (`nigh.v1.Computer`), on one
//! port; calls over HTTP on another, where it has one.

pub(crate) mod inside;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, stream};
use http::StatusCode;
use nigh_proto::channel::{self, Door};
use nigh_proto::ingress::http::HttpHandler;
use nigh_proto::ingress::{Handler, Ingress};
use nigh_proto::older::EdgeIngress;
use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_computer_server::{EdgeComputer, EdgeComputerServer};
use nigh_proto::tls::HttpClients;
use nigh_proto::v1::computer_server::{Computer as ComputerService, ComputerServer};
use nigh_proto::{
    Call, CallId, CallLimits, Digest, Exchange, Exchanged, FunctionName, Kind, Load, PlatformError, Priority, Reply, v1,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::computer::Computer;
use crate::error::Error;
use crate::logs::{Line, Lost};
use crate::measure::Summary;
use crate::probe;

/// Time between two samples of the utilisation.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Serves the computer's doors until `shutdown`, and then until all calls under way have been answered.
pub(crate) async fn serve(
    computer: Arc<Computer>,
    doors: Doors,
    limits: CallLimits,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let inside = Inside { computer: computer.clone(), shutdown: shutdown.clone() };
    let states = nigh_state::ingress::Door::new(computer.states.clone());
    serve_with(computer, inside, states, doors, limits, shutdown).await
}

/// The same for whatever answers as a computer does; `inside` is the look into it.
pub(crate) async fn serve_with<C, I>(
    computer: Arc<C>,
    inside: I,
    states: nigh_state::ingress::Door,
    doors: Doors,
    limits: CallLimits,
    shutdown: CancellationToken,
) -> Result<(), Error>
where
    C: Handler + HttpHandler,
    I: ComputerService + EdgeComputer + Clone,
{
    let Doors { calls: door, http, http_clients } = doors;
    let over_http = async {
        let Some(door) = http else { return };
        nigh_proto::ingress::http::serve(door, http_clients, computer.clone(), limits.clone(), shutdown.clone()).await;
    };
    let services = channel::server_within(door.limits())
        .add_service(Ingress::service_within(computer.clone(), limits.clone(), door.limits()))
        .add_service(EdgeIngress::service(computer.clone(), limits.clone()))
        .add_service(EdgeComputerServer::new(inside.clone()))
        .add_service(states.service())
        .add_service(states.older_service())
        .add_service(ComputerServer::new(inside));
    let (served, ()) = tokio::join!(channel::serve(services, door, shutdown.clone()), over_http);
    served.map_err(|error| Error::Server(error.to_string()))
}

/// Where calls come in.
pub(crate) struct Doors {
    /// Over gRPC, with all that there is to see of the computer.
    pub(crate) calls: Door,
    /// Over HTTP.
    pub(crate) http: Option<Door>,
    /// Whom that one lets in.
    pub(crate) http_clients: HttpClients,
}

/// What the door for HTTP leads to.
impl HttpHandler for Computer {
    // A call finds its place, or is refused, once it is whole; what is on its way in is bounded by the door.
    type Place = ();

    fn kind(&self, function: &FunctionName) -> Option<Kind> {
        match self.functions().get(function) {
            Some(known) => Some(known.deployment.map_or(Kind::Http, |deployment| deployment.kind)),
            // What is not known yet is passed on as it is, to be told so.
            None => self.readiness().is_err().then_some(Kind::Http),
        }
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
        self.readiness()
    }

    fn answered(&self, status: StatusCode) {
        self.http.count(status.as_u16());
    }
}

/// A look inside the computer; for clients of the older system, at its utilisation alone.
#[derive(Clone)]
struct Inside {
    computer: Arc<Computer>,
    shutdown: CancellationToken,
}

/// A stream to whoever looks.
pub(crate) type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ComputerService for Inside {
    type StreamUtilisationStream = Outgoing<v1::UtilisationSample>;

    async fn stream_utilisation(
        &self,
        _: Request<v1::UtilisationRequest>,
    ) -> Result<Response<Self::StreamUtilisationStream>, Status> {
        let samples = samples(self.computer.clone(), |computer| {
            let load = computer.load();
            Ok(v1::UtilisationSample { load: Some(load.to_wire()), processors: processor_shares(own_cores(&load)) })
        });
        Ok(Response::new(Box::pin(samples.take_until(self.shutdown.clone().cancelled_owned()))))
    }

    type LogsStream = Outgoing<v1::LogLine>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let follow = request.follow;
        let lines = follow_logs(&self.computer, Wanted::from_wire(request)?, follow)?;
        Ok(Response::new(Box::pin(lines.take_until(self.shutdown.clone().cancelled_owned()))))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(status(&self.computer)))
    }
}

#[tonic::async_trait]
impl EdgeComputer for Inside {
    type StreamUtilStream = Outgoing<rpc::Utilization>;

    async fn stream_util(&self, _: Request<rpc::Void>) -> Result<Response<Self::StreamUtilStream>, Status> {
        let samples = samples(self.computer.clone(), |computer| {
            Ok(rpc::Utilization { values: own_cores(&computer.load()).into_iter().collect() })
        });
        Ok(Response::new(Box::pin(samples.take_until(self.shutdown.clone().cancelled_owned()))))
    }
}

/// What is read off a computer, once a second from now on.
pub(crate) fn samples<C, T>(computer: Arc<C>, read: impl Fn(&C) -> T) -> impl Stream<Item = T> {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream::unfold((computer, ticks, read), |(computer, mut ticks, read)| async move {
        ticks.tick().await;
        Some((read(&computer), (computer, ticks, read)))
    })
}

/// How busy this machine's processor was with functions in the last second, by its name.
fn own_cores(load: &Load) -> Vec<(String, f32)> {
    vec![(std::env::consts::ARCH.to_owned(), load.utilisation[0])]
}

/// Shares of processors as they are told.
pub(crate) fn processor_shares(shares: Vec<(String, f32)>) -> Vec<v1::ProcessorUtilisation> {
    shares.into_iter().map(|(name, share)| v1::ProcessorUtilisation { name, share }).collect()
}

fn status(computer: &Computer) -> v1::StatusResponse {
    let functions = computer.function_statuses().into_iter().map(|status| {
        let version = status.known.deployment.map(|deployment| deployment.version);
        function_status(&status.known.function.name, version, status.summary, (status.running, status.queued))
    });
    let load = computer.load();
    v1::StatusResponse {
        name: computer.name().as_str().to_owned(),
        load: Some(load.to_wire()),
        functions: functions.collect(),
        resident_bytes: probe::resident_bytes(),
        instances_max: computer.instances_max(),
        instances: u32::try_from(computer.instances().live).unwrap_or(u32::MAX),
        processors: processor_shares(own_cores(&load)),
        modelled: false,
    }
}

/// One function as it is told of; `counts` are its calls that run and wait.
pub(crate) fn function_status(
    name: &FunctionName,
    version: Option<Digest>,
    summary: Summary,
    counts: (u32, u32),
) -> v1::FunctionStatus {
    let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let bucket = |(upto, calls): (Duration, u32)| v1::LatencyBucket { upto_us: us(upto), calls: calls.into() };
    v1::FunctionStatus {
        function: name.to_string(),
        version: version.map(|version| version.to_string()).unwrap_or_default(),
        calls: summary.calls,
        function_errors: summary.function_errors,
        refused: summary.refused,
        running: counts.0,
        queued: counts.1,
        p50_us: us(summary.p50),
        p99_us: us(summary.p99),
        latency: summary.latency.into_iter().map(bucket).collect(),
        queue_us: us(summary.mean.queue),
        init_us: us(summary.mean.init),
        run_us: us(summary.mean.run),
        reset_us: us(summary.mean.reset),
    }
}

/// The lines kept, in order of time, then new ones.
fn follow_logs(
    computer: &Computer,
    wanted: Wanted,
    follow: bool,
) -> Result<impl Stream<Item = Result<v1::LogLine, Status>> + Send + use<>, PlatformError> {
    // First the ear, then the memory: no line falls between. Those heard twice are told apart by their number.
    let new = computer.hub().follow();
    let logs: Vec<_> = match &wanted.function {
        Some(name) => {
            let known = computer.functions().get(name).ok_or_else(|| PlatformError::unknown_function(name))?;
            vec![known.function.log.clone()]
        }
        None => computer.functions().all().iter().map(|known| known.function.log.clone()).collect(),
    };
    let mut kept: Vec<Arc<Line>> = logs.iter().flat_map(|log| log.lines()).collect();
    kept.sort_by_key(|line| line.time_us());
    let mut reader = Reader { wanted, next: HashMap::new(), lost: 0 };
    let told: Vec<_> = kept.iter().filter_map(|line| reader.take(line)).map(Ok).collect();
    let hub = computer.hub().clone();
    let new = stream::unfold((new, reader, hub), |(mut new, mut reader, hub)| async move {
        loop {
            match new.recv().await {
                Ok(line) => {
                    if let Some(line) = reader.take(&line) {
                        return Some((Ok(line), (new, reader, hub)));
                    }
                }
                // Which lines were lost shows in the numbers of those that follow.
                Err(RecvError::Lagged(lines)) => hub.lose(Lost::SlowReader, lines),
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(stream::iter(told).chain(new.take(if follow { usize::MAX } else { 0 })))
}

/// Which lines a reader wants.
struct Wanted {
    function: Option<FunctionName>,
    call: Option<String>,
    since_us: u64,
    level_max: Option<u32>,
}

impl Wanted {
    fn from_wire(request: v1::LogsRequest) -> Result<Self, PlatformError> {
        let function = match request.function.as_str() {
            "" => None,
            name => Some(name.parse().map_err(PlatformError::from)?),
        };
        let call = Some(request.call_id).filter(|id| !id.is_empty());
        if call.as_ref().is_some_and(|id| id.len() > CallId::BYTES_MAX) {
            let message = format!("no call has an id of over {} bytes", CallId::BYTES_MAX);
            return Err(PlatformError::malformed(message));
        }
        Ok(Self { function, call, since_us: request.since_us, level_max: request.level_max })
    }

    fn is_of_function(&self, line: &Line) -> bool {
        self.function.as_ref().is_none_or(|function| *function == line.function)
    }

    fn includes(&self, line: &Line) -> bool {
        self.call.as_ref().is_none_or(|id| line.call().as_str().starts_with(id.as_str()))
            && line.time_us() >= self.since_us
            && self.level_max.is_none_or(|level| line.level() <= level)
    }
}

/// Keeps track of what one reader of logs has been told.
struct Reader {
    wanted: Wanted,
    /// The number of the line that comes next, by function.
    next: HashMap<FunctionName, u64>,
    /// Lines lost of which it has not been told.
    lost: u64,
}

impl Reader {
    /// The line as told to the reader; nothing if it is not for it, or was told before.
    fn take(&mut self, line: &Line) -> Option<v1::LogLine> {
        if !self.wanted.is_of_function(line) {
            return None;
        }
        let lost = match self.next.get(&line.function) {
            Some(next) => line.number.checked_sub(*next)?,
            // What was logged before the first line told was not lost on the way to this reader.
            None => 0,
        };
        self.next.insert(line.function.clone(), line.number + 1);
        // Some of those lost may have been wanted: nobody knows, so they are told of with the next line that is.
        self.lost += lost;
        if !self.wanted.includes(line) {
            return None;
        }
        Some(line.to_wire(std::mem::take(&mut self.lost)))
    }
}
