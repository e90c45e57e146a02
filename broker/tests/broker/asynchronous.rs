//! Calls that run later: accepted once stored, run at least once, their outcomes kept and told.

use std::collections::HashMap;
use std::sync::Arc;

use nigh_broker::AsynchronousConfig;
use nigh_proto::asynchronous::{Settled, result_from_wire};
use nigh_proto::older::rpc::callback_server_server::{CallbackServer, CallbackServerServer};
use nigh_proto::older::rpc::edge_server_client::EdgeServerClient;
use nigh_proto::older::rpc::{Dag, IndexList, LambdaRequest, LambdaResponse, State, Void};
use nigh_proto::v1::asynchronous_client::AsynchronousClient;
use nigh_proto::{Acceptance, CallId, CallLimits, Callback, Reason};
use nigh_store::Place;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::computer::{FakeComputer, answer};
use super::http::{get, post};
use super::nats_server::NatsServer;
use super::*;

/// A broker with a store in this folder, whose function `f` is served there.
async fn storing(folder: &TempDir, endpoint: &Endpoint, change: impl FnOnce(&mut AsynchronousConfig)) -> TestBroker {
    let mut asynchronous = AsynchronousConfig::new(Place::Embedded { file: folder.path().join("calls") });
    change(&mut asynchronous);
    TestBroker::start(Config { asynchronous: Some(asynchronous), ..config_with_routes(&[endpoint]) }).await
}

impl TestBroker {
    fn queue(&self) -> AsynchronousClient<Channel> {
        AsynchronousClient::new(channel::connect_lazy(&self.calls)).max_decoding_message_size(64 << 20)
    }

    async fn accept(&self, call: Call) -> Result<v1::AcceptResponse, PlatformError> {
        let acceptance = Acceptance { call, timeout: PATIENCE, callback: None };
        Ok(self.queue().accept(acceptance.to_wire()).await?.into_inner())
    }

    async fn result(&self, id: &str, wait: Duration) -> Result<Option<Settled>, PlatformError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap();
        let request = v1::ResultRequest { call_id: id.to_owned(), wait_ms };
        result_from_wire(self.queue().result(request).await?.into_inner())
    }

    async fn settled(&self, id: &str) -> Settled {
        self.result(id, PATIENCE).await.unwrap().expect("it comes to an outcome")
    }

    async fn counts(&self) -> v1::QueueResponse {
        self.queue().queue(v1::QueueRequest {}).await.unwrap().into_inner()
    }

    async fn dead(&self) -> Vec<v1::DeadLetter> {
        self.queue().dead_letters(v1::DeadLettersRequest::default()).await.unwrap().into_inner().letters
    }
}

#[tokio::test]
async fn a_call_is_accepted_once_and_its_result_is_kept() {
    let (folder, computer) = (TempDir::new().unwrap(), FakeComputer::echo().await);
    let broker = storing(&folder, &computer.endpoint, |_| {}).await;
    let call = call("later");
    let accepted = broker.accept(call.clone()).await.unwrap();
    assert_eq!((accepted.call_id.as_str(), accepted.known), (call.id.as_str(), false));
    let reply = broker.settled(&accepted.call_id).await.unwrap();
    assert_eq!((payload(&reply), &reply.call), (&b"later"[..], &call.id));
    assert!(broker.accept(call.clone()).await.unwrap().known);
    assert_eq!(payload(&broker.settled(call.id.as_str()).await.unwrap()), b"later");
    assert_eq!(computer.calls(), 1);
    eventually("the queue is empty", async || broker.counts().await == v1::QueueResponse::default()).await;
    let unknown = broker.result("nobody-knows", Duration::ZERO).await.unwrap_err();
    assert_eq!(unknown.reason, Reason::UnknownCall);
}

