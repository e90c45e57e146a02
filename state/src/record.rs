//! What is kept of a state: its content, and how it stands with its holder.

use bytes::Bytes;
use nigh_proto::{Endpoint, NodeName, StateId, v1};
use nigh_store::{Key, StoreError};
use prost::Message as _;

/// One state, as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Of the claim that it is held by, or would be; 0 where there is no directory.
    pub(crate) epoch: u64,
    /// Changes of its content so far.
    pub(crate) version: u64,
    /// Nothing where there is none.
    pub(crate) content: Option<Bytes>,
    pub(crate) standing: Standing,
}

/// How a computer stands with a state that it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It holds it.
    Held,
    /// It held it, and has handed it over to this computer, which may have claimed it.
    Offered { to: NodeName, endpoint: Endpoint, since_ms: u64 },
    /// It has received it from there, and may have claimed it.
    Taken { from: Option<Endpoint> },
    /// Where computers share a store: it is leased until then.
    Leased { by: String, until_ms: u64 },
}

impl Record {
    /// Nothing was ever written.
    pub(crate) fn empty(epoch: u64) -> Self {
        Self { epoch, version: 0, content: None, standing: Standing::Held }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |what: String| StoreError::Failed(format!("a state's record cannot be read: {what}"));
        let wire = v1::StoredState::decode(bytes).map_err(|error| damaged(error.to_string()))?;
        let kind = wire.standing();
        let v1::StoredState { epoch, version, content, other_name, other_endpoint, time_ms, lease, .. } = wire;
        let standing = match kind {
            v1::StateStanding::Held if lease.is_empty() => Standing::Held,
            v1::StateStanding::Held => Standing::Leased { by: lease, until_ms: time_ms },
            v1::StateStanding::Offered => Standing::Offered {
                to: other_name.parse().map_err(|_| damaged("to whom it is offered".to_owned()))?,
                endpoint: other_endpoint.parse().map_err(|_| damaged("to whom it is offered".to_owned()))?,
                since_ms: time_ms,
            },
            v1::StateStanding::Taken => Standing::Taken { from: other_endpoint.parse().ok() },
        };
        Ok(Self { epoch, version, content, standing })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut wire = v1::StoredState {
            epoch: self.epoch,
            version: self.version,
            content: self.content.clone(),
            ..v1::StoredState::default()
        };
        match &self.standing {
            Standing::Held => {}
            Standing::Offered { to, endpoint, since_ms } => {
                wire.set_standing(v1::StateStanding::Offered);
                (wire.other_name, wire.other_endpoint) = (to.to_string(), endpoint.to_string());
                wire.time_ms = *since_ms;
            }
            Standing::Taken { from } => {
                wire.set_standing(v1::StateStanding::Taken);
                wire.other_endpoint = from.as_ref().map(ToString::to_string).unwrap_or_default();
            }
            Standing::Leased { by, until_ms } => (wire.lease, wire.time_ms) = (by.clone(), *until_ms),
        }
        wire.encode_to_vec().into()
    }
}

/// The key of a state in its bucket.
pub(crate) fn key_of(id: &StateId) -> Key {
    // Two names of at most 63 bytes each, of visible characters.
    id.to_string().parse().expect("an application's and a state's name make up a key")
}

/// The state that a key stands for.
pub(crate) fn id_of(key: &Key) -> Option<StateId> {
    let (application, state) = key.as_str().split_once('/')?;
    Some(StateId { application: application.parse().ok()?, state: state.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use nigh_proto::state::STATE_BYTES_MAX;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_come_back_as_they_went() {
        let endpoint: Endpoint = "127.0.0.1:1".parse().unwrap();
        for standing in [
            Standing::Held,
            Standing::Offered { to: "a".parse().unwrap(), endpoint: endpoint.clone(), since_ms: 7 },
            Standing::Taken { from: Some(endpoint) },
            Standing::Taken { from: None },
            Standing::Leased { by: "b".to_owned(), until_ms: 9 },
        ] {
            for content in [None, Some(Bytes::new()), Some(Bytes::from_static(b"x"))] {
                let record = Record { epoch: 3, version: 4, content, standing: standing.clone() };
                assert_eq!(Record::decode(&record.encode()).unwrap(), record);
            }
        }
    }

    #[test]
    fn the_largest_state_is_one_value() {
        let name: NodeName = "x".repeat(63).parse().unwrap();
        let endpoint: Endpoint = format!("{}:65535", "h".repeat(250)).parse().unwrap();
        let standing = Standing::Offered { to: name, endpoint, since_ms: u64::MAX };
        let content = Some(vec![0; STATE_BYTES_MAX].into());
        let record = Record { epoch: u64::MAX, version: u64::MAX, content, standing };
        assert!(record.encode().len() <= nigh_store::VALUE_BYTES_MAX);
        let id = StateId { application: "a".repeat(63).parse().unwrap(), state: "s".repeat(63).parse().unwrap() };
        assert_eq!(id_of(&key_of(&id)), Some(id));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }
}
