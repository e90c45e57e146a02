//! States of the older system's clients: kept by state servers, and moved to where a function runs.

use std::collections::HashMap;
use std::sync::Arc;

use nigh_proto::older::rpc::callback_server_server::{CallbackServer, CallbackServerServer};
use nigh_proto::older::rpc::edge_server_client::EdgeServerClient;
use nigh_proto::older::rpc::state_server_client::StateServerClient;
use nigh_proto::older::rpc::state_server_server::{StateServer, StateServerServer};
use nigh_proto::older::rpc::{Dag, FunctionList, IndexList, LambdaRequest, LambdaResponse, State, StateResponse, Void};
use nigh_proto::{Endpoint, channel};
use nigh_tests::guests;
use nigh_tests::processes::{Processes, Role};
use tokio::sync::{Mutex, mpsc};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use super::{LONG, deploy};

/// A client of the older system: its state server and its callback server.
#[derive(Clone)]
struct Client {
    states: Arc<Mutex<HashMap<String, State>>>,
    responses: mpsc::Sender<LambdaResponse>,
}

#[tonic::async_trait]
impl StateServer for Client {
    async fn get(&self, request: Request<State>) -> Result<Response<StateResponse>, Status> {
        let found = self.states.lock().await.get(&request.into_inner().name).cloned();
        Ok(Response::new(told(found.is_some(), found)))
    }

    async fn put(&self, request: Request<State>) -> Result<Response<StateResponse>, Status> {
        let state = request.into_inner();
        self.states.lock().await.insert(state.name.clone(), state);
        Ok(Response::new(told(true, None)))
    }

    async fn del(&self, request: Request<State>) -> Result<Response<StateResponse>, Status> {
        let removed = self.states.lock().await.remove(&request.into_inner().name);
        Ok(Response::new(told(removed.is_some(), None)))
    }
}

#[tonic::async_trait]
impl CallbackServer for Client {
    async fn receive_response(&self, request: Request<LambdaResponse>) -> Result<Response<Void>, Status> {
        self.responses.send(request.into_inner()).await.unwrap();
        Ok(Response::new(Void {}))
    }
}

fn told(is_well: bool, state: Option<State>) -> StateResponse {
    StateResponse { retcode: if is_well { "OK" } else { "no such state" }.to_owned(), state }
}

impl Client {
    async fn start() -> (Self, Endpoint, mpsc::Receiver<LambdaResponse>) {
        let (responses, received) = mpsc::channel(64);
        let client = Self { states: Arc::default(), responses };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::from(listener.local_addr().unwrap());
        let server = Server::builder()
            .add_service(StateServerServer::new(client.clone()))
            .add_service(CallbackServerServer::new(client.clone()));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        (client, endpoint, received)
    }

    async fn keep(&self, name: &str, content: &str) {
        let state = State { name: name.to_owned(), content: content.to_owned().into(), ..State::default() };
        self.states.lock().await.insert(name.to_owned(), state);
    }

    async fn has(&self, name: &str) -> bool {
        self.states.lock().await.contains_key(name)
    }
}

/// Two computers, of which one runs `f0`, the other `f1`.
async fn edge() -> (Processes, Vec<Role>, tempfile::TempDir) {
    let (edge, data) = (Processes::start(0).await, tempfile::tempdir().unwrap());
    let controller = edge.controller.endpoint.to_string();
    let computer = |n: usize| {
        let (name, folder) = (format!("computer-{n}"), data.path().join(n.to_string()));
        let label = format!("place={n}");
        let own = ["--name", &name, "--label", &label, "--data-dir", folder.to_str().unwrap(), "--memory", "1GiB"];
        Role::start("computer", "endpoint", &[&["--controller", &controller], &own[..]].concat())
    };
    let computers: Vec<_> = (0..2).map(computer).collect();
    edge.until("both are announced", async || edge.admin().list().await.is_ok_and(|all| all.computers.len() == 2))
        .await;
    for n in 0..2 {
        deploy(&edge.admin(), &format!("f{n}"), guests::echo(), &[], &[&format!("place={n}")]).await;
        edge.until("the broker routes to it", async || {
            let mut probe = super::call(&format!("f{n}"), "");
            probe.dry_run = true;
            edge.caller().invoke(probe).await.is_ok()
        })
        .await;
    }
    (edge, computers, data)
}

fn located(at: &Endpoint) -> State {
    State { location: at.to_string(), ..State::default() }
}

