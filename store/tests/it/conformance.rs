//! What every store does, whichever it is: the same tests run against a file and against a real NATS server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_store::{
    Bucket, BucketSettings, Change, Enqueued, Key, ObjectsSettings, Place, Queue, QueueSettings, Standing, Store,
    StoreError, Taken, VALUE_BYTES_MAX, open,
};
use tempfile::TempDir;

use crate::nats_server::NatsServer;
use crate::{PATIENCE, eventually};

/// Short, for tests that wait until it has lapsed.
const LEASE: Duration = Duration::from_millis(1000);

/// A store to be tested.
struct Tested {
    store: Arc<dyn Store>,
    _folder: TempDir,
    _server: Option<NatsServer>,
}

async fn embedded() -> Tested {
    let folder = TempDir::new().unwrap();
    let store = open(&Place::Embedded { file: folder.path().join("store") }).await.unwrap();
    Tested { store, _folder: folder, _server: None }
}

async fn nats() -> Option<Tested> {
    let server = NatsServer::start()?;
    let store = eventually(async || open(&server.place()).await).await;
    Some(Tested { store, _folder: TempDir::new().unwrap(), _server: Some(server) })
}

/// Each test, against each store.
macro_rules! conformance {
    ($($test:ident,)*) => {
        mod in_a_file {
            $(#[tokio::test] async fn $test() { super::$test(&*super::embedded().await.store).await; })*
        }
        mod in_nats {
            $(#[tokio::test] async fn $test() {
                if let Some(tested) = super::nats().await { super::$test(&*tested.store).await; }
            })*
        }
    };
}

