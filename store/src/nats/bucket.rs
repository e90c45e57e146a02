//! Values in a key-value bucket of JetStream: the last message of each subject.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::kv;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream as streams};

use crate::VALUE_BYTES_MAX;
use crate::bucket::{Bucket, BucketSettings, Change, Entry, Revision, Watch};
use crate::error::{StoreError, check_size};
use crate::key::Key;
use crate::nats::{Server, failed, key_of, limit_of, named, of_source, token_of};

/// The header that tells a deletion from a value.
const OPERATION: &str = "KV-Operation";
const DELETED: &str = "DEL";
/// Values read at once for a list.
const READ_AT_ONCE: usize = 32;

/// A bucket in NATS.
#[derive(Debug)]
pub(super) struct NatsBucket {
    server: Server,
    what: String,
    bucket: kv::Store,
}

impl NatsBucket {
    pub(super) async fn open(server: Server, settings: BucketSettings) -> Result<Self, StoreError> {
        let what = format!("the bucket {}", settings.name);
        let name = named(&settings.name)?;
        // Put together here, as the library asks for an account's facts first and cannot read those of servers before 2.10.
        let config = stream::Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            max_age: settings.expire_after.unwrap_or_default(),
            max_bytes: limit_of(settings.bytes_max),
            discard: DiscardPolicy::New,
            allow_rollup: true,
            allow_direct: true,
            deny_delete: true,
            num_replicas: server.replicas,
            ..stream::Config::default()
        };
        server.context.create_or_update_stream(config).await.map_err(failed(&what))?;
        let bucket = server.context.get_key_value(name).await.map_err(failed(&what))?;
        Ok(Self { server, what, bucket })
    }

    fn subject(&self, key: &Key) -> String {
        format!("$KV.{}.{}", self.bucket.name, token_of(key))
    }

    /// The last message of a key, a deletion included.
    async fn last(&self, key: &Key) -> Result<Option<kv::Entry>, StoreError> {
        self.bucket.entry(token_of(key)).await.map_err(failed(&self.what))
    }

    async fn write(&self, key: &Key, value: Bytes, was: Option<Revision>) -> Result<Revision, StoreError> {
        check_size(value.len(), VALUE_BYTES_MAX)?;
        let mut message = PublishMessage::build().payload(value);
        if let Some(was) = was {
            message = message.expected_last_subject_sequence(was.0);
        }
        self.server.publish(&self.what, self.subject(key), message).await.map(Revision)
    }

    /// Deletes a value without telling watchers, which needs no room.
    pub(super) async fn purge(&self, key: &Key) -> Result<(), StoreError> {
        let purged = self.bucket.stream.purge().filter(self.subject(key)).await;
        purged.map(drop).map_err(failed(&self.what))
    }

    /// Writes a value that may be larger than others by what goes around an item of a queue.
    pub(super) async fn put_record(&self, key: &Key, record: Bytes) -> Result<(), StoreError> {
        let message = PublishMessage::build().payload(record);
        self.server.publish(&self.what, self.subject(key), message).await.map(drop)
    }

    /// Messages that it holds.
    pub(super) async fn messages(&self) -> Result<u64, StoreError> {
        let stream = self.server.context.get_stream(&self.bucket.stream_name).await.map_err(failed(&self.what))?;
        Ok(stream.cached_info().state.messages)
    }
}

