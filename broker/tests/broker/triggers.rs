//! Triggers against real servers: each message becomes a call, whatever is stopped in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::jetstream;
use nigh_broker::AsynchronousConfig;
use nigh_proto::trigger::{Listed, MissedTicks, Source, State};
use nigh_proto::v1::triggers_client::TriggersClient;
use nigh_proto::{Headers, Priority, Reason, Trigger};
use nigh_store::Place;
use parking_lot::Mutex;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tempfile::TempDir;

use super::computer::{FakeComputer, answer};
use super::http::{HttpAnswer, get, post as post_with};
use super::mosquitto::Mosquitto;
use super::nats_server::NatsServer;
use super::*;

/// What a computer was called with: payload, and the headers that the platform was given.
type Calls = Arc<Mutex<Vec<(String, Headers)>>>;

async fn recording() -> (FakeComputer, Calls) {
    let calls = Calls::default();
    let seen = calls.clone();
    let computer = FakeComputer::start(move |call| {
        let seen = seen.clone();
        async move {
            let payload = String::from_utf8(call.payload.to_vec()).unwrap();
            seen.lock().push((payload, call.headers.clone()));
            Ok(answer(&call))
        }
    })
    .await;
    (computer, calls)
}

fn payloads(calls: &Calls) -> BTreeSet<String> {
    calls.lock().iter().map(|(payload, _)| payload.clone()).collect()
}

/// A broker with a store at this place, whose function `f` is served there.
async fn storing(place: Place, name: &str, endpoint: &Endpoint) -> TestBroker {
    let mut asynchronous = AsynchronousConfig::new(place);
    (asynchronous.bytes_max, asynchronous.payloads_bytes_max) = (64 << 20, 64 << 20);
    (asynchronous.triggers.lease, asynchronous.triggers.triggers_max) = (2 * SECOND, 5);
    let routes = config_with_routes(&[endpoint]);
    TestBroker::start(Config { asynchronous: Some(asynchronous), name: name.parse().unwrap(), ..routes }).await
}

fn embedded(folder: &TempDir) -> Place {
    Place::Embedded { file: folder.path().join("calls") }
}

fn trigger(source: Source) -> Trigger {
    Trigger {
        name: "t".parse().unwrap(),
        function: "f".parse().unwrap(),
        source,
        timeout: None,
        retry_safe: true,
        priority: Priority::Normal,
        rate_max: None,
        callback: None,
        headers: Headers::new(vec![("kind".to_owned(), "order".to_owned())]).unwrap(),
    }
}

fn http(path: &str) -> Source {
    Source::Http { path: path.to_owned() }
}

async fn post(door: &Endpoint, path: &str, body: &str) -> HttpAnswer {
    post_with(door.clone(), path, "", body).await
}

impl TestBroker {
    /// Stops it, as its operator would.
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    fn triggers(&self) -> TriggersClient<Channel> {
        TriggersClient::new(channel::connect_lazy(&self.calls))
    }

    async fn add(&self, trigger: &Trigger, replace: bool) -> Result<bool, PlatformError> {
        let request = v1::AddTriggerRequest { trigger: Some(trigger.to_wire()), replace };
        Ok(self.triggers().add_trigger(request).await?.into_inner().unchanged)
    }

    async fn listed(&self) -> Result<Vec<Listed>, PlatformError> {
        let answer = self.triggers().list_triggers(v1::ListTriggersRequest {}).await?.into_inner();
        answer.triggers.into_iter().map(Listed::from_wire).collect()
    }

    async fn remove(&self, name: &str) -> Result<(), PlatformError> {
        let request = v1::RemoveTriggerRequest { name: name.to_owned() };
        Ok(self.triggers().remove_trigger(request).await.map(drop)?)
    }

    /// Waits until the only trigger is so.
    async fn until(&self, what: &str, is_so: impl Fn(&v1::TriggerRecord) -> bool) {
        let deadline = Instant::now() + 4 * PATIENCE;
        loop {
            let listed = self.listed().await;
            if listed.as_ref().is_ok_and(|listed| listed.first().is_some_and(|one| is_so(&one.record))) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {listed:?}");
            tokio::time::sleep(50 * MS).await;
        }
    }

    async fn until_listening(&self) {
        self.until("it listens", |record| record.state() == State::Listening).await;
    }
}

/// Waits until a computer was called with each of these.
async fn until_called(calls: &Calls, expected: impl IntoIterator<Item = String>) {
    let expected: BTreeSet<String> = expected.into_iter().collect();
    let deadline = Instant::now() + 6 * PATIENCE;
    while !payloads(calls).is_superset(&expected) {
        let missing: Vec<_> = expected.difference(&payloads(calls)).cloned().collect();
        assert!(Instant::now() < deadline, "never called with {missing:?}");
        tokio::time::sleep(20 * MS).await;
    }
}

