//! Looks from time to time which functions there are elsewhere, and whether anybody answers.

use std::sync::Weak;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::RemoteSystem;
use super::api::Look;

/// Time for one look.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// The least time between two looks, however often somebody wants one.
const LOOK_MIN: Duration = Duration::from_millis(500);

/// Looks until the computer ends.
pub(super) async fn keep_looking(remote: Weak<RemoteSystem>, ended: CancellationToken) {
    loop {
        let Some(looking) = remote.upgrade() else { return };
        let wait = tokio::select! {
            wait = looking.look() => wait,
            () = ended.cancelled() => return,
        };
        let look_again = looking.look_again.clone();
        // It may end meanwhile.
        drop(looking);
        let hurried = async {
            tokio::time::sleep(LOOK_MIN.min(wait)).await;
            look_again.notified().await;
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = hurried => {}
            () = ended.cancelled() => return,
        }
    }
}

impl RemoteSystem {
    /// Looks once; how long to wait before the next time.
    async fn look(&self) -> Duration {
        let looking = self.api.look(&self.client, self.lists);
        let looked = tokio::time::timeout(LOOK_MAX, looking).await;
        let looked = looked.unwrap_or_else(|_| Err(format!("no answer within {} s", LOOK_MAX.as_secs())));
        let wait = match looked {
            Ok(found) => {
                if let Look::All(listing) = found {
                    self.take_up(listing);
                }
                if self.gateway.looked_well() {
                    let functions = self.listed().len();
                    tracing::info!(url = self.gateway.url(), functions, "the gateway answers");
                }
                self.refresh
            }
            Err(why) => {
                let (wait, is_news) = self.gateway.looked_in_vain(&why, Instant::now());
                if is_news {
                    tracing::warn!(url = self.gateway.url(), why, "the gateway is of no use, will look again");
                }
                wait
            }
        };
        self.has_changed();
        wait
    }
}
