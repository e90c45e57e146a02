//! Looking out for destinations that could not be connected to: as soon as one can be again, a call may try it, however long
//! its turn to be tried would have been away.

use std::sync::{Arc, Weak};
use std::time::Duration;

use nigh_proto::channel::CONNECT_TIMEOUT;
use nigh_proto::dial::dial;
use tokio::sync::Semaphore;

use crate::forward::Destination;
use crate::routes::Routes;

/// Destinations looked out for at once, at most; of further ones calls find out.
const LOOKED_OUT_FOR_MAX: usize = 1024;
/// Wait between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Who is looked out for.
#[derive(Debug, Clone)]
pub(crate) struct Returns(Arc<Semaphore>);

impl Default for Returns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKED_OUT_FOR_MAX)))
    }
}

impl Returns {
    /// Looks out for a destination found dead, unless that is done already.
    pub(crate) fn look_out_for(&self, destination: &Destination, routes: Weak<Routes>) {
        let Some(watched) = destination.watch_once() else { return };
        let Ok(place) = self.0.clone().try_acquire_owned() else { return };
        let endpoint = destination.endpoint().clone();
        tokio::spawn(async move {
            let mut was_away = false;
            while !watched.is_gone() {
                match tokio::time::timeout(CONNECT_TIMEOUT, dial(&endpoint)).await {
                    // It has been there all the time; why calls fail all the same, those that try it find out.
                    Ok(Ok(_)) if !was_away => break,
                    Ok(Ok(_)) => {
                        tracing::debug!(%endpoint, "can be connected to again");
                        drop(watched);
                        if let Some(routes) = routes.upgrade() {
                            routes.may_be_back(&endpoint);
                        }
                        break;
                    }
                    Ok(Err(_)) | Err(_) if was_away => {}
                    Ok(Err(_)) | Err(_) => {
                        was_away = true;
                        if let Some(routes) = routes.upgrade() {
                            routes.is_away(&endpoint);
                        }
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            drop(place);
        });
    }
}
