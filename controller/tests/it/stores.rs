//! The same behaviour over both stores; and several controllers that share one, of which any may die.

use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::{Knowledge, Topics, keep_announced, keep_watching};
use nigh_proto::{Computer, Remote};
use tokio::sync::{mpsc, watch};

use super::nats_server::NatsServer;
use super::*;

/// Settings with which a controller shares the store of this server, where there is one.
fn at(server: Option<&NatsServer>) -> impl Fn(&mut Config) {
    let place = server.map(NatsServer::place);
    move |config| {
        if let Some(place) = &place {
            config.store = place.clone();
        }
        (config.functions_max, config.modules_bytes_max) = (3, 4 << 20);
    }
}

/// Asks until the store answers, as whoever deploys does while it is away.
async fn insisting<T>(mut ask: impl AsyncFnMut() -> Result<T, PlatformError>) -> T {
    let began = std::time::Instant::now();
    loop {
        match ask().await {
            Ok(told) => return told,
            Err(error) => assert!(error.reason.retry_helps() && began.elapsed() < 4 * PATIENCE, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn names(functions: &[v1::Deployment]) -> Vec<&str> {
    functions.iter().map(|function| function.name.as_str()).collect()
}

async fn conforms(server: Option<&NatsServer>) {
    let controller = Controller::start_with(at(server)).await;
    let mut client = controller.client();
    let (one, two) = (module(1, 700_000), module(2, 10));
    let first = deploy(&mut client, "a", &one).await.unwrap();
    assert!(first.changed);
    let first = first.deployment.unwrap();
    assert!(!deploy(&mut client, "a", &one).await.unwrap().changed);
    assert!(deploy(&mut client, "b", &one).await.unwrap().changed);
    assert_eq!(fetch(&mut client, &first.module).await.unwrap(), one);
    let second = deploy(&mut client, "a", &two).await.unwrap().deployment.unwrap();
    assert_ne!(second.version, first.version);
    // Another function uses it still.
    assert_eq!(fetch(&mut client, &first.module).await.unwrap(), one);
    client.remove(v1::RemoveRequest { name: "a".into() }).await.unwrap();
    assert_eq!(reason(client.remove(v1::RemoveRequest { name: "a".into() }).await), Reason::UnknownFunction);
    let unknown = nigh_proto::Digest::of(b"nobody").to_string();
    assert_eq!(fetch(&mut client, &unknown).await.unwrap_err().reason, Reason::UnknownFunction);

    deploy(&mut client, "c", &two).await.unwrap();
    deploy(&mut client, "d", &two).await.unwrap();
    assert_eq!(deploy(&mut client, "e", &two).await.unwrap_err().reason, Reason::OutOfBudget);
    assert_eq!(deploy(&mut client, "d", &module(3, 4 << 20)).await.unwrap_err().reason, Reason::OutOfBudget);
    let before = controller.functions().await;
    assert_eq!(names(&before), ["b", "c", "d"]);

    // What a computer holds, and who is alive, is known after a restart too.
    let mut states =
        nigh_proto::v1::state_directory_client::StateDirectoryClient::new(channel::connect_lazy(&controller.endpoint));
    let claim = |name: &str, expected_epoch| v1::ClaimStateRequest {
        id: Some(v1::StateId { application: "shop".into(), state: "stock".into() }),
        name: name.to_owned(),
        endpoint: "127.0.0.1:10000".into(),
        expected_epoch,
    };
    assert!(states.claim(claim("one", 0)).await.unwrap().into_inner().claimed);
    assert!(!states.claim(claim("two", 0)).await.unwrap().into_inner().claimed);
    assert!(states.claim(claim("two", 1)).await.unwrap().into_inner().claimed);
    client.announce(computer("computer-1").to_wire()).await.unwrap();
    let folder = controller.stop().await;
    let controller = Controller::start_in(folder, at(server)).await;
    assert_eq!(controller.functions().await, before);
    let listing = controller.client().list(v1::ListRequest {}).await.unwrap().into_inner();
    assert_eq!(listing.computers.len(), 1, "it has the time of grace");
    assert_eq!(fetch(&mut controller.client(), &first.module).await.unwrap(), one);
    let mut states =
        nigh_proto::v1::state_directory_client::StateDirectoryClient::new(channel::connect_lazy(&controller.endpoint));
    let located = states.locate(v1::LocateStateRequest { id: claim("", 0).id }).await.unwrap().into_inner();
    assert_eq!(located.holder.map(|holder| (holder.name, holder.epoch)), Some(("two".to_owned(), 2)));
    controller.stop().await;
}

fn computer(name: &str) -> nigh_proto::membership::Node {
    nigh_proto::membership::Node::Computer(Computer {
        name: name.parse().unwrap(),
        endpoint: "127.0.0.1:10000".parse().unwrap(),
        ready: Vec::new(),
        problems: Vec::new(),
        workers: 4,
        directories: Vec::new(),
        own_functions: Vec::new(),
        older: false,
        labels: nigh_proto::Labels::default(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_with_a_file_keeps_what_is_deployed() {
    conforms(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_with_a_store_in_nats_keeps_what_is_deployed() {
    let Some(server) = NatsServer::start() else { return };
    conforms(Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deployed_at_one_controller_is_known_to_all_and_outlives_each_and_their_store() {
    let Some(mut server) = NatsServer::start() else { return };
    let one = Controller::start_with(at(Some(&server))).await;
    let other = Controller::start_with(at(Some(&server))).await;
    let both = format!("{},{}", one.endpoint, other.endpoint).parse().unwrap();
    let controllers = Remote::any_of(&both, None);
    let (learnt, mut news) = mpsc::channel(64);
    let stop = CancellationToken::new();
    let topics = Topics { functions: true, computers: true, brokers: false };
    tokio::spawn(keep_watching(controllers.clone(), topics, learnt, stop.clone()));
    let (_node, announced) = watch::channel(computer("computer-1"));
    tokio::spawn(keep_announced(controllers, announced, stop.clone()));

    let module = module(1, 300_000);
    let deployed = deploy(&mut one.client(), "a", &module).await.unwrap().deployment.unwrap();
    let until_known = async |controller: &Controller, expected: &[&str]| {
        let began = std::time::Instant::now();
        while names(&controller.functions().await) != expected {
            assert!(began.elapsed() < PATIENCE, "{expected:?} is not known: {:?}", controller.functions().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until_known(&other, &["a"]).await;
    assert_eq!(fetch(&mut other.client(), &deployed.module).await.unwrap(), module);
    // Of two who deploy one function at once one comes after the other, and both agree on which.
    let (left, right) = (super::module(2, 10), super::module(3, 10));
    let (mut at_one, mut at_other) = (one.client(), other.client());
    let (left, right) = tokio::join!(deploy(&mut at_one, "b", &left), deploy(&mut at_other, "b", &right));
    assert!(left.unwrap().changed && right.unwrap().changed);
    let began = std::time::Instant::now();
    while one.functions().await != other.functions().await {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    // The store goes and comes back: what is known stays, and changes go on.
    server.kill();
    assert_eq!(names(&other.functions().await), ["a", "b"]);
    server.start_again();
    insisting(async || deploy(&mut other.client(), "c", &module).await).await;
    until_known(&one, &["a", "b", "c"]).await;

    // The one that is watched dies without a word; who watches goes on with the other.
    one.task.abort();
    insisting(async || {
        let removed = other.client().remove(v1::RemoveRequest { name: "c".into() }).await;
        match removed.map_err(PlatformError::from) {
            Err(error) if error.reason == Reason::UnknownFunction => Ok(()),
            removed => removed.map(drop),
        }
    })
    .await;
    let mut view = (std::collections::BTreeSet::new(), false);
    let began = std::time::Instant::now();
    while view != (["a".to_owned(), "b".to_owned()].into(), true) {
        let learnt = tokio::time::timeout(PATIENCE, news.recv()).await.expect("news in time").unwrap();
        let events = match learnt {
            Knowledge::All(events) => {
                view = Default::default();
                events
            }
            Knowledge::Change(event) => vec![event],
        };
        for event in events {
            match event {
                WatchEvent::Function(function) => drop(view.0.insert(function.name.to_string())),
                WatchEvent::FunctionRemoved(name) => drop(view.0.remove(name.as_str())),
                WatchEvent::Computer(_) => view.1 = true,
                WatchEvent::ComputerRemoved(_) => view.1 = false,
                _ => {}
            }
        }
        assert!(began.elapsed() < 2 * PATIENCE, "{view:?}");
    }
    stop.cancel();
    other.stop().await;
}
