//! What tells devices where to call, driven over TLS by another that has a certificate of the same kind.

use std::time::Duration;

use nigh_mec::{Config, DeciderConfig, LcmProxyConfig, Listeners};
use nigh_proto::older::LcmProxy;
use nigh_proto::{Endpoint, Reason, Remote, Role};
use nigh_store::Place;
use nigh_tests::edge::Edge;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().into();
    (listener, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_somebody_else_is_driven_over_tls() {
    let edge = Edge::start_secured(1).await;
    edge.deploy("echo", nigh_tests::guests::echo()).await;
    let (folder, stop) = (TempDir::new().unwrap(), CancellationToken::new());
    let (older, theirs) = listen().await;
    let start = |name: &str, listeners: Listeners, change: &dyn Fn(&mut Config)| {
        let mut config = Config::new(Place::Embedded { file: folder.path().join(name) });
        config.tls = Some(edge.certificate(Role::Mec, name));
        change(&mut config);
        tokio::spawn(nigh_mec::run(listeners, config, stop.clone()))
    };
    let (at_theirs, at_ours) = (listen().await.0, listen().await.0);
    let listeners = Listeners { devices: at_theirs, older: Some(older) };
    let driven = start("theirs", listeners, &|config| config.decider = DeciderConfig::Associations);
    let driving = start("ours", Listeners { devices: at_ours, older: None }, &|config| {
        config.controller = Some(edge.controller().into());
        config.decider = DeciderConfig::Balanced { period: Duration::from_millis(50) };
        config.lcm_proxy = Some(LcmProxyConfig::new(theirs.clone()));
    });
    let proxy = |role, name| {
        let remote = Remote::new(theirs.clone(), Some(edge.certificate(role, name)));
        LcmProxy::new(remote, Duration::from_secs(5))
    };
    let mut operator = proxy(Role::Operator, "ada");
    edge.until("it is told of the function and the broker", async || {
        let told = operator.associations().await.unwrap();
        matches!(&told[..], [one] if one.application == "echo" && one.server == edge.broker().as_str())
    })
    .await;
    assert_eq!(proxy(Role::Client, "shop").contexts().await.unwrap_err().reason, Reason::NotAllowed);
    stop.cancel();
    for role in [driven, driving] {
        role.await.unwrap().unwrap();
    }
    edge.stop().await;
}
