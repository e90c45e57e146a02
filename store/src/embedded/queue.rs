//! A queue in the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use redb::{ReadTransaction, ReadableTable as _, WriteTransaction};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::VALUE_BYTES_MAX;
use crate::embedded::schedule::{Lent, Schedule};
use crate::embedded::tables::{ENTRIES, IDS, ITEMS};
use crate::embedded::{File, ms, now_ms, time_of};
use crate::error::{StoreError, check_size};
use crate::key::Key;
use crate::queue::{Counts, Dead, Enqueued, Kind, Lease, Queue, QueueSettings, Standing, Taken, reason_of};

/// What is known of an item.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EntryRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    enqueued_ms: u64,
    /// Written when it is put off or given up; those of a crash are not counted.
    #[prost(uint32, tag = "3")]
    attempts: u32,
    #[prost(uint64, tag = "4")]
    not_before_ms: u64,
    #[prost(bool, tag = "5")]
    dead: bool,
    #[prost(string, tag = "6")]
    why: String,
    #[prost(uint64, tag = "7")]
    died_ms: u64,
    #[prost(uint64, tag = "8")]
    bytes: u64,
}

/// A queue in the file.
#[derive(Debug)]
pub(super) struct EmbeddedQueue {
    file: Arc<File>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: QueueSettings,
    opened: Instant,
    schedule: Mutex<Schedule>,
    /// Something can be taken.
    news: Notify,
    // Only the thread that writes changes these.
    entries: AtomicU64,
    bytes: AtomicU64,
    next_number: AtomicU64,
}

/// What a queue that is opened holds.
#[derive(Debug, Default)]
struct Found {
    entries: u64,
    bytes: u64,
    next_number: u64,
    alive: Vec<(u64, Duration, u32)>,
}

impl EmbeddedQueue {
    pub(super) async fn open(file: Arc<File>, settings: QueueSettings) -> Result<Self, StoreError> {
        let name = settings.name.clone();
        let found = file.writer.run(0, move |transaction| Ok(Ok(find(transaction, &name)?)), |_| {}).await?;
        let mut schedule = Schedule::default();
        for (number, wait, attempts) in found.alive {
            schedule.add(number, wait, attempts);
        }
        let shared = Shared {
            settings,
            opened: Instant::now(),
            schedule: Mutex::new(schedule),
            news: Notify::new(),
            entries: found.entries.into(),
            bytes: found.bytes.into(),
            next_number: found.next_number.into(),
        };
        Ok(Self { file, shared: Arc::new(shared) })
    }

    /// Reads what was taken. What cannot be read stays taken until its lease lapses.
    async fn read(&self, lent: Vec<Lent>) -> Result<Vec<Taken>, StoreError> {
        let name = self.shared.settings.name.clone();
        let read = self.file.read(move |transaction| {
            let (entries, items) = (transaction.open_table(ENTRIES)?, transaction.open_table(ITEMS)?);
            let mut read = Vec::with_capacity(lent.len());
            for lent in lent {
                let at = (name.as_str(), lent.number);
                let (Some(entry), Some(item)) = (entries.get(at)?, items.get(at)?) else { continue };
                read.push((lent, entry.value().to_vec(), Bytes::copy_from_slice(item.value())));
            }
            Ok(read)
        });
        let taken = read.await?.into_iter().map(|(lent, entry, item)| {
            let entry = EntryRecord::decode(entry.as_slice()).map_err(|error| self.file.damaged(error))?;
            Ok(Taken {
                id: entry.id.parse()?,
                item,
                enqueued: time_of(entry.enqueued_ms),
                attempt: lent.attempt,
                lease: Lease(Kind::Embedded { number: lent.number, token: lent.token }),
            })
        });
        taken.collect()
    }