#[async_trait]
impl Bucket for NatsBucket {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.last(key).await?.and_then(entry_of))
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.write(key, value, None).await
    }

    async fn create(&self, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        match self.write(key, value.clone(), Some(Revision(0))).await {
            // What is there may be a deletion.
            Err(StoreError::Conflict) => match self.last(key).await? {
                Some(last) if last.operation != kv::Operation::Put => {
                    self.write(key, value, Some(Revision(last.revision))).await
                }
                Some(_) | None => Err(StoreError::Conflict),
            },
            outcome => outcome,
        }
    }

    async fn update(&self, key: &Key, value: Bytes, was: Revision) -> Result<Revision, StoreError> {
        // A deletion has a number too, but nobody was told it as a revision.
        self.write(key, value, Some(was)).await
    }

    async fn write_all(&self, writes: Vec<(Key, Bytes, Option<Revision>)>) -> Result<Vec<Revision>, StoreError> {
        let mut revisions = Vec::with_capacity(writes.len());
        for (key, value, was) in writes {
            revisions.push(match was {
                Some(was) => self.update(&key, value, was).await?,
                None => self.create(&key, value).await?,
            });
        }
        Ok(revisions)
    }

    async fn delete(&self, key: &Key, was: Option<Revision>) -> Result<(), StoreError> {
        let Some(found) = self.last(key).await?.and_then(entry_of) else { return Ok(()) };
        if was.is_some_and(|was| was != found.revision) {
            return Err(StoreError::Conflict);
        }
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, DELETED);
        let mut message = PublishMessage::build().headers(headers);
        if was.is_some() {
            message = message.expected_last_subject_sequence(found.revision.0);
        }
        match self.server.publish(&self.what, self.subject(key), message).await {
            // There is not even room for a deletion.
            Err(StoreError::Full { .. }) => self.purge(key).await,
            outcome => outcome.map(drop),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Entry)>, StoreError> {
        let keys = self.bucket.keys().await.map_err(failed(&self.what))?;
        let keys: Vec<String> = keys.try_collect().await.map_err(failed(&self.what))?;
        let mut keys: Vec<Key> = keys.iter().filter_map(|token| key_of(token)).collect();
        keys.retain(|key| key.as_str().starts_with(prefix));
        keys.sort();
        let read = streams::iter(keys).map(async |key| self.get(&key).await.map(|entry| (key, entry)));
        let read: Vec<(Key, Option<Entry>)> = read.buffered(READ_AT_ONCE).try_collect().await?;
        Ok(read.into_iter().filter_map(|(key, entry)| Some((key, entry?))).collect())
    }

    async fn watch(&self, prefix: &str) -> Result<Watch, StoreError> {
        let subjects = format!("$KV.{}.", self.bucket.name);
        let config = push::OrderedConfig {
            deliver_subject: self.server.context.client().new_inbox(),
            filter_subject: format!("{subjects}>"),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..push::OrderedConfig::default()
        };
        let consumer = self.bucket.stream.create_consumer(config).await.map_err(failed(&self.what))?;
        let is_empty = consumer.cached_info().num_pending == 0;
        let messages = consumer.messages().await.map_err(failed(&self.what))?;
        let (what, prefix) = (self.what.clone(), prefix.to_owned());
        let start = streams::iter(is_empty.then_some(Ok(Change::InStep)));
        let changes = messages.scan(is_empty, move |in_step, message| {
            let mut changes = Vec::new();
            match message {
                Err(error) => changes.push(Err(of_source(&what, &error))),
                Ok(message) => {
                    let key = message.subject.strip_prefix(&subjects).and_then(key_of);
                    if let (Some(key), Ok(info)) = (key.filter(|key| key.as_str().starts_with(&prefix)), message.info())
                    {
                        let is_put = message.headers.as_ref().is_none_or(|headers| headers.get(OPERATION).is_none());
                        let entry = Entry { value: message.payload.clone(), revision: Revision(info.stream_sequence) };
                        changes.push(Ok(if is_put { Change::Put(key, entry) } else { Change::Deleted(key) }));
                    }
                    if !*in_step && message.info().is_ok_and(|info| info.pending == 0) {
                        *in_step = true;
                        changes.push(Ok(Change::InStep));
                    }
                }
            }
            std::future::ready(Some(streams::iter(changes)))
        });
        Ok(Watch::new(start.chain(changes.flatten()).boxed()))
    }
}

fn entry_of(last: kv::Entry) -> Option<Entry> {
    let is_there = last.operation == kv::Operation::Put;
    is_there.then(|| Entry { value: last.value, revision: Revision(last.revision) })
}
