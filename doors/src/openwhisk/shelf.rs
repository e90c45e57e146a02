//! What is kept of actions and packages, at the controller; known here as of a second ago at most, so that calls do not wait for
//! it. While the controller is away, what was known stays good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{Document, FunctionName, PlatformError, Reason};
use parking_lot::Mutex;

use super::failure::Failure;
use super::kept::{Contents, Kept, Of};
use crate::registry::Registry;

/// For how long what was learnt is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// For how long it does while somebody looks again.
const BELIEVED_MEANWHILE: Duration = Duration::from_secs(5);
/// Time for a look, where something is known already.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The shelf on which all that stands.
#[derive(Debug)]
pub(super) struct Shelf {
    registry: Registry,
    known: Mutex<Option<Known>>,
    /// One looks at a time.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Known {
    contents: Arc<Contents>,
    mark: Arc<str>,
    /// When somebody looked last, with or without success.
    looked: Instant,
}

impl Shelf {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, known: Mutex::default(), looking: tokio::sync::Mutex::default() }
    }

    /// All that is kept, as of a moment ago.
    ///
    /// # Errors
    /// Where nothing is known yet, and the controller cannot be asked or does not let this door look.
    pub(super) async fn contents(&self) -> Result<Arc<Contents>, PlatformError> {
        let known = || self.known.lock().clone();
        let is_good = |known: &Known, within| known.looked.elapsed() < within;
        let before = known();
        if let Some(known) = before.as_ref().filter(|known| is_good(known, BELIEVED)) {
            return Ok(known.contents.clone());
        }
        let _one = match (self.looking.try_lock(), &before) {
            (Ok(one), _) => one,
            (Err(_), Some(known)) if is_good(known, BELIEVED_MEANWHILE) => return Ok(known.contents.clone()),
            (Err(_), _) => self.looking.lock().await,
        };
        // Whoever had the turn before may just have looked.
        match known() {
            Some(known) if is_good(&known, BELIEVED) => Ok(known.contents),
            known => self.look(known).await,
        }
    }

    /// All that is kept, as of now.
    ///
    /// # Errors
    /// Where the controller cannot be asked.
    pub(super) async fn fresh(&self) -> Result<Arc<Contents>, PlatformError> {
        let _one = self.looking.lock().await;
        *self.known.lock() = None;
        self.look(None).await
    }

    async fn look(&self, known: Option<Known>) -> Result<Arc<Contents>, PlatformError> {
        let asking = self.registry.documents(known.as_ref().map(|known| &*known.mark));
        let asked = match &known {
            None => asking.await,
            Some(_) => tokio::time::timeout(LOOK_MAX, asking)
                .await
                .unwrap_or_else(|_| Err(PlatformError::new(Reason::Late, format!("no answer within {LOOK_MAX:?}")))),
        };
        let now = match (asked, known) {
            (Ok(Some(documents)), _) => {
                Known { contents: Arc::new(Contents::of(&documents.all)), mark: documents.mark, looked: Instant::now() }
            }
            (Ok(None), Some(known)) => Known { looked: Instant::now(), ..known },
            (Err(error), Some(known)) => {
                tracing::debug!(%error, "what is kept of actions is not looked at, going on with what is known");
                Known { looked: Instant::now(), ..known }
            }
            (Err(error), None) => return Err(unread(error)),
            (Ok(None), None) => {
                return Err(PlatformError::new(Reason::Protocol, "the controller says that nothing has changed"));
            }
        };
        let contents = now.contents.clone();
        *self.known.lock() = Some(now);
        Ok(contents)
    }

    /// Keeps something in place of what has this revision. What is kept of an action goes with its function, if it has one.
    ///
    /// # Errors
    /// 409 where somebody else was faster.
    pub(super) async fn put(
        &self,
        of: Of,
        name: &FunctionName,
        kept: &Kept,
        revision: u64,
        function: Option<FunctionName>,
    ) -> Result<(), Failure> {
        let content = serde_json::to_vec(kept).unwrap_or_default().into();
        let document = Document { key: of.key(name)?, content, revision, function };
        // Nobody looks meanwhile, who could take what was for what is.
        let _one = self.looking.lock().await;
        let written = self.registry.put_document(&document).await?;
        *self.known.lock() = None;
        if written { Ok(()) } else { Err(Failure::conflict("somebody else has changed it meanwhile; try again")) }
    }

    /// Keeps it no longer.
    pub(super) async fn remove(&self, of: Of, name: &FunctionName) -> Result<(), Failure> {
        let _one = self.looking.lock().await;
        self.registry.remove_document(&of.key(name)?).await?;
        *self.known.lock() = None;
        Ok(())
    }

    /// What is known is of before a change.
    pub(super) async fn forget(&self) {
        let _one = self.looking.lock().await;
        *self.known.lock() = None;
    }
}

fn unread(error: PlatformError) -> PlatformError {
    match error.reason {
        Reason::NotAllowed => {
            let message = format!(
                "this door may not read what is kept of actions, such as their parameters ({}); have it run with the certificate of an operator or a broker",
                error.message
            );
            PlatformError { message, ..error }
        }
        _ => error,
    }
}
