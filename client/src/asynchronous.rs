//! Having functions run later, and looking after what could not be run.

use std::time::{Duration, SystemTime};

use nigh_proto::asynchronous::{Accepted, Settled, result_from_wire};
use nigh_proto::time::time_of_ms;
use nigh_proto::v1::asynchronous_client::AsynchronousClient;
use nigh_proto::{Acceptance, CallId, PlatformError, Remote, Role, channel, v1};
use tonic::transport::Channel;

use crate::call::CallerLimits;
use crate::peer::{Peer, foreign};

/// Time for an answer beyond that for which a result is waited.
const SLACK: Duration = Duration::from_secs(10);

/// The asynchronous calls of one broker. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct CallQueue {
    peer: Peer,
    client: AsynchronousClient<Channel>,
}

/// How full a broker's queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    /// Calls that wait, those put off included.
    pub waiting: u64,
    /// Calls that are being tried.
    pub taken: u64,
    /// Calls that were given up.
    pub dead: u64,
    /// Bytes that wait and are tried.
    pub bytes: u64,
}

/// A call that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id.
    pub call: CallId,
    /// The function; empty where that cannot be read.
    pub function: String,
    /// Why it was given up.
    pub why: String,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// When it was given up.
    pub died: SystemTime,
    /// How often it was tried.
    pub tries: u32,
}

impl CallQueue {
    /// The calls of this broker; connects with the first request and again whenever the connection is lost.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(broker: impl Into<Remote>, limits: &CallerLimits) -> Self {
        let peer = Peer::new("broker", broker.into(), &[Role::Broker]);
        let client = AsynchronousClient::new(peer.channel())
            .max_decoding_message_size(channel::message_bytes_max(limits.answer_bytes_max));
        Self { peer, client }
    }

    /// Has a call accepted. The same one may be handed in again where the answer is lost: an id is accepted once.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn accept(&self, acceptance: &Acceptance) -> Result<Accepted, PlatformError> {
        let mut client = self.client.clone();
        let answer = self.peer.request(client.accept(acceptance.to_wire())).await?;
        let id = answer.call_id.parse().map_err(|_| foreign("broker", "call id"))?;
        Ok(Accepted { id, known: answer.known })
    }

    /// What came of a call; nothing where it still waits or runs after this time.
    ///
    /// # Errors
    /// [`PlatformError`] where nothing is known of it.
    pub async fn result(&self, call: &CallId, wait: Duration) -> Result<Option<Settled>, PlatformError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let request = v1::ResultRequest { call_id: call.to_string(), wait_ms };
        let mut client = self.client.clone();
        result_from_wire(self.peer.request_within(wait + SLACK, client.result(request)).await?)
    }

    /// How full the queue is.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn counts(&self) -> Result<QueueCounts, PlatformError> {
        let mut client = self.client.clone();
        let v1::QueueResponse { waiting, taken, dead, bytes } =
            self.peer.request(client.queue(v1::QueueRequest {})).await?;
        Ok(QueueCounts { waiting, taken, dead, bytes })
    }

    /// Up to so many of the calls that were given up, those that were first.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, PlatformError> {
        let mut client = self.client.clone();
        let answer = self.peer.request(client.dead_letters(v1::DeadLettersRequest { limit })).await?;
        let letter = |wire: v1::DeadLetter| {
            Ok(DeadLetter {
                call: wire.call_id.parse().map_err(|_| foreign("broker", "call id"))?,
                function: wire.function,
                why: wire.why,
                accepted: time_of_ms(wire.accepted_ms),
                died: time_of_ms(wire.died_ms),
                tries: wire.tries,
            })
        };
        answer.letters.into_iter().map(letter).collect()
    }

    /// Has a call that was given up tried again.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn retry(&self, call: &CallId) -> Result<(), PlatformError> {
        let request = v1::RetryDeadLetterRequest { call_id: call.to_string() };
        let mut client = self.client.clone();
        self.peer.request(client.retry_dead_letter(request)).await.map(drop)
    }

    /// Drops a call that was given up.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn drop_dead(&self, call: &CallId) -> Result<(), PlatformError> {
        let request = v1::DropDeadLetterRequest { call_id: call.to_string() };
        let mut client = self.client.clone();
        self.peer.request(client.drop_dead_letter(request)).await.map(drop)
    }
}
