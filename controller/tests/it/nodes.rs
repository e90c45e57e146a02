//! Computers and brokers: announced, watched, withdrawn; slow watchers; other protocols; restarts.

use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::{Knowledge, Node, Topics, keep_announced, keep_watching};
use nigh_proto::{Broker, Computer, Digest, FunctionName, PROTOCOL};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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
        labels: nigh_proto::Labels::default(),
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

/// A way to the controller that the test can break: cut, its connections break; frozen, nothing passes and nobody is told.
struct Way {
    endpoint: Endpoint,
    frozen: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
}

impl Way {
    async fn to(controller: &Endpoint) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        let (frozen, is_frozen) = watch::channel(false);
        let controller = controller.to_string();
        let running = tokio::spawn(async move {
            let mut pipes = tokio::task::JoinSet::new();
            while let Ok((one, _)) = listener.accept().await {
                let Ok(other) = tokio::net::TcpStream::connect(&controller).await else { continue };
                let ((one_in, one_out), (other_in, other_out)) = (one.into_split(), other.into_split());
                pipes.spawn(pass(one_in, other_out, is_frozen.clone()));
                pipes.spawn(pass(other_in, one_out, is_frozen.clone()));
            }
        });
        Self { endpoint, frozen, running }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A node announced over a way to a controller with leases far longer than the test, and those who watch.
async fn announced_over(silence: Duration) -> (Controller, Way, mpsc::Receiver<Knowledge>, [CancellationToken; 2]) {
    let change = |config: &mut Config| (config.lease, config.silence) = (Duration::from_secs(600), silence);
    let controller = Controller::start_with(change).await;
    let (mut news, stop) = watching(&controller.endpoint);
    assert_eq!(next(&mut news).await, Knowledge::All(Vec::new()));
    let way = Way::to(&controller.endpoint).await;
    let (node, announced) = watch::channel(computer("computer-1", Vec::new()));
    let leave = CancellationToken::new();
    let announcing = keep_announced(way.endpoint.clone(), announced, leave.clone());
    tokio::spawn(async move {
        announcing.await;
        drop(node);
    });
    assert!(matches!(next(&mut news).await, Knowledge::Change(WatchEvent::Computer(_))));
    tokio::time::sleep(UNTIL_ATTENDED).await;
    (controller, way, news, [stop, leave])
}

/// An attendance follows its announcement at once, and tells nobody.
const UNTIL_ATTENDED: Duration = Duration::from_millis(700);

fn computer_is_gone() -> Knowledge {
    Knowledge::Change(WatchEvent::ComputerRemoved("computer-1".parse().unwrap()))
}

#[tokio::test]
async fn a_node_whose_connection_breaks_without_a_goodbye_is_gone_at_once() {
    let (controller, way, mut news, _stop) = announced_over(Duration::from_secs(600)).await;
    way.running.abort();
    assert_eq!(next(&mut news).await, computer_is_gone());
    controller.stop().await;
}

#[tokio::test]
async fn a_node_that_is_silent_on_an_open_connection_is_gone_and_is_back_when_heard_again() {
    let (controller, way, mut news, _stop) = announced_over(Duration::from_millis(300)).await;
    for _ in 0..2 {
        way.frozen.send(true).unwrap();
        assert_eq!(next(&mut news).await, computer_is_gone());
        way.frozen.send(false).unwrap();
        assert!(matches!(next(&mut news).await, Knowledge::Change(WatchEvent::Computer(_))));
        tokio::time::sleep(UNTIL_ATTENDED).await;
    }
    controller.stop().await;
}

#[tokio::test]
async fn a_node_that_withdraws_is_gone_at_once_and_one_that_attends_stays() {
    let (controller, _way, mut news, [_stop, leave]) = announced_over(Duration::from_secs(600)).await;
    assert!(tokio::time::timeout(Duration::from_millis(600), news.recv()).await.is_err(), "nothing happens");
    leave.cancel();
    assert_eq!(next(&mut news).await, computer_is_gone());
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
