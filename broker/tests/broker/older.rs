//! The older system's protocol on both sides of a broker: its clients call, its computers are called.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nigh_proto::Reason;
use nigh_proto::older::rpc::edge_controller_server::{EdgeController, EdgeControllerServer};
use nigh_proto::older::rpc::edge_router_client::EdgeRouterClient;
use nigh_proto::older::rpc::edge_router_conf::Action;
use nigh_proto::older::rpc::edge_server_client::EdgeServerClient;
use nigh_proto::older::rpc::edge_server_server::{EdgeServer, EdgeServerServer};
use nigh_proto::older::rpc::{
    ComputerInfo, EdgeRouterConf, LambdaRequest, LambdaResponse, RouterInfo, State, TableId, Void,
};
use parking_lot::Mutex;

use super::computer::{FakeComputer, nobody, reply};
use super::*;

/// A computer of the older system: upper-cases its input, fails for the input `bomb`, and counts.
#[derive(Clone, Default)]
struct OlderComputer(Arc<AtomicUsize>);

#[tonic::async_trait]
impl EdgeServer for OlderComputer {
    async fn run_lambda(
        &self,
        request: tonic::Request<LambdaRequest>,
    ) -> Result<tonic::Response<LambdaResponse>, tonic::Status> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        assert!(request.forward, "what a broker passes on says so");
        let retcode = if request.input == "bomb" { "exception raised" } else { "OK" };
        Ok(tonic::Response::new(LambdaResponse {
            retcode: retcode.into(),
            output: request.input.to_uppercase(),
            dataout: request.datain.iter().rev().copied().collect::<Vec<u8>>().into(),
            ptime: 12,
            load1: 25,
            hops: request.hops + 1,
            ..LambdaResponse::default()
        }))
    }
}

async fn older_computer() -> (Endpoint, OlderComputer) {
    let computer = OlderComputer::default();
    let listener = listen().await;
    let endpoint = Endpoint::from(listener.local_addr().unwrap());
    let service = channel::server().add_service(EdgeServerServer::new(computer.clone()));
    tokio::spawn(channel::serve(service, listener, CancellationToken::new()));
    (endpoint, computer)
}

impl TestBroker {
    async fn run_lambda(&self, request: LambdaRequest) -> LambdaResponse {
        let mut client = EdgeServerClient::new(channel::connect_lazy(&self.calls));
        client.run_lambda(LambdaRequest { name: "f".into(), ..request }).await.unwrap().into_inner()
    }
}

#[tokio::test]
async fn an_older_client_gets_its_answer_from_a_computer() {
    let computer = FakeComputer::echo().await;
    let broker = TestBroker::with_routes(&[&computer.endpoint]).await;
    let states = HashMap::from([("s0".to_owned(), State { content: "kept".into(), ..State::default() })]);
    let request = LambdaRequest { input: "abc".into(), states: states.clone(), ..LambdaRequest::default() };
    let response = broker.run_lambda(request).await;
    assert_eq!((response.retcode.as_str(), response.output.as_str()), ("OK", "abc"));
    assert_eq!(response.responder, computer.endpoint.to_string());
    assert_eq!((response.hops, response.states), (2, states), "one broker between, and states travel along");
    assert!(response.dataout.is_empty() && !response.asynchronous);
}

#[tokio::test]
async fn an_older_client_is_told_errors_in_the_retcode() {
    let computer = FakeComputer::start(|call| async move {
        Ok(reply(&call, Outcome::Error { kind: "bad-input".into(), message: "no picture".into() }))
    })
    .await;
    let broker = TestBroker::with_routes(&[&computer.endpoint]).await;
    assert_eq!(broker.run_lambda(LambdaRequest::default()).await.retcode, "bad-input: no picture");
    let mut client = EdgeServerClient::new(channel::connect_lazy(&broker.calls));
    let unknown = client.run_lambda(LambdaRequest { name: "nobody".into(), ..LambdaRequest::default() }).await;
    let retcode = unknown.unwrap().into_inner().retcode;
    assert!(retcode.starts_with("invalid 'nobody' request: "), "{retcode}");
    let looping = broker.run_lambda(LambdaRequest { hops: 255, ..LambdaRequest::default() }).await;
    assert!(looping.retcode.contains("loop detected"), "{}", looping.retcode);
    assert_eq!(computer.calls(), 1);
}

