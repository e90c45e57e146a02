//! A store that several controllers share: functions and the nodes last known in buckets, modules by digest in an object store. A
//! change is made there first, and becomes known to each controller by its watch, so that all see the same order.
//!
//! A module that no function uses is deleted only a while after it was put: another controller may be about to deploy it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::{Node, Topics};
use nigh_proto::{Deployment, Digest, FunctionName, NodeName, v1};
use nigh_store::{Bucket, BucketSettings, Change, Entry, Key, Object, Objects, ObjectsSettings, Place, Revision};
use prost::Message as _;
use tokio::sync::watch;

use super::{Caps, Known};
use crate::error::{DeployError, StoreError};
use crate::registry::Registry;
use crate::states::{Claimed, Holder};

/// Bytes of all functions' records, and of all nodes', at most.
const RECORDS_BYTES_MAX: u64 = 256 << 20;
/// Room for what an object store keeps beside modules, and for modules that are not used any more.
const MODULES_BYTES_BESIDE: u64 = 64 << 20;
/// A module put less long ago may be about to be used.
const UNUSED_FOR: Duration = Duration::from_secs(120);
/// How often modules are looked for that nobody uses.
const COLLECT_EVERY: Duration = Duration::from_secs(60);
/// How often a deployment is tried again where another controller was faster.
const TRIES_MAX: u32 = 8;
/// Time for this controller to see a change of its own.
const SEE_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait before the store is watched anew.
const WATCH_AGAIN: Duration = Duration::from_millis(200);

/// What several controllers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// By name.
    functions: Arc<dyn Bucket>,
    /// By name; as announced last.
    nodes: Arc<dyn Bucket>,
    /// Who holds which state, by application and state.
    holders: Arc<dyn Bucket>,
    /// By digest.
    modules: Arc<dyn Objects>,
    /// Counts what the watch has made known.
    seen: watch::Sender<u64>,
}

impl Shared {
    /// Opens what is there, or makes it, and reads all but the modules.
    pub(crate) async fn open(place: &Place, modules_bytes_max: u64) -> Result<(Arc<Self>, Known), StoreError> {
        let store = nigh_store::open(place).await?;
        let bucket = |name: &str| BucketSettings {
            name: name.to_owned(),
            expire_after: None,
            bytes_max: RECORDS_BYTES_MAX.min(modules_bytes_max),
        };
        let modules = ObjectsSettings {
            name: "modules".to_owned(),
            bytes_max: modules_bytes_max.saturating_add(modules_bytes_max / 8).saturating_add(MODULES_BYTES_BESIDE),
        };
        let shared = Arc::new(Self {
            functions: store.bucket(bucket("functions")).await?,
            nodes: store.bucket(bucket("nodes")).await?,
            holders: store.bucket(bucket("state-holders")).await?,
            modules: store.objects(modules).await?,
            seen: watch::channel(0).0,
        });
        let functions = shared.functions().await?.into_values().map(|(function, _)| function).collect();
        let nodes = shared.nodes.list("").await?.into_iter().filter_map(|(name, entry)| {
            let node = v1::AnnounceRequest::decode(entry.value).map_err(|error| error.to_string());
            let node = node.and_then(|wire| Node::from_wire(wire).map_err(|error| error.to_string()));
            // It will announce itself again.
            node.inspect_err(|error| tracing::warn!(%name, error, "forgot a node that was known before")).ok()
        });
        let nodes = nodes.collect();
        Ok((shared, Known { functions, nodes }))
    }

    /// Stores a function and its module, and waits until the registry knows; false where the very same version was there already.
    pub(crate) async fn deploy(
        &self,
        registry: &Registry,
        function: &Deployment,
        module: Bytes,
        caps: Caps,
    ) -> Result<bool, DeployError> {
        let key = key_of(function.name.as_str())?;
        for _ in 0..TRIES_MAX {
            let mut functions = self.functions().await?;
            let before = functions.remove(&function.name);
            if before.as_ref().is_some_and(|(before, _)| before.version == function.version) {
                return Ok(false);
            }
            check(&functions, before.is_some(), function, caps)?;
            self.keep_module(&function.module, &module).await?;
            let record = Bytes::from(function.to_wire().encode_to_vec());
            let written = match before {
                None => self.functions.create(&key, record).await,
                Some((_, revision)) => self.functions.update(&key, record, revision).await,
            };
            match written {
                Ok(_) => {
                    let name = &function.name;
                    let version = function.version;
                    self.wait_until(|| registry.function(name).is_some_and(|known| known.version == version)).await;
                    self.collect_soon().await;
                    return Ok(true);
                }
                // Another controller was faster, or what was written is there though nobody said so.
                Err(nigh_store::StoreError::Conflict) => {}
                Err(error) => return Err(StoreError::from(error).into()),
            }
        }
        Err(StoreError::from(nigh_store::StoreError::Conflict).into())
    }

