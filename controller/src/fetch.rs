//! Handing out modules by digest, part by part.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nigh_proto::Digest;
use tokio::sync::{Semaphore, mpsc};

use crate::config::Config;
use crate::error::{FetchError, StoreError};
use crate::store::{ModuleReader, Store};

/// Parts read ahead of what the reader has accepted.
const READ_AHEAD: usize = 2;

/// Modules being handed out.
pub(crate) struct Fetches {
    store: Store,
    places: Arc<Semaphore>,
    fetches_max: usize,
    idle: Duration,
}

/// One module being handed out.
pub(crate) struct Fetch {
    /// Parts, then `None` for the end; a channel that closes without it has given up.
    parts: mpsc::Receiver<Result<Option<Bytes>, StoreError>>,
    has_ended: bool,
    idle: Duration,
}

impl Fetches {
    pub(crate) fn new(config: &Config, store: Store) -> Self {
        let places = Arc::new(Semaphore::new(config.fetches_max));
        Self { store, places, fetches_max: config.fetches_max, idle: config.fetch_idle }
    }

    /// Begins to hand out a module. A reader that accepts nothing for too long is given up, so that it cannot keep its
    /// place.
    pub(crate) async fn fetch(&self, digest: Digest) -> Result<Fetch, FetchError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| FetchError::Busy(self.fetches_max))?;
        let reader = self.store.module(digest).await?.ok_or(FetchError::Unknown(digest))?;
        let (sender, parts) = mpsc::channel(READ_AHEAD);
        let idle = self.idle;
        tokio::spawn(async move {
            read(reader, sender, idle).await;
            drop(place);
        });
        Ok(Fetch { parts, has_ended: false, idle })
    }
}

async fn read(mut reader: ModuleReader, parts: mpsc::Sender<Result<Option<Bytes>, StoreError>>, idle: Duration) {
    loop {
        let part = match reader.next().await {
            Ok((returned, part)) => {
                reader = returned;
                Ok(part)
            }
            Err(error) => {
                let _ = parts.send_timeout(Err(error), idle).await;
                return;
            }
        };
        let is_last = matches!(part, Ok(None));
        if parts.send_timeout(part, idle).await.is_err() || is_last {
            return;
        }
    }
}

impl Fetch {
    /// The next part; `None` after the last.
    ///
    /// # Errors
    /// [`FetchError`]: the module is not whole, and nothing follows.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, FetchError>> {
        if self.has_ended {
            return None;
        }
        match self.parts.recv().await {
            Some(Ok(Some(part))) => Some(Ok(part)),
            ended => {
                self.has_ended = true;
                match ended {
                    Some(Err(error)) => Some(Err(error.into())),
                    Some(Ok(_)) => None,
                    None => Some(Err(FetchError::Stalled(self.idle))),
                }
            }
        }
    }
}
