//! Deploying and removing functions: receive a module within bounds, judge it, store it, make it known.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use nigh_proto::deployment::Wanted;
use nigh_proto::module::{ModuleLimits, inspect};
use nigh_proto::{Deployment, Digest, FunctionName, Kind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::documents::Documents;
use crate::error::DeployError;
use crate::metrics::{DeployCounts, DeployOutcome};
use crate::registry::Registry;
use crate::store::{Caps, Store};

/// One part of an upload.
#[derive(Debug)]
pub(crate) enum Part {
    /// What is to be deployed.
    Head(Wanted),
    /// The next bytes of the module.
    Module(Bytes),
}

/// Deploys and removes.
pub(crate) struct Deployments {
    store: Store,
    registry: Arc<Registry>,
    documents: Arc<Documents>,
    config: Config,
    uploads: Arc<Semaphore>,
    inspections: Arc<Semaphore>,
    removals: Arc<Semaphore>,
    counts: Arc<DeployCounts>,
    /// One place: whoever changes the store makes it known before the next one does, so that both agree on the order.
    /// Waiting for it are at most the uploads and removals under way.
    writer: Arc<Semaphore>,
}

impl Deployments {
    pub(crate) fn new(config: &Config, store: Store, registry: Arc<Registry>, documents: Arc<Documents>) -> Self {
        Self {
            store,
            registry,
            documents,
            uploads: Arc::new(Semaphore::new(config.uploads_max)),
            inspections: Arc::new(Semaphore::new(config.inspections_max)),
            removals: Arc::new(Semaphore::new(config.removals_max)),
            writer: Arc::new(Semaphore::new(1)),
            counts: Arc::default(),
            config: config.clone(),
        }
    }

    /// What is counted of deployments.
    pub(crate) fn counts(&self) -> Arc<DeployCounts> {
        self.counts.clone()
    }

    /// Takes one upload. Returns the function as deployed, and false where the very same version was there already.
    pub(crate) async fn deploy(
        &self,
        parts: impl Stream<Item = Result<Part, DeployError>> + Unpin,
    ) -> Result<(Deployment, bool), DeployError> {
        let outcome = self.take(parts).await;
        self.counts.record(match &outcome {
            Ok((_, true)) => DeployOutcome::Changed,
            Ok((_, false)) => DeployOutcome::Unchanged,
            Err(_) => DeployOutcome::Refused,
        });
        outcome
    }

    async fn take(
        &self,
        parts: impl Stream<Item = Result<Part, DeployError>> + Unpin,
    ) -> Result<(Deployment, bool), DeployError> {
        let busy = |_| DeployError::Busy { what: "uploads", limit: self.config.uploads_max };
        let _place = self.uploads.try_acquire().map_err(busy)?;
        let (head, module) = self.receive(parts).await?;
        let (function, module) = self.judge(head, module).await?;
        let changed = self.commit(function.clone(), module).await?;
        if changed {
            let (name, version) = (&function.name, function.version.short());
            tracing::info!(%name, version, kind = %function.kind, bytes = function.module_bytes, "deployed");
        }
        Ok((function, changed))
    }

    /// Removes a function.
    pub(crate) async fn remove(&self, name: FunctionName) -> Result<(), DeployError> {
        let busy = |_| DeployError::Busy { what: "removals", limit: self.config.removals_max };
        let _place = self.removals.try_acquire().map_err(busy)?;
        let writer = self.writer().await;
        if !self.store.remove(self.registry.clone(), name.clone(), writer).await? {
            return Err(DeployError::Unknown(name));
        }
        self.documents.forget(&name).await;
        self.counts.record(DeployOutcome::Removed);
        tracing::info!(%name, "removed");
        Ok(())
    }

    /// Takes in the parts of one upload. Every bound is enforced as parts arrive; nothing is kept of one that breaks off.
    async fn receive(
        &self,
        mut parts: impl Stream<Item = Result<Part, DeployError>> + Unpin,
    ) -> Result<(Wanted, Bytes), DeployError> {
        let Config { upload_idle: idle, upload_timeout: limit, .. } = self.config;
        let deadline = Instant::now() + limit;
        let bytes_max = self.config.module_limits.bytes_max;
        let (mut head, mut module) = (None, BytesMut::new());
        while let Some(part) = next_within(&mut parts, idle, deadline, limit).await? {
            match part? {
                Part::Head(_) if head.is_some() => return Err(DeployError::TwoHeads),
                Part::Head(given) => head = Some(given),
                Part::Module(_) if head.is_none() => return Err(DeployError::NoHead),
                Part::Module(bytes) if bytes.is_empty() => return Err(DeployError::EmptyPart),
                Part::Module(bytes) if bytes.len() > self.config.upload_part_bytes_max => {
                    let limit = self.config.upload_part_bytes_max;
                    return Err(DeployError::PartTooLarge { bytes: bytes.len(), limit });
                }
                Part::Module(bytes) if (module.len() + bytes.len()) as u64 > bytes_max => {
                    return Err(DeployError::TooLarge { limit: bytes_max });
                }
                Part::Module(bytes) => module.extend_from_slice(&bytes),
            }
        }
        match head {
            None => Err(DeployError::NoHead),
            Some(_) if module.is_empty() => Err(DeployError::Empty),
            Some(head) => Ok((head, module.freeze())),
        }
    }

    /// Finds out what the module is and whether it can be deployed like this.
    async fn judge(&self, head: Wanted, module: Bytes) -> Result<(Deployment, Bytes), DeployError> {
        let place = permit(&self.inspections).await;
        let limits = self.config.module_limits.clone();
        let judging = tokio::task::spawn_blocking(move || {
            let judged = judge(head, &module, &limits);
            drop(place);
            Ok((judged?, module))
        });
        // A module that makes its judge panic harms nobody else.
        judging.await.unwrap_or_else(|error| Err(DeployError::Judge(error.to_string())))
    }

    /// Stores and makes known, both or neither, even where the deployer has gone away in the meantime.
    async fn commit(&self, function: Deployment, module: Bytes) -> Result<bool, DeployError> {
        let caps = Caps { functions_max: self.config.functions_max, modules_bytes_max: self.config.modules_bytes_max };
        let writer = self.writer().await;
        self.store.deploy(self.registry.clone(), function, module, caps, writer).await
    }

    async fn writer(&self) -> OwnedSemaphorePermit {
        permit(&self.writer).await
    }
}

async fn permit(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    places.clone().acquire_owned().await.expect("the semaphores of deployments are never closed")
}

fn judge(head: Wanted, module: &[u8], limits: &ModuleLimits) -> Result<Deployment, DeployError> {
    let found = inspect(module, limits)?;
    found.check_limits(&head.limits)?;
    if found.kind != Kind::Http && !head.hosts.is_empty() {
        return Err(DeployError::HostsWithoutHttp(found.kind));
    }
    if found.kind == Kind::Command && !head.states.is_empty() {
        return Err(DeployError::StatesOfCommand);
    }
    let (digest, bytes) = (Digest::of(module), module.len() as u64);
    let deployment = Deployment::new(head.name, digest, bytes, found.kind, head.limits, head.directories);
    Ok(deployment.allowing(head.hosts).placed(head.placement).depending_on(head.states))
}

/// The next part, if it comes before the upload has been silent or under way for too long.
async fn next_within<T>(
    parts: &mut (impl Stream<Item = T> + Unpin),
    idle: Duration,
    deadline: Instant,
    limit: Duration,
) -> Result<Option<T>, DeployError> {
    let silent_until = Instant::now() + idle;
    timeout_at(silent_until.min(deadline), parts.next())
        .await
        .map_err(|_| if silent_until < deadline { DeployError::Stalled(idle) } else { DeployError::TimedOut(limit) })
}
