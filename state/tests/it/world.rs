//! Computers, their disks and their controller, in memory, with everything that can go wrong between them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nigh_proto::{Endpoint, NodeName, PlatformError, Reason, StateId, StateName};
use nigh_state::{Claimed, Config, Directory, Given, Holder, Keeper, Peers};
use nigh_store::{Bucket, Entry, Key, Place, Revision, StoreError, Watch};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What goes wrong, and when.
#[derive(Debug)]
pub(crate) struct Luck {
    rng: Mutex<StdRng>,
    is_bad: AtomicBool,
}

impl Luck {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { rng: Mutex::new(StdRng::seed_from_u64(seed)), is_bad: AtomicBool::new(true) })
    }

    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.rng.lock().random_range(0..limit)
    }

    /// From now on nothing goes wrong.
    pub(crate) fn turn(&self) {
        self.is_bad.store(false, Ordering::SeqCst);
    }

    fn fails(&self, one_in: u64) -> bool {
        self.is_bad.load(Ordering::SeqCst) && self.below(one_in) == 0
    }

    /// A moment in which a process may be killed.
    async fn moment(&self) {
        let us = self.below(400);
        tokio::time::sleep(Duration::from_micros(us)).await;
    }
}

/// A disk, which outlasts the process that writes it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    values: Mutex<(u64, HashMap<Key, Entry>)>,
    luck: Option<Arc<Luck>>,
}

impl Disk {
    pub(crate) fn new(luck: Option<Arc<Luck>>) -> Arc<Self> {
        Arc::new(Self { luck, ..Self::default() })
    }

    async fn moment(&self) {
        if let Some(luck) = &self.luck {
            luck.moment().await;
        }
    }

    fn write_now(&self, writes: Vec<(Key, Bytes, Option<Revision>)>) -> Result<Vec<Revision>, StoreError> {
        let mut values = self.values.lock();
        let found = |key: &Key, values: &HashMap<Key, Entry>| values.get(key).map(|entry| entry.revision);
        if writes.iter().any(|(key, _, was)| found(key, &values.1) != *was) {
            return Err(StoreError::Conflict);
        }
        let mut revisions = Vec::new();
        for (key, value, _) in writes {
            values.0 += 1;
            let revision = Revision(values.0);
            values.1.insert(key, Entry { value, revision });
            revisions.push(revision);
        }
        Ok(revisions)
    }
}