conformance! {
    values_have_revisions,
    a_bucket_lists_and_watches,
    values_expire,
    a_bucket_is_bounded,
    items_are_taken_once_in_order,
    an_id_is_queued_once,
    leases_lapse_unless_extended,
    a_retry_waits,
    what_is_given_up_is_among_the_dead,
    a_queue_is_bounded,
    a_taker_waits_for_work,
    objects_are_whole_or_not_there,
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn bucket(store: &dyn Store) -> Arc<dyn Bucket> {
    store.bucket(BucketSettings { name: "tested".into(), expire_after: None, bytes_max: 1 << 20 }).await.unwrap()
}

async fn queue(store: &dyn Store) -> Arc<dyn Queue> {
    store.queue(settings()).await.unwrap()
}

fn settings() -> QueueSettings {
    QueueSettings { name: "tested".into(), lease: LEASE, entries_max: 100, bytes_max: 1 << 20 }
}

async fn take(queue: &dyn Queue, most: usize) -> Vec<Taken> {
    tokio::time::timeout(PATIENCE, queue.take(most)).await.expect("there is something").unwrap()
}

async fn take_one(queue: &dyn Queue) -> Taken {
    take(queue, 1).await.pop().unwrap()
}

#[tokio::test]
async fn what_several_make_at_once_is_there_for_all() {
    let Some(server) = NatsServer::start() else { return };
    let mut stores = Vec::new();
    for _ in 0..2 {
        stores.push(eventually(async || open(&server.place()).await).await);
    }
    for round in 0..5 {
        let made = stores.iter().map(async |store| {
            let objects = ObjectsSettings { name: format!("objects-{round}"), bytes_max: 4 << 20 };
            let bucket = BucketSettings { name: format!("values-{round}"), expire_after: None, bytes_max: 1 << 20 };
            let queue = QueueSettings { name: format!("items-{round}"), ..settings() };
            store.objects(objects).await.unwrap();
            store.queue(queue).await.unwrap();
            store.bucket(bucket).await.unwrap()
        });
        let buckets = futures_util::future::join_all(made).await;
        buckets[0].put(&key("a"), Bytes::from_static(b"1")).await.unwrap();
        assert_eq!(buckets[1].get(&key("a")).await.unwrap().expect("it is there").value, "1");
    }
}

async fn values_have_revisions(store: &dyn Store) {
    let bucket = bucket(store).await;
    let odd = key("a/b.c*>~=\"");
    assert_eq!(bucket.get(&odd).await.unwrap(), None);
    let first = bucket.create(&odd, bytes("one")).await.unwrap();
    assert_eq!(bucket.create(&odd, bytes("two")).await.unwrap_err(), StoreError::Conflict);
    let second = bucket.update(&odd, bytes("two"), first).await.unwrap();
    assert!(second > first);
    assert_eq!(bucket.update(&odd, bytes("three"), first).await.unwrap_err(), StoreError::Conflict);
    assert_eq!(bucket.delete(&odd, Some(first)).await.unwrap_err(), StoreError::Conflict);
    let found = bucket.get(&odd).await.unwrap().unwrap();
    assert_eq!((found.value, found.revision), (bytes("two"), second));
    let third = bucket.put(&odd, bytes("three")).await.unwrap();
    bucket.delete(&odd, Some(third)).await.unwrap();
    assert_eq!(bucket.get(&odd).await.unwrap(), None);
    bucket.delete(&odd, None).await.unwrap();
    assert_eq!(bucket.update(&odd, bytes("four"), third).await.unwrap_err(), StoreError::Conflict);
    assert!(bucket.create(&odd, bytes("again")).await.unwrap() > third);
    let huge = Bytes::from(vec![7; VALUE_BYTES_MAX + 1]);
    assert!(matches!(bucket.put(&odd, huge.clone()).await, Err(StoreError::TooLarge { .. })));
    bucket.put(&odd, huge.slice(1..)).await.unwrap();
    assert_eq!(bucket.get(&odd).await.unwrap().unwrap().value.len(), VALUE_BYTES_MAX);
}

async fn a_bucket_lists_and_watches(store: &dyn Store) {
    let bucket = bucket(store).await;
    let mut early = bucket.watch("").await.unwrap();
    assert_eq!(early.next().await.unwrap().unwrap(), Change::InStep);
    for name in ["b/2", "a/1", "b/1"] {
        bucket.put(&key(name), bytes(name)).await.unwrap();
    }
    bucket.delete(&key("b/2"), None).await.unwrap();
    let listed = |listed: Vec<(Key, nigh_store::Entry)>| {
        listed.into_iter().map(|(key, _)| key.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(bucket.list("").await.unwrap()), ["a/1", "b/1"]);
    assert_eq!(listed(bucket.list("b/").await.unwrap()), ["b/1"]);

    let mut late = bucket.watch("b/").await.unwrap();
    let mut known = BTreeSet::new();
    loop {
        match tokio::time::timeout(PATIENCE, late.next()).await.unwrap().unwrap().unwrap() {
            Change::Put(key, _) => drop(known.insert(key)),
            Change::Deleted(key) => drop(known.remove(&key)),
            Change::InStep => break,
        }
    }
    assert_eq!(known, BTreeSet::from([key("b/1")]));
    bucket.put(&key("a/9"), bytes("not for this watcher")).await.unwrap();
    let revision = bucket.put(&key("b/9"), bytes("news")).await.unwrap();
    bucket.delete(&key("b/9"), None).await.unwrap();
    match late.next().await.unwrap().unwrap() {
        Change::Put(told, entry) => {
            assert_eq!((told, entry.value, entry.revision), (key("b/9"), bytes("news"), revision));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(late.next().await.unwrap().unwrap(), Change::Deleted(key("b/9")));
    let mut seen = Vec::new();
    while seen.len() < 4 {
        if let Change::Put(key, _) = early.next().await.unwrap().unwrap() {
            seen.push(key);
        }
    }
    assert_eq!(seen, ["b/2", "a/1", "b/1", "a/9"].map(key));
}

async fn values_expire(store: &dyn Store) {
    let settings =
        BucketSettings { name: "short".into(), expire_after: Some(Duration::from_secs(1)), bytes_max: 1 << 20 };
    let bucket = store.bucket(settings).await.unwrap();
    bucket.put(&key("a"), bytes("soon gone")).await.unwrap();
    assert!(bucket.get(&key("a")).await.unwrap().is_some());
    let began = Instant::now();
    while bucket.get(&key("a")).await.unwrap().is_some() {
        assert!(began.elapsed() < PATIENCE, "it does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(bucket.list("").await.unwrap().is_empty());
    bucket.create(&key("a"), bytes("anew")).await.unwrap();
}

async fn a_bucket_is_bounded(store: &dyn Store) {
    let bucket =
        store.bucket(BucketSettings { name: "small".into(), expire_after: None, bytes_max: 10_000 }).await.unwrap();
    let value = Bytes::from(vec![1; 1000]);
    let mut written = 0;
    let error = loop {
        match bucket.put(&key(&format!("k{written}")), value.clone()).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written <= 10, "it holds more than it may");
    };
    assert!(matches!(error, StoreError::Full { .. }) && error.retry_helps(), "{error:?}");
    assert!(written >= 5);
    for number in 0..written {
        bucket.delete(&key(&format!("k{number}")), None).await.unwrap();
    }
    eventually(async || bucket.put(&key("k"), value.clone()).await).await;
}

async fn items_are_taken_once_in_order(store: &dyn Store) {
    let queue = queue(store).await;
    for number in 0..10 {
        let id = key(&format!("call/{number}"));
        assert_eq!(queue.enqueue(&id, bytes(&number.to_string())).await.unwrap(), Enqueued::New);
    }
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.waiting, counts.taken, counts.dead), (10, 0, 0));
    assert!(counts.bytes >= 10);
    let first = take_one(&*queue).await;
    assert_eq!((first.id.as_str(), &first.item, first.attempt), ("call/0", &bytes("0"), 1));
    let mut others = Vec::new();
    while others.len() < 9 {
        others.extend(take(&*queue, 100).await);
    }
    let ids: Vec<_> = others.iter().map(|taken| taken.id.as_str().to_owned()).collect();
    assert_eq!(ids, (1..10).map(|number| format!("call/{number}")).collect::<Vec<_>>());
    assert_eq!(queue.counts().await.unwrap().taken, 10);
    for taken in others.into_iter().chain([first]) {
        queue.ack(taken.lease).await.unwrap();
    }
    assert_eq!(queue.counts().await.unwrap(), nigh_store::Counts::default());
    assert!(tokio::time::timeout(LEASE * 2, queue.take(1)).await.is_err(), "what is done does not come back");
}

async fn an_id_is_queued_once(store: &dyn Store) {
    let queue = queue(store).await;
    assert_eq!(queue.standing(&key("a")).await.unwrap(), None);
    assert_eq!(queue.enqueue(&key("a"), bytes("1")).await.unwrap(), Enqueued::New);
    assert_eq!(queue.enqueue(&key("a"), bytes("2")).await.unwrap(), Enqueued::Known);
    let taken = take_one(&*queue).await;
    assert_eq!(taken.item, bytes("1"));
    assert_eq!(queue.standing(&key("a")).await.unwrap(), Some(Standing::Alive));
    assert_eq!(queue.enqueue(&key("a"), bytes("3")).await.unwrap(), Enqueued::Known);
    queue.bury(taken.lease, "for no reason").await.unwrap();
    assert_eq!(queue.enqueue(&key("a"), bytes("4")).await.unwrap(), Enqueued::Known);
    assert!(queue.drop_dead(&key("a")).await.unwrap());
    assert_eq!(queue.enqueue(&key("a"), bytes("5")).await.unwrap(), Enqueued::New);
    assert_eq!(take_one(&*queue).await.item, bytes("5"));
}

async fn leases_lapse_unless_extended(store: &dyn Store) {
    let queue = queue(store).await;
    queue.enqueue(&key("a"), bytes("1")).await.unwrap();
    let taken = take_one(&*queue).await;
    let until = Instant::now() + LEASE * 2;
    while Instant::now() < until {
        queue.extend(&taken.lease).await.unwrap();
        let again = tokio::time::timeout(LEASE / 4, queue.take(1)).await;
        assert!(again.is_err(), "it is taken although its lease was extended");
    }
    let again = take_one(&*queue).await;
    assert_eq!((again.id.as_str(), again.attempt), ("a", 2));
    queue.ack(again.lease).await.unwrap();
    // The former's word counts no more, whether it is told so or not.
    let _ = queue.retry(taken.lease, Duration::ZERO).await;
    assert_eq!(queue.standing(&key("a")).await.unwrap(), None);
}

async fn a_retry_waits(store: &dyn Store) {
    let queue = queue(store).await;
    queue.enqueue(&key("later"), bytes("1")).await.unwrap();
    queue.enqueue(&key("now"), bytes("2")).await.unwrap();
    let began = Instant::now();
    let taken = take_one(&*queue).await;
    queue.retry(taken.lease, Duration::from_millis(700)).await.unwrap();
    let now = take_one(&*queue).await;
    assert_eq!(now.id.as_str(), "now");
    queue.ack(now.lease).await.unwrap();
    let later = take_one(&*queue).await;
    assert_eq!((later.id.as_str(), later.attempt), ("later", 2));
    assert!(began.elapsed() >= Duration::from_millis(690), "{:?}", began.elapsed());
    queue.ack(later.lease).await.unwrap();
}

async fn what_is_given_up_is_among_the_dead(store: &dyn Store) {
    let queue = queue(store).await;
    for name in ["one", "two"] {
        queue.enqueue(&key(name), bytes(name)).await.unwrap();
        let taken = take_one(&*queue).await;
        queue.bury(taken.lease, &format!("{name} is no good")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let dead = queue.dead(10).await.unwrap();
    let told: Vec<_> = dead.iter().map(|dead| (dead.id.as_str(), dead.why.as_str(), dead.attempts)).collect();
    assert_eq!(told, [("one", "one is no good", 1), ("two", "two is no good", 1)]);
    assert_eq!(dead[0].item, bytes("one"));
    assert!(dead[0].died >= dead[0].enqueued);
    assert_eq!(queue.dead(1).await.unwrap().len(), 1);
    assert_eq!(queue.standing(&key("one")).await.unwrap(), Some(Standing::Dead));
    assert_eq!(queue.counts().await.unwrap().dead, 2);
    assert!(queue.requeue(&key("one")).await.unwrap());
    assert!(!queue.requeue(&key("one")).await.unwrap() && !queue.requeue(&key("three")).await.unwrap());
    assert!(queue.drop_dead(&key("two")).await.unwrap() && !queue.drop_dead(&key("two")).await.unwrap());
    let taken = take_one(&*queue).await;
    assert_eq!((taken.id.as_str(), taken.item, taken.attempt), ("one", bytes("one"), 1));
    queue.ack(taken.lease).await.unwrap();
    assert_eq!(queue.counts().await.unwrap(), nigh_store::Counts::default());
}

async fn a_queue_is_bounded(store: &dyn Store) {
    let few = QueueSettings { name: "few".into(), entries_max: 3, ..settings() };
    let queue = store.queue(few).await.unwrap();
    for number in 0..3 {
        queue.enqueue(&key(&number.to_string()), bytes("x")).await.unwrap();
    }
    let error = queue.enqueue(&key("3"), bytes("x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }) && error.retry_helps(), "{error:?}");
    assert_eq!(queue.enqueue(&key("1"), bytes("x")).await.unwrap(), Enqueued::Known);
    let taken = take_one(&*queue).await;
    queue.ack(taken.lease).await.unwrap();
    assert_eq!(queue.enqueue(&key("3"), bytes("x")).await.unwrap(), Enqueued::New);

    let small = QueueSettings { name: "small".into(), bytes_max: 5000, ..settings() };
    let queue = store.queue(small).await.unwrap();
    let item = Bytes::from(vec![0; 1000]);
    let mut queued = 0;
    while let Ok(outcome) = queue.enqueue(&key(&queued.to_string()), item.clone()).await {
        assert_eq!(outcome, Enqueued::New);
        queued += 1;
        assert!(queued <= 5, "it holds more than it may");
    }
    assert!(queued >= 3);
    let huge = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
    assert!(matches!(queue.enqueue(&key("huge"), huge).await, Err(StoreError::TooLarge { .. })));
}

async fn a_taker_waits_for_work(store: &dyn Store) {
    let queue = queue(store).await;
    let waiting = {
        let queue = queue.clone();
        tokio::spawn(async move { take(&*queue, 10).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    queue.enqueue(&key("a"), bytes("1")).await.unwrap();
    let taken = waiting.await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].id.as_str(), "a");
}

async fn objects_are_whole_or_not_there(store: &dyn Store) {
    let objects = store.objects(ObjectsSettings { name: "tested".into(), bytes_max: 4 << 20 }).await.unwrap();
    let large = Bytes::from((0..1_500_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>());
    assert_eq!(objects.get(&key("a/in")).await.unwrap(), None);
    objects.put(&key("a/in"), large.clone()).await.unwrap();
    assert_eq!(objects.get(&key("a/in")).await.unwrap(), Some(large.clone()));
    objects.put(&key("a/in"), bytes("small")).await.unwrap();
    assert_eq!(objects.get(&key("a/in")).await.unwrap(), Some(bytes("small")));
    objects.put(&key("empty"), Bytes::new()).await.unwrap();
    assert_eq!(objects.get(&key("empty")).await.unwrap(), Some(Bytes::new()));
    let listed = objects.list().await.unwrap();
    let told: Vec<_> = listed.iter().map(|object| (object.name.as_str(), object.bytes)).collect();
    assert_eq!(told, [("a/in", 5), ("empty", 0)]);
    assert!(listed[0].stored.elapsed().unwrap_or_default() < PATIENCE);
    objects.delete(&key("a/in")).await.unwrap();
    objects.delete(&key("a/in")).await.unwrap();
    assert_eq!(objects.get(&key("a/in")).await.unwrap(), None);
    assert_eq!(objects.list().await.unwrap().len(), 1);
    for number in 0..2 {
        objects.put(&key(&format!("large/{number}")), large.clone()).await.unwrap();
    }
    let full = objects.put(&key("large/2"), large).await.unwrap_err();
    assert!(matches!(full, StoreError::Full { .. }), "{full:?}");
}