#[tokio::test]
async fn requests_become_calls_once() {
    let (folder, (computer, calls)) = (TempDir::new().unwrap(), recording().await);
    let broker = storing(embedded(&folder), "one", &computer.endpoint).await;
    assert!(!broker.add(&trigger(http("shop/orders")), false).await.unwrap());
    let keyed = "idempotency-key: k1\r\ncolor: red\r\n";
    for _ in 0..3 {
        let response = post_with(broker.http.clone(), "/trigger/shop/orders?size=3", keyed, "keyed").await;
        assert_eq!(response.status, 202, "{:?}", response.body);
        assert!(response.headers["location"].starts_with("/result/"));
    }
    for _ in 0..2 {
        assert_eq!(post(&broker.http, "/trigger/shop/orders", "each").await.status, 202);
    }
    eventually("all have run", async || calls.lock().len() == 3).await;
    let (_, headers) = calls.lock().iter().find(|(payload, _)| payload == "keyed").cloned().unwrap();
    let of = |name: &str| headers.get(name).map(ToOwned::to_owned);
    assert_eq!(
        (of("kind").as_deref(), of("size").as_deref(), of("color").as_deref()),
        (Some("order"), Some("3"), Some("red"))
    );
    broker.until("all are counted", |record| record.delivered == 3 && record.state() == State::Listening).await;

    let elsewhere = post(&broker.http, "/trigger/shop", "").await;
    let told = String::from_utf8(elsewhere.body).unwrap();
    assert!(elsewhere.status == 404 && told.contains("unknown-trigger"), "{told}");
    assert_eq!(get(broker.http.clone(), "/trigger/shop/orders", "").await.status, 405);
    broker.remove("t").await.unwrap();
    eventually("it is gone", async || post(&broker.http, "/trigger/shop/orders", "").await.status == 404).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_what_is_kept_stays() {
    let (folder, (computer, _)) = (TempDir::new().unwrap(), recording().await);
    let broker = storing(embedded(&folder), "one", &computer.endpoint).await;
    let named = |name: &str, path: &str| Trigger { name: name.parse().unwrap(), ..trigger(http(path)) };
    let reason = |refused: Result<bool, PlatformError>| refused.map_err(|error| error.reason);
    let unknown = broker.remove("t").await.unwrap_err();
    assert!(unknown.reason == Reason::UnknownTrigger && unknown.message.contains("there are none"), "{unknown}");
    assert_eq!(reason(broker.add(&named("a", "a"), false).await), Ok(false));
    assert_eq!(reason(broker.add(&named("a", "a"), false).await), Ok(true), "it is there just so");
    let another = broker.add(&named("a", "b"), false).await.unwrap_err();
    assert!(another.message.contains("--replace"), "{another}");
    assert_eq!(reason(broker.add(&named("a", "b"), true).await), Ok(false));
    let taken = broker.add(&named("b", "b"), false).await.unwrap_err();
    assert!(taken.reason == Reason::Malformed && taken.message.contains("trigger a"), "{taken}");
    let unknown = Trigger { function: "g".parse().unwrap(), ..named("b", "c") };
    assert_eq!(reason(broker.add(&unknown, false).await), Err(Reason::UnknownFunction));
    let fast = Trigger { rate_max: Some(1_000_000), ..named("b", "c") };
    assert_eq!(reason(broker.add(&fast, false).await), Err(Reason::NotAllowed));
    let told = Trigger { callback: Some("http://127.0.0.1:9/".parse().unwrap()), ..named("b", "c") };
    assert_eq!(reason(broker.add(&told, false).await), Err(Reason::NotAllowed));
    for name in ["b", "c", "d", "e"] {
        assert_eq!(reason(broker.add(&named(name, name.repeat(2).as_str()), false).await), Ok(false));
    }
    assert_eq!(reason(broker.add(&named("f", "ff"), false).await), Err(Reason::OutOfBudget));
    let unknown = broker.remove("t").await.unwrap_err();
    assert!(unknown.message.contains("there are a, b, c, d, e"), "{unknown}");
    broker.stop().await;

    let broker = storing(embedded(&folder), "one", &computer.endpoint).await;
    assert_eq!(broker.listed().await.unwrap().len(), 5);
    eventually("it serves again", async || post(&broker.http, "/trigger/b", "").await.status == 202).await;
    // Without a store there is nowhere to keep them.
    let without = TestBroker::with_routes(&[&computer.endpoint]).await;
    let refused = without.add(&named("a", "a"), false).await.unwrap_err();
    assert!(refused.reason == Reason::NotAllowed && refused.message.contains("--data-dir"), "{refused}");
    assert_eq!(post(&without.http, "/trigger/a", "").await.status, 404);
}

#[tokio::test]
async fn no_more_requests_come_than_the_rate_allows() {
    let (folder, (computer, _)) = (TempDir::new().unwrap(), recording().await);
    let broker = storing(embedded(&folder), "one", &computer.endpoint).await;
    broker.add(&Trigger { rate_max: Some(1), ..trigger(http("slow")) }, false).await.unwrap();
    let mut refused = 0;
    for _ in 0..20 {
        let response = post(&broker.http, "/trigger/slow", "").await;
        if response.status != 202 {
            assert!(response.headers.contains_key("retry-after"), "{}", response.status);
            refused += 1;
        }
    }
    assert!(refused > 0, "one per second is allowed");
}

#[tokio::test]
async fn a_schedule_makes_calls_when_they_are_due() {
    let (folder, (computer, calls)) = (TempDir::new().unwrap(), recording().await);
    let broker = storing(embedded(&folder), "one", &computer.endpoint).await;
    let source = Source::Cron {
        schedule: "* * * * * *".into(),
        zone: "UTC".into(),
        missed: MissedTicks::All,
        payload: "tick".into(),
    };
    broker.add(&trigger(source), false).await.unwrap();
    eventually("it is called", async || calls.lock().len() >= 2).await;
    assert!(broker.listed().await.unwrap()[0].next.is_some());
    broker.stop().await;
    tokio::time::sleep(SECOND).await;
    let broker = storing(embedded(&folder), "one", &computer.endpoint).await;
    let before = calls.lock().len();
    eventually("it goes on", async || calls.lock().len() >= before + 3).await;
    broker.stop().await;
    // What was missed meanwhile was made up for, and no time got two calls.
    let mut times: Vec<jiff::Timestamp> =
        calls.lock().iter().map(|(_, headers)| headers.get("cron-time").unwrap().parse().unwrap()).collect();
    times.sort();
    let steps: Vec<i64> = times.windows(2).map(|pair| pair[1].as_second() - pair[0].as_second()).collect();
    assert!(steps.iter().all(|step| *step == 1), "{times:?}");
}

async fn nats(server: &NatsServer) -> async_nats::Client {
    async_nats::connect(address(server)).await.unwrap()
}

fn address(server: &NatsServer) -> String {
    let Place::Nats { servers, .. } = server.place() else { panic!("it is NATS") };
    format!("nats://{}", servers[0])
}

fn of_nats(server: &NatsServer, subject: &str, stream: Option<&str>) -> Source {
    let stream = stream.map(ToOwned::to_owned);
    Source::Nats { servers: address(server), subject: subject.to_owned(), stream, login: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_plain_subject_become_calls_and_who_asks_is_told() {
    let Some(mut server) = NatsServer::start() else { return };
    let (folder, (computer, calls)) = (TempDir::new().unwrap(), recording().await);
    let broker = storing(embedded(&folder), "one", &computer.endpoint).await;
    broker.add(&trigger(of_nats(&server, "orders.*", None)), false).await.unwrap();
    broker.until_listening().await;
    let client = nats(&server).await;
    let told = client.request("orders.new", "asked".into()).await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.payload).unwrap();
    assert_eq!(told["call"].as_str().unwrap().len(), 32, "{told}");
    for number in 0..50 {
        client.publish("orders.old", format!("{number}").into()).await.unwrap();
    }
    client.flush().await.unwrap();
    until_called(&calls, (0..50).map(|number| number.to_string()).chain(["asked".to_owned()])).await;
    let (_, headers) = calls.lock().iter().find(|(payload, _)| payload == "asked").cloned().unwrap();
    assert_eq!((headers.get("nats-subject"), headers.get("trigger")), (Some("orders.new"), Some("t")));

    // While it is away that is told; once it is back, messages are calls again.
    server.kill();
    broker
        .until("it is known to be away", |record| record.state() == State::Retrying && !record.error.is_empty())
        .await;
    server.start_again();
    broker.until_listening().await;
    nats(&server).await.request("orders.new", "later".into()).await.unwrap();
    until_called(&calls, ["later".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_stream_becomes_one_call_whichever_broker_and_server_dies() {
    let Some(mut server) = NatsServer::start() else { return };
    let (computer, calls) = recording().await;
    let one = storing(server.place(), "one", &computer.endpoint).await;
    let other = storing(server.place(), "other", &computer.endpoint).await;
    let stream = jetstream::stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..Default::default()
    };
    let publisher = jetstream::new(nats(&server).await);
    publisher.create_stream(stream).await.unwrap();
    one.add(&trigger(of_nats(&server, "orders.>", Some("ORDERS"))), false).await.unwrap();
    one.until_listening().await;
    other.until_listening().await;
    assert_eq!(other.listed().await.unwrap()[0].record.broker, one.listed().await.unwrap()[0].record.broker);
    let publish = async |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let deadline = Instant::now() + 4 * PATIENCE;
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", format!("id-{number}").as_str());
            loop {
                let sent =
                    publisher.publish_with_headers("orders.new", headers.clone(), number.to_string().into()).await;
                let acknowledged = match sent {
                    Ok(sent) => sent.await.is_ok(),
                    Err(_) => false,
                };
                if acknowledged {
                    break;
                }
                assert!(Instant::now() < deadline, "{number} cannot be published");
                tokio::time::sleep(20 * MS).await;
            }
        }
    };
    publish(0..50).await;
    until_called(&calls, (0..50).map(|number| number.to_string())).await;
    // Whoever runs it goes without a word; the other takes over once the lease has lapsed.
    let runs = one.listed().await.unwrap()[0].record.broker.clone();
    let (dies, lives) = if runs == "one" { (one, other) } else { (other, one) };
    dies.task.abort();
    publish(50..100).await;
    server.kill();
    server.start_again();
    publish(100..150).await;
    until_called(&calls, (0..150).map(|number| number.to_string())).await;
    lives.until("the other runs it", |record| record.broker != runs && record.state() == State::Listening).await;
    lives.until("all are counted", |record| record.delivered >= 100).await;
    lives.remove("t").await.unwrap();
    eventually("its place in the stream is forgotten", async || {
        let Ok(mut stream) = publisher.get_stream("ORDERS").await else { return false };
        stream.info().await.is_ok_and(|info| info.state.consumer_count == 0)
    })
    .await;
}

/// Publishes these with quality of service 1, each acknowledged by the server.
async fn publish(server: &Mosquitto, topic: &str, numbers: std::ops::Range<u32>) {
    let endpoint = server.endpoint();
    let port = endpoint.as_str().rsplit_once(':').unwrap().1.parse().unwrap();
    let (client, mut events) = AsyncClient::new(MqttOptions::new("publisher", endpoint.host(), port), 1000);
    let count = numbers.len();
    for number in numbers {
        client.publish(topic, QoS::AtLeastOnce, false, number.to_string()).await.unwrap();
    }
    let mut acknowledged = 0;
    while acknowledged < count {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
            acknowledged += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_mqtt_become_calls_and_wait_at_the_server_while_nobody_listens() {
    let Some(mut server) = Mosquitto::start() else { return };
    let (folder, (computer, calls)) = (TempDir::new().unwrap(), recording().await);
    let broker = storing(embedded(&folder), "one", &computer.endpoint).await;
    let source =
        Source::Mqtt { server: server.endpoint(), topic: "shop/+/door".into(), acknowledged: true, login: None };
    broker.add(&trigger(source), false).await.unwrap();
    broker.until_listening().await;
    publish(&server, "shop/1/door", 0..50).await;
    until_called(&calls, (0..50).map(|number| number.to_string())).await;
    let (_, headers) = calls.lock().first().cloned().unwrap();
    assert_eq!((headers.get("mqtt-topic"), headers.get("mqtt-retain")), (Some("shop/1/door"), Some("false")));

    server.stop();
    broker
        .until("it is known to be away", |record| record.state() == State::Retrying && !record.error.is_empty())
        .await;
    server.start_again();
    broker.until_listening().await;
    broker.stop().await;
    publish(&server, "shop/2/door", 50..100).await;
    let broker = storing(embedded(&folder), "one", &computer.endpoint).await;
    until_called(&calls, (0..100).map(|number| number.to_string())).await;
    broker.until("all are counted", |record| record.delivered >= 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_mqtt_is_acknowledged_only_once_the_store_has_its_call() {
    let (Some(mut store), Some(server)) = (NatsServer::start(), Mosquitto::start()) else { return };
    let (computer, calls) = recording().await;
    let broker = storing(store.place(), "one", &computer.endpoint).await;
    let source = Source::Mqtt { server: server.endpoint(), topic: "a".into(), acknowledged: true, login: None };
    broker.add(&trigger(source), false).await.unwrap();
    broker.until_listening().await;
    store.kill();
    publish(&server, "a", 0..5).await;
    // The broker dies with messages that it could not hand in; the server gives them to the one that comes after it.
    tokio::time::sleep(500 * MS).await;
    broker.task.abort();
    store.start_again();
    let _after = storing(store.place(), "one", &computer.endpoint).await;
    until_called(&calls, (0..5).map(|number| number.to_string())).await;
}
