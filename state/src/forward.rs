//! Speaking to the directory, to other computers, and to state servers of the older system.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nigh_proto::older::{self, rpc};
use nigh_proto::state::STATE_BYTES_MAX;
use nigh_proto::v1::state_client::StateClient;
use nigh_proto::v1::state_directory_client::StateDirectoryClient;
use nigh_proto::{Endpoint, NodeName, PlatformError, Reason, Remote, Role, StateId, StateName, Tls, channel, v1};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::directory::{Claimed, Directory, Given, Holder, Peers};
use crate::error::StateError;
use crate::keeper::Keeper;

/// Time for an answer of the directory.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for another computer to hand a state over; a call there may have to end first.
const TAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for it to hear that the state has arrived.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a state server of the older system.
const OLDER_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections kept to other computers.
const CONNECTIONS_MAX: usize = 64;

/// The controller's directory; of several controllers that share one, that of whichever can be asked.
#[derive(Debug)]
pub struct RemoteDirectory(Vec<StateDirectoryClient<Channel>>);

impl RemoteDirectory {
    /// That of this controller; connects when it is first asked.
    pub fn new(controller: Remote) -> Self {
        let each = controller.expecting(&[Role::Controller]).each().into_iter();
        Self(each.map(|controller| StateDirectoryClient::new(channel::connect_lazy(controller))).collect())
    }

    /// Asks one after the other until one answers; what is asked for twice is done once.
    async fn ask<T, F>(&self, question: impl Fn(StateDirectoryClient<Channel>) -> F) -> Result<T, PlatformError>
    where
        F: Future<Output = Result<T, PlatformError>>,
    {
        let mut failed = PlatformError::new(Reason::Unreachable, "there is no controller to ask");
        for client in &self.0 {
            match question(client.clone()).await {
                Err(error) if error.reason.retry_helps() || error.reason == Reason::Late => failed = error,
                answered => return answered,
            }
        }
        Err(failed)
    }
}

#[async_trait]
impl Directory for RemoteDirectory {
    async fn locate(&self, id: &StateId) -> Result<Option<Holder>, PlatformError> {
        let request = v1::LocateStateRequest { id: Some(id.to_wire()) };
        let asking = |mut client: StateDirectoryClient<Channel>| {
            let request = request.clone();
            async move { within(DIRECTORY_TIMEOUT, client.locate(request)).await }
        };
        let located = self.ask(asking).await?;
        located.holder.map(holder).transpose()
    }

    async fn claim(
        &self,
        id: &StateId,
        name: &NodeName,
        endpoint: &Endpoint,
        expected: u64,
    ) -> Result<Claimed, PlatformError> {
        let request = v1::ClaimStateRequest {
            id: Some(id.to_wire()),
            name: name.to_string(),
            endpoint: endpoint.to_string(),
            expected_epoch: expected,
        };
        let asking = |mut client: StateDirectoryClient<Channel>| {
            let request = request.clone();
            async move { within(DIRECTORY_TIMEOUT, client.claim(request)).await }
        };
        let v1::ClaimStateResponse { claimed, holder: found } = self.ask(asking).await?;
        Ok(if claimed { Claimed::Yes } else { Claimed::No(found.map(holder).transpose()?) })
    }

    async fn forget(&self, id: &StateId, name: &NodeName) -> Result<(), PlatformError> {
        let request = v1::ForgetStateRequest { id: Some(id.to_wire()), name: name.to_string() };
        let asking = |mut client: StateDirectoryClient<Channel>| {
            let request = request.clone();
            async move { within(DIRECTORY_TIMEOUT, client.forget(request)).await }
        };
        self.ask(asking).await.map(drop)
    }
}

fn holder(wire: v1::StateHolder) -> Result<Holder, PlatformError> {
    Ok(Holder { name: wire.name.parse()?, endpoint: wire.endpoint.parse()?, epoch: wire.epoch })
}

/// Other computers, over connections that are kept.
#[derive(Debug)]
pub struct RemotePeers {
    tls: Option<Tls>,
    kept: Mutex<HashMap<Endpoint, Channel>>,
}

impl RemotePeers {
    /// Proving itself with this, where it has to.
    pub fn new(tls: Option<Tls>) -> Self {
        Self { tls, kept: Mutex::default() }
    }

    fn channel(&self, endpoint: &Endpoint) -> Channel {
        let mut kept = self.kept.lock();
        if let Some(channel) = kept.get(endpoint) {
            return channel.clone();
        }
        if kept.len() >= CONNECTIONS_MAX {
            kept.clear();
        }
        let remote = Remote::new(endpoint.clone(), self.tls.clone()).expecting(&[Role::Computer]);
        let channel = channel::connect_lazy(remote);
        kept.insert(endpoint.clone(), channel.clone());
        channel
    }
}