    /// Ends a lease and does what follows, in one transaction.
    async fn settle<T: Send + 'static>(
        &self,
        lease: &Lease,
        work: impl FnOnce(&WriteTransaction, &Shared, u64, u32) -> Result<T, redb::Error> + Send + 'static,
        settle: impl FnOnce(&Shared, u64, &T) + Send + 'static,
    ) -> Result<(), StoreError> {
        let (number, token) = numbers(lease)?;
        let (shared, settled) = (self.shared.clone(), self.shared.clone());
        let work = move |transaction: &WriteTransaction| {
            let Some(attempts) = shared.schedule.lock().end(number, token) else {
                return Ok(Err(StoreError::LeaseLost));
            };
            Ok(Ok(work(transaction, &shared, number, attempts)?))
        };
        self.file.writer.run(0, work, move |done| settle(&settled, number, done)).await.map(drop)
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    async fn enqueue(&self, id: &Key, item: Bytes) -> Result<Enqueued, StoreError> {
        check_size(item.len(), VALUE_BYTES_MAX)?;
        let (shared, settled, id, bytes) = (self.shared.clone(), self.shared.clone(), id.clone(), item.len());
        let work = move |transaction: &WriteTransaction| shared.enqueue(transaction, &id, &item);
        let settle = move |number: &Option<u64>| {
            if let Some(number) = number {
                settled.wait_for_turn(*number, Duration::ZERO, 0);
            }
        };
        let number = self.file.writer.run(bytes, work, settle).await?;
        Ok(if number.is_some() { Enqueued::New } else { Enqueued::Known })
    }

    async fn standing(&self, id: &Key) -> Result<Option<Standing>, StoreError> {
        let (name, id) = (self.shared.settings.name.clone(), id.clone());
        let found = self.file.read(move |transaction| {
            let Some(number) = transaction.open_table(IDS)?.get((name.as_str(), id.as_str()))? else { return Ok(None) };
            let entries = transaction.open_table(ENTRIES)?;
            Ok(entries.get((name.as_str(), number.value()))?.map(|entry| record_of(entry.value())))
        });
        Ok(found.await?.map(|entry| if entry.dead { Standing::Dead } else { Standing::Alive }))
    }

    async fn take(&self, most: usize) -> Result<Vec<Taken>, StoreError> {
        let Shared { settings, opened, schedule, news, .. } = &*self.shared;
        loop {
            // Before looking, so that nothing that comes in between is missed.
            let mut news = std::pin::pin!(news.notified());
            news.as_mut().enable();
            let (lent, next) = {
                let mut schedule = schedule.lock();
                (schedule.take(most, opened.elapsed(), settings.lease), schedule.next())
            };
            if !lent.is_empty() {
                return self.read(lent).await;
            }
            let next = next.map(|next| *opened + next);
            tokio::select! {
                () = news => {}
                () = async { tokio::time::sleep_until(next.unwrap_or_else(Instant::now)).await }, if next.is_some() => {}
            }
        }
    }

    async fn extend(&self, lease: &Lease) -> Result<(), StoreError> {
        let (number, token) = numbers(lease)?;
        let now = self.shared.opened.elapsed();
        let extended = self.shared.schedule.lock().extend(number, token, now, self.shared.settings.lease);
        if extended { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    async fn ack(&self, lease: Lease) -> Result<(), StoreError> {
        let work = |transaction: &WriteTransaction, shared: &Shared, number: u64, _| shared.remove(transaction, number);
        self.settle(&lease, work, |_, _, ()| {}).await
    }

    async fn retry(&self, lease: Lease, after: Duration) -> Result<(), StoreError> {
        let work = move |transaction: &WriteTransaction, shared: &Shared, number: u64, attempts: u32| {
            shared.change(transaction, number, |entry| {
                entry.attempts = attempts;
                entry.not_before_ms = now_ms().saturating_add(ms(after));
            })?;
            Ok(attempts)
        };
        self.settle(&lease, work, move |shared, number, attempts| shared.wait_for_turn(number, after, *attempts)).await
    }

    async fn bury(&self, lease: Lease, why: &str) -> Result<(), StoreError> {
        let why = reason_of(why);
        let work = move |transaction: &WriteTransaction, shared: &Shared, number: u64, attempts: u32| {
            shared.change(transaction, number, |entry| {
                entry.attempts = attempts;
                entry.dead = true;
                entry.why = why;
                entry.died_ms = now_ms();
            })
        };
        self.settle(&lease, work, |_, _, ()| {}).await
    }

    async fn dead(&self, most: usize) -> Result<Vec<Dead>, StoreError> {
        let name = self.shared.settings.name.clone();
        let found = self.file.read(move |transaction| find_dead(transaction, &name, most)).await?;
        let dead = found.into_iter().map(|(entry, item)| {
            Ok(Dead {
                id: entry.id.parse()?,
                item,
                why: entry.why,
                enqueued: time_of(entry.enqueued_ms),
                died: time_of(entry.died_ms),
                attempts: entry.attempts,
            })
        });
        dead.collect()
    }

    async fn requeue(&self, id: &Key) -> Result<bool, StoreError> {
        let (shared, settled, id) = (self.shared.clone(), self.shared.clone(), id.clone());
        let work = move |transaction: &WriteTransaction| {
            let Some(number) = shared.dead_of(transaction, &id)? else { return Ok(Ok(None)) };
            shared.change(transaction, number, |entry| {
                *entry = EntryRecord {
                    id: std::mem::take(&mut entry.id),
                    bytes: entry.bytes,
                    enqueued_ms: now_ms(),
                    ..EntryRecord::default()
                };
            })?;
            Ok(Ok(Some(number)))
        };
        let settle = move |number: &Option<u64>| {
            if let Some(number) = number {
                settled.wait_for_turn(*number, Duration::ZERO, 0);
            }
        };
        Ok(self.file.writer.run(0, work, settle).await?.is_some())
    }

    async fn drop_dead(&self, id: &Key) -> Result<bool, StoreError> {
        let (shared, id) = (self.shared.clone(), id.clone());
        let work = move |transaction: &WriteTransaction| {
            let Some(number) = shared.dead_of(transaction, &id)? else { return Ok(Ok(false)) };
            shared.remove(transaction, number)?;
            Ok(Ok(true))
        };
        self.file.writer.run(0, work, |_| {}).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        let (waiting, taken) = self.shared.schedule.lock().counts();
        let entries = self.shared.entries.load(Ordering::Relaxed);
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        Ok(Counts { waiting, taken, dead: entries.saturating_sub(waiting + taken), bytes })
    }
}

impl Shared {
    /// What was committed may be taken after this time.
    fn wait_for_turn(&self, number: u64, after: Duration, attempts: u32) {
        self.schedule.lock().add(number, self.opened.elapsed() + after, attempts);
        self.news.notify_one();
    }

    fn enqueue(
        &self,
        transaction: &WriteTransaction,
        id: &Key,
        item: &[u8],
    ) -> Result<Result<Option<u64>, StoreError>, redb::Error> {
        let name = self.settings.name.as_str();
        let mut ids = transaction.open_table(IDS)?;
        if ids.get((name, id.as_str()))?.is_some() {
            return Ok(Ok(None));
        }
        let entries = self.entries.load(Ordering::Relaxed) + 1;
        let bytes = self.bytes.load(Ordering::Relaxed) + item.len() as u64;
        let limit = if entries > self.settings.entries_max {
            Some(format!("{} items", self.settings.entries_max))
        } else if bytes > self.settings.bytes_max {
            Some(format!("{} bytes", self.settings.bytes_max))
        } else {
            None
        };
        if let Some(limit) = limit {
            return Ok(Err(StoreError::Full { what: format!("the queue {name}"), limit }));
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let entry = EntryRecord {
            id: id.as_str().to_owned(),
            enqueued_ms: now_ms(),
            bytes: item.len() as u64,
            ..EntryRecord::default()
        };
        ids.insert((name, id.as_str()), number)?;
        transaction.open_table(ENTRIES)?.insert((name, number), entry.encode_to_vec().as_slice())?;
        transaction.open_table(ITEMS)?.insert((name, number), item)?;
        self.entries.store(entries, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(Ok(Some(number)))
    }

    fn remove(&self, transaction: &WriteTransaction, number: u64) -> Result<(), redb::Error> {
        let name = self.settings.name.as_str();
        let entry = match transaction.open_table(ENTRIES)?.remove((name, number))? {
            Some(entry) => record_of(entry.value()),
            None => return Ok(()),
        };
        transaction.open_table(ITEMS)?.remove((name, number))?;
        transaction.open_table(IDS)?.remove((name, entry.id.as_str()))?;
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
        Ok(())
    }

    fn change(
        &self,
        transaction: &WriteTransaction,
        number: u64,
        change: impl FnOnce(&mut EntryRecord),
    ) -> Result<(), redb::Error> {
        let at = (self.settings.name.as_str(), number);
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut entry = match entries.get(at)? {
            Some(entry) => record_of(entry.value()),
            None => return Ok(()),
        };
        change(&mut entry);
        entries.insert(at, entry.encode_to_vec().as_slice())?;
        Ok(())
    }

    /// The number of a dead item.
    fn dead_of(&self, transaction: &WriteTransaction, id: &Key) -> Result<Option<u64>, redb::Error> {
        let name = self.settings.name.as_str();
        let number = transaction.open_table(IDS)?.get((name, id.as_str()))?.map(|number| number.value());
        let Some(number) = number else { return Ok(None) };
        let entries = transaction.open_table(ENTRIES)?;
        let dead = entries.get((name, number))?.is_some_and(|entry| record_of(entry.value()).dead);
        Ok(dead.then_some(number))
    }
}

/// A record that was written here; a page that is not as it was written is noticed by redb before.
fn record_of(bytes: &[u8]) -> EntryRecord {
    EntryRecord::decode(bytes).unwrap_or_default()
}

fn numbers(lease: &Lease) -> Result<(u64, u64), StoreError> {
    match lease.0 {
        Kind::Embedded { number, token } => Ok((number, token)),
        Kind::Nats { .. } => Err(StoreError::LeaseLost),
    }
}

fn find(transaction: &WriteTransaction, name: &str) -> Result<Found, redb::Error> {
    let (mut found, now) = (Found::default(), now_ms());
    for record in transaction.open_table(ENTRIES)?.range((name, 0)..=(name, u64::MAX))? {
        let (at, entry) = record?;
        let (number, entry) = (at.value().1, record_of(entry.value()));
        found.entries += 1;
        found.bytes += entry.bytes;
        found.next_number = number + 1;
        if !entry.dead {
            let wait = Duration::from_millis(entry.not_before_ms.saturating_sub(now));
            found.alive.push((number, wait, entry.attempts));
        }
    }
    Ok(found)
}

fn find_dead(transaction: &ReadTransaction, name: &str, most: usize) -> Result<Vec<(EntryRecord, Bytes)>, redb::Error> {
    let mut dead = Vec::new();
    for record in transaction.open_table(ENTRIES)?.range((name, 0)..=(name, u64::MAX))? {
        let (at, entry) = record?;
        let entry = record_of(entry.value());
        if entry.dead {
            dead.push((entry.died_ms, at.value().1, entry));
        }
    }
    dead.sort_by_key(|(died_ms, number, _)| (*died_ms, *number));
    let items = transaction.open_table(ITEMS)?;
    let with_item = |(_, number, entry): (u64, u64, EntryRecord)| {
        let item = items.get((name, number))?.map(|item| Bytes::copy_from_slice(item.value()));
        Ok((entry, item.unwrap_or_default()))
    };
    dead.into_iter().take(most).map(with_item).collect()
}
