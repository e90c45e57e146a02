//! Which computer holds which state. A claim takes place on the condition that nobody has claimed the state since, so of two
//! who want it one gets it; it is on disk before it is answered.

use std::sync::Arc;

use nigh_proto::membership::Node;
use nigh_proto::{Endpoint, NodeName, PlatformError, StateId, v1};

use crate::registry::Registry;
use crate::store::Store;

/// The directory of states.
pub(crate) struct States {
    store: Store,
    registry: Arc<Registry>,
    states_max: usize,
}

/// A computer that holds a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) name: NodeName,
    pub(crate) endpoint: Endpoint,
    pub(crate) epoch: u64,
}

/// What came of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// It is held by whoever claimed it.
    Yes,
    /// It is not, and by whom it is.
    No(Option<Holder>),
    /// There are as many states as may be.
    Full,
}

impl States {
    pub(crate) fn new(store: Store, registry: Arc<Registry>, states_max: usize) -> Self {
        Self { store, registry, states_max }
    }

    /// Who holds a state, reached where it is now.
    pub(crate) async fn locate(&self, id: StateId) -> Result<Option<Holder>, PlatformError> {
        let holder = self.store.holder(id.to_string()).await?;
        Ok(holder.map(|holder| self.as_reached(holder)))
    }

    /// Has a computer hold a state, where it is still held as of `expected` (0: by nobody). A claim may be repeated.
    pub(crate) async fn claim(
        &self,
        id: StateId,
        (name, endpoint): (NodeName, Endpoint),
        expected: u64,
    ) -> Result<Claimed, PlatformError> {
        let holder = Holder { name, endpoint, epoch: expected.saturating_add(1) };
        let claimed = self.store.claim(id.to_string(), holder, self.states_max).await?;
        Ok(match claimed {
            Claimed::No(holder) => Claimed::No(holder.map(|holder| self.as_reached(holder))),
            claimed => claimed,
        })
    }

    /// Nobody holds a state any more, if this computer did.
    pub(crate) async fn forget(&self, id: StateId, name: NodeName) -> Result<(), PlatformError> {
        Ok(self.store.forget(id.to_string(), name).await?)
    }

    /// A computer may have come back elsewhere.
    fn as_reached(&self, holder: Holder) -> Holder {
        match self.registry.node(&holder.name) {
            Some(Node::Computer(computer)) => Holder { endpoint: computer.endpoint, ..holder },
            Some(Node::Broker(_)) | None => holder,
        }
    }
}

impl Holder {
    pub(crate) fn to_wire(&self) -> v1::StateHolder {
        v1::StateHolder { name: self.name.to_string(), endpoint: self.endpoint.to_string(), epoch: self.epoch }
    }

    pub(crate) fn from_wire(wire: &v1::StateHolder) -> Result<Self, PlatformError> {
        Ok(Self { name: wire.name.parse()?, endpoint: wire.endpoint.parse()?, epoch: wire.epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Embedded;

    const MAX: usize = 2;

    fn holder(name: &str, epoch: u64) -> Holder {
        Holder { name: name.parse().unwrap(), endpoint: "127.0.0.1:1".parse().unwrap(), epoch }
    }

    #[test]
    fn of_two_who_claim_a_state_one_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Embedded::open(&path).unwrap();
        assert_eq!(store.claim("default/a", &holder("one", 1), MAX).unwrap(), Claimed::Yes);
        // Again, as its answer was lost.
        assert_eq!(store.claim("default/a", &holder("one", 1), MAX).unwrap(), Claimed::Yes);
        assert_eq!(store.claim("default/a", &holder("two", 1), MAX).unwrap(), Claimed::No(Some(holder("one", 1))));
        assert_eq!(store.claim("default/a", &holder("two", 2), MAX).unwrap(), Claimed::Yes);
        // One that comes late.
        assert_eq!(store.claim("default/a", &holder("three", 2), MAX).unwrap(), Claimed::No(Some(holder("two", 2))));
        assert_eq!(store.claim("default/b", &holder("two", 5), MAX).unwrap(), Claimed::No(None));
        store.close().unwrap();
        let store = Embedded::open(&path).unwrap();
        assert_eq!(store.holder("default/a").unwrap(), Some(holder("two", 2)));
        store.forget("default/a", &"one".parse().unwrap()).unwrap();
        assert!(store.holder("default/a").unwrap().is_some());
        store.forget("default/a", &"two".parse().unwrap()).unwrap();
        assert_eq!(store.holder("default/a").unwrap(), None);
    }

    #[test]
    fn the_number_of_states_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(&folder.path().join("store")).unwrap();
        for id in ["default/a", "default/b"] {
            assert_eq!(store.claim(id, &holder("one", 1), MAX).unwrap(), Claimed::Yes);
        }
        assert_eq!(store.claim("default/c", &holder("one", 1), MAX).unwrap(), Claimed::Full);
        assert_eq!(store.claim("default/b", &holder("two", 2), MAX).unwrap(), Claimed::Yes);
    }
}
