//! Adding, listing and removing triggers.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use nigh_proto::trigger::{Listed, Source};
use nigh_proto::v1::TriggerRecord;
use nigh_proto::{Callback, PlatformError, Reason, Trigger, TriggerName};
use nigh_store::{Entry, Key, StoreError};
use prost::Message as _;

use super::check::check;
use super::cron::tick_key;
use super::record::together;
use super::schedule::Schedule;
use super::{Definition, TriggerShelves, Triggers};
use crate::asynchronous::told;

/// Time for this broker to follow what it has just kept, before who asked for it is answered.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(2);

impl Triggers {
    /// Keeps a trigger; whether it was there just so.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub(crate) async fn add(&self, trigger: Trigger, replace: bool) -> Result<bool, PlatformError> {
        let shelves = self.shelves()?;
        let config = self.config()?;
        check(&trigger, &config.triggers)?;
        self.routes.check_known(&trigger.function)?;
        if let Some(callback) = &trigger.callback {
            self.asynchronous.check_callback(&Callback::Http(callback.clone()))?;
        }
        let others = definitions(shelves).await?;
        let before = others.iter().find(|(other, _)| other.trigger.name == trigger.name);
        if let Some((before, _)) = before.filter(|(before, _)| before.trigger == trigger || !replace) {
            return if before.trigger == trigger { Ok(true) } else { Err(is_there(&trigger.name)) };
        }
        if before.is_none() && others.len() >= config.triggers.triggers_max {
            let message = format!(
                "there are {} triggers, all that the store takes; remove one with `nigh trigger rm`, or raise `triggers_max`",
                others.len()
            );
            return Err(PlatformError::new(Reason::OutOfBudget, message));
        }
        check_path(&trigger, &others)?;
        let key: Key = trigger.name.as_str().parse().map_err(told)?;
        let stays = before.filter(|(before, _)| before.trigger.source == trigger.source).map(|(before, _)| before);
        let id = stays.map_or_else(|| format!("{:032x}", rand::random::<u128>()), |before| before.id.clone());
        let added = stays.map_or_else(SystemTime::now, |before| before.added);
        let definition = Definition { trigger, id, added };
        let stored = definition.to_stored();
        let revision = match before {
            None => shelves.definitions.create(&key, stored).await,
            Some((_, entry)) => shelves.definitions.update(&key, stored, entry.revision).await,
        };
        let revision = revision.map_err(told)?;
        tracing::info!(trigger = %definition.trigger.name, source = %definition.trigger.source, "added");
        let mut applied = self.applied.subscribe();
        let following = applied.wait_for(|applied| *applied >= revision.0);
        // It is kept; who is slow to follow does so later.
        let _ = tokio::time::timeout(FOLLOW_TIMEOUT, following).await;
        Ok(false)
    }

    /// All triggers, by name, and how they are.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub(crate) async fn list(&self) -> Result<Vec<Listed>, PlatformError> {
        let shelves = self.shelves()?;
        let mut records: HashMap<String, Vec<TriggerRecord>> = HashMap::new();
        for (key, entry) in shelves.states.list(RECORDS).await.map_err(told)? {
            let id = key.as_str().strip_prefix(RECORDS).and_then(|rest| rest.split_once('/')).map(|(id, _)| id);
            if let (Some(id), Ok(record)) = (id, TriggerRecord::decode(entry.value)) {
                records.entry(id.to_owned()).or_default().push(record);
            }
        }
        let listed = definitions(shelves).await?.into_iter().map(|(definition, _)| {
            let record = together(records.get(&definition.id).map(Vec::as_slice).unwrap_or_default());
            let next = match &definition.trigger.source {
                Source::Cron { schedule, zone, .. } => {
                    Schedule::new(schedule, zone).ok().and_then(|schedule| schedule.after(SystemTime::now()))
                }
                Source::Http { .. } | Source::Nats { .. } | Source::Mqtt { .. } => None,
            };
            Listed { trigger: definition.trigger, record, added: definition.added, next }
        });
        Ok(listed.collect())
    }

    /// Removes a trigger.
    ///
    /// # Errors
    /// [`Reason::UnknownTrigger`], which lists those there are.
    pub(crate) async fn remove(&self, name: &TriggerName) -> Result<(), PlatformError> {
        let shelves = self.shelves()?;
        let key: Key = name.as_str().parse().map_err(told)?;
        let Some(entry) = shelves.definitions.get(&key).await.map_err(told)? else {
            let names: Vec<String> =
                definitions(shelves).await?.iter().map(|(other, _)| other.trigger.name.to_string()).collect();
            let there =
                if names.is_empty() { "there are none".to_owned() } else { format!("there are {}", names.join(", ")) };
            return Err(PlatformError::new(Reason::UnknownTrigger, format!("no trigger {name}; {there}")));
        };
        shelves.definitions.delete(&key, Some(entry.revision)).await.map_err(told)?;
        tracing::info!(trigger = %name, "removed");
        if let Ok(definition) = Definition::read(&entry.value)
            && let Err(error) = shelves.forget(&definition.id).await
        {
            tracing::debug!(%error, "what was kept of a trigger stays");
        }
        Ok(())
    }
}

/// Where records are kept.
const RECORDS: &str = "record/";

/// Where a broker keeps how a trigger is.
pub(super) fn record_key(id: &str, broker: &str) -> Result<Key, StoreError> {
    format!("{RECORDS}{id}/{broker}").parse()
}

/// Where the name of whoever runs a trigger is.
pub(super) fn lease_key(id: &str) -> Result<Key, StoreError> {
    format!("lease/{id}").parse()
}

impl TriggerShelves {
    /// Deletes what was kept of a trigger that is no more.
    pub(super) async fn forget(&self, id: &str) -> Result<(), StoreError> {
        for (key, _) in self.states.list(&format!("{RECORDS}{id}/")).await? {
            self.states.delete(&key, None).await?;
        }
        self.states.delete(&tick_key(id)?, None).await?;
        self.states.delete(&lease_key(id)?, None).await
    }
}

async fn definitions(shelves: &TriggerShelves) -> Result<Vec<(Definition, Entry)>, PlatformError> {
    let kept = shelves.definitions.list("").await.map_err(told)?;
    // One that a later release wrote is passed over.
    Ok(kept.into_iter().filter_map(|(_, entry)| Some((Definition::read(&entry.value).ok()?, entry))).collect())
}

fn check_path(trigger: &Trigger, others: &[(Definition, Entry)]) -> Result<(), PlatformError> {
    let Source::Http { path } = &trigger.source else { return Ok(()) };
    let is_same = |(other, _): &&(Definition, Entry)| {
        other.trigger.name != trigger.name
            && matches!(&other.trigger.source, Source::Http { path: taken } if taken == path)
    };
    let Some((other, _)) = others.iter().find(is_same) else { return Ok(()) };
    let message = format!("/trigger/{path} is taken by the trigger {}; choose another path", other.trigger.name);
    Err(PlatformError::malformed(message))
}

fn is_there(name: &TriggerName) -> PlatformError {
    PlatformError::malformed(format!(
        "a trigger {name} is there already, and is another; --replace puts this one in its place"
    ))
}