#[tokio::test]
async fn large_payloads_go_both_ways() {
    let (folder, computer) = (TempDir::new().unwrap(), FakeComputer::echo().await);
    let broker = storing(&folder, &computer.endpoint, |_| {}).await;
    let large: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let call = Call { payload: large.clone().into(), ..call("") };
    let accepted = broker.accept(call).await.unwrap();
    assert!(payload(&broker.settled(&accepted.call_id).await.unwrap()) == large, "it comes back as it was");
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_a_reason() {
    let computer = FakeComputer::echo().await;
    let without = TestBroker::with_routes(&[&computer.endpoint]).await;
    let refused = without.accept(call("x")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NotAllowed);
    assert!(refused.message.contains("--data-dir"), "{refused}");
    let mut computers = AsynchronousClient::new(channel::connect_lazy(&computer.endpoint));
    let at_computer = computers.accept(Acceptance { call: call("x"), timeout: SECOND, callback: None }.to_wire());
    assert!(at_computer.await.is_err());

    let folder = TempDir::new().unwrap();
    let broker = storing(&folder, &computer.endpoint, |config| config.entries_max = 1).await;
    let unknown = Call { function: "g".parse().unwrap(), ..call("x") };
    assert_eq!(broker.accept(unknown).await.unwrap_err().reason, Reason::UnknownFunction);
    let dry = Call { dry_run: true, ..call("x") };
    assert_eq!(broker.accept(dry).await.unwrap_err().reason, Reason::Malformed);
    let callback = Some(Callback::Http("http://127.0.0.1:9/".parse().unwrap()));
    let acceptance = Acceptance { call: call("x"), timeout: SECOND, callback };
    let refused: PlatformError = broker.queue().accept(acceptance.to_wire()).await.unwrap_err().into();
    assert_eq!(refused.reason, Reason::NotAllowed);
    assert!(refused.message.contains("callback_hosts"), "{refused}");
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_again() {
    let (folder, gone) = (TempDir::new().unwrap(), computer::nobody().await);
    let broker = storing(&folder, &gone, |config| config.entries_max = 2).await;
    broker.accept(call("1")).await.unwrap();
    broker.accept(call("2")).await.unwrap();
    let full = broker.accept(call("3")).await.unwrap_err();
    assert!(full.reason == Reason::QueueFull && full.retry_after.is_some(), "{full:?}");
}

#[tokio::test]
async fn accepted_calls_outlive_the_broker_and_wait_for_a_computer() {
    let (folder, mut computer) = (TempDir::new().unwrap(), FakeComputer::echo().await);
    computer.kill();
    let broker = storing(&folder, &computer.endpoint, |_| {}).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(broker.accept(call("kept")).await.unwrap().call_id);
    }
    assert!(broker.result(&ids[0], Duration::ZERO).await.unwrap().is_none());
    broker.shutdown.cancel();
    tokio::time::timeout(PATIENCE, broker.task).await.expect("it ends").unwrap().unwrap();
    computer.restart().await;
    let broker = storing(&folder, &computer.endpoint, |_| {}).await;
    for id in &ids {
        assert_eq!(payload(&broker.settled(id).await.unwrap()), b"kept");
    }
    assert_eq!(computer.calls(), 20);
}

#[tokio::test]
async fn a_failure_is_tried_again_only_where_that_is_safe_and_then_a_dead_letter() {
    let folder = TempDir::new().unwrap();
    let computer = FakeComputer::start(|call| async move {
        match &call.payload[..] {
            b"breaks" => Err(PlatformError::new(Reason::Disconnected, "the computer is gone")),
            b"fails" => Ok(computer::reply(&call, Outcome::Error { kind: "bad".into(), message: "no".into() })),
            _ => Ok(answer(&call)),
        }
    })
    .await;
    let broker = storing(&folder, &computer.endpoint, |config| config.tries_max = 2).await;

    let failed = broker.accept(call("fails")).await.unwrap().call_id;
    assert!(matches!(broker.settled(&failed).await.unwrap().outcome, Outcome::Error { .. }));
    assert_eq!(computer.calls(), 1);

    let once = broker.accept(call("breaks")).await.unwrap().call_id;
    let error = broker.settled(&once).await.unwrap_err();
    assert_eq!(error.reason, Reason::Disconnected);
    assert!(error.message.contains("safe to retry"), "{error}");
    assert_eq!(computer.calls(), 2);

    let twice = broker.accept(retry_safe("breaks")).await.unwrap().call_id;
    assert_eq!(broker.settled(&twice).await.unwrap_err().reason, Reason::Disconnected);
    assert!(computer.calls() >= 4);

    eventually("both are dead letters", async || broker.dead().await.len() == 2).await;
    let letters = broker.dead().await;
    assert_eq!((letters[0].call_id.as_str(), letters[0].function.as_str()), (once.as_str(), "f"));
    assert!(letters[0].why.contains("disconnected"), "{}", letters[0].why);
    assert_eq!(letters[1].tries, 2);

    let retry = |id: &str| v1::RetryDeadLetterRequest { call_id: id.to_owned() };
    broker.queue().retry_dead_letter(retry(&once)).await.unwrap();
    eventually("it died again", async || broker.dead().await.iter().any(|letter| letter.call_id == once)).await;
    broker.queue().drop_dead_letter(v1::DropDeadLetterRequest { call_id: once.clone() }).await.unwrap();
    let gone: PlatformError = broker.queue().retry_dead_letter(retry(&once)).await.unwrap_err().into();
    assert_eq!(gone.reason, Reason::UnknownCall);
    assert_eq!(broker.dead().await.len(), 1);
}

#[tokio::test]
async fn over_http_a_call_is_accepted_with_a_location_and_its_result_is_there() {
    let (folder, computer) = (TempDir::new().unwrap(), FakeComputer::echo().await);
    let broker = storing(&folder, &computer.endpoint, |_| {}).await;
    let accepted = post(broker.http.clone(), "/function/f", "prefer: respond-async\r\n", "later").await;
    assert_eq!(accepted.status, 202);
    assert_eq!(accepted.headers["preference-applied"], "respond-async");
    let location = accepted.headers["location"].clone();
    assert_eq!(location, format!("/result/{}", accepted.headers["nigh-call-id"]));
    let result = get(broker.http.clone(), &location, "prefer: wait=20\r\n").await;
    assert_eq!((result.status, &result.body[..]), (200, &b"later"[..]));
    assert_eq!(result.headers["nigh-call-id"], accepted.headers["nigh-call-id"]);
    assert_eq!(get(broker.http.clone(), "/result/nobody-knows", "").await.status, 404);
    assert_eq!(post(broker.http.clone(), &location, "", "").await.status, 405);

    let without = TestBroker::with_routes(&[&computer.endpoint]).await;
    assert_eq!(post(without.http.clone(), "/function/f", "prefer: respond-async\r\n", "x").await.status, 403);
}

#[tokio::test]
async fn a_pending_result_says_so() {
    let (folder, gone) = (TempDir::new().unwrap(), computer::nobody().await);
    let broker = storing(&folder, &gone, |_| {}).await;
    let accepted = post(broker.http.clone(), "/function/f", "prefer: respond-async\r\n", "later").await;
    let result = get(broker.http.clone(), &accepted.headers["location"], "").await;
    assert_eq!((result.status, result.headers["retry-after"].as_str()), (202, "1"));
}

/// An HTTP server that hands out each request's head and body, and answers with these statuses in turn, the last for ever.
async fn hooks(statuses: &'static [u16]) -> (Endpoint, mpsc::UnboundedReceiver<(HashMap<String, String>, String)>) {
    let listener = listen().await;
    let endpoint = Endpoint::from(listener.local_addr().unwrap());
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let (head, mut body) = loop {
                let mut part = [0; 4096];
                let read = stream.read(&mut part).await.unwrap();
                request.extend_from_slice(&part[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let headers: HashMap<_, _> = head
                .lines()
                .skip(1)
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers["content-length"].parse().unwrap();
            while body.len() < length {
                let mut part = [0; 4096];
                let read = stream.read(&mut part).await.unwrap();
                body.push_str(&String::from_utf8_lossy(&part[..read]));
            }
            let status = statuses[number.min(statuses.len() - 1)];
            let answer = format!(
                "HTTP/1.1 {status} x\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = sender.send((headers, body));
        }
    });
    (endpoint, requests)
}

#[tokio::test]
async fn a_caller_is_told_by_a_cloud_event_also_of_a_failure() {
    let folder = TempDir::new().unwrap();
    let computer = FakeComputer::start(|call| async move {
        if call.payload == "breaks" { Err(PlatformError::new(Reason::Internal, "a defect")) } else { Ok(answer(&call)) }
    })
    .await;
    // The first try is turned away, the second is sent elsewhere and not followed.
    let (hook, mut told) = hooks(&[500, 302, 204]).await;
    let broker = storing(&folder, &computer.endpoint, |config| {
        config.callback_hosts = vec![hook.as_str().parse().unwrap()];
    })
    .await;
    let headers =
        format!("prefer: respond-async\r\nnigh-callback: http://{hook}/told?by=nigh\r\nnigh-call-id: one\r\n");
    assert_eq!(post(broker.http.clone(), "/function/f", &headers, "told").await.status, 202);
    for _ in 0..3 {
        let (event, body) = tokio::time::timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
        assert_eq!(body, "told");
        let attribute = |name: &str| event[&format!("ce-{name}")].as_str();
        assert_eq!((attribute("specversion"), attribute("id"), attribute("subject")), ("1.0", "one", "f"));
        assert_eq!((attribute("type"), attribute("nighstatus")), ("nigh.call.answered", "200"));
        assert_eq!(attribute("source"), "/function/f");
    }
    let headers = headers.replace("one", "two");
    assert_eq!(post(broker.http.clone(), "/function/f", &headers, "breaks").await.status, 202);
    let (event, body) = tokio::time::timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
    assert_eq!((event["ce-type"].as_str(), event["ce-nighstatus"].as_str()), ("nigh.call.failed", "500"));
    assert!(body.contains("a defect"), "{body}");
    let elsewhere = headers.replace(hook.as_str(), "127.0.0.1:1");
    assert_eq!(post(broker.http.clone(), "/function/f", &elsewhere, "x").await.status, 403);
}

/// The callback server of a client of the older system.
struct Callbacks(mpsc::UnboundedSender<LambdaResponse>);

#[tonic::async_trait]
impl CallbackServer for Callbacks {
    async fn receive_response(
        &self,
        request: tonic::Request<LambdaResponse>,
    ) -> Result<tonic::Response<Void>, tonic::Status> {
        let _ = self.0.send(request.into_inner());
        Ok(tonic::Response::new(Void {}))
    }
}

#[tokio::test]
async fn an_older_client_is_told_at_once_that_its_call_is_accepted_and_later_what_came_of_it() {
    let folder = TempDir::new().unwrap();
    let computer = FakeComputer::start(|call| async move {
        if call.payload == "breaks" { Err(PlatformError::new(Reason::Internal, "a defect")) } else { Ok(answer(&call)) }
    })
    .await;
    let broker = storing(&folder, &computer.endpoint, |_| {}).await;
    let (sender, mut responses) = mpsc::unbounded_channel();
    let listener = listen().await;
    let callback = listener.local_addr().unwrap().to_string();
    let service = channel::server().add_service(CallbackServerServer::new(Callbacks(sender)));
    tokio::spawn(channel::serve(service, listener, CancellationToken::new()));
    let state = State { content: b"kept"[..].into(), ..State::default() };
    let request = |input: &str, callback: &str| LambdaRequest {
        name: "f".into(),
        input: input.into(),
        callback: callback.to_owned(),
        states: HashMap::from([("s".to_owned(), state.clone())]),
        ..LambdaRequest::default()
    };
    let client = Arc::new(EdgeServerClient::new(channel::connect_lazy(&broker.calls)));
    let run = async |request| (*client).clone().run_lambda(request).await.unwrap().into_inner();
    for _ in 0..50 {
        let at_once = run(request("hello", &callback)).await;
        assert_eq!((at_once.retcode.as_str(), at_once.asynchronous), ("OK", true));
    }
    for _ in 0..50 {
        let told = tokio::time::timeout(PATIENCE, responses.recv()).await.unwrap().unwrap();
        assert_eq!((told.retcode.as_str(), told.output.as_str(), told.hops), ("OK", "hello", 2));
        assert_eq!((told.responder.as_str(), told.asynchronous), (computer.endpoint.as_str(), false));
        assert_eq!(told.states["s"], state);
    }
    assert!(run(request("breaks", &callback)).await.asynchronous);
    let told = tokio::time::timeout(PATIENCE, responses.recv()).await.unwrap().unwrap();
    assert!(told.retcode.contains("a defect"), "{}", told.retcode);
    // Not the caller's own address, and nobody allowed it.
    let refused = run(request("x", "192.0.2.1:6480")).await;
    assert!(!refused.asynchronous && refused.retcode.contains("not allowed"), "{}", refused.retcode);
    let unknown = run(LambdaRequest { name: "g".into(), ..request("x", &callback) }).await;
    assert!(unknown.retcode.contains("no function g"), "{}", unknown.retcode);
}

/// Acceptance cases 40, 41 and 44: what computers of the older system do among themselves, the broker does.
#[tokio::test]
async fn an_older_clients_chains_and_dags_come_back_once_and_whole() {
    let folder = TempDir::new().unwrap();
    let one = FakeComputer::echo().await;
    let two = FakeComputer::echo().await;
    let mut config = config_with_routes(&[&one.endpoint]);
    config.routes.push(("g".parse().unwrap(), two.endpoint.clone()));
    let asynchronous = AsynchronousConfig::new(Place::Embedded { file: folder.path().join("calls") });
    let broker = TestBroker::start(Config { asynchronous: Some(asynchronous), ..config }).await;
    let (sender, mut responses) = mpsc::unbounded_channel();
    let listener = listen().await;
    let callback = listener.local_addr().unwrap().to_string();
    let service = channel::server().add_service(CallbackServerServer::new(Callbacks(sender)));
    tokio::spawn(channel::serve(service, listener, CancellationToken::new()));
    let client = EdgeServerClient::new(channel::connect_lazy(&broker.calls));
    let run = async |request: LambdaRequest| client.clone().run_lambda(request).await.unwrap().into_inner();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let request = |id: u32| LambdaRequest {
        name: "f".into(),
        input: "hello".into(),
        callback: callback.clone(),
        uuid: format!("flow-{id}"),
        ..LambdaRequest::default()
    };
    let lists = [&[1u64, 2][..], &[3], &[3]].map(|list| IndexList { functions: list.to_vec() }).to_vec();
    for id in 0..20 {
        let chain = LambdaRequest { chain: names(&["f", "g", "f"]), ..request(2 * id) };
        let dag = Some(Dag { successors: lists.clone(), names: names(&["f", "g", "g", "f"]) });
        for request in [chain, LambdaRequest { dag, ..request(2 * id + 1) }] {
            let at_once = run(request).await;
            assert_eq!((at_once.retcode.as_str(), at_once.asynchronous), ("OK", true));
        }
    }
    let mut outputs = Vec::new();
    for _ in 0..40 {
        let told = tokio::time::timeout(PATIENCE, responses.recv()).await.unwrap().unwrap();
        assert_eq!((told.retcode.as_str(), told.hops), ("OK", 6), "two for each step on the longest way");
        outputs.push(told.output);
    }
    assert_eq!(outputs.iter().filter(|output| *output == "hello").count(), 20, "a chain of echoes");
    assert_eq!(outputs.iter().filter(|output| *output == "hellohello").count(), 20, "both branches reach the join");
    let unknown = run(LambdaRequest { chain: names(&["f", "nobody"]), ..request(99) }).await;
    assert!(!unknown.asynchronous && unknown.retcode.contains("no function nobody"), "{}", unknown.retcode);
}

/// Asks until the store answers, as whoever calls a broker does while its store is away.
async fn insisting<T>(mut ask: impl AsyncFnMut() -> Result<T, PlatformError>) -> T {
    let deadline = Instant::now() + 4 * PATIENCE;
    loop {
        match ask().await {
            Ok(told) => return told,
            Err(error) => assert!(error.reason.retry_helps() && Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(50 * MS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_share_the_calls_in_nats_and_its_death_loses_none() {
    let Some(mut server) = NatsServer::start() else { return };
    let (folder, computer) = (TempDir::new().unwrap(), FakeComputer::echo().await);
    let shared = |config: &mut AsynchronousConfig| {
        config.place = server.place();
        (config.bytes_max, config.payloads_bytes_max) = (64 << 20, 64 << 20);
    };
    let one = storing(&folder, &computer.endpoint, shared).await;
    let other = storing(&folder, &computer.endpoint, shared).await;
    let mut calls: Vec<Call> = (0..20).map(|_| call("shared")).collect();
    calls.push(Call { payload: vec![7; 700_000].into(), ..call("") });
    for (number, call) in calls.iter().enumerate() {
        if number == 10 {
            server.kill();
        }
        if number == 11 {
            server.start_again();
        }
        if number == 10 {
            assert!(one.accept(call.clone()).await.unwrap_err().reason.retry_helps());
        } else {
            insisting(async || one.accept(call.clone()).await).await;
        }
    }
    insisting(async || one.accept(calls[10].clone()).await).await;
    for call in &calls {
        // Those that were taken when the server died are taken again once their lease has lapsed.
        let deadline = Instant::now() + 6 * PATIENCE;
        let settled = loop {
            match insisting(async || other.result(call.id.as_str(), SECOND).await).await {
                Some(settled) => break settled,
                None => assert!(Instant::now() < deadline, "{} does not come to an outcome", call.id),
            }
        };
        assert_eq!(payload(&settled.unwrap()), call.payload);
    }
    assert!(insisting(async || one.accept(calls[0].clone()).await).await.known);
}

#[test]
fn ids_are_keys_of_the_store() {
    for id in [CallId::random().to_string(), "!~/.*>".to_owned(), "x".repeat(CallId::BYTES_MAX)] {
        assert!(id.parse::<CallId>().is_ok() && format!("{id}/out").parse::<nigh_store::Key>().is_ok());
    }
    assert!(CallLimits::default().payload_bytes_max > nigh_store::VALUE_BYTES_MAX);
}
