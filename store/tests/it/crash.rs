//! Processes that use a store are killed at random moments, and so is its server: what was acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_store::{BucketSettings, Enqueued, Key, Place, Queue, QueueSettings, Store, StoreError, open};
use tempfile::TempDir;

use crate::nats_server::NatsServer;
use crate::{PATIENCE, eventually};

/// Tells the process that is to be killed which file it uses.
const FILE: &str = "NIGH_STORE_TEST_FILE";
/// How often it is killed.
const ROUNDS: u32 = 8;

fn settings() -> QueueSettings {
    let lease = Duration::from_secs(60);
    QueueSettings { name: "work".into(), lease, entries_max: 1_000_000, bytes_max: 1 << 30 }
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn say(line: &str) {
    // One write, so that what the other side reads ends in a whole line or in none.
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// What the process that is killed does: hands in work, does some, and writes values, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_until_killed() {
    let Some(file) = std::env::var_os(FILE) else { return };
    let store = open(&Place::Embedded { file: file.into() }).await.unwrap();
    let queue = store.queue(settings()).await.unwrap();
    let bucket = BucketSettings { name: "values".into(), expire_after: None, bytes_max: 1 << 30 };
    let bucket = store.bucket(bucket).await.unwrap();
    let run: u64 = std::process::id().into();
    for task in 0..8u32 {
        let (queue, bucket) = (queue.clone(), bucket.clone());
        tokio::spawn(async move {
            for number in 0u32.. {
                let id = key(&format!("{run}/{task}/{number}"));
                queue.enqueue(&id, Bytes::from(vec![1; 100])).await.unwrap();
                say(&format!("queued {id}"));
                let of_task = key(&format!("{run}/{task}"));
                bucket.put(&of_task, Bytes::from(number.to_string())).await.unwrap();
                say(&format!("put {of_task} {number}"));
            }
        });
    }
    loop {
        for taken in queue.take(3).await.unwrap() {
            say(&format!("acking {}", taken.id));
            queue.ack(taken.lease).await.unwrap();
            say(&format!("acked {}", taken.id));
        }
    }
}

/// What a killed process had said.
#[derive(Debug, Default)]
struct Said {
    queued: BTreeSet<String>,
    acking: BTreeSet<String>,
    acked: BTreeSet<String>,
    put: std::collections::BTreeMap<String, u32>,
}

impl Said {
    /// Runs the process, kills it after this time, and takes down what it has said.
    fn hear(&mut self, file: &Path, after: Duration) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "crash::used_until_killed", "--nocapture"]).env(FILE, file);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut began = None;
        while let Some(Ok(line)) = lines.next() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["queued", id] => drop(self.queued.insert(id.to_owned())),
                ["acking", id] => drop(self.acking.insert(id.to_owned())),
                ["acked", id] => drop(self.acked.insert(id.to_owned())),
                ["put", key, number] => drop(self.put.insert(key.to_owned(), number.parse().unwrap())),
                _ => continue,
            }
            // From its first sign of work on.
            if began.get_or_insert_with(Instant::now).elapsed() >= after {
                let _ = child.kill();
            }
        }
        child.wait().unwrap();
    }

    async fn check(&self, file: &Path) {
        let store = open(&Place::Embedded { file: file.to_owned() }).await.unwrap();
        let queue = store.queue(settings()).await.unwrap();
        for id in &self.queued {
            let is_there = queue.standing(&key(id)).await.unwrap().is_some();
            assert!(is_there || self.acking.contains(id), "{id} was acknowledged as queued and is lost");
            assert!(!is_there || !self.acked.contains(id), "{id} was acknowledged as done and is back");
        }
        let bucket = BucketSettings { name: "values".into(), expire_after: None, bytes_max: 1 << 30 };
        let bucket = store.bucket(bucket).await.unwrap();
        for (name, number) in &self.put {
            let found = bucket.get(&key(name)).await.unwrap().expect("a value that was acknowledged is there");
            let found: u32 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
            assert!(found >= *number, "{name} is {found}, and {number} was acknowledged");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_acknowledged_is_there() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("store");
    let mut said = Said::default();
    let mut rounds = 0;
    // On a machine that has no time for it, little is done in each.
    while rounds < ROUNDS || said.queued.len() <= 50 || said.acked.len() <= 5 {
        said.hear(&file, Duration::from_millis(rand::random_range(1..150)));
        said.check(&file).await;
        rounds += 1;
        assert!(rounds < 20 * ROUNDS, "little was done: {said:?}");
    }
}

#[tokio::test]
async fn a_file_that_another_has_is_refused_and_is_free_afterwards() {
    let folder = TempDir::new().unwrap();
    let place = Place::Embedded { file: folder.path().join("store") };
    let store = open(&place).await.unwrap();
    let queue = store.queue(settings()).await.unwrap();
    assert!(matches!(open(&place).await, Err(StoreError::InUse { .. })));
    queue.enqueue(&key("a"), Bytes::from_static(b"kept")).await.unwrap();
    drop((store, queue));
    let store = open(&place).await.unwrap();
    let taken = store.queue(settings()).await.unwrap().take(1).await.unwrap();
    assert_eq!(taken[0].item, "kept");
    let other = folder.path().join("other");
    std::fs::write(&other, "no store").unwrap();
    assert!(matches!(open(&Place::Embedded { file: other }).await, Err(StoreError::Damaged { .. })));
    let nowhere = folder.path().join("missing/store");
    assert!(matches!(open(&Place::Embedded { file: nowhere }).await, Err(StoreError::Open { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nats_acknowledged_outlives_its_server() {
    let Some(mut server) = NatsServer::start() else { return };
    let store: Arc<dyn Store> = eventually(async || open(&server.place()).await).await;
    let lease = Duration::from_secs(3);
    let queue = store.queue(QueueSettings { lease, ..settings() }).await.unwrap();
    let killing = tokio::task::spawn_blocking(move || {
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(rand::random_range(100..300)));
            server.kill();
            std::thread::sleep(Duration::from_millis(100));
            server.start_again();
        }
        server
    });
    let mut queued = BTreeSet::new();
    for number in 0..300 {
        let id = key(&format!("call/{number}"));
        // Whoever is told nothing asks again, and may then hear that the id is known.
        let outcome: Enqueued = eventually(async || queue.enqueue(&id, Bytes::from_static(b"x")).await).await;
        assert!(matches!(outcome, Enqueued::New | Enqueued::Known));
        queued.insert(id);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let _server = killing.await.unwrap();
    assert_eq!(drain(&*queue, queued.len()).await, queued);
}

/// Everything in a queue, taken and acknowledged.
async fn drain(queue: &dyn Queue, expected: usize) -> BTreeSet<Key> {
    let (mut done, began) = (BTreeSet::new(), Instant::now());
    while done.len() < expected {
        assert!(began.elapsed() < PATIENCE, "{} of {expected} came", done.len());
        let Ok(Ok(taken)) = tokio::time::timeout(PATIENCE, queue.take(50)).await else { continue };
        for taken in taken {
            queue.ack(taken.lease).await.unwrap();
            done.insert(taken.id);
        }
    }
    done
}
