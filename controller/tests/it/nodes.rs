//! Computers and brokers: announced, watched, withdrawn; slow watchers; other protocols; restarts.

use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::{Knowledge, Node, Topics, keep_announced, keep_watching};
use nigh_proto::{Broker, Computer, Digest, FunctionName, PROTOCOL};
use tokio::sync::{mpsc, watch};

use super::*;

const EVERYTHING: Topics = Topics { functions: true, computers: true, brokers: true };

fn computer(name: &str, ready: Vec<(FunctionName, Digest)>) -> Node {
    Node::Computer(Computer {
        name: name.parse().unwrap(),
        endpoint: "127.0.0.1:10000".parse().unwrap(),
        ready,
        problems: Vec::new(),
        workers: 4,
        directories: vec!["data".into()],
        own_functions: Vec::new(),
        older: false,
    })
}

fn broker(name: &str) -> Node {
    let endpoint = "127.0.0.1:6473".parse().unwrap();
    let name = name.parse().unwrap();
    Node::Broker(Broker { name, endpoint, table_endpoint: None, http_endpoint: None, older: false })
}

async fn next(learnt: &mut mpsc::Receiver<Knowledge>) -> Knowledge {
    tokio::time::timeout(PATIENCE, learnt.recv()).await.expect("news in time").expect("a watch that goes on")
}

fn watching(controller: &Endpoint) -> (mpsc::Receiver<Knowledge>, CancellationToken) {
    let (learnt, news) = mpsc::channel(64);
    let stop = CancellationToken::new();
    tokio::spawn(keep_watching(controller.clone(), EVERYTHING, learnt, stop.clone()));
    (news, stop)
}

#[tokio::test]
async fn nodes_announce_watch_and_withdraw() {
    let controller = Controller::start().await;
    let (mut news, _stop) = watching(&controller.endpoint);
    assert_eq!(next(&mut news).await, Knowledge::All(Vec::new()));

    let (node, announced) = watch::channel(computer("computer-1", Vec::new()));
    let leave = CancellationToken::new();
    let announcing = tokio::spawn(keep_announced(controller.endpoint.clone(), announced, leave.clone()));
    assert!(
        matches!(next(&mut news).await, Knowledge::Change(WatchEvent::Computer(computer)) if computer.workers == 4)
    );

    let deployed = deploy(&mut controller.client(), "echo", &module(1, 1)).await.unwrap().deployment.unwrap();
    let Knowledge::Change(WatchEvent::Function(function)) = next(&mut news).await else { panic!("a function") };
    assert_eq!(function.to_wire(), deployed);
    let ready = vec![(function.name.clone(), function.version)];
    node.send(computer("computer-1", ready.clone())).unwrap();
    assert!(
        matches!(next(&mut news).await, Knowledge::Change(WatchEvent::Computer(computer)) if computer.ready == ready)
    );

    controller.client().announce(broker("broker-1").to_wire()).await.unwrap();
    assert!(matches!(next(&mut news).await, Knowledge::Change(WatchEvent::Broker(_))));
    let listing = controller.client().list(v1::ListRequest {}).await.unwrap().into_inner();
    assert_eq!((listing.functions.len(), listing.computers.len(), listing.brokers.len()), (1, 1, 1));

    leave.cancel();
    announcing.await.unwrap();
    let gone = Knowledge::Change(WatchEvent::ComputerRemoved("computer-1".parse().unwrap()));
    assert_eq!(next(&mut news).await, gone);
    controller.client().remove(v1::RemoveRequest { name: "echo".into() }).await.unwrap();
    assert_eq!(next(&mut news).await, Knowledge::Change(WatchEvent::FunctionRemoved(function.name)));
    controller.stop().await;
}

#[tokio::test]
async fn a_node_that_falls_silent_is_gone_after_its_lease() {
    let controller = Controller::start_with(|config| config.lease = Duration::from_millis(150)).await;
    let (mut news, _stop) = watching(&controller.endpoint);
    assert_eq!(next(&mut news).await, Knowledge::All(Vec::new()));
    let response = controller.client().announce(computer("computer-1", Vec::new()).to_wire()).await.unwrap();
    assert_eq!(response.into_inner().lease_ms, 150);
    assert!(matches!(next(&mut news).await, Knowledge::Change(WatchEvent::Computer(_))));
    let gone = Knowledge::Change(WatchEvent::ComputerRemoved("computer-1".parse().unwrap()));
    assert_eq!(next(&mut news).await, gone);
    controller.stop().await;
}

