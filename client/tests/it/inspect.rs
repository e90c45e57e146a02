//! Looking into computers and brokers that tell prepared stories.

use std::pin::Pin;
use std::time::SystemTime;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use nigh_client::{DestinationState, Inspect, LogLevel, LogQuery, Table, Utilisation};
use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_computer_server::{EdgeComputer, EdgeComputerServer};
use nigh_proto::v1::broker_server::{Broker, BrokerServer};
use nigh_proto::v1::computer_server::{Computer, ComputerServer};
use nigh_proto::{Digest, PlatformError, Reason, v1};
use tonic::{Request, Response, Status};

use super::*;

struct Told;

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn events<T: Send + 'static>(events: Vec<Result<T, Status>>) -> Result<Response<Events<T>>, Status> {
    Ok(Response::new(Box::pin(tokio_stream::iter(events))))
}

#[tonic::async_trait]
impl Computer for Told {
    type StreamUtilisationStream = Events<v1::UtilisationSample>;

    async fn stream_utilisation(
        &self,
        _: Request<v1::UtilisationRequest>,
    ) -> Result<Response<Self::StreamUtilisationStream>, Status> {
        let sample = |running| {
            let processors = vec![v1::ProcessorUtilisation { name: "arm".into(), share: 0.5 }];
            Ok(v1::UtilisationSample { load: Some(v1::Load { running, ..Default::default() }), processors })
        };
        events(vec![sample(1), sample(2), Err(PlatformError::new(Reason::NotServing, "stopping").into())])
    }

    type LogsStream = Events<v1::LogLine>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let v1::LogsRequest { function, follow, call_id, since_us, level_max } = request.into_inner();
        assert_eq!((call_id.as_str(), since_us, level_max, follow), ("c1", 1_000_000, Some(2), false));
        assert!(!follow);
        let line = |level| v1::LogLine {
            function: function.clone(),
            call_id: "c1".into(),
            time_us: 1_500_000,
            level,
            text: "hello".into(),
            lost: 3,
            number: 7,
        };
        events(vec![Ok(line(2)), Ok(line(9))])
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let function = v1::FunctionStatus {
            function: "echo".into(),
            version: Digest::of(b"1").to_string(),
            calls: 7,
            p99_us: 1500,
            ..Default::default()
        };
        Ok(Response::new(v1::StatusResponse {
            name: "computer-1".into(),
            load: Some(v1::Load { workers: 4, ..Default::default() }),
            functions: vec![function],
            resident_bytes: 1 << 20,
            instances_max: 64,
            instances: 3,
            processors: Vec::new(),
            modelled: false,
        }))
    }
}

#[tonic::async_trait]
impl Broker for Told {
    async fn routes(&self, request: Request<v1::RoutesRequest>) -> Result<Response<v1::RoutesResponse>, Status> {
        let function = request.into_inner().function;
        let destination = |weight, state: &str| v1::RouteDestination {
            endpoint: "127.0.0.1:10000".into(),
            weight,
            state: state.into(),
            ..Default::default()
        };
        let destinations = match function.as_str() {
            "foreign" => vec![destination(1.0, "asleep")],
            _ => vec![destination(0.0, "probing"), destination(2.5, "in-use"), destination(9.0, "set-aside")],
        };
        let routes = vec![v1::Route { function, destinations }];
        Ok(Response::new(v1::RoutesResponse { routes, policy: "least-latency".into() }))
    }

    async fn set_route(&self, request: Request<v1::SetRouteRequest>) -> Result<Response<v1::SetRouteResponse>, Status> {
        let request = request.into_inner();
        assert_eq!((request.function.as_str(), request.endpoint.as_str()), ("echo", "127.0.0.1:10000"));
        assert!(request.weight > 0.0);
        Ok(Response::new(v1::SetRouteResponse {}))
    }

    async fn remove_route(
        &self,
        request: Request<v1::RemoveRouteRequest>,
    ) -> Result<Response<v1::RemoveRouteResponse>, Status> {
        Err(PlatformError::unknown_function(request.into_inner().function).into())
    }

    async fn flush_routes(
        &self,
        _: Request<v1::FlushRoutesRequest>,
    ) -> Result<Response<v1::FlushRoutesResponse>, Status> {
        Ok(Response::new(v1::FlushRoutesResponse {}))
    }
}