#[tokio::test]
async fn a_call_reaches_an_older_computer_in_its_own_protocol() {
    let (endpoint, computer) = older_computer().await;
    let broker = TestBroker::with_routes(&[&endpoint]).await;
    for round in 1..=3 {
        let reply = broker.invoke(&call("abc")).await.unwrap();
        assert_eq!(payload(&reply), b"ABC");
        assert_eq!((reply.hops, reply.version, reply.responder), (1, None, Some(endpoint.clone())));
        assert!((reply.load.utilisation[0] - 0.25).abs() < 1e-6);
        assert_eq!(computer.0.load(Ordering::SeqCst), round, "asked once for each call");
    }
    let binary = Call { payload: vec![0xff, 0].into(), ..call("") };
    assert_eq!(payload(&broker.invoke(&binary).await.unwrap()), [0, 0xff], "what is no text goes as binary argument");
    let failed = broker.invoke(&call("bomb")).await.unwrap().outcome;
    assert_eq!(failed, Outcome::Error { kind: "failed".into(), message: "exception raised".into() });
}

#[tokio::test]
async fn both_arguments_pass_through_from_older_client_to_older_computer() {
    let (endpoint, _) = older_computer().await;
    let broker = TestBroker::with_routes(&[&endpoint]).await;
    let request = LambdaRequest { input: "a\nb%".into(), datain: "xyz".into(), ..LambdaRequest::default() };
    let response = broker.run_lambda(request).await;
    assert_eq!((response.output.as_str(), &response.dataout[..]), ("A\nB%", &b"zyx"[..]));
    assert_eq!((response.hops, response.ptime, response.load1), (2, 12, 25));
}

#[tokio::test]
async fn a_destination_may_change_to_the_other_protocol() {
    let mut current = FakeComputer::echo().await;
    let broker = TestBroker::with_routes(&[&current.endpoint]).await;
    assert_eq!(payload(&broker.invoke(&call("abc")).await.unwrap()), b"abc");
    current.stop().await;
    let listener = TcpListener::bind(current.endpoint.to_string()).await.unwrap();
    let service = channel::server().add_service(EdgeServerServer::new(OlderComputer::default()));
    let stop = CancellationToken::new();
    let older = tokio::spawn(channel::serve(service, listener, stop.clone()));
    eventually("the older computer answers", || async {
        broker.invoke(&call("abc")).await.is_ok_and(|reply| payload(&reply) == b"ABC")
    })
    .await;
    stop.cancel();
    older.await.unwrap().unwrap();
    current.restart().await;
    eventually("the current one answers", || async {
        broker.invoke(&call("abc")).await.is_ok_and(|reply| payload(&reply) == b"abc")
    })
    .await;
}

#[tokio::test]
async fn what_speaks_neither_protocol_is_told() {
    let listener = listen().await;
    let endpoint = Endpoint::from(listener.local_addr().unwrap());
    let controller = nigh_proto::v1::broker_server::BrokerServer::new(Nothing);
    tokio::spawn(channel::serve(channel::server().add_service(controller), listener, CancellationToken::new()));
    let broker = TestBroker::with_routes(&[&endpoint]).await;
    let error = broker.invoke(&call("")).await.unwrap_err();
    assert_eq!(error.reason, Reason::Protocol);
    assert!(error.message.contains(endpoint.as_str()), "{error}");
}

/// A server that offers neither calls nor lambdas.
struct Nothing;

#[tonic::async_trait]
impl nigh_proto::v1::broker_server::Broker for Nothing {
    async fn routes(
        &self,
        _: tonic::Request<v1::RoutesRequest>,
    ) -> Result<tonic::Response<v1::RoutesResponse>, tonic::Status> {
        Ok(tonic::Response::new(v1::RoutesResponse::default()))
    }

    async fn set_route(
        &self,
        _: tonic::Request<v1::SetRouteRequest>,
    ) -> Result<tonic::Response<v1::SetRouteResponse>, tonic::Status> {
        Ok(tonic::Response::new(v1::SetRouteResponse {}))
    }

    async fn remove_route(
        &self,
        _: tonic::Request<v1::RemoveRouteRequest>,
    ) -> Result<tonic::Response<v1::RemoveRouteResponse>, tonic::Status> {
        Ok(tonic::Response::new(v1::RemoveRouteResponse {}))
    }

    async fn flush_routes(
        &self,
        _: tonic::Request<v1::FlushRoutesRequest>,
    ) -> Result<tonic::Response<v1::FlushRoutesResponse>, tonic::Status> {
        Ok(tonic::Response::new(v1::FlushRoutesResponse {}))
    }
}

