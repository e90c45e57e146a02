//! Looking after states of applications, at the computers that keep them.

use std::collections::BTreeMap;

use bytes::Bytes;
use nigh_proto::older::{self, rpc};
use nigh_proto::state::STATE_BYTES_MAX;
use nigh_proto::v1::state_client::StateClient;
use nigh_proto::{
    ApplicationName, Computer, NodeName, PlatformError, Reason, Remote, Role, StateId, StateName, channel, v1,
};
use tonic::transport::Channel;

use crate::admin::Admin;
use crate::peer::Peer;

/// Bytes of a list of states, at most.
const LIST_BYTES_MAX: usize = 16 << 20;

/// A state, and who keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateInfo {
    /// Which.
    pub id: StateId,
    /// Changes of its content so far.
    pub version: u64,
    /// Bytes of its content.
    pub bytes: u64,
    /// The computer that holds it, or has it on the way; nothing where all computers share the store that it is in.
    pub computer: Option<NodeName>,
    /// It is held there; otherwise it is on its way.
    pub is_held: bool,
}

/// A state's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateContent {
    /// The bytes.
    pub content: Bytes,
    /// Changes of it so far.
    pub version: u64,
}

impl Admin {
    /// All states, of one application or of all, by name; and the computers that could not be asked, and why.
    ///
    /// # Errors
    /// [`PlatformError`] where the controller cannot be asked who there is.
    pub async fn states(
        &self,
        application: Option<&ApplicationName>,
    ) -> Result<(Vec<StateInfo>, Vec<(NodeName, PlatformError)>), PlatformError> {
        let mut found = BTreeMap::new();
        let mut silent = Vec::new();
        for computer in self.current_computers().await? {
            match self.states_at(&computer, application).await {
                Ok(infos) => {
                    for info in infos {
                        // One that is offered is held by another, who may have been asked before.
                        let at = found.entry((info.id.clone(), info.computer.clone())).or_insert(info.clone());
                        *at = info;
                    }
                }
                Err(error) => silent.push((computer.name, error)),
            }
        }
        let all: Vec<StateInfo> = found.into_values().collect();
        let is_held = |id: &StateId| all.iter().any(|info| info.is_held && info.id == *id);
        Ok((all.iter().filter(|info| info.is_held || !is_held(&info.id)).cloned().collect(), silent))
    }

    /// The content of a state, from the computer that holds it; nothing where there is none.
    ///
    /// # Errors
    /// [`PlatformError`]; where a computer that may hold it cannot be asked, of reason `StateUnavailable`.
    pub async fn state(&self, id: &StateId) -> Result<Option<StateContent>, PlatformError> {
        let mut silent = None;
        for computer in self.current_computers().await? {
            let request = v1::GetStateRequest { id: Some(id.to_wire()) };
            let peer = self.peer_of(&computer);
            match peer.request(client(&peer).get_state(request)).await {
                Ok(v1::GetStateResponse { content: Some(content), version }) => {
                    return Ok(Some(StateContent { content, version }));
                }
                Ok(_) => {}
                Err(error) => silent = Some(error),
            }
        }
        silent.map_or(Ok(None), |error| Err(unavailable(id, &error)))
    }

    /// Writes a state, once no call uses it, where it is held or else at any computer, and tells its new version. Where
    /// `version` is given, only in place of that one (0: only where there is none).
    ///
    /// # Errors
    /// [`Reason::StateConflict`] where it has another version; other [`PlatformError`].
    pub async fn put_state(&self, id: &StateId, content: Bytes, version: Option<u64>) -> Result<u64, PlatformError> {
        let computers = self.current_computers().await?;
        let mut holder = None;
        for computer in &computers {
            let infos = self.states_at(computer, Some(&id.application)).await.unwrap_or_default();
            if infos.iter().any(|info| info.id == *id && info.is_held) {
                holder = Some(computer);
                break;
            }
        }
        // One that is held by somebody who cannot be asked is not brought elsewhere, and the refusal says by whom.
        let computer = holder.or(computers.first()).ok_or_else(nobody)?;
        let peer = self.peer_of(computer);
        let request = v1::PutStateRequest { id: Some(id.to_wire()), content, version };
        Ok(peer.request(client(&peer).put_state(request)).await?.version)
    }

    /// Removes a state from whoever holds it, and forgets who did; tells whether there was one.
    ///
    /// # Errors
    /// [`PlatformError`]; where a computer that may hold it cannot be asked, of reason `StateUnavailable`.
    pub async fn remove_state(&self, id: &StateId) -> Result<bool, PlatformError> {
        let (mut is_removed, mut silent) = (false, None);
        for computer in self.current_computers().await? {
            let request = v1::RemoveStateRequest { id: Some(id.to_wire()) };
            let peer = self.peer_of(&computer);
            match peer.request(client(&peer).remove_state(request)).await {
                Ok(v1::RemoveStateResponse { removed }) => is_removed |= removed,
                Err(error) => silent = Some(error),
            }
        }
        match silent {
            Some(error) if !is_removed => Err(unavailable(id, &error)),
            Some(_) | None => Ok(is_removed),
        }
    }

    async fn current_computers(&self) -> Result<Vec<Computer>, PlatformError> {
        let mut computers = self.list().await?.computers;
        computers.retain(|computer| !computer.older);
        Ok(computers)
    }

    async fn states_at(
        &self,
        computer: &Computer,
        application: Option<&ApplicationName>,
    ) -> Result<Vec<StateInfo>, PlatformError> {
        let application = application.map(ToString::to_string).unwrap_or_default();
        let peer = self.peer_of(computer);
        let listed = peer.request(client(&peer).list_states(v1::ListStatesRequest { application })).await?;
        let info = |state: v1::StateInfo| {
            Ok(StateInfo {
                id: StateId::from_wire(state.id)?,
                version: state.version,
                bytes: state.bytes,
                computer: (!state.shared).then(|| computer.name.clone()),
                is_held: state.held,
            })
        };
        listed.states.into_iter().map(info).collect()
    }

    fn peer_of(&self, computer: &Computer) -> Peer {
        let remote = Remote::new(computer.endpoint.clone(), self.peer().remote().tls.clone());
        Peer::new("computer", remote, &[Role::Computer])
    }
}

/// Puts a state to a state server of the older system's protocol, as every computer is one.
///
/// # Errors
/// [`PlatformError`] where it does not take it.
pub async fn keep_at(server: impl Into<Remote>, state: &StateName, content: Bytes) -> Result<(), PlatformError> {
    let peer = Peer::new("state server", server.into(), &[Role::Computer]);
    let mut client = rpc::state_server_client::StateServerClient::new(peer.channel());
    let request = rpc::State { name: state.to_string(), content, ..rpc::State::default() };
    let rpc::StateResponse { retcode, .. } = peer.request(client.put(request)).await?;
    if retcode == older::OK { Ok(()) } else { Err(PlatformError::new(Reason::StateUnsaved, retcode)) }
}

fn client(peer: &Peer) -> StateClient<Channel> {
    let bytes_max = channel::message_bytes_max(STATE_BYTES_MAX.max(LIST_BYTES_MAX));
    StateClient::new(peer.channel()).max_decoding_message_size(bytes_max)
}

fn nobody() -> PlatformError {
    PlatformError::new(
        Reason::NotServing,
        "no computer is alive, so nobody can keep a state; start one with: nigh computer",
    )
}

fn unavailable(id: &StateId, error: &PlatformError) -> PlatformError {
    let message = format!("nobody who could be asked holds the state {id}, and not all could be: {}", error.message);
    PlatformError::new(Reason::StateUnavailable, message)
}
