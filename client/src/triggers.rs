//! Looking after triggers.

use nigh_proto::trigger::Listed;
use nigh_proto::v1::triggers_client::TriggersClient;
use nigh_proto::{PlatformError, Remote, Role, Trigger, TriggerName, channel, v1};
use tonic::transport::Channel;

use crate::peer::Peer;

/// Bytes of a list of triggers, at most.
const LIST_BYTES_MAX: usize = 64 << 20;

/// The triggers of one broker, and of all that share its store. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Triggers {
    peer: Peer,
    client: TriggersClient<Channel>,
}

impl Triggers {
    /// The triggers of this broker; connects with the first request and again whenever the connection is lost.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(broker: impl Into<Remote>) -> Self {
        let peer = Peer::new("broker", broker.into(), &[Role::Broker]);
        let client =
            TriggersClient::new(peer.channel()).max_decoding_message_size(channel::message_bytes_max(LIST_BYTES_MAX));
        Self { peer, client }
    }

    /// Keeps a trigger; whether it was there just so. Another of its name is replaced only where that is asked for.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn add(&self, trigger: &Trigger, replace: bool) -> Result<bool, PlatformError> {
        let request = v1::AddTriggerRequest { trigger: Some(trigger.to_wire()), replace };
        let mut client = self.client.clone();
        Ok(self.peer.request(client.add_trigger(request)).await?.unchanged)
    }

    /// All triggers, by name.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn list(&self) -> Result<Vec<Listed>, PlatformError> {
        let mut client = self.client.clone();
        let answer = self.peer.request(client.list_triggers(v1::ListTriggersRequest {})).await?;
        answer.triggers.into_iter().map(Listed::from_wire).collect()
    }

    /// Removes a trigger.
    ///
    /// # Errors
    /// [`PlatformError`], which lists those there are where there is none of this name.
    pub async fn remove(&self, name: &TriggerName) -> Result<(), PlatformError> {
        let request = v1::RemoveTriggerRequest { name: name.to_string() };
        let mut client = self.client.clone();
        self.peer.request(client.remove_trigger(request)).await.map(drop)
    }
}