#[tokio::test]
async fn peers_of_another_protocol_or_without_form_are_refused() {
    let controller = Controller::start_with(|config| {
        config.announcement_bytes_max = 1 << 20;
        config.upload_part_bytes_max = 1 << 20;
        config.nodes_max = 1;
    })
    .await;
    let mut client = controller.client();
    let node = || computer("computer-1", Vec::new()).to_wire();
    let newer = v1::AnnounceRequest { protocol: PROTOCOL + 1, ..node() };
    assert_eq!(reason(client.announce(newer).await), Reason::Protocol);
    let nobody = v1::AnnounceRequest { node: None, ..node() };
    assert_eq!(reason(client.announce(nobody).await), Reason::Malformed);
    let older = v1::WatchRequest { protocol: 0, ..Default::default() };
    assert_eq!(reason(client.watch(older).await), Reason::Protocol);
    let large = (0..20_000).map(|at| (format!("f{at}").parse().unwrap(), Digest::of(b"x"))).collect();
    assert_eq!(reason(client.announce(computer("computer-1", large).to_wire()).await), Reason::TooLarge);
    let odd = v1::WithdrawRequest { name: "no such name".into(), ..Default::default() };
    assert_eq!(reason(client.withdraw(odd).await), Reason::Malformed);

    client.announce(node()).await.unwrap();
    assert_eq!(reason(client.announce(broker("broker-1").to_wire()).await), Reason::OutOfBudget);
    let elsewhere = v1::WithdrawRequest { name: "computer-1".into(), endpoint: "127.0.0.1:1".into() };
    client.withdraw(elsewhere).await.unwrap();
    assert_eq!(client.list(v1::ListRequest {}).await.unwrap().into_inner().computers.len(), 1);
    client.withdraw(v1::WithdrawRequest { name: "computer-1".into(), endpoint: String::new() }).await.unwrap();
    assert!(client.list(v1::ListRequest {}).await.unwrap().into_inner().computers.is_empty());
    controller.stop().await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_begins_anew() {
    let controller = Controller::start_with(|config| config.watcher_queue_max = 4).await;
    let request = v1::WatchRequest { protocol: PROTOCOL, functions: true, computers: true, brokers: true };
    let mut slow = controller.client().watch(request).await.unwrap().into_inner();
    assert!(matches!(WatchEvent::from_wire(slow.message().await.unwrap().unwrap()).unwrap(), Some(WatchEvent::Synced)));

    // Far more than the connection buffers.
    let mut client = controller.client();
    for workers in 0..60 {
        let Node::Computer(computer) = computer("computer-1", Vec::new()) else { unreachable!() };
        let large = Node::Computer(Computer { workers, directories: vec!["d".repeat(200_000)], ..computer });
        client.announce(large.to_wire()).await.unwrap();
    }
    let end = async {
        loop {
            match slow.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a cut-off watch ended as if all were well"),
                Err(status) => return PlatformError::from(status),
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, end).await.unwrap();
    assert_eq!(error.reason, Reason::OutOfBudget, "{error}");
    let (mut news, _stop) = watching(&controller.endpoint);
    let Knowledge::All(events) = next(&mut news).await else { panic!("a snapshot first") };
    assert!(matches!(&events[..], [WatchEvent::Computer(computer)] if computer.workers == 59));
    controller.stop().await;
}

#[tokio::test]
async fn watches_end_at_shutdown_and_nodes_are_still_known_after_a_restart() {
    let lease = Duration::from_secs(60);
    let controller = Controller::start_with(|config| config.lease = lease).await;
    let (mut news, _stop) = watching(&controller.endpoint);
    assert_eq!(next(&mut news).await, Knowledge::All(Vec::new()));
    for node in [computer("computer-1", Vec::new()), computer("computer-2", Vec::new()), broker("broker-1")] {
        controller.client().announce(node.to_wire()).await.unwrap();
        assert!(matches!(next(&mut news).await, Knowledge::Change(_)));
    }
    let withdrawal = v1::WithdrawRequest { name: "computer-2".into(), ..Default::default() };
    controller.client().withdraw(withdrawal).await.unwrap();
    assert!(matches!(next(&mut news).await, Knowledge::Change(_)));
    let endpoint = controller.endpoint.clone();
    let folder = controller.stop().await;

    // The same watcher, on the same port, learns all of it again without anyone having announced.
    let listener = TcpListener::bind(endpoint.as_str()).await.unwrap();
    let controller = Controller::start_at(listener, folder, |config| config.grace = Duration::from_millis(1500));
    let Knowledge::All(mut events) = next(&mut news).await else { panic!("a snapshot first") };
    events.sort_by_key(|event| format!("{event:?}"));
    assert!(matches!(
        &events[..],
        [WatchEvent::Broker(broker), WatchEvent::Computer(computer)]
            if broker.name.as_str() == "broker-1" && computer.name.as_str() == "computer-1"
    ));
    // Those who do not come back are forgotten when the grace is over.
    let mut gone = vec![next(&mut news).await, next(&mut news).await];
    gone.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(
        gone,
        [
            Knowledge::Change(WatchEvent::BrokerRemoved("broker-1".parse().unwrap())),
            Knowledge::Change(WatchEvent::ComputerRemoved("computer-1".parse().unwrap())),
        ]
    );
    controller.stop().await;
}
