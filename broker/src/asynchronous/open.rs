//! Opening what calls that run later are kept in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nigh_store::{BucketSettings, ObjectsSettings, Place, QueueSettings, StoreError};
use tokio_util::sync::CancellationToken;

use super::{Asynchronous, AsynchronousConfig, Shelves};
use crate::triggers::TriggerShelves;

/// How long a call is this broker's before another may take it, unless extended: so long after a crash it is tried again.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// Waits before a server that is away is asked again.
const AWAY_MIN: Duration = Duration::from_millis(200);
const AWAY_MAX: Duration = Duration::from_secs(5);
/// Bytes of all triggers, and of how they are, at most.
const TRIGGERS_BYTES_MAX: u64 = 64 << 20;
/// Payloads whose calls nobody knows are deleted when they are so old; a call that is just being accepted is younger.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// Opens the store; one in NATS that is away is waited for, beside the serving of other calls.
///
/// # Errors
/// [`StoreError`] where it cannot be used.
pub(crate) async fn open(asynchronous: &Arc<Asynchronous>, stop: CancellationToken) -> Result<(), StoreError> {
    let Some(config) = asynchronous.config.clone() else { return Ok(()) };
    match shelves(&config).await {
        Ok(shelves) => {
            let _ = asynchronous.shelves.set(shelves);
            Ok(())
        }
        Err(StoreError::Unavailable(why)) if matches!(config.place, Place::Nats { .. }) => {
            tracing::warn!(why, "the store of asynchronous calls is away; they are refused until it is there");
            tokio::spawn(stop.run_until_cancelled_owned(keep_trying(asynchronous.clone(), config)));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn keep_trying(asynchronous: Arc<Asynchronous>, config: AsynchronousConfig) {
    let mut wait = AWAY_MIN;
    loop {
        tokio::time::sleep(wait).await;
        match shelves(&config).await {
            Ok(shelves) => {
                tracing::info!("the store of asynchronous calls is there");
                let _ = asynchronous.shelves.set(shelves);
                return;
            }
            Err(error) => tracing::debug!(%error, "the store of asynchronous calls is still away"),
        }
        wait = (wait * 2).min(AWAY_MAX);
    }
}

async fn shelves(config: &AsynchronousConfig) -> Result<Shelves, StoreError> {
    let store = nigh_store::open(&config.place).await?;
    let queue = QueueSettings {
        name: "calls".to_owned(),
        lease: LEASE,
        entries_max: config.entries_max,
        bytes_max: config.bytes_max,
    };
    let results = BucketSettings {
        name: "results".to_owned(),
        expire_after: Some(config.keep_results),
        bytes_max: config.bytes_max,
    };
    let payloads = ObjectsSettings { name: "payloads".to_owned(), bytes_max: config.payloads_bytes_max };
    Ok(Shelves {
        queue: store.queue(queue).await?,
        results: store.bucket(results).await?,
        payloads: store.objects(payloads).await?,
        triggers: TriggerShelves {
            definitions: store.bucket(of_triggers("triggers")).await?,
            states: store.bucket(of_triggers("trigger-states")).await?,
        },
    })
}

fn of_triggers(name: &str) -> BucketSettings {
    BucketSettings { name: name.to_owned(), expire_after: None, bytes_max: TRIGGERS_BYTES_MAX }
}

impl Shelves {
    /// Deletes payloads whose calls and results are gone: results expire by themselves, and a broker may be killed between
    /// keeping a payload and its call.
    pub(super) async fn delete_orphans(&self) -> Result<(), StoreError> {
        for object in self.payloads.list().await? {
            let age = SystemTime::now().duration_since(object.stored).unwrap_or_default();
            let Some((id, _)) = object.name.as_str().rsplit_once('/').filter(|_| age > ORPHAN_AGE) else { continue };
            let id = id.parse()?;
            if self.queue.standing(&id).await?.is_none() && self.results.get(&id).await?.is_none() {
                self.payloads.delete(&object.name).await?;
                tracing::debug!(name = %object.name, "deleted a payload that nobody knows");
            }
        }
        Ok(())
    }
}