#[async_trait]
impl Peers for RemotePeers {
    async fn take(
        &self,
        holder: &Endpoint,
        id: &StateId,
        name: &NodeName,
        endpoint: &Endpoint,
    ) -> Result<Option<Given>, PlatformError> {
        let bytes_max = channel::message_bytes_max(STATE_BYTES_MAX);
        let mut client = StateClient::new(self.channel(holder)).max_decoding_message_size(bytes_max);
        let mut request = tonic::Request::new(v1::TakeStateRequest {
            id: Some(id.to_wire()),
            name: name.to_string(),
            endpoint: endpoint.to_string(),
        });
        request.set_timeout(TAKE_TIMEOUT);
        let v1::TakeStateResponse { given, epoch, version, content } =
            within(TAKE_TIMEOUT, client.take(request)).await?;
        Ok(given.then_some(Given { epoch, version, content }))
    }

    async fn taken(&self, before: &Endpoint, id: &StateId, name: &NodeName, epoch: u64) -> Result<(), PlatformError> {
        let mut client = StateClient::new(self.channel(before));
        let request = v1::StateTakenRequest { id: Some(id.to_wire()), epoch, name: name.to_string() };
        within(TAKEN_TIMEOUT, client.taken(request)).await.map(drop)
    }

    async fn older_get(&self, location: &Endpoint, state: &StateName) -> Result<Bytes, PlatformError> {
        let bytes_max = channel::message_bytes_max(STATE_BYTES_MAX);
        let mut client = self.older(location).max_decoding_message_size(bytes_max);
        let asked = within(OLDER_TIMEOUT, client.get(named(state))).await?;
        checked(&asked)?;
        let content = asked.state.map(|state| state.content).unwrap_or_default();
        if content.len() > STATE_BYTES_MAX {
            let message = format!("it has {} bytes; at most {STATE_BYTES_MAX} are taken", content.len());
            return Err(PlatformError::new(Reason::TooLarge, message));
        }
        Ok(content)
    }

    async fn older_delete(&self, location: &Endpoint, state: &StateName) -> Result<(), PlatformError> {
        let deleted = within(OLDER_TIMEOUT, self.older(location).del(named(state))).await?;
        checked(&deleted)
    }
}

impl RemotePeers {
    fn older(&self, location: &Endpoint) -> rpc::state_server_client::StateServerClient<Channel> {
        rpc::state_server_client::StateServerClient::new(channel::connect_lazy(Remote::new(
            location.clone(),
            self.tls.clone(),
        )))
    }
}

fn named(state: &StateName) -> rpc::State {
    rpc::State { name: state.to_string(), ..rpc::State::default() }
}

fn checked(response: &rpc::StateResponse) -> Result<(), PlatformError> {
    if response.retcode == older::OK {
        return Ok(());
    }
    Err(PlatformError::new(Reason::StateUnavailable, response.retcode.clone()))
}

async fn within<T>(
    time: Duration,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, PlatformError> {
    match tokio::time::timeout(time, answer).await {
        Ok(answer) => {
            let answer = answer.map_err(|status| {
                let cause = nigh_proto::status::innermost_cause(&status);
                let error = PlatformError::from(status);
                match cause {
                    Some(cause) => PlatformError { message: cause, ..error },
                    None => error,
                }
            });
            Ok(answer?.into_inner())
        }
        Err(_) => Err(PlatformError::new(Reason::Late, format!("no answer within {time:?}"))),
    }
}

impl Keeper {
    /// The content of a state at a state server of the older system, that the call has named.
    pub(crate) async fn fetch_older(
        &self,
        location: &Endpoint,
        state: &StateName,
        until: Instant,
    ) -> Result<Bytes, StateError> {
        if !self.may_fetch_from(location) {
            return Err(StateError::Foreign(location.clone()));
        }
        let failed = |why| StateError::Older { state: state.to_string(), location: location.clone(), why };
        match tokio::time::timeout_at(until, self.peers.older_get(location, state)).await {
            Ok(content) => content.map_err(|error| failed(error.message)),
            Err(_) => Err(failed("no answer before the deadline".to_owned())),
        }
    }

    /// Drops a state from where it was fetched, being held here now.
    pub(crate) async fn drop_older(&self, location: &Endpoint, state: &StateName) {
        if let Err(error) = self.peers.older_delete(location, state).await {
            tracing::warn!(%state, %location, %error, "a state that is held here now could not be dropped from where it was");
        }
    }

    /// Callers are not to have this computer connect to wherever they like.
    fn may_fetch_from(&self, location: &Endpoint) -> bool {
        let is_own = self.endpoint().is_some_and(|own| own.host() == location.host());
        is_own || self.config.older_hosts.iter().any(|host| host == "*" || host == location.host())
    }
}
