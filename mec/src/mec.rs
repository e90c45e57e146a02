//! The role's heart: what devices and older controllers ask for, done on the [`State`] and kept in the store.

use std::sync::Arc;

use bytes::Bytes;
use nigh_proto::membership::Knowledge;
use nigh_store::{Bucket, BucketSettings, Key, StoreError};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::application::{Application, Filter};
use crate::callback::{self, Device};
use crate::config::{Config, DeciderConfig};
use crate::context::{ApplicationInfo, Context, ContextId, Dialect, Wish};
use crate::decide::associations::Associations;
use crate::decide::file::Rows;
use crate::error::{Error, Refusal};
use crate::location::Constraint;
use crate::metrics::Tally;
use crate::mp1::{Announcements, Calls, Termination};
use crate::notify::News;
use crate::state::{Amendment, Due, State, Turn};

/// The bucket that holds everything.
const BUCKET: &str = "mec";
/// Before a context's id in its key.
const CONTEXT: &str = "context/";
/// The key of the table of associations.
const ASSOCIATIONS: &str = "associations";
/// Writes under way at once; of one context there is one.
const WRITERS: usize = 64;
/// Room in the bucket beside the contexts.
const ASSOCIATIONS_BYTES_MAX: u64 = 16 << 20;

/// What it holds.
#[derive(Debug)]
pub(crate) struct Mec {
    pub(crate) config: Arc<Config>,
    bucket: Arc<dyn Bucket>,
    state: Mutex<State>,
    /// One for each group of contexts, so that the store gets what was last.
    writers: [tokio::sync::Mutex<()>; WRITERS],
    /// One change of the table of associations at a time.
    associating: tokio::sync::Mutex<()>,
    /// Something has changed that devices may have to hear of.
    pub(crate) changed: Notify,
    /// Notifications under way.
    pub(crate) places: Semaphore,
    pub(crate) tally: Tally,
    /// Where functions are called.
    calls: watch::Sender<Calls>,
    /// Where its MEC platform, if there is one, announces the end.
    pub(crate) announcements: Announcements,
}

impl Mec {
    /// Opens the store and reads what was kept; where the end is heard of, too.
    pub(crate) async fn open(config: Config) -> Result<(Self, mpsc::Receiver<Termination>), Error> {
        let rows = match &config.decider {
            DeciderConfig::File { path } => Rows::read(path)?,
            DeciderConfig::Balanced { .. } | DeciderConfig::Associations => Rows::default(),
        };
        let store = nigh_store::open(&config.place).await?;
        let bytes_max = config.contexts_bytes_max.saturating_add(ASSOCIATIONS_BYTES_MAX);
        let settings = BucketSettings { name: BUCKET.to_owned(), expire_after: None, bytes_max };
        let bucket = store.bucket(settings).await?;
        let config = Arc::new(config);
        let associations = match bucket.get(&key(ASSOCIATIONS)?).await? {
            Some(entry) => read(ASSOCIATIONS, &entry.value)?,
            None => Associations::default(),
        };
        let mut state = State::new(config.clone(), rows, associations);
        let kept = bucket.list(CONTEXT).await?;
        tracing::info!(contexts = kept.len(), associations = state.associations.len(), "contexts that were kept");
        for (key, entry) in kept {
            state.restore(read(key.as_str(), &entry.value)?);
        }
        let places = Semaphore::new(config.callbacks.in_flight_max.min(Semaphore::MAX_PERMITS));
        let (announcements, heard) = Announcements::new();
        let mec = Self {
            config,
            bucket,
            state: Mutex::new(state),
            writers: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            associating: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            places,
            tally: Tally::default(),
            calls: watch::Sender::default(),
            announcements,
        };
        Ok((mec, heard))
    }

    /// Where functions are called, and will be.
    pub(crate) fn calls(&self) -> watch::Receiver<Calls> {
        self.calls.subscribe()
    }

