//! Where what is deployed is kept, with the modules by digest and the nodes last known: in one file of this controller
//! ([`embedded`]), or in a store that several controllers share ([`shared`]).

mod embedded;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nigh_proto::membership::Node;
use nigh_proto::{Deployment, Digest, FunctionName, NodeName};
use nigh_store::Place;

use crate::config::Config;
use crate::error::{DeployError, StoreError};
use crate::registry::Registry;
use crate::states::{Claimed, Holder};

pub(crate) use embedded::Embedded;
use shared::Shared;

/// Bytes of a module in one record: with its key just within a page of 256 KiB, as pages double in size.
const PART_BYTES: usize = 255 << 10;
/// Waits before a server that is away is asked again.
const AWAY_MIN: Duration = Duration::from_millis(200);
const AWAY_MAX: Duration = Duration::from_secs(5);

/// What may be stored at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    pub(crate) functions_max: usize,
    pub(crate) modules_bytes_max: u64,
}

/// Everything in a store but the modules.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) functions: Vec<Deployment>,
    pub(crate) nodes: Vec<Node>,
}

/// An open store. Clones share it.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    /// One file, for this controller alone.
    Embedded(Arc<Embedded>),
    /// Shared with other controllers.
    Shared(Arc<Shared>),
}

impl Store {
    /// Opens what the configuration names and reads all but the modules. A server that is away is waited for.
    pub(crate) async fn open(config: &Config) -> Result<(Self, Known), StoreError> {
        if let Place::Embedded { file } = &config.store {
            let (store, known) = embedded::open(file).await?;
            return Ok((Self::Embedded(store), known));
        }
        let opened = patiently(|| Shared::open(&config.store, config.modules_bytes_max)).await;
        opened.map(|(store, known)| (Self::Shared(store), known))
    }

    /// Stores a function and its module and has them known, both or neither, even where whoever asked is gone meanwhile; false
    /// where the very same version was there already. `place` is held until then.
    pub(crate) async fn deploy(
        &self,
        registry: Arc<Registry>,
        function: Deployment,
        module: Bytes,
        caps: Caps,
        place: impl Send + 'static,
    ) -> Result<bool, DeployError> {
        match self.clone() {
            Self::Embedded(store) => {
                blocking(move || {
                    let changed = store.deploy(&function, &module, caps)?;
                    if changed {
                        registry.deployed(function);
                    }
                    drop(place);
                    Ok(changed)
                })
                .await
            }
            Self::Shared(store) => {
                to_its_end(async move {
                    let changed = store.deploy(&registry, &function, module, caps).await;
                    drop(place);
                    changed
                })
                .await
            }
        }
    }

    /// Takes a function out and has that known, as above; false where there was none of this name.
    pub(crate) async fn remove(
        &self,
        registry: Arc<Registry>,
        name: FunctionName,
        place: impl Send + 'static,
    ) -> Result<bool, DeployError> {
        match self.clone() {
            Self::Embedded(store) => {
                blocking(move || {
                    let was_there = store.remove(&name)?;
                    if was_there {
                        registry.removed(&name);
                    }
                    drop(place);
                    Ok(was_there)
                })
                .await
            }
            Self::Shared(store) => {
                to_its_end(async move {
                    let was_there = store.remove(&registry, &name).await;
                    drop(place);
                    was_there
                })
                .await
            }
        }
    }

    /// Writes the records of nodes; `None` deletes one.
    pub(crate) async fn save_nodes(&self, changed: Arc<Vec<(NodeName, Option<Node>)>>) -> Result<(), StoreError> {
        match self.clone() {
            Self::Embedded(store) => blocking(move || store.save_nodes(&changed)).await,
            Self::Shared(store) => store.save_nodes(&changed).await,
        }
    }

    /// Begins to read a module; what is read is whole even where the module is dropped meanwhile.
    pub(crate) async fn module(&self, digest: Digest) -> Result<Option<ModuleReader>, StoreError> {
        match self.clone() {
            Self::Embedded(store) => Ok(blocking(move || store.module(&digest)).await?.map(ModuleReader::Embedded)),
            Self::Shared(store) => Ok(store.module(&digest).await?.map(ModuleReader::Whole)),
        }
    }

    /// Who holds a state.
    pub(crate) async fn holder(&self, id: String) -> Result<Option<Holder>, StoreError> {
        match self.clone() {
            Self::Embedded(store) => blocking(move || store.holder(&id)).await,
            Self::Shared(store) => store.holder(&id).await,
        }
    }

    /// Writes who holds a state, where it is held as of the epoch before, or by just this one.
    pub(crate) async fn claim(&self, id: String, holder: Holder, states_max: usize) -> Result<Claimed, StoreError> {
        match self.clone() {
            Self::Embedded(store) => blocking(move || store.claim(&id, &holder, states_max)).await,
            Self::Shared(store) => store.claim(&id, &holder).await,
        }
    }

    /// Takes out who holds a state, if it is this one.
    pub(crate) async fn forget(&self, id: String, name: NodeName) -> Result<(), StoreError> {
        match self.clone() {
            Self::Embedded(store) => blocking(move || store.forget(&id, &name)).await,
            Self::Shared(store) => store.forget(&id, &name).await,
        }
    }

    /// Makes known what others change, where there are others.
    pub(crate) async fn follow(&self, registry: &Registry) {
        match self {
            Self::Embedded(_) => std::future::pending().await,
            Self::Shared(store) => store.follow(registry).await,
        }
    }

    /// Waits for what is under way and lets go of the store.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        match self.clone() {
            Self::Embedded(store) => blocking(move || store.close()).await,
            Self::Shared(_) => Ok(()),
        }
    }
}

/// Opens something in a store, and waits for a server that is away.
pub(crate) async fn patiently<T, F>(open: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut wait = AWAY_MIN;
    loop {
        match open().await {
            Err(StoreError::Shared(error)) if error.retry_helps() => {
                tracing::warn!(%error, "the store is away, waiting for it");
            }
            opened => return opened,
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(AWAY_MAX);
    }
}

/// Reads one module, part by part.
pub(crate) enum ModuleReader {
    Embedded(embedded::ModuleReader),
    Whole(Bytes),
}

impl ModuleReader {
    /// The next part, and what reads on; no part after the last.
    pub(crate) async fn next(self) -> Result<(Self, Option<Bytes>), StoreError> {
        match self {
            Self::Embedded(mut reader) => {
                blocking(move || {
                    let part = reader.next()?;
                    Ok((Self::Embedded(reader), part))
                })
                .await
            }
            Self::Whole(mut left) => {
                let part = left.split_to(left.len().min(PART_BYTES));
                let part = (!part.is_empty()).then_some(part);
                Ok((Self::Whole(left), part))
            }
        }
    }
}

/// Runs blocking work off the async workers. The work goes on to its end even where nobody waits for it any more.
async fn blocking<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    ended(tokio::task::spawn_blocking(work).await)
}

/// Runs work to its end even where nobody waits for it any more.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, DeployError>> + Send + 'static,
) -> Result<T, DeployError> {
    ended(tokio::spawn(work).await)
}

fn ended<T, E: From<StoreError>>(outcome: Result<Result<T, E>, tokio::task::JoinError>) -> Result<T, E> {
    outcome.unwrap_or_else(|error| Err(StoreError::Failed(format!("an operation did not end: {error}")).into()))
}