#[tokio::test]
async fn an_older_controller_or_operator_reads_and_writes_both_tables() {
    let broker = TestBroker::start(config()).await;
    let mut client = EdgeRouterClient::new(channel::connect_lazy(broker.table.clone()));
    let change = |destination: &str, weight, is_final| EdgeRouterConf {
        action: Action::Change.into(),
        lambda: "f".into(),
        destination: destination.into(),
        weight,
        r#final: is_final,
    };
    assert_eq!(client.get_num_tables(Void {}).await.unwrap().into_inner().value, 2);
    for (wanted, ok) in [
        (change("127.0.0.1:10000", 1.0, true), true),
        (change("127.0.0.1:6473", 2.0, false), true),
        (change("127.0.0.1:10001", 0.0, true), false),
        (change("127.0.0.1:10001", -1.0, true), false),
        (change("nowhere", 1.0, true), false),
    ] {
        let msg = client.configure(wanted.clone()).await.unwrap().into_inner().msg;
        assert_eq!(!msg.starts_with("Error"), ok, "{wanted:?}: {msg}");
    }
    let mut table = async |value| {
        let entries = client.get_table(TableId { value }).await.unwrap().into_inner().entries;
        entries.into_iter().map(|entry| (entry.destination, entry.r#final)).collect::<Vec<_>>()
    };
    let both = [("127.0.0.1:10000".to_owned(), true), ("127.0.0.1:6473".to_owned(), false)];
    assert_eq!(table(0).await, both);
    assert_eq!(table(1).await, both[..1]);
    assert!(table(2).await.is_empty(), "there are two tables");
    let remove = EdgeRouterConf { action: Action::Remove.into(), ..change("127.0.0.1:10000", 0.0, false) };
    for _ in 0..2 {
        let mut client = EdgeRouterClient::new(channel::connect_lazy(broker.table.clone()));
        assert_eq!(client.configure(remove.clone()).await.unwrap().into_inner().msg, "OK", "twice does no harm");
    }
    let mut client = EdgeRouterClient::new(channel::connect_lazy(broker.table.clone()));
    client.configure(EdgeRouterConf { action: Action::Flush.into(), ..EdgeRouterConf::default() }).await.unwrap();
    assert!(client.get_table(TableId { value: 0 }).await.unwrap().into_inner().entries.is_empty());
}

/// A controller of the older system, which remembers what it is told.
#[derive(Clone, Default)]
struct OlderController(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    routers: Vec<RouterInfo>,
    removed: Vec<String>,
}

#[tonic::async_trait]
impl EdgeController for OlderController {
    async fn announce_computer(&self, _: tonic::Request<ComputerInfo>) -> Result<tonic::Response<Void>, tonic::Status> {
        Err(tonic::Status::internal("a broker is no computer"))
    }

    async fn announce_router(
        &self,
        request: tonic::Request<RouterInfo>,
    ) -> Result<tonic::Response<Void>, tonic::Status> {
        self.0.lock().routers.push(request.into_inner());
        Ok(tonic::Response::new(Void {}))
    }

    async fn remove_computer(
        &self,
        request: tonic::Request<ComputerInfo>,
    ) -> Result<tonic::Response<Void>, tonic::Status> {
        self.0.lock().removed.push(request.into_inner().edge_server_endpoint);
        Ok(tonic::Response::new(Void {}))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_announces_itself_to_an_older_controller_and_reports_computers_that_cannot_be_reached() {
    let told = OlderController::default();
    let listener = listen().await;
    let at = Endpoint::from(listener.local_addr().unwrap());
    let service = channel::server().add_service(EdgeControllerServer::new(told.clone()));
    tokio::spawn(channel::serve(service, listener, CancellationToken::new()));
    let broker = TestBroker::start(Config { older_controller: Some(at), ..config() }).await;
    eventually("it is announced", || async { !told.0.lock().routers.is_empty() }).await;
    let router = told.0.lock().routers[0].clone();
    assert_eq!(router.edge_server_endpoint, broker.calls.as_str());
    // As that controller does, it writes into the table at the endpoint that it was told.
    let table: Endpoint = router.forwarding_table_endpoint.parse().unwrap();
    let mut client = EdgeRouterClient::new(channel::connect_lazy(table));
    let (computer, gone) = (FakeComputer::echo().await, nobody().await);
    for destination in [&computer.endpoint, &gone] {
        let change = EdgeRouterConf {
            action: Action::Change.into(),
            lambda: "f".into(),
            destination: destination.to_string(),
            weight: 1.0,
            r#final: true,
        };
        assert_eq!(client.configure(change).await.unwrap().into_inner().msg, "OK");
    }
    eventually("it is reported", || async {
        broker.invoke(&call("x")).await.unwrap();
        told.0.lock().removed.contains(&gone.to_string())
    })
    .await;
    assert!(told.0.lock().removed.iter().all(|reported| *reported == gone.as_str()), "an answer is no reason");
}