fn needed(states: &[(&str, &[&str])]) -> HashMap<String, FunctionList> {
    let list = |functions: &[&str]| FunctionList { functions: functions.iter().map(ToString::to_string).collect() };
    states.iter().map(|(state, functions)| ((*state).to_owned(), list(functions))).collect()
}

fn server(at: &Endpoint) -> StateServerClient<Channel> {
    StateServerClient::new(channel::connect_lazy(at))
}

async fn content(at: &Endpoint, name: &str) -> Option<String> {
    let state = State { name: name.to_owned(), ..State::default() };
    let found = server(at).get(state).await.unwrap().into_inner();
    (found.retcode == "OK").then(|| String::from_utf8(found.state.unwrap().content.to_vec()).unwrap())
}

async fn next(received: &mut mpsc::Receiver<LambdaResponse>) -> LambdaResponse {
    tokio::time::timeout(LONG, received.recv()).await.expect("a callback").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_is_a_state_server() {
    let edge = Processes::start(1).await;
    let mut server = server(&edge.computers[0].endpoint);
    let state = |name: &str, content: &str| State {
        name: name.to_owned(),
        content: content.to_owned().into(),
        ..State::default()
    };
    for name in ["", "s0", "no such/name"] {
        assert_ne!(server.get(state(name, "")).await.unwrap().into_inner().retcode, "OK");
        assert_ne!(server.del(state(name, "")).await.unwrap().into_inner().retcode, "OK");
    }
    for written in ["one", "two", ""] {
        assert_eq!(server.put(state("s0", written)).await.unwrap().into_inner().retcode, "OK");
        let found = server.get(state("s0", "")).await.unwrap().into_inner();
        assert_eq!((found.retcode.as_str(), found.state), ("OK", Some(state("s0", written))));
    }
    let large = State { name: "s1".into(), content: vec![0; 512 << 10].into(), ..State::default() };
    assert!(server.put(large).await.unwrap().into_inner().retcode.contains("too many"));
    assert_eq!(server.del(state("s0", "")).await.unwrap().into_inner().retcode, "OK");
    assert_ne!(server.get(state("s0", "")).await.unwrap().into_inner().retcode, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn states_held_elsewhere_go_where_the_function_runs() {
    let (edge, computers, _data) = edge().await;
    let (client, endpoint, mut received) = Client::start().await;
    let mut broker = EdgeServerClient::new(channel::connect_lazy(&edge.broker.endpoint));
    for round in 0..6 {
        let is_later = round % 2 == 1;
        for name in ["s0", "s1", "sX"] {
            client.keep(name, &format!("{name} of round {round}")).await;
        }
        let request = LambdaRequest {
            name: "f0".into(),
            input: "x".into(),
            states: ["s0", "s1", "sX"].map(|name| (name.to_owned(), located(&endpoint))).into(),
            chain: vec!["f0".into()],
            dependencies: needed(&[("s0", &["f0"]), ("s1", &["f0"]), ("sX", &[])]),
            callback: if is_later { endpoint.to_string() } else { String::new() },
            uuid: format!("round-{round}"),
            ..LambdaRequest::default()
        };
        let mut response = broker.run_lambda(request).await.unwrap().into_inner();
        assert_eq!((response.retcode.as_str(), response.asynchronous), ("OK", is_later));
        if is_later {
            response = next(&mut received).await;
        }
        let computer = &computers[0].endpoint;
        assert_eq!((response.output.as_str(), response.hops, response.responder.as_str()), ("x", 2, computer.as_str()));
        for name in ["s0", "s1"] {
            assert_eq!(response.states[name], located(computer));
            assert_eq!(content(computer, name).await.unwrap(), format!("{name} of round {round}"));
            assert!(!client.has(name).await, "{name} is in two places");
        }
        assert_eq!(response.states["sX"], located(&endpoint));
        assert!(client.has("sX").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_follow_a_chain_and_a_graph_from_computer_to_computer() {
    let (edge, computers, _data) = edge().await;
    let (client, endpoint, mut received) = Client::start().await;
    let mut broker = EdgeServerClient::new(channel::connect_lazy(&edge.broker.endpoint));
    let chain = LambdaRequest {
        name: "f0".into(),
        input: "x".into(),
        chain: ["f0", "f1", "f0"].map(str::to_owned).to_vec(),
        dependencies: needed(&[("s0", &["f0"]), ("s1", &["f0", "f1"]), ("s2", &["f1"]), ("s3", &[])]),
        callback: endpoint.to_string(),
        uuid: "a-chain".into(),
        ..LambdaRequest::default()
    };
    let dag = LambdaRequest {
        chain: Vec::new(),
        dag: Some(Dag {
            names: ["f0", "f1", "f1", "f0"].map(str::to_owned).to_vec(),
            successors: [vec![1, 2], vec![3], vec![3]].map(|functions| IndexList { functions }).to_vec(),
        }),
        uuid: "a-graph".into(),
        ..chain.clone()
    };
    for request in [chain, dag] {
        for name in ["s0", "s1", "s2"] {
            client.keep(name, name).await;
        }
        let mut states: HashMap<_, _> = ["s0", "s1", "s2"].map(|name| (name.to_owned(), located(&endpoint))).into();
        states.insert("s3".into(), State { content: "free".into(), ..State::default() });
        let accepted = broker.run_lambda(LambdaRequest { states, ..request }).await.unwrap().into_inner();
        assert_eq!((accepted.retcode.as_str(), accepted.asynchronous), ("OK", true));
        let response = next(&mut received).await;
        assert_eq!((response.retcode.as_str(), response.hops), ("OK", 6));
        for (name, n) in [("s0", 0), ("s1", 0), ("s2", 1)] {
            let (here, there) = (&computers[n].endpoint, &computers[1 - n].endpoint);
            assert_eq!(response.states[name], located(here), "{name}");
            assert_eq!(content(here, name).await.as_deref(), Some(name));
            assert_eq!(content(there, name).await, None);
            assert!(!client.has(name).await);
        }
        assert_eq!(response.states["s3"].content, "free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lambdas_read_and_change_what_their_callers_send() {
    let edge = Processes::start(1).await;
    deploy(&edge.admin(), "obey", guests::built("misbehaving"), &[], &[]).await;
    edge.until_ready("obey").await;
    let (client, endpoint, _received) = Client::start().await;
    let mut broker = EdgeServerClient::new(channel::connect_lazy(&edge.broker.endpoint));
    let request = |input: &str, state: State, chain: &[&str]| LambdaRequest {
        name: "obey".into(),
        input: input.into(),
        states: [("s0".to_owned(), state)].into(),
        chain: chain.iter().map(ToString::to_string).collect(),
        dependencies: if chain.is_empty() { HashMap::new() } else { needed(&[("s0", &["obey"])]) },
        ..LambdaRequest::default()
    };
    let sent = |content: &str| State { content: content.to_owned().into(), ..State::default() };
    let changed = broker.run_lambda(request("tally s0", sent("6"), &[])).await.unwrap().into_inner();
    assert_eq!((changed.retcode.as_str(), changed.output.as_str()), ("OK", "7"));
    assert_eq!(changed.states["s0"], sent("7"));
    let failed = broker.run_lambda(request("tally-and-fail s0", sent("6"), &[])).await.unwrap().into_inner();
    assert!(failed.retcode.starts_with("failed: "), "{failed:?}");

    client.keep("s0", "41").await;
    let failed = broker.run_lambda(request("tally-and-fail s0", located(&endpoint), &["obey"])).await.unwrap();
    assert_ne!(failed.into_inner().retcode, "OK");
    assert!(client.has("s0").await, "a lambda that fails moves nothing");
    let moved = broker.run_lambda(request("tally s0", located(&endpoint), &["obey"])).await.unwrap().into_inner();
    assert_eq!((moved.retcode.as_str(), moved.output.as_str()), ("OK", "42"));
    let computer = &edge.computers[0].endpoint;
    assert_eq!(moved.states["s0"], located(computer));
    assert_eq!(content(computer, "s0").await.as_deref(), Some("42"));
    // From where it is now.
    let again = broker.run_lambda(request("tally s0", located(computer), &["obey"])).await.unwrap().into_inner();
    assert_eq!((again.output.as_str(), content(computer, "s0").await.as_deref()), ("43", Some("43")));
    // Nowhere, and where nobody is to connect to.
    let lost = broker.run_lambda(request("tally s0", located(&endpoint), &["obey"])).await.unwrap().into_inner();
    assert!(lost.retcode.contains("no such state"), "{lost:?}");
    let far = located(&"192.0.2.1:80".parse().unwrap());
    let foreign = broker.run_lambda(request("tally s0", far, &["obey"])).await.unwrap().into_inner();
    assert!(foreign.retcode.contains("older_hosts"), "{foreign:?}");
}
