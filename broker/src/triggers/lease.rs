//! Who runs a trigger: whoever's name stands in the store under it. The name is written again and again; where it has not been
//! for the time of a lease, another broker writes its own in its place, by the revision that it has seen. No clock is shared:
//! each side measures by its own from what it has seen or written, and who cannot write stops before another may begin.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nigh_store::{Bucket, Key, Revision, StoreError};
use tokio::time::Instant;

/// A place in the store that one broker at a time has.
#[derive(Debug)]
pub(super) struct Lease {
    bucket: Arc<dyn Bucket>,
    key: Key,
    /// This process; no other one is called so.
    me: Bytes,
    time: Duration,
    held: Option<Revision>,
}

impl Lease {
    pub(super) fn new(bucket: Arc<dyn Bucket>, key: Key, me: Bytes, time: Duration) -> Self {
        Self { bucket, key, me, time, held: None }
    }

    /// Waits until it is this side's.
    pub(super) async fn acquire(&mut self) {
        let mut seen = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(Some(revision)) => {
                    self.held = Some(revision);
                    return;
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(key = %self.key, %error, "cannot ask who runs a trigger"),
            }
            // Those who wait for the same one do not ask together.
            tokio::time::sleep(self.time.div_f64(rand::random_range(4.0..8.0))).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<(Revision, Instant)>) -> Result<Option<Revision>, StoreError> {
        let taken = match self.bucket.get(&self.key).await? {
            None => self.bucket.create(&self.key, self.me.clone()).await,
            // Written by a word to the store that had no answer.
            Some(entry) if entry.value == self.me => return Ok(Some(entry.revision)),
            Some(entry) => match has_lapsed(seen, entry.revision, Instant::now(), self.time) {
                true => self.bucket.update(&self.key, self.me.clone(), entry.revision).await,
                false => return Ok(None),
            },
        };
        match taken {
            Ok(revision) => Ok(Some(revision)),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps it; returns when it is lost.
    pub(super) async fn keep(&mut self) {
        let mut renewed = Instant::now();
        while let Some(held) = self.held {
            tokio::time::sleep(self.time / 3).await;
            let began = Instant::now();
            let writing = self.bucket.update(&self.key, self.me.clone(), held);
            match tokio::time::timeout(self.time / 6, writing).await {
                Ok(Ok(revision)) => {
                    self.held = Some(revision);
                    renewed = began;
                }
                Ok(Err(StoreError::Conflict)) => match self.bucket.get(&self.key).await {
                    Ok(Some(entry)) if entry.value == self.me => {
                        self.held = Some(entry.revision);
                        renewed = began;
                    }
                    Ok(_) => self.held = None,
                    Err(_) => {}
                },
                Ok(Err(_)) | Err(_) => {}
            }
            if renewed.elapsed() >= self.time.mul_f64(0.66) {
                self.held = None;
            }
        }
    }

    /// Lets another have it at once.
    pub(super) async fn release(&mut self) {
        if let Some(held) = self.held.take()
            && let Err(error) = self.bucket.delete(&self.key, Some(held)).await
        {
            tracing::debug!(key = %self.key, %error, "a lease lapses by itself");
        }
    }
}

/// Whether what was seen has stood there for the time of a lease; `seen` is what was seen first, and when.
fn has_lapsed(seen: &mut Option<(Revision, Instant)>, revision: Revision, now: Instant, time: Duration) -> bool {
    match *seen {
        Some((before, since)) if before == revision => now.saturating_duration_since(since) >= time,
        _ => {
            *seen = Some((revision, now));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lapses_when_nothing_was_written_for_its_time() {
        let (start, time, mut seen) = (Instant::now(), Duration::from_secs(10), None);
        let mut at = |revision: u64, seconds: u64| {
            has_lapsed(&mut seen, Revision(revision), start + Duration::from_secs(seconds), time)
        };
        assert!(!at(1, 0) && !at(1, 9));
        assert!(!at(2, 11), "it was written");
        assert!(!at(2, 20) && at(2, 21));
        assert!(!at(3, 22), "another was faster");
    }
}
