//! In step with the controller.

use nigh_proto::Reason;
use nigh_proto::discovery::WatchEvent;

use super::computer::{FakeComputer, nobody};
use super::controller::{FakeController, alive, deployed};
use super::*;

async fn following(controller: &FakeController) -> TestBroker {
    TestBroker::start(Config { controller: Some(controller.endpoint.clone().into()), ..config() }).await
}

/// Waits until a call of `f` ends so.
async fn ends(broker: &TestBroker, expected: Result<(), Reason>) {
    eventually(&format!("calls end with {expected:?}"), || async move {
        broker.invoke(&call("x")).await.map(drop).map_err(|error| error.reason) == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_controller_is_heard_of_calls_are_told_to_wait_and_those_by_hand_work() {
    let computer = FakeComputer::echo().await;
    let config = Config { controller: Some(nobody().await.into()), ..config_with_routes(&[&computer.endpoint]) };
    let broker = TestBroker::start(config).await;
    broker.invoke(&call("x")).await.unwrap();
    let other = Call::new("other".parse().unwrap(), "x", SECOND);
    let error = broker.invoke(&other).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotServing, "{error}");
    assert!(error.message.contains("controller") && error.retry_after.is_some(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_and_computers_come_and_go() {
    let computers = [FakeComputer::echo().await, FakeComputer::echo().await];
    let controller = FakeController::start(Vec::new()).await;
    let broker = following(&controller).await;
    ends(&broker, Err(Reason::UnknownFunction)).await;
    controller.change(deployed("f"));
    ends(&broker, Err(Reason::NotReady)).await;
    controller.change(alive("computer-1", &computers[0].endpoint, &["f", "never-deployed"]));
    ends(&broker, Ok(())).await;
    controller.change(alive("computer-2", &computers[1].endpoint, &["f"]));
    eventually("the second is used", || async {
        broker.invoke(&call("x")).await.unwrap();
        computers[1].calls() > 0
    })
    .await;
    assert_eq!(broker.routes().await.len(), 1, "only what is deployed is routed");
    controller.change(WatchEvent::ComputerRemoved("computer-1".parse().unwrap()));
    eventually("the first is gone", || async { broker.routes().await[0].destinations.len() == 1 }).await;
    let before = computers[0].calls();
    for _ in 0..20 {
        broker.invoke(&call("x")).await.unwrap();
    }
    assert_eq!(computers[0].calls(), before);
    controller.change(WatchEvent::FunctionRemoved("f".parse().unwrap()));
    ends(&broker, Err(Reason::UnknownFunction)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_controller_is_away_calls_go_on_and_when_it_is_back_its_word_counts() {
    let computers = [FakeComputer::echo().await, FakeComputer::echo().await];
    let at = |n: usize| &computers[n].endpoint;
    let mut controller = FakeController::start(vec![deployed("f"), alive("computer-1", at(0), &["f"])]).await;
    let broker = following(&controller).await;
    ends(&broker, Ok(())).await;
    controller.stop().await;
    for _ in 0..20 {
        broker.invoke(&call("x")).await.unwrap();
        tokio::time::sleep(10 * MS).await;
    }
    controller.set(vec![deployed("f"), alive("computer-2", at(1), &["f"])]);
    controller.restart().await;
    eventually("the new snapshot is in force", || async {
        broker.invoke(&call("x")).await.unwrap();
        let destinations = &broker.routes().await[0].destinations;
        destinations.len() == 1 && destinations[0].endpoint == at(1).as_str()
    })
    .await;
    let announced = controller.announced().len();
    eventually("announcing goes on", || async { controller.announced().len() > announced }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_learnt_stays_through_a_snapshot_and_what_was_set_by_hand_too() {
    let computer = FakeComputer::echo().await;
    let by_hand = FakeComputer::echo().await;
    let told = vec![deployed("f"), alive("computer-1", &computer.endpoint, &["f"])];
    let mut controller = FakeController::start(told).await;
    let config =
        Config { controller: Some(controller.endpoint.clone().into()), ..config_with_routes(&[&by_hand.endpoint]) };
    let broker = TestBroker::start(config).await;
    eventually("both are known", || async { broker.routes().await[0].destinations.len() == 2 }).await;
    for _ in 0..4 {
        broker.invoke(&call("x")).await.unwrap();
    }
    let calls = broker.destination(&computer.endpoint).await.calls;
    let announced = controller.announced().len();
    controller.restart().await;
    eventually("it is announced anew", || async { controller.announced().len() > announced }).await;
    controller.change(deployed("g"));
    eventually("the change is known", || async { broker.routes().await.len() == 2 }).await;
    assert!(calls > 0 && broker.destination(&computer.endpoint).await.calls == calls);
    assert!(broker.destination(&by_hand.endpoint).await.by_hand);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_announces_where_it_is_reached() {
    let controller = FakeController::start(Vec::new()).await;
    let broker = following(&controller).await;
    eventually("it is announced", || async { !controller.announced().is_empty() }).await;
    let announced = &controller.announced()[0];
    assert_eq!(announced.name, "broker-1");
    assert_eq!(announced.endpoint, broker.calls.as_str());
    assert_eq!(announced.table_endpoint, broker.table.as_str());
    assert_eq!(announced.http_endpoint, broker.http.as_str());
}

#[tokio::test]
async fn an_address_that_nobody_could_reach_is_not_announced() {
    let unspecified = || async { TcpListener::bind("0.0.0.0:0").await.unwrap() };
    let listeners = Listeners { calls: unspecified().await, table: None, http: None, doors: Vec::new() };
    let config = Config { controller: Some(nobody().await.into()), ..config() };
    let error = nigh_broker::run(listeners, config, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, Error::Advertise(_)) && error.to_string().contains("advertise"), "{error}");

    let controller = FakeController::start(Vec::new()).await;
    let table = unspecified().await;
    let port = table.local_addr().unwrap().port();
    let config = Config {
        controller: Some(controller.endpoint.clone().into()),
        advertise: Some("edge-7.local:6473".parse().unwrap()),
        ..config_with_routes(&[])
    };
    let listeners = Listeners { calls: unspecified().await, table: Some(table), http: None, doors: Vec::new() };
    let _broker = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(nigh_broker::run(
        listeners,
        config,
        CancellationToken::new(),
    )));
    eventually("it is announced", || async { !controller.announced().is_empty() }).await;
    assert_eq!(controller.announced()[0].table_endpoint, format!("edge-7.local:{port}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_hierarchy_a_broker_calls_its_own_computers_and_the_homes_of_all_others() {
    let (mine, other) = (FakeComputer::echo().await, FakeComputer::echo().await);
    // As seen by the controller, the other broker and its computer are at another address of this machine.
    let port = |endpoint: &Endpoint| endpoint.as_str().rsplit_once(':').unwrap().1.to_owned();
    let elsewhere = |endpoint: &Endpoint| format!("localhost:{}", port(endpoint)).parse::<Endpoint>().unwrap();
    let hierarchy = nigh_proto::discovery::Hierarchy {
        addresses: vec!["127.0.0.1".into(), "localhost".into()],
        distances: vec![0.0, 1.0, 1.0, 0.0],
        objective: "min-max".into(),
    };
    let home: Endpoint = "localhost:6473".parse().unwrap();
    let other_broker = nigh_proto::Broker {
        name: "broker-2".parse().unwrap(),
        endpoint: home.clone(),
        table_endpoint: None,
        http_endpoint: None,
        older: false,
    };
    let controller = FakeController::start(vec![
        WatchEvent::Hierarchy(std::sync::Arc::new(hierarchy)),
        deployed("f"),
        alive("computer-1", &mine.endpoint, &["f"]),
        alive("computer-2", &elsewhere(&other.endpoint), &["f"]),
        WatchEvent::Broker(other_broker),
    ])
    .await;
    let broker = following(&controller).await;
    eventually("both are known", || async {
        broker.routes().await.first().is_some_and(|route| route.destinations.len() == 2)
    })
    .await;
    let own = broker.destination(&mine.endpoint).await;
    let homes = broker.destination(&home).await;
    assert!(own.is_final && !homes.is_final, "a home is no computer");
    controller.change(WatchEvent::BrokerRemoved("broker-2".parse().unwrap()));
    eventually("its computer has a new home", || async {
        let routes = broker.routes().await;
        routes[0].destinations.len() == 2 && routes[0].destinations.iter().all(|destination| destination.is_final)
    })
    .await;
}