    /// Takes a function out, and waits until the registry knows; false where there was none of this name.
    pub(crate) async fn remove(&self, registry: &Registry, name: &FunctionName) -> Result<bool, DeployError> {
        let key = key_of(name.as_str())?;
        let there = self.functions.get(&key).await.map_err(StoreError::from)?;
        if there.is_none() {
            return Ok(false);
        }
        self.functions.delete(&key, None).await.map_err(StoreError::from)?;
        self.wait_until(|| registry.function(name).is_none()).await;
        self.collect_soon().await;
        Ok(true)
    }

    /// Writes the records of nodes; `None` deletes one.
    pub(crate) async fn save_nodes(&self, changed: &[(NodeName, Option<Node>)]) -> Result<(), StoreError> {
        for (name, node) in changed {
            let key = key_of(name.as_str())?;
            let written = match node {
                Some(node) => self.nodes.put(&key, node.to_wire().encode_to_vec().into()).await.map(drop),
                None => self.nodes.delete(&key, None).await,
            };
            match written {
                // It is known as long as it is alive; only a restart of all controllers would forget it for a moment.
                Err(nigh_store::StoreError::TooLarge { .. }) => tracing::debug!(%name, "too much to be kept of a node"),
                written => written?,
            }
        }
        Ok(())
    }

    /// A module, whole.
    pub(crate) async fn module(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        Ok(self.modules.get(&key_of(&digest.to_string())?).await?)
    }

    /// Who holds a state.
    pub(crate) async fn holder(&self, id: &str) -> Result<Option<Holder>, StoreError> {
        Ok(self.held(&key_of(id)?).await?.map(|(holder, _)| holder))
    }

