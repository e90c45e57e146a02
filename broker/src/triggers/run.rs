//! Following what triggers there are, and running each for as long as it is this broker's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use nigh_proto::TriggerName;
use nigh_proto::trigger::{Source, State};
use nigh_proto::v1::TriggerRecord;
use nigh_store::{Change, Entry, Key, Place, Watch};
use prost::Message as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::cron::Cron;
use super::lease::Lease;
use super::mqtt::Mqtt;
use super::nats::Nats;
use super::record::Record;
use super::table::{lease_key, record_key};
use super::{Active, Definition, Triggers};

/// Waits before a source is tried again that failed; each further one is twice as long.
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A source that went well for so long is tried again soon.
const WENT_WELL: Duration = Duration::from_secs(60);
/// The wait after the store has failed.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How often what has changed of how triggers are is written down.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Records written at once.
const WRITTEN_AT_ONCE: usize = 16;

/// Follows the triggers of the store and runs those that are this broker's, until `stop`.
pub(crate) async fn run(triggers: Arc<Triggers>, stop: CancellationToken) {
    let is_there = async {
        while triggers.shelves().is_err() {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    };
    if stop.run_until_cancelled(is_there).await.is_none() {
        return;
    }
    let mut following = Following { triggers, running: HashMap::new() };
    let _ = stop.run_until_cancelled(following.follow()).await;
    following.stop_all().await;
}

/// What a broker follows.
struct Following {
    triggers: Arc<Triggers>,
    running: HashMap<TriggerName, Running>,
}

/// A trigger that is followed.
struct Running {
    active: Arc<Active>,
    stop: CancellationToken,
    /// Whether it was this broker's when it was stopped; none for HTTP, which is everybody's.
    task: Option<AbortOnDropHandle<bool>>,
}

impl Following {
    async fn follow(&mut self) {
        let triggers = self.triggers.clone();
        let Ok(shelves) = triggers.shelves() else { return };
        let mut writing = tokio::time::interval(WRITE_EVERY);
        writing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match shelves.definitions.watch("").await {
                Ok(watch) => self.follow_while(watch, &mut writing).await,
                Err(error) => tracing::debug!(%error, "triggers cannot be followed"),
            }
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    /// Follows what is told, until no more is.
    async fn follow_while(&mut self, mut watch: Watch, writing: &mut tokio::time::Interval) {
        // Of those that are gone a new watch says nothing.
        let mut before: Option<HashSet<TriggerName>> = Some(self.running.keys().cloned().collect());
        loop {
            tokio::select! {
                change = watch.next() => match change {
                    Some(Ok(Change::Put(key, entry))) => {
                        if let (Some(before), Some(name)) = (&mut before, name_of(&key)) {
                            before.remove(&name);
                        }
                        self.put(&key, &entry).await;
                        self.triggers.applied.send_modify(|applied| *applied = (*applied).max(entry.revision.0));
                    }
                    Some(Ok(Change::Deleted(key))) => {
                        if let Some(name) = name_of(&key) {
                            self.remove(&name).await;
                        }
                    }
                    Some(Ok(Change::InStep)) => {
                        for name in before.take().into_iter().flatten() {
                            self.remove(&name).await;
                        }
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "triggers are followed anew");
                        return;
                    }
                    None => return,
                },
                _ = writing.tick() => self.write_records().await,
            }
        }
    }

    async fn put(&mut self, key: &Key, entry: &Entry) {
        let definition = match Definition::read(&entry.value) {
            Ok(definition) => definition,
            Err(error) => return tracing::warn!(trigger = %key, %error, "a trigger is passed over"),
        };
        let name = definition.trigger.name.clone();
        if self.running.get(&name).is_some_and(|running| running.active.definition == definition) {
            return;
        }
        // One whose source is the same goes on from where it was.
        if let Some(before) = self.running.remove(&name) {
            let is_other = before.active.definition.id != definition.id;
            self.stop(before, is_other).await;
        }
        let record = self.kept_record(&definition.id).await;
        let rate_max =
            self.triggers.config().map_or(super::TriggersConfig::RATE_MAX, |config| config.triggers.rate_max);
        let active = Arc::new(Active::new(definition, Record::new(record, self.triggers.broker.as_str()), rate_max));
        let stop = CancellationToken::new();
        let task = if matches!(active.source(), Source::Http { .. }) {
            active.record.is(State::Listening);
            None
        } else {
            Some(crate::spawn(keep_running(self.triggers.clone(), active.clone(), stop.clone())))
        };
        self.running.insert(name, Running { active, stop, task });
        self.serve_http();
    }

    async fn remove(&mut self, name: &TriggerName) {
        if let Some(running) = self.running.remove(name) {
            self.serve_http();
            self.stop(running, true).await;
        }
    }

    /// Stops what runs; where it is for good, what was kept for it elsewhere is of no use any more.
    async fn stop(&self, running: Running, for_good: bool) {
        running.stop.cancel();
        let was_ours = match running.task {
            Some(task) => task.await.unwrap_or(false),
            None => false,
        };
        if !for_good {
            return;
        }
        let (triggers, active) = (self.triggers.clone(), running.active);
        tokio::spawn(async move {
            if was_ours {
                forget(&triggers, &active).await;
            }
            if let Ok(shelves) = triggers.shelves() {
                // Counted and written at the last moment.
                let _ = shelves.forget(&active.definition.id).await;
            }
        });
    }

    async fn stop_all(&mut self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
        for running in self.running.values_mut() {
            if let Some(task) = running.task.take() {
                let _ = task.await;
            }
            running.active.record.is(State::Waiting);
        }
        self.write_records().await;
    }

    /// What the doors for HTTP serve from now on.
    fn serve_http(&self) {
        let by_path = self.running.values().filter_map(|running| match running.active.source() {
            Source::Http { path } => Some((path.clone(), running.active.clone())),
            Source::Nats { .. } | Source::Mqtt { .. } | Source::Cron { .. } => None,
        });
        self.triggers.http.store(Arc::new(by_path.collect()));
    }

    async fn kept_record(&self, id: &str) -> TriggerRecord {
        let (Ok(shelves), Ok(key)) = (self.triggers.shelves(), record_key(id, self.triggers.broker.as_str())) else {
            return TriggerRecord::default();
        };
        let kept = shelves.states.get(&key).await.ok().flatten();
        kept.and_then(|entry| TriggerRecord::decode(entry.value).ok()).unwrap_or_default()
    }

    async fn write_records(&self) {
        let Ok(shelves) = self.triggers.shelves() else { return };
        let changed =
            self.running.values().filter_map(|running| Some((running, running.active.record.take_changed()?)));
        let changed: Vec<_> = changed.collect();
        stream::iter(changed)
            .for_each_concurrent(WRITTEN_AT_ONCE, |(running, record)| async move {
                let written = async {
                    let key = record_key(&running.active.definition.id, self.triggers.broker.as_str())?;
                    shelves.states.put(&key, record.encode_to_vec().into()).await
                };
                if let Err(error) = written.await {
                    tracing::debug!(%error, "how a trigger is cannot be written down yet");
                    running.active.record.put_back();
                }
            })
            .await;
    }
}

fn name_of(key: &Key) -> Option<TriggerName> {
    key.as_str().parse().ok()
}

/// Runs a trigger whenever it is this broker's, until `stop`; whether it was at the end.
async fn keep_running(triggers: Arc<Triggers>, active: Arc<Active>, stop: CancellationToken) -> bool {
    let Ok(config) = triggers.config() else { return false };
    if matches!(config.place, Place::Embedded { .. }) {
        // Nobody else can have the file.
        stop.run_until_cancelled(keep_listening(&triggers, &active)).await;
        return true;
    }
    let (Ok(shelves), Ok(key)) = (triggers.shelves(), lease_key(&active.definition.id)) else { return false };
    let me = format!("{} {:032x}", triggers.broker, rand::random::<u128>());
    let mut lease = Lease::new(shelves.states.clone(), key, me.into(), config.triggers.lease);
    let name = &active.definition.trigger.name;
    loop {
        if stop.run_until_cancelled(lease.acquire()).await.is_none() {
            return false;
        }
        tracing::info!(trigger = %name, "runs here");
        tokio::select! {
            () = stop.cancelled() => {
                lease.release().await;
                return true;
            }
            () = lease.keep() => tracing::warn!(trigger = %name, "is not known to be this broker's any more"),
            () = keep_listening(&triggers, &active) => {}
        }
        active.record.is(State::Waiting);
    }
}

/// Listens to a source, again and again where it fails.
async fn keep_listening(triggers: &Triggers, active: &Active) {
    let mut wait = WAIT_MIN;
    loop {
        active.record.is(State::Connecting);
        let began = Instant::now();
        let why = listen(triggers, active).await;
        triggers.tally.failures.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(trigger = %active.definition.trigger.name, why, "the source has failed");
        active.record.failed(&why, State::Retrying);
        if began.elapsed() >= WENT_WELL {
            wait = WAIT_MIN;
        }
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Listens to a source; returns why that cannot go on.
async fn listen(triggers: &Triggers, active: &Active) -> String {
    // On the heap, as connections to other systems are large.
    match active.source() {
        Source::Http { .. } => "requests come by themselves".to_owned(),
        Source::Nats { servers, subject, stream, login } => {
            let nats = Nats { servers, subject, stream: stream.as_deref(), login: login.as_ref() };
            Box::pin(nats.run(triggers, active)).await
        }
        Source::Mqtt { server, topic, acknowledged, login } => {
            let mqtt = Mqtt { server, topic, acknowledged: *acknowledged, login: login.as_ref() };
            Box::pin(mqtt.run(triggers, active)).await
        }
        Source::Cron { schedule, zone, missed, payload } => {
            Cron { schedule, zone, missed: *missed, payload }.run(triggers, active).await
        }
    }
}

/// Has what a source keeps for the trigger forgotten there.
async fn forget(triggers: &Triggers, active: &Active) {
    let forgotten = match active.source() {
        Source::Http { .. } | Source::Cron { .. } => Ok(()),
        Source::Nats { servers, subject, stream, login } => {
            let nats = Nats { servers, subject, stream: stream.as_deref(), login: login.as_ref() };
            nats.forget(triggers, &active.definition.id).await
        }
        Source::Mqtt { server, topic, acknowledged, login } => {
            Mqtt { server, topic, acknowledged: *acknowledged, login: login.as_ref() }.forget(active).await
        }
    };
    if let Err(why) = forgotten {
        tracing::info!(trigger = %active.definition.trigger.name, why, "its source keeps a place for it still");
    }
}
