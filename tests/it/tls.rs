//! The edge over TLS: everything works, each role may do its part and no more, who is not believed is told why, certificates
//! change under load, and silent peers keep nobody waiting.

mod devices;
mod peers;
mod processes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nigh_client::{Admin, Caller, CallerLimits, DeployRequest, Inspect, LogQuery};
use nigh_proto::membership::Node;
use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_server_client::EdgeServerClient;
use nigh_proto::tls::HttpClients;
use nigh_proto::v1::controller_client::ControllerClient;
use nigh_proto::{Broker, Call, Computer, Endpoint, PlatformError, Reason, Remote, Role, Tls, channel, v1};
use nigh_tests::edge::{Edge, answer, certificate};
use nigh_tests::guests;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use peers::{Age, Client, Server};

fn call(payload: &str) -> Call {
    Call::new("echo".parse().unwrap(), payload.to_owned(), Duration::from_secs(20))
}

fn caller(endpoint: &Endpoint, tls: Option<Tls>) -> Caller {
    Caller::new(Remote::new(endpoint.clone(), tls), CallerLimits::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_edge_runs_over_tls() {
    let edge = Edge::start_secured(2).await;
    edge.deploy("echo", guests::built("echo")).await;
    assert_eq!(edge.answer("echo", "hello").await, "hello");
    let payload = vec![b'x'; 8 << 20];
    assert_eq!(edge.answer("echo", payload.clone()).await.len(), payload.len());
    for (_, endpoint) in edge.local().computers() {
        let status = edge.admin.inspect(endpoint.clone()).status().await.unwrap();
        assert_eq!(status.functions.len(), 1);
    }
    let routes =
        edge.admin.inspect(edge.local().table().clone()).routes(None, nigh_client::Table::Overall).await.unwrap();
    assert_eq!(routes.routes[0].destinations.len(), 2);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_may_do_its_part_and_is_told_what_the_rest_needs() {
    let edge = Edge::start_secured(1).await;
    edge.deploy("echo", guests::echo()).await;
    let ada = edge.certificate(Role::Client, "ada");
    let remote = |endpoint: &Endpoint| Remote::new(endpoint.clone(), Some(ada.clone()));

    assert_eq!(answer(caller(&edge.broker(), Some(ada.clone())).invoke(call("hello")).await.unwrap()), "hello");
    let admin = Admin::new(remote(edge.local().controller()));
    assert_eq!(admin.list().await.unwrap().functions.len(), 1);
    let computer = admin.inspect(edge.local().computers()[0].1.clone());
    computer.status().await.unwrap();

    let needs_operator = |error: PlatformError, deed: &str| {
        assert_eq!(error.reason, Reason::NotAllowed, "{error}");
        for part in ["client ada may not", deed, "role operator"] {
            assert!(error.message.contains(part), "{part}: {error}");
        }
    };
    let request = || DeployRequest::new("other".parse().unwrap());
    needs_operator(admin.deploy(request(), guests::echo(), |_| {}).await.unwrap_err(), "deploy functions");
    needs_operator(admin.remove(&"echo".parse().unwrap()).await.unwrap_err(), "remove functions");
    needs_operator(computer.logs(LogQuery::default()).await.map(drop).unwrap_err(), "read logs");
    let table = Inspect::new(remote(edge.local().table()));
    let (function, nowhere) = ("echo".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
    needs_operator(table.set_route(&function, &nowhere, 1.0, true).await.unwrap_err(), "edit routes");
    needs_operator(table.remove_route(&function, &nowhere).await.unwrap_err(), "edit routes");
    assert_eq!(table.routes(None, nigh_client::Table::Overall).await.unwrap().routes.len(), 1, "nothing has changed");

    // A computer calls, but deploys nothing; a controller edits routes, but calls nothing.
    let camera = edge.certificate(Role::Computer, "camera");
    assert_eq!(answer(caller(&edge.broker(), Some(camera.clone())).invoke(call("hi")).await.unwrap()), "hi");
    let admin = Admin::new(Remote::new(edge.local().controller().clone(), Some(camera)));
    assert_eq!(admin.deploy(request(), guests::echo(), |_| {}).await.unwrap_err().reason, Reason::NotAllowed);
    let control = edge.certificate(Role::Controller, "control");
    let refused = caller(&edge.broker(), Some(control.clone())).invoke(call("hi")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NotAllowed, "{refused}");
    Inspect::new(Remote::new(edge.local().table().clone(), Some(control)))
        .set_route(&function, &nowhere, 1.0, true)
        .await
        .unwrap();
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_announces_itself_and_nobody_else() {
    let edge = Edge::start_secured(1).await;
    let announce = async |tls: &Tls, node: Node| {
        let remote = Remote::new(edge.local().controller().clone(), Some(tls.clone()));
        let mut client = ControllerClient::new(channel::connect_lazy(remote));
        client.announce(node.to_wire()).await.map(drop).map_err(PlatformError::from)
    };
    let endpoint: Endpoint = "127.0.0.1:1".parse().unwrap();
    let computer = |name: &str| {
        Node::Computer(Computer {
            name: name.parse().unwrap(),
            endpoint: endpoint.clone(),
            ready: Vec::new(),
            problems: Vec::new(),
            workers: 1,
            directories: Vec::new(),
            own_functions: Vec::new(),
            older: false,
            labels: nigh_proto::Labels::default(),
        })
    };
    let broker = |name: &str| {
        let name = name.parse().unwrap();
        Node::Broker(Broker {
            name,
            endpoint: endpoint.clone(),
            table_endpoint: None,
            http_endpoint: None,
            older: false,
        })
    };
    let camera = edge.certificate(Role::Computer, "camera");
    announce(&camera, computer("camera")).await.unwrap();
    for (tls, node) in [
        (&camera, computer("other-camera")),
        (&camera, broker("camera")),
        (&edge.certificate(Role::Broker, "gateway"), computer("gateway")),
        (&edge.certificate(Role::Operator, "camera"), computer("camera")),
    ] {
        let refused = announce(tls, node).await.unwrap_err();
        assert_eq!(refused.reason, Reason::NotAllowed, "{refused}");
    }
    // And nobody ends another's lease.
    let withdraw = async |tls: Tls| {
        let remote = Remote::new(edge.local().controller().clone(), Some(tls));
        let request = v1::WithdrawRequest { name: "camera".into(), endpoint: String::new() };
        let mut client = ControllerClient::new(channel::connect_lazy(remote));
        client.withdraw(request).await.map(drop).map_err(PlatformError::from)
    };
    let refused = withdraw(edge.certificate(Role::Computer, "thief")).await.unwrap_err();
    assert!(refused.reason == Reason::NotAllowed && refused.message.contains("computer thief"), "{refused}");
    withdraw(camera).await.unwrap();
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_believed_is_told_why() {
    let edge = Edge::start_secured(1).await;
    edge.deploy("echo", guests::echo()).await;
    let told = async |tls: Option<Tls>| caller(&edge.broker(), tls).invoke(call("hello")).await.unwrap_err();

    let stranger = nigh::ca::Authority::new().unwrap();
    // Its own authority is another, so it does not believe the broker, which it hears first.
    let error = told(Some(certificate(&stranger, Role::Operator, "ada"))).await;
    assert_eq!(error.reason, Reason::Unauthenticated, "{error}");
    assert!(error.message.contains("not issued by this side's authority"), "{error}");

    let error = told(None).await;
    assert_eq!(error.reason, Reason::Unauthenticated, "{error}");
    assert!(error.message.contains("takes TLS only") && error.message.contains("--tls-dir"), "{error}");

    // Clients that believe the broker and are not believed by it; ours refuse to start like that.
    for (client, words) in [
        (Client::of(&stranger, Role::Client, Age::Valid), "UnknownCA or DecryptError"),
        (Client::of(edge.authority(), Role::Client, Age::Expired), "CertificateExpired"),
        (Client::of(edge.authority(), Role::Client, Age::Future), "CertificateExpired"),
        (Client::nobody(), "CertificateRequired"),
    ] {
        let alert = client.alert(&edge.broker(), edge.authority()).await;
        assert!(words.split(" or ").any(|word| alert.contains(word)), "{words}: {alert}");
    }
    // The edge has not suffered.
    assert_eq!(edge.answer("echo", "hello").await, "hello");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_what_it_should_be_is_not_talked_to() {
    let authority = nigh::ca::Authority::new().unwrap();
    let ada = certificate(&authority, Role::Operator, "ada");
    for (server, words) in [
        (Server::of(&authority, Role::Broker, &["127.0.0.1"], Age::Expired).await, "has expired"),
        (Server::of(&authority, Role::Broker, &["127.0.0.1"], Age::Future).await, "not valid yet"),
        (Server::of(&authority, Role::Broker, &["edge.example"], Age::Valid).await, "--host 127.0.0.1"),
        (Server::of(&authority, Role::Controller, &["127.0.0.1"], Age::Valid).await, "not a broker or computer"),
        (Server::plain().await, "does not speak TLS"),
    ] {
        let error = caller(&server.endpoint, Some(ada.clone())).invoke(call("x")).await.unwrap_err();
        assert_eq!(error.reason, Reason::Unauthenticated, "{error}");
        assert!(error.message.contains(words) && error.message.contains(server.endpoint.as_str()), "{words}: {error}");
    }
    // A role without TLS, as a client with a certificate finds it.
    let plain = Edge::start(1).await;
    let error = caller(&plain.broker(), Some(ada)).invoke(call("x")).await.unwrap_err();
    assert!(error.message.contains("does not speak TLS"), "{error}");
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_load_and_no_call_fails() {
    let edge = Arc::new(Edge::start_secured(2).await);
    edge.deploy("echo", guests::echo()).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|number| {
            let (edge, stop, answered) = (edge.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                let tls = edge.certificate(Role::Client, &format!("client-{number}"));
                let lasting = caller(&edge.broker(), Some(tls.clone()));
                while !stop.load(Ordering::Relaxed) {
                    // One on a connection that lives on, one on a new one.
                    for caller in [&lasting, &caller(&edge.broker(), Some(tls.clone()))] {
                        assert_eq!(answer(caller.invoke(call("x")).await.unwrap()), "x");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let mut seen = vec![peers::fingerprint(&edge.broker(), edge.authority()).await];
    for _ in 0..3 {
        edge.local().renew_certificates().unwrap();
        seen.push(peers::fingerprint(&edge.broker(), edge.authority()).await);
        let before = answered.load(Ordering::Relaxed);
        edge.until("calls go on", async || answered.load(Ordering::Relaxed) >= before + 20).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 4, "each time new connections met a new certificate");
    Arc::into_inner(edge).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_peers_keep_nobody_waiting() {
    let edge = Edge::start_secured(1).await;
    edge.deploy("echo", guests::echo()).await;
    // More than there may be handshakes at once, and none of them ever says a word.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(edge.broker().as_str()).await.unwrap());
    }
    let began = Instant::now();
    let ada = edge.certificate(Role::Client, "ada");
    assert_eq!(answer(caller(&edge.broker(), Some(ada)).invoke(call("hello")).await.unwrap()), "hello");
    assert!(began.elapsed() < Duration::from_secs(4), "sooner than any of them is timed out: {:?}", began.elapsed());
    let mut nothing = [0];
    let first = tokio::time::timeout(Duration::from_secs(4), silent[0].read(&mut nothing)).await;
    assert!(matches!(first, Ok(Ok(0) | Err(_))), "the oldest made room: {first:?}");
    let last = tokio::time::timeout(Duration::from_secs(20), silent[299].read(&mut nothing)).await;
    assert!(matches!(last, Ok(Ok(0) | Err(_))), "and the last had its time: {last:?}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_door_takes_tls_and_asks_for_certificates_unless_told_otherwise() {
    let edge = Edge::start_secured(1).await;
    edge.deploy("echo", guests::echo()).await;
    let http = edge.http();
    let ada = Client::of(edge.authority(), Role::Client, Age::Valid);
    let response = ada.post(&http, edge.authority(), "/function/echo", "hello").await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("hello"), "{response}");
    let control = Client::of(edge.authority(), Role::Controller, Age::Valid);
    let response = control.post(&http, edge.authority(), "/function/echo", "hello").await.unwrap();
    assert!(response.starts_with("HTTP/1.1 403") && response.contains("may not call functions"), "{response}");
    let refused = Client::nobody().post(&http, edge.authority(), "/function/echo", "hello").await.unwrap_err();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let plain = peers::plain_post(&http, "/function/echo").await;
    assert!(plain.starts_with("HTTP/1.1 400") && plain.contains("TLS only"), "{plain}");
    edge.stop().await;

    let authority = Arc::new(nigh::ca::Authority::new().unwrap());
    let edge = Edge::start_with(1, |config| {
        config.authority = Some(authority);
        config.broker.http_clients = HttpClients::Anybody;
    })
    .await;
    edge.deploy("echo", guests::echo()).await;
    let response = Client::nobody().post(&edge.http(), edge.authority(), "/function/echo", "hello").await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("hello"), "{response}");
    let expired = Client::of(edge.authority(), Role::Client, Age::Expired);
    assert!(
        expired.post(&edge.http(), edge.authority(), "/function/echo", "x").await.is_err(),
        "a bad one is not overlooked"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_clients_speak_tls_1_2() {
    let edge = Edge::start_secured(1).await;
    let spoken =
        Client::of(edge.authority(), Role::Client, Age::Valid).handshake_1_2(&edge.broker(), edge.authority()).await;
    assert_eq!(spoken, ("TLSv1_2".to_owned(), "h2".to_owned()));
    // And what they say is heard under the same rules.
    edge.deploy("echo", guests::echo()).await;
    let run = async |tls: Tls| {
        let remote = Remote::new(edge.broker(), Some(tls));
        let request = rpc::LambdaRequest { name: "echo".into(), input: "hello".into(), ..Default::default() };
        EdgeServerClient::new(channel::connect_lazy(remote)).run_lambda(request).await
    };
    let answered = run(edge.certificate(Role::Client, "older")).await.unwrap().into_inner();
    assert_eq!((answered.retcode.as_str(), answered.output.as_str()), ("OK", "hello"));
    let refused = run(edge.certificate(Role::Controller, "control")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    edge.stop().await;
}
