//! States in a store that all computers share: nothing moves, and a lease is written into the state's record. What is written
//! has to replace the very record that was leased, so whoever's lease has ended writes nothing.

use std::time::Duration;

use nigh_store::{Revision, StoreError};
use tokio::sync::OwnedMutexGuard;

use crate::error::StateError;
use crate::keeper::{Keeper, Kept};
use crate::moving::now_ms;
use crate::record::{Record, Standing, key_of};

/// How often a state that is leased to somebody else is looked at.
const LOOK: std::ops::RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_millis(50);
/// Time beyond a call's own in which its states are written.
const WRITING: Duration = Duration::from_secs(5);

impl Keeper {
    /// Leases a state for this long.
    pub(crate) async fn lease_shared(&self, kept: &mut Kept, term: Duration) -> Result<(), StateError> {
        let by = format!("{}-{:016x}", self.name, rand::random::<u64>());
        let mut wait = *LOOK.start();
        loop {
            kept.known = None;
            let record = self.read(kept).await?.record.clone().unwrap_or_else(|| Record::empty(0));
            let is_free = match &record.standing {
                Standing::Leased { until_ms, .. } => *until_ms <= now_ms(),
                Standing::Held | Standing::Offered { .. } | Standing::Taken { .. } => true,
            };
            if is_free {
                let term = u64::try_from((term + WRITING).as_millis()).unwrap_or(u64::MAX);
                let standing = Standing::Leased { by: by.clone(), until_ms: now_ms().saturating_add(term) };
                if self.write(kept, Record { standing, ..record }).await? {
                    return Ok(());
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(*LOOK.end());
        }
    }

    /// Ends a lease under which nothing was written.
    pub(crate) async fn give_back(&self, kept: OwnedMutexGuard<Kept>, record: Record, was: Revision) {
        let Ok(bucket) = self.bucket(&kept.id).await else { return };
        match bucket.update(&key_of(&kept.id), record.encode(), was).await {
            Ok(_) | Err(StoreError::Conflict) => {}
            Err(error) => tracing::warn!(state = %kept.id, %error, "a lease ends only by itself"),
        }
    }
}
