//! A queue in NATS: a work-queue stream with one subject for each item, so that an id can be there but once, and one durable
//! consumer that all who take share. The dead are in a bucket beside it.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, Stream};
use async_nats::jetstream::{AckKind, Message};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;

use crate::VALUE_BYTES_MAX;
use crate::bucket::{Bucket as _, BucketSettings};
use crate::error::{StoreError, check_size};
use crate::key::Key;
use crate::nats::bucket::NatsBucket;
use crate::nats::{Server, failed, key_of, limit_of, ms_of, named, of_source, time_of_ms, time_of_nanos, token_of};
use crate::queue::{Counts, Dead, Enqueued, Kind, Lease, Queue, QueueSettings, Standing, Taken, reason_of};

/// The consumer's name.
const TAKERS: &str = "takers";
/// How long one request for an item waits at the server.
const WAIT: Duration = Duration::from_secs(5);
/// Items under lease at once, at most.
const TAKEN_MAX: i64 = 65_536;

/// A dead item.
#[derive(Clone, PartialEq, prost::Message)]
struct DeadRecord {
    #[prost(bytes = "bytes", tag = "1")]
    item: Bytes,
    #[prost(string, tag = "2")]
    why: String,
    #[prost(uint64, tag = "3")]
    enqueued_ms: u64,
    #[prost(uint64, tag = "4")]
    died_ms: u64,
    #[prost(uint32, tag = "5")]
    attempts: u32,
}

/// A queue in NATS.
#[derive(Debug)]
pub(super) struct NatsQueue {
    server: Server,
    what: String,
    /// Its items' subjects begin so.
    subjects: String,
    stream: Stream,
    takers: PullConsumer,
    dead: NatsBucket,
}