    /// Whether requests have a chance.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        let is_in_step = self.config.controller.is_none() || self.state.lock().known.is_in_step();
        if is_in_step { Ok(()) } else { Err("the controller has not been heard".to_owned()) }
    }

    /// The applications that a device wants to see.
    pub(crate) fn applications(&self, filter: &Filter) -> Vec<Application> {
        let applications = self.state.lock().applications();
        applications.into_iter().filter(|application| filter.admits(application)).collect()
    }

    /// Where an application may run.
    pub(crate) fn availability(&self, named: &ApplicationInfo) -> Result<Vec<Constraint>, Refusal> {
        let state = self.state.lock();
        if state.application(named).is_none() && self.config.elsewhere.is_none() {
            return Err(Refusal::UnknownApplication(named.app_name.clone()));
        }
        Ok(state.locations_of(&named.app_name))
    }

    /// Creates a context; once it is told, it is kept.
    pub(crate) async fn create(&self, dialect: Dialect, device: Device, wish: Wish) -> Result<Context, Refusal> {
        if let Some(callback) = &wish.callback {
            callback::check(callback, device, &self.config.callbacks)?;
        }
        let context = Context {
            id: ContextId::random(),
            dialect,
            device: device.address,
            is_direct: device.is_direct,
            is_deployed: false,
            wish,
            told: Vec::new(),
        };
        let (context, revision) = {
            let mut state = self.state.lock();
            (state.admit(context)?, state.revision)
        };
        if let Err(error) = self.keep(context.id).await {
            self.state.lock().remove(context.id);
            return Err(error.into());
        }
        let is_as_before = {
            let mut state = self.state.lock();
            state.kept(context.id);
            state.revision == revision
        };
        tracing::debug!(context = %context.id, device = %context.device, application = context.wish.application.app_name, "context created");
        if !is_as_before {
            self.changed.notify_one();
        }
        Ok(context)
    }

    /// Changes a context.
    pub(crate) async fn amend(
        &self,
        id: ContextId,
        dialect: Dialect,
        device: Device,
        amendment: Amendment,
    ) -> Result<(), Refusal> {
        // First, so that who has no such context learns no more than that.
        self.state.lock().device_application(id, dialect).ok_or(Refusal::UnknownContext)?;
        if let Some(callback) = &amendment.callback {
            callback::check(callback, device, &self.config.callbacks)?;
        }
        self.state.lock().amend(id, dialect, device, amendment)?;
        self.changed.notify_one();
        Ok(self.keep(id).await?)
    }

    /// What a device application calls itself in a context.
    pub(crate) fn device_application(&self, id: ContextId, dialect: Dialect) -> Option<String> {
        self.state.lock().device_application(id, dialect).map(str::to_owned)
    }

    /// Deletes a context.
    pub(crate) async fn delete(&self, id: ContextId, dialect: Dialect) -> Result<(), Refusal> {
        self.state.lock().delete(id, dialect)?;
        Ok(self.keep(id).await?)
    }

    /// Has the store hold a context as it is now, or forget it if it is gone.
    pub(crate) async fn keep(&self, id: ContextId) -> Result<(), StoreError> {
        let key = key(&format!("{CONTEXT}{id}"))?;
        let _turn = self.writers[id.spread(WRITERS)].lock().await;
        let context = self.state.lock().context(id).map(serde_json::to_vec);
        match context {
            Some(Ok(context)) => self.bucket.put(&key, context.into()).await.map(drop),
            Some(Err(error)) => Err(StoreError::Failed(error.to_string())),
            None => self.bucket.delete(&key, None).await,
        }
    }

    /// The same where nobody waits for it: what cannot be kept now is, with the next change.
    pub(crate) async fn keep_later(&self, id: ContextId) {
        if let Err(error) = self.keep(id).await {
            tracing::error!(context = %id, %error, "a context cannot be kept as it is now");
        }
    }

    /// Takes in what the controller tells.
    pub(crate) fn learn(&self, news: impl IntoIterator<Item = Knowledge>) {
        let mut state = self.state.lock();
        state.known.learn(news);
        state.edge_changed();
        let calls = state.known.calls(self.config.tls.is_some());
        self.calls.send_if_modified(|before| {
            let is_other = *before != calls;
            *before = calls;
            is_other
        });
    }

    /// The period of the balanced decider is over.
    pub(crate) fn period_over(&self) {
        self.state.lock().period_over();
    }

    /// Another file of associations.
    pub(crate) fn take_rows(&self, rows: Rows) {
        self.state.lock().take_rows(rows);
    }

    /// Changes the table of associations, and keeps it where that was a change.
    pub(crate) async fn associate(&self, change: impl FnOnce(&mut Associations) -> bool) -> Result<(), Refusal> {
        let _turn = self.associating.lock().await;
        let mut associations = self.state.lock().associations.clone();
        if !change(&mut associations) {
            return Ok(());
        }
        let limit = self.config.associations_max;
        if associations.len() > limit {
            return Err(Refusal::TooMany { limit, whose: "associations and applications are there" });
        }
        let value = serde_json::to_vec(&associations).map_err(|error| StoreError::Failed(error.to_string()))?;
        self.bucket.put(&key(ASSOCIATIONS)?, value.into()).await?;
        {
            let mut state = self.state.lock();
            state.associations = associations;
            state.revision += 1;
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Who gets what: client, application, server.
    pub(crate) fn table(&self) -> Vec<(String, String, String)> {
        self.state.lock().table()
    }

    /// Where devices are: client, application, and the server that each was told.
    pub(crate) fn whereabouts(&self) -> Vec<(String, String, String)> {
        let state = self.state.lock();
        let told = |context: &Context| {
            (context.device.to_string(), context.wish.application.app_name.clone(), context.bare_reference().to_owned())
        };
        state.contexts().map(told).collect()
    }

    /// What is to be done now.
    pub(crate) fn due(&self) -> Due {
        self.state.lock().due()
    }

    /// What a device is to be told in its turn.
    pub(crate) fn news(&self, id: ContextId, turn: &Turn) -> Option<(Context, News)> {
        self.state.lock().news(id, turn)
    }

    /// A device has taken what it was told.
    pub(crate) async fn took(&self, id: ContextId, turn: &Turn, news: News) {
        let is_to_be_kept = self.state.lock().took(id, turn, news);
        if is_to_be_kept {
            self.keep_later(id).await;
        }
    }

    /// A device does not take what it was told.
    pub(crate) async fn gave_up(&self, id: ContextId, turn: &Turn, news: News) {
        let is_to_be_kept = self.state.lock().gave_up(id, turn, news);
        if is_to_be_kept {
            self.keep_later(id).await;
        }
    }

    /// A turn is over; there may be more to tell.
    pub(crate) fn end_turn(&self, id: ContextId, turn: &Turn) {
        let is_more = self.state.lock().end_turn(id, turn);
        if is_more {
            self.changed.notify_one();
        }
    }

    /// How many contexts there are, and of how many the device could not be told.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.state.lock().counts()
    }
}

/// A key in the bucket.
fn key(name: &str) -> Result<Key, StoreError> {
    name.parse()
}

fn read<T: serde::de::DeserializeOwned>(key: &str, value: &Bytes) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|error| Error::Kept { key: key.to_owned(), detail: error.to_string() })
}
