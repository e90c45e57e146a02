//! A whole edge, from start to stop, over real sockets.

use std::time::Duration;

use bytes::Bytes;
use nigh_client::{Admin, Caller, CallerLimits, DeployRequest};
use nigh_proto::{Call, Outcome};

use super::*;

/// Time for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A native function that answers with its payload and no headers.
fn echo() -> Bytes {
    let text = r#"(module
        (memory (export "memory") 2)
        (func (export "nigh_alloc_v1") (param i32) (result i32) i32.const 1024)
        (func (export "nigh_handle_v1") (param $payload i32) (param $head i32) (result i32)
            (i32.store (i32.const 64) (i32.const 0))
            (i32.store (i32.const 68) (i32.const 128))
            (i32.store (i32.const 72) (i32.const 4))
            (i32.store (i32.const 76) (i32.const 1024))
            (i32.store (i32.const 80) (local.get $payload))
            i32.const 64))"#;
    wat::parse_str(text).unwrap().into()
}

async fn deploy_and_call(edge: &Edge) {
    let admin = Admin::new(edge.controller().clone());
    let request = DeployRequest::new("echo".parse().unwrap());
    let deployed = admin.deploy(request, echo(), |_| {}).await.unwrap().deployment;
    let readiness = admin.await_ready(&deployed.name, deployed.version, PATIENCE, |_| {}).await.unwrap();
    assert!(readiness.problems.is_empty(), "{readiness:?}");
    call(edge).await;
}

async fn call(edge: &Edge) {
    let caller = Caller::new(edge.broker().clone(), CallerLimits::default());
    let answered = async {
        loop {
            let mut call = Call::new("echo".parse().unwrap(), "hello", PATIENCE);
            call.retry_safe = true;
            match caller.invoke(call).await {
                Ok(reply) => break reply,
                // The broker learns of the function within moments.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let reply = tokio::time::timeout(PATIENCE, answered).await.expect("the broker learns of the function");
    assert!(matches!(&reply.outcome, Outcome::Answer { payload, .. } if payload == "hello"), "{reply:?}");
    assert!(edge.computers().iter().any(|(name, _)| *name == reply.computer));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_runs_a_function_and_has_it_again_next_time() {
    let data = tempfile::tempdir().unwrap();
    let mut config = EdgeConfig::ephemeral(data.path().join("made/if/missing"));
    config.computers = 2;
    let edge = Edge::start(config.clone()).await.unwrap();
    assert_eq!(edge.computers().len(), 2);
    deploy_and_call(&edge).await;
    edge.shutdown().await.unwrap();

    let edge = Edge::start(config).await.unwrap();
    call(&edge).await;
    edge.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_all_roles() {
    let data = tempfile::tempdir().unwrap();
    let edge = Edge::start(EdgeConfig::ephemeral(data.path())).await.unwrap();
    let (broker, shutdown) = (edge.broker().clone(), CancellationToken::new());
    let running = tokio::spawn(edge.run(shutdown.clone()));
    assert!(tokio::net::TcpStream::connect(broker.as_str()).await.is_ok());
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it stops").unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(broker.as_str()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_with_what_to_do() {
    let data = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = EdgeConfig::ephemeral(data.path());
    config.ports.http = taken.local_addr().unwrap().port();
    let error = Edge::start(config).await.unwrap_err().to_string();
    assert!(error.contains("--http-port") && error.contains(&taken.local_addr().unwrap().to_string()), "{error}");
}

#[tokio::test]
async fn a_set_up_that_cannot_work_is_refused_before_a_port_is_opened() {
    let data = tempfile::tempdir().unwrap();
    let start = async |change: fn(&mut EdgeConfig)| {
        let mut config = EdgeConfig::ephemeral(data.path());
        change(&mut config);
        Edge::start(config).await.unwrap_err()
    };
    assert!(matches!(start(|config| config.computers = 0).await, EdgeError::Computers(0)));
    let error = start(|config| (config.computers, config.ports.computers) = (3, 65534)).await;
    assert!(matches!(error, EdgeError::Computers(3)));
    let error = start(|config| config.listen = Ipv4Addr::UNSPECIFIED.into()).await;
    assert!(matches!(error, EdgeError::Advertise { .. }), "{error}");
    let error = start(|config| config.advertise = Some("not a host".into())).await;
    assert!(matches!(error, EdgeError::Host(_)), "{error}");
}

#[test]
fn others_are_told_the_host_that_they_can_reach() {
    let mut config = EdgeConfig::ephemeral("unused");
    for (host, endpoint) in [("edge-7", "edge-7:7"), ("::1", "[::1]:7"), ("10.0.0.7", "10.0.0.7:7")] {
        config.advertise = Some(host.into());
        assert_eq!(config.endpoint("0.0.0.0:7".parse().unwrap()).unwrap().as_str(), endpoint);
    }
}