impl NatsQueue {
    pub(super) async fn open(server: Server, settings: QueueSettings) -> Result<Self, StoreError> {
        let what = format!("the queue {}", settings.name);
        let name = named(&settings.name)?;
        let subjects = format!("{name}.");
        let config = stream::Config {
            name: name.clone(),
            subjects: vec![format!("{subjects}>")],
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_messages: limit_of(settings.entries_max),
            max_bytes: limit_of(settings.bytes_max),
            num_replicas: server.replicas,
            ..stream::Config::default()
        };
        server.context.create_or_update_stream(config).await.map_err(failed(&what))?;
        let stream = server.context.get_stream(&name).await.map_err(failed(&what))?;
        let config = pull::Config {
            durable_name: Some(TAKERS.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: settings.lease,
            max_deliver: -1,
            max_ack_pending: TAKEN_MAX,
            ..pull::Config::default()
        };
        let takers = stream.create_consumer(config).await.map_err(failed(&what))?;
        let dead = BucketSettings {
            name: format!("{}-dead", settings.name),
            expire_after: None,
            bytes_max: settings.bytes_max,
        };
        let dead = NatsBucket::open(server.clone(), dead).await?;
        Ok(Self { server, what, subjects, stream, takers, dead })
    }

    fn subject(&self, id: &Key) -> String {
        format!("{}{}", self.subjects, token_of(id))
    }

    fn taken(&self, message: Message) -> Result<Taken, StoreError> {
        let refused = |why: String| StoreError::Refused(format!("{}: {why}", self.what));
        let id = message.subject.strip_prefix(self.subjects.as_str()).and_then(key_of);
        let id = id.ok_or_else(|| refused(format!("{} is no item's subject", message.subject)))?;
        let (attempt, enqueued) = {
            let info = message.info().map_err(|error| refused(error.to_string()))?;
            (u32::try_from(info.delivered).unwrap_or(u32::MAX), time_of_nanos(info.published.unix_timestamp_nanos()))
        };
        let (message, acker) = message.split();
        let item = message.payload;
        let lease = Lease(Kind::Nats { acker: Box::new(acker), id: id.clone(), item: item.clone(), enqueued, attempt });
        Ok(Taken { id, item, enqueued, attempt, lease })
    }

    /// What a batch holds, as far as it comes.
    async fn collect(&self, mut batch: pull::Batch, taken: &mut Vec<Taken>) -> Result<(), StoreError> {
        while let Some(message) = batch.next().await {
            taken.push(self.taken(message.map_err(|error| StoreError::Unavailable(error.to_string()))?)?);
        }
        Ok(())
    }

    async fn settle(&self, lease: &Lease, how: AckKind) -> Result<(), StoreError> {
        let Kind::Nats { acker, .. } = &lease.0 else { return Err(StoreError::LeaseLost) };
        acker.double_ack_with(how).await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    async fn dead_record(&self, id: &Key) -> Result<Option<DeadRecord>, StoreError> {
        let Some(found) = self.dead.get(id).await? else { return Ok(None) };
        let record = DeadRecord::decode(found.value);
        record.map(Some).map_err(|error| StoreError::Refused(format!("{}: {error}", self.what)))
    }
}

#[async_trait]
impl Queue for NatsQueue {
    async fn enqueue(&self, id: &Key, item: Bytes) -> Result<Enqueued, StoreError> {
        check_size(item.len(), VALUE_BYTES_MAX)?;
        if self.dead.get(id).await?.is_some() {
            return Ok(Enqueued::Known);
        }
        let message = PublishMessage::build().payload(item).expected_last_subject_sequence(0);
        match self.server.publish(&self.what, self.subject(id), message).await {
            Ok(_) => Ok(Enqueued::New),
            Err(StoreError::Conflict) => Ok(Enqueued::Known),
            Err(error) => Err(error),
        }
    }

    async fn standing(&self, id: &Key) -> Result<Option<Standing>, StoreError> {
        match self.stream.get_last_raw_message_by_subject(&self.subject(id)).await {
            Ok(_) => return Ok(Some(Standing::Alive)),
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {}
            Err(error) => return Err(of_source(&self.what, &error)),
        }
        Ok(self.dead.get(id).await?.map(|_| Standing::Dead))
    }

    async fn take(&self, most: usize) -> Result<Vec<Taken>, StoreError> {
        let unavailable = |error: pull::BatchError| StoreError::Unavailable(error.to_string());
        let mut taken = Vec::new();
        // The first is waited for at the server; the others are taken if they are there.
        while taken.is_empty() {
            let first = self.takers.batch().max_messages(1).expires(WAIT).messages().await.map_err(unavailable)?;
            self.collect(first, &mut taken).await?;
        }
        if most > 1 {
            // What has been taken is not lost by a failure to take more.
            if let Ok(others) = self.takers.fetch().max_messages(most - 1).messages().await {
                let _ = self.collect(others, &mut taken).await;
            }
        }
        Ok(taken)
    }

    async fn extend(&self, lease: &Lease) -> Result<(), StoreError> {
        let Kind::Nats { acker, .. } = &lease.0 else { return Err(StoreError::LeaseLost) };
        acker.ack_with(AckKind::Progress).await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    async fn ack(&self, lease: Lease) -> Result<(), StoreError> {
        self.settle(&lease, AckKind::Ack).await
    }

    async fn retry(&self, lease: Lease, after: Duration) -> Result<(), StoreError> {
        self.settle(&lease, AckKind::Nak(Some(after))).await
    }

    async fn bury(&self, lease: Lease, why: &str) -> Result<(), StoreError> {
        let Kind::Nats { id, item, enqueued, attempt, .. } = &lease.0 else { return Err(StoreError::LeaseLost) };
        let record = DeadRecord {
            item: item.clone(),
            why: reason_of(why),
            enqueued_ms: ms_of(*enqueued),
            died_ms: ms_of(SystemTime::now()),
            attempts: *attempt,
        };
        // First among the dead, then no more among the living: in between it is both, but never neither.
        self.dead.put_record(id, record.encode_to_vec().into()).await?;
        self.settle(&lease, AckKind::Term).await
    }

    async fn dead(&self, most: usize) -> Result<Vec<Dead>, StoreError> {
        let mut dead = Vec::new();
        for (id, entry) in self.dead.list("").await? {
            let record = DeadRecord::decode(entry.value);
            let record = record.map_err(|error| StoreError::Refused(format!("{}: {error}", self.what)))?;
            dead.push(Dead {
                id,
                item: record.item,
                why: record.why,
                enqueued: time_of_ms(record.enqueued_ms),
                died: time_of_ms(record.died_ms),
                attempts: record.attempts,
            });
        }
        dead.sort_by(|one, other| (one.died, &one.id).cmp(&(other.died, &other.id)));
        dead.truncate(most);
        Ok(dead)
    }

    async fn requeue(&self, id: &Key) -> Result<bool, StoreError> {
        let Some(record) = self.dead_record(id).await? else { return Ok(false) };
        let message = PublishMessage::build().payload(record.item).expected_last_subject_sequence(0);
        match self.server.publish(&self.what, self.subject(id), message).await {
            // It waits already, from a time when this side went away in between.
            Ok(_) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
        self.dead.purge(id).await?;
        Ok(true)
    }

    async fn drop_dead(&self, id: &Key) -> Result<bool, StoreError> {
        let is_there = self.dead.get(id).await?.is_some();
        if is_there {
            self.dead.purge(id).await?;
        }
        Ok(is_there)
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        let stream = self.server.context.get_stream(self.stream.cached_info().config.name.as_str());
        let state = stream.await.map_err(failed(&self.what))?.cached_info().state.clone();
        let takers = self.takers.get_info().await.map_err(failed(&self.what))?;
        let taken = (takers.num_ack_pending as u64).min(state.messages);
        let dead = self.dead.messages().await?;
        Ok(Counts { waiting: state.messages - taken, taken, dead, bytes: state.bytes })
    }
}