#[tokio::test]
async fn a_computer_tells_of_its_load_functions_and_logs() {
    let endpoint = serve(channel::server().add_service(ComputerServer::new(Told))).await;
    let computer = Inspect::new(endpoint.clone());
    let status = soon(computer.status()).await.unwrap();
    assert_eq!((status.name.as_str(), status.load.workers, status.instances_max), ("computer-1", 4, 64));
    assert_eq!((status.functions[0].calls, status.functions[0].p99), (7, Duration::from_micros(1500)));

    let query = LogQuery {
        function: Some("echo".parse().unwrap()),
        call: Some("c1".into()),
        since: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
        level: Some(LogLevel::Warn),
        ..LogQuery::default()
    };
    let lines: Vec<_> = soon(soon(computer.logs(query)).await.unwrap().collect()).await;
    let line = lines[0].as_ref().unwrap();
    assert_eq!((line.function.as_str(), line.level, line.lost), ("echo", LogLevel::Warn, 3));
    assert_eq!(line.time, SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
    assert_eq!(lines[1].as_ref().unwrap_err().reason, Reason::Protocol);

    let mut samples = soon(computer.utilisation()).await.unwrap();
    let sample = samples.try_next().await.unwrap().unwrap();
    assert_eq!((sample.load.unwrap().running, sample.processors[0].processor.as_str()), (1, "arm"));
    assert_eq!(samples.try_next().await.unwrap().unwrap().load.unwrap().running, 2);
    assert_eq!(samples.try_next().await.unwrap_err().reason, Reason::NotServing);

    // Asked for what only a broker has.
    let error = soon(computer.routes(None, Table::Overall)).await.unwrap_err();
    assert_eq!(error.reason, Reason::Protocol);
    assert!(error.message.contains(endpoint.as_str()), "{error}");
}

/// A computer of the older system, as far as its utilisation goes.
struct Older;

#[tonic::async_trait]
impl EdgeComputer for Older {
    type StreamUtilStream = Events<rpc::Utilization>;

    async fn stream_util(&self, _: Request<rpc::Void>) -> Result<Response<Self::StreamUtilStream>, Status> {
        let values = [("bm2837".to_owned(), 0.25), ("arm".to_owned(), 1.0)];
        events(vec![Ok(rpc::Utilization { values: values.into() })])
    }
}

#[tokio::test]
async fn computers_of_the_older_system_tell_of_their_processors() {
    let endpoint = serve(channel::server().add_service(EdgeComputerServer::new(Older))).await;
    let mut samples = soon(Inspect::new(endpoint).utilisation()).await.unwrap();
    let Utilisation { load, processors } = samples.try_next().await.unwrap().unwrap();
    let told: Vec<_> = processors.iter().map(|one| (one.processor.as_str(), one.share)).collect();
    assert_eq!((load, told), (None, vec![("arm", 1.0), ("bm2837", 0.25)]));
    assert!(samples.try_next().await.unwrap().is_none());

    // What streams neither is no computer.
    let broker = serve(channel::server().add_service(BrokerServer::new(Told))).await;
    let error = soon(Inspect::new(broker).utilisation()).await.err().unwrap();
    assert_eq!(error.reason, Reason::Protocol);
}

#[tokio::test]
async fn a_broker_tells_of_its_table_and_lets_it_be_edited() {
    let broker = Inspect::new(serve(channel::server().add_service(BrokerServer::new(Told))).await);
    let (echo, foreign) = ("echo".parse().unwrap(), "foreign".parse().unwrap());
    let destination = "127.0.0.1:10000".parse().unwrap();
    let routes = soon(broker.routes(Some(&echo), Table::Overall)).await.unwrap();
    assert_eq!((routes.policy.as_str(), &routes.routes[0].function), ("least-latency", &echo));
    let found: Vec<_> = routes.routes[0].destinations.iter().map(|one| (one.weight_ms, one.state)).collect();
    let expected = [
        (None, DestinationState::Probing),
        (Some(2.5), DestinationState::InUse),
        (Some(9.0), DestinationState::SetAside),
    ];
    assert_eq!(found, expected);
    assert_eq!(soon(broker.routes(Some(&foreign), Table::Overall)).await.unwrap_err().reason, Reason::Protocol);
    soon(broker.set_route(&echo, &destination, 1.5, true)).await.unwrap();
    soon(broker.flush_routes()).await.unwrap();
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(broker.set_route(&echo, &destination, weight, true).await.unwrap_err().reason, Reason::Malformed);
    }
    assert_eq!(soon(broker.remove_route(&echo, &destination)).await.unwrap_err().reason, Reason::UnknownFunction);
}