    /// Writes who holds a state, where it is held as of the epoch before (before the first: by nobody), or by just this one. How
    /// many there are is bounded by their bytes.
    pub(crate) async fn claim(&self, id: &str, holder: &Holder) -> Result<Claimed, StoreError> {
        let key = key_of(id)?;
        for _ in 0..TRIES_MAX {
            let found = self.held(&key).await?;
            if found.as_ref().is_some_and(|(found, _)| found.epoch == holder.epoch && found.name == holder.name) {
                return Ok(Claimed::Yes);
            }
            let epoch = found.as_ref().map_or(0, |(found, _)| found.epoch);
            if epoch.checked_add(1) != Some(holder.epoch) {
                return Ok(Claimed::No(found.map(|(found, _)| found)));
            }
            let record = Bytes::from(holder.to_wire().encode_to_vec());
            let written = match found {
                None => self.holders.create(&key, record).await,
                Some((_, revision)) => self.holders.update(&key, record, revision).await,
            };
            match written {
                Ok(_) => return Ok(Claimed::Yes),
                Err(nigh_store::StoreError::Full { .. }) => return Ok(Claimed::Full),
                Err(nigh_store::StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(nigh_store::StoreError::Conflict.into())
    }

    /// Takes out who holds a state, if it is this one.
    pub(crate) async fn forget(&self, id: &str, name: &NodeName) -> Result<(), StoreError> {
        let key = key_of(id)?;
        for _ in 0..TRIES_MAX {
            let Some((_, revision)) = self.held(&key).await?.filter(|(found, _)| found.name == *name) else {
                return Ok(());
            };
            match self.holders.delete(&key, Some(revision)).await {
                Err(nigh_store::StoreError::Conflict) => {}
                deleted => return Ok(deleted?),
            }
        }
        Err(nigh_store::StoreError::Conflict.into())
    }

    async fn held(&self, key: &Key) -> Result<Option<(Holder, Revision)>, StoreError> {
        let Some(entry) = self.holders.get(key).await? else { return Ok(None) };
        let holder = v1::StateHolder::decode(entry.value).map_err(|error| error.to_string());
        let holder = holder.and_then(|wire| Holder::from_wire(&wire).map_err(|error| error.to_string()));
        let holder = holder.map_err(|error| unreadable("state", key, &error))?;
        Ok(Some((holder, entry.revision)))
    }

    /// Makes known what any controller changes; goes on with what is known while the store is away.
    pub(crate) async fn follow(&self, registry: &Registry) {
        let mut collecting = tokio::time::interval(COLLECT_EVERY);
        loop {
            if let Err(error) = self.follow_once(registry, &mut collecting).await {
                tracing::warn!(%error, "not in step with the store, going on with what is known");
            }
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }

    async fn follow_once(&self, registry: &Registry, collecting: &mut tokio::time::Interval) -> Result<(), StoreError> {
        let mut watch = self.functions.watch("").await?;
        // Of those removed meanwhile a new watch says nothing.
        let mut unmentioned: Option<BTreeSet<FunctionName>> = Some(known_names(registry));
        loop {
            let change = tokio::select! {
                change = watch.next() => change,
                _ = collecting.tick() => {
                    if let Err(error) = self.collect().await {
                        tracing::debug!(%error, "modules that nobody uses stay for now");
                    }
                    continue;
                }
            };
            match change {
                None => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(Change::Put(key, entry))) => match read(&key, entry) {
                    Ok((function, _)) => {
                        if let Some(unmentioned) = &mut unmentioned {
                            unmentioned.remove(&function.name);
                        }
                        registry.deployed(function);
                    }
                    Err(error) => tracing::error!(%error, "a function is passed over"),
                },
                Some(Ok(Change::Deleted(key))) => {
                    if let Ok(name) = key.as_str().parse() {
                        registry.removed(&name);
                    }
                }
                Some(Ok(Change::InStep)) => {
                    for name in unmentioned.take().into_iter().flatten() {
                        registry.removed(&name);
                    }
                }
            }
            self.seen.send_modify(|seen| *seen += 1);
        }
    }

    /// Waits until this controller's own watch has made something known; it is in the store already.
    async fn wait_until(&self, is_so: impl Fn() -> bool) {
        let mut seen = self.seen.subscribe();
        let _ = tokio::time::timeout(SEE_TIMEOUT, seen.wait_for(|_| is_so())).await;
    }

    async fn functions(&self) -> Result<BTreeMap<FunctionName, (Deployment, Revision)>, StoreError> {
        let kept = self.functions.list("").await?;
        kept.into_iter()
            .map(|(key, entry)| {
                read(&key, entry).map(|(function, revision)| (function.name.clone(), (function, revision)))
            })
            .collect()
    }

    /// Puts a module, or has it count as newly put.
    async fn keep_module(&self, digest: &Digest, module: &Bytes) -> Result<(), StoreError> {
        let key = key_of(&digest.to_string())?;
        let there = self.modules.list().await?.into_iter().find(|object| object.name == key);
        let is_new = |object: &Object| age_of(object) < UNUSED_FOR / 2;
        if there.as_ref().is_some_and(is_new) {
            return Ok(());
        }
        Ok(self.modules.put(&key, module.clone()).await?)
    }

    /// After a change: what is old enough is not kept until the next look.
    async fn collect_soon(&self) {
        if let Err(error) = self.collect().await {
            tracing::debug!(%error, "modules that nobody uses stay for now");
        }
    }

    /// Deletes modules that nobody uses.
    async fn collect(&self) -> Result<(), StoreError> {
        let old: Vec<Object> =
            self.modules.list().await?.into_iter().filter(|object| age_of(object) > UNUSED_FOR).collect();
        if old.is_empty() {
            return Ok(());
        }
        let functions = self.functions().await?;
        let used: BTreeSet<String> = functions.values().map(|(function, _)| function.module.to_string()).collect();
        for object in old.iter().filter(|object| !used.contains(object.name.as_str())) {
            self.modules.delete(&object.name).await?;
            tracing::info!(module = %object.name, "deleted a module that no function uses");
        }
        Ok(())
    }
}

/// Refuses a function for which there is no room beside these others.
fn check(
    others: &BTreeMap<FunctionName, (Deployment, Revision)>,
    is_there: bool,
    function: &Deployment,
    caps: Caps,
) -> Result<(), DeployError> {
    if !is_there && others.len() >= caps.functions_max {
        return Err(DeployError::FunctionsFull(caps.functions_max));
    }
    let used = others.values().map(|(other, _)| (other.module, other.module_bytes));
    let used: BTreeMap<Digest, u64> = used.chain([(function.module, function.module_bytes)]).collect();
    let bytes = used.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    let limit = caps.modules_bytes_max;
    if bytes > limit { Err(DeployError::ModulesFull { bytes, limit }) } else { Ok(()) }
}

fn read(key: &Key, entry: Entry) -> Result<(Deployment, Revision), StoreError> {
    let function = v1::Deployment::decode(entry.value).map_err(|error| error.to_string());
    let function = function.and_then(|wire| Deployment::from_wire(wire).map_err(|error| error.to_string()));
    let function = function.map_err(|error| unreadable("function", key, &error))?;
    Ok((function, entry.revision))
}

fn unreadable(what: &str, key: &Key, error: &str) -> StoreError {
    let told =
        format!("what was kept of the {what} {key} cannot be read ({error}); was it written by a later release?");
    nigh_store::StoreError::Refused(told).into()
}

fn known_names(registry: &Registry) -> BTreeSet<FunctionName> {
    let functions = registry.snapshot(Topics { functions: true, ..Topics::default() });
    let name = |event: &Arc<WatchEvent>| match &**event {
        WatchEvent::Function(function) => Some(function.name.clone()),
        _ => None,
    };
    functions.iter().filter_map(name).collect()
}

fn key_of(name: &str) -> Result<Key, StoreError> {
    Ok(name.parse::<Key>()?)
}

fn age_of(object: &Object) -> Duration {
    SystemTime::now().duration_since(object.stored).unwrap_or_default()
}