#[async_trait]
impl Bucket for Disk {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.moment().await;
        Ok(self.values.lock().1.get(key).cloned())
    }

    async fn put(&self, _: &Key, _: Bytes) -> Result<Revision, StoreError> {
        Err(StoreError::Refused("states are written in place of what was read".into()))
    }

    async fn create(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        Ok(self.write_all(vec![(key.clone(), value, None)]).await?[0])
    }

    async fn update(&self, key: &Key, value: Bytes, was: Revision) -> Result<Revision, StoreError> {
        Ok(self.write_all(vec![(key.clone(), value, Some(was))]).await?[0])
    }

    async fn write_all(&self, writes: Vec<(Key, Bytes, Option<Revision>)>) -> Result<Vec<Revision>, StoreError> {
        self.moment().await;
        let written = self.write_now(writes);
        // Killed here, it is written and nobody knows.
        self.moment().await;
        written
    }

    async fn delete(&self, key: &Key, was: Option<Revision>) -> Result<(), StoreError> {
        self.moment().await;
        let deleted = {
            let mut values = self.values.lock();
            let found = values.1.get(key).map(|entry| entry.revision);
            let is_meant = was.is_none() || found.is_none() || found == was;
            if is_meant {
                values.1.remove(key);
            }
            is_meant
        };
        self.moment().await;
        if deleted { Ok(()) } else { Err(StoreError::Conflict) }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Entry)>, StoreError> {
        let values = self.values.lock();
        let below = values.1.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        Ok(below.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    async fn watch(&self, _: &str) -> Result<Watch, StoreError> {
        Err(StoreError::Refused("nobody watches states".into()))
    }
}

/// A controller that is sometimes away, and whose answers are sometimes lost.
#[derive(Debug)]
pub(crate) struct Controller {
    holders: Mutex<HashMap<StateId, Holder>>,
    luck: Arc<Luck>,
}

impl Controller {
    pub(crate) fn new(luck: Arc<Luck>) -> Arc<Self> {
        Arc::new(Self { holders: Mutex::default(), luck })
    }

    pub(crate) fn holder(&self, id: &StateId) -> Option<NodeName> {
        self.holders.lock().get(id).map(|holder| holder.name.clone())
    }

    async fn before(&self) -> Result<(), PlatformError> {
        self.luck.moment().await;
        if self.luck.fails(12) { Err(away()) } else { Ok(()) }
    }

    async fn after<T>(&self, answer: T) -> Result<T, PlatformError> {
        self.luck.moment().await;
        if self.luck.fails(12) { Err(away()) } else { Ok(answer) }
    }
}

fn away() -> PlatformError {
    PlatformError::new(Reason::Unreachable, "away")
}

#[async_trait]
impl Directory for Controller {
    async fn locate(&self, id: &StateId) -> Result<Option<Holder>, PlatformError> {
        self.before().await?;
        let found = self.holders.lock().get(id).cloned();
        self.after(found).await
    }

    async fn claim(
        &self,
        id: &StateId,
        name: &NodeName,
        endpoint: &Endpoint,
        expected: u64,
    ) -> Result<Claimed, PlatformError> {
        self.before().await?;
        let claimed = {
            let mut holders = self.holders.lock();
            let wanted = Holder { name: name.clone(), endpoint: endpoint.clone(), epoch: expected + 1 };
            match holders.get(id) {
                Some(found) if *found == wanted => Claimed::Yes,
                found if found.map_or(0, |found| found.epoch) != expected => Claimed::No(found.cloned()),
                _ => {
                    holders.insert(id.clone(), wanted);
                    Claimed::Yes
                }
            }
        };
        self.after(claimed).await
    }

    async fn forget(&self, id: &StateId, name: &NodeName) -> Result<(), PlatformError> {
        self.before().await?;
        let mut holders = self.holders.lock();
        if holders.get(id).is_some_and(|holder| holder.name == *name) {
            holders.remove(id);
        }
        Ok(())
    }
}

/// The computers that are up, by endpoint.
#[derive(Debug)]
pub(crate) struct Network {
    up: Mutex<HashMap<Endpoint, Arc<Keeper>>>,
    luck: Arc<Luck>,
}

impl Network {
    pub(crate) fn new(luck: Arc<Luck>) -> Arc<Self> {
        Arc::new(Self { up: Mutex::default(), luck })
    }

    fn at(&self, endpoint: &Endpoint) -> Result<Arc<Keeper>, PlatformError> {
        self.up.lock().get(endpoint).cloned().ok_or_else(away)
    }

    /// A computer with this disk comes up.
    pub(crate) fn start(
        self: &Arc<Self>,
        number: usize,
        disk: &Arc<Disk>,
        controller: &Arc<Controller>,
    ) -> Arc<Keeper> {
        let name: NodeName = format!("computer-{number}").parse().unwrap();
        let endpoint: Endpoint = format!("127.0.0.1:{}", 10_000 + number).parse().unwrap();
        let offer = Duration::from_micros(self.luck.below(3) * 300);
        let config = Config { place: Some(Place::Embedded { file: "none".into() }), offer, ..Config::default() };
        let keeper = Keeper::over(disk.clone(), config, name, Some(controller.clone()), self.clone());
        keeper.set_endpoint(endpoint.clone());
        self.up.lock().insert(endpoint, keeper.clone());
        keeper
    }

    pub(crate) fn stop(&self, keeper: &Keeper) {
        self.up.lock().remove(keeper.endpoint().unwrap());
    }
}

#[async_trait]
impl Peers for Network {
    async fn take(
        &self,
        holder: &Endpoint,
        id: &StateId,
        name: &NodeName,
        endpoint: &Endpoint,
    ) -> Result<Option<Given>, PlatformError> {
        self.luck.moment().await;
        if self.luck.fails(12) {
            return Err(away());
        }
        let until = tokio::time::Instant::now() + Duration::from_millis(200);
        let given = self.at(holder)?.give(id, name, endpoint, until).await.map_err(PlatformError::from)?;
        self.luck.moment().await;
        if self.luck.fails(12) { Err(away()) } else { Ok(given) }
    }

    async fn taken(&self, before: &Endpoint, id: &StateId, name: &NodeName, epoch: u64) -> Result<(), PlatformError> {
        self.luck.moment().await;
        if self.luck.fails(3) {
            return Err(away());
        }
        self.at(before)?.was_taken(id, name, epoch).await.map_err(PlatformError::from)
    }

    async fn older_get(&self, _: &Endpoint, _: &StateName) -> Result<Bytes, PlatformError> {
        Err(away())
    }

    async fn older_delete(&self, _: &Endpoint, _: &StateName) -> Result<(), PlatformError> {
        Err(away())
    }
}
