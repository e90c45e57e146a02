//! How many items a queue takes in a second, each acknowledged only once it is on disk, against appending as many bytes to a
//! file and waiting for the disk each time.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints, and ends where something fails")]

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_store::{Place, Queue, QueueSettings, open};

const ITEM_BYTES: usize = 256;
const TIME: Duration = Duration::from_secs(2);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Where the build is, as temporary folders may be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let baseline = append(&folder.path().join("appended"));
    println!("one append and wait for the disk after another: {baseline:.0}/s");
    for together in [1usize, 16, 64, 256] {
        let file = folder.path().join(format!("store-{together}"));
        let (accepts, slowest) = runtime.block_on(accepts(Place::Embedded { file }, together));
        println!(
            "embedded, {together:3} at once: {accepts:7.0} accepts/s, {:5.2} × the appends; p99 {slowest:.1?}",
            accepts / baseline
        );
    }
    if let Some(server) = std::env::var_os("NIGH_BENCH_NATS") {
        for together in [1usize, 16, 64, 256] {
            let servers = vec![server.to_string_lossy().into_owned()];
            let (accepts, slowest) = runtime.block_on(accepts(Place::Nats { servers, tls: None }, together));
            println!("nats,     {together:3} at once: {accepts:7.0} accepts/s; p99 {slowest:.1?}");
        }
    }
}

fn append(path: &std::path::Path) -> f64 {
    let mut file = std::fs::File::create(path).unwrap();
    let (began, mut appends) = (Instant::now(), 0.0);
    while began.elapsed() < TIME {
        file.write_all(&[7; ITEM_BYTES]).unwrap();
        file.sync_data().unwrap();
        appends += 1.0;
    }
    appends / began.elapsed().as_secs_f64()
}

/// Accepts in a second, and the time that 99 of 100 take at most.
async fn accepts(place: Place, together: usize) -> (f64, Duration) {
    let store = open(&place).await.unwrap();
    let settings = QueueSettings {
        name: format!("bench-{}-{together}", std::process::id()),
        lease: Duration::from_secs(60),
        entries_max: 10_000_000,
        bytes_max: 1 << 28,
    };
    let queue: Arc<dyn Queue> = store.queue(settings).await.unwrap();
    let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let callers: Vec<_> = (0..together)
        .map(|_| {
            let (queue, next) = (queue.clone(), next.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < TIME {
                    let id = format!("{:032x}", next.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
                    let asked = Instant::now();
                    queue.enqueue(&id, Bytes::from_static(&[7; ITEM_BYTES])).await.unwrap();
                    took.push(asked.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.unwrap());
    }
    let elapsed = began.elapsed();
    took.sort();
    #[expect(clippy::cast_precision_loss, reason = "a count of seconds' worth of calls")]
    let accepts = took.len() as f64 / elapsed.as_secs_f64();
    (accepts, took[took.len() * 99 / 100])
}
