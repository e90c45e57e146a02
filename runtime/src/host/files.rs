//! Files and directories that the guests of a computer have open, all together. The process has only so many, and its
//! connections need some too; so an instance of a function that was granted directories takes its share when it is made.

use std::sync::Arc;
use std::time::Duration;

use nigh_proto::{Deployment, PlatformError, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long an instance waits for its share: about what it takes to end another.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// When to come again where all are taken.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What there is for all of them.
#[derive(Debug, Clone)]
pub(crate) struct OpenFiles(Arc<Semaphore>);

/// An instance's share, until it is gone.
#[derive(Debug)]
pub(crate) struct Share {
    _taken: Option<OwnedSemaphorePermit>,
}

impl OpenFiles {
    pub(crate) fn new(max: u32) -> Self {
        Self(Arc::new(Semaphore::new(max as usize)))
    }

    /// A share for one more instance, if there is one.
    pub(crate) fn try_take(&self, deployment: &Deployment) -> Option<Share> {
        let wanted = wanted(deployment);
        if wanted == 0 {
            return Some(Share { _taken: None });
        }
        let taken = self.0.clone().try_acquire_many_owned(wanted).ok()?;
        Some(Share { _taken: Some(taken) })
    }

    /// A share for one more instance. Where there is none, `make_room` is asked for some as long as it has any, and then those
    /// that are about to end are waited for, for a moment.
    ///
    /// # Errors
    /// [`Reason::OutOfBudget`].
    pub(crate) async fn take(
        &self,
        deployment: &Deployment,
        make_room: impl Fn() -> bool,
    ) -> Result<Share, PlatformError> {
        loop {
            match self.try_take(deployment) {
                Some(share) => return Ok(share),
                None if make_room() => {}
                None => break,
            }
        }
        let wanted = wanted(deployment);
        match tokio::time::timeout(WAIT_MAX, self.0.clone().acquire_many_owned(wanted)).await {
            Ok(Ok(taken)) => Ok(Share { _taken: Some(taken) }),
            Ok(Err(_)) | Err(_) => {
                let message = "the functions of this computer may have as many files open as there may be; try again later, or another computer";
                Err(PlatformError::new(Reason::OutOfBudget, message).retry_after(RETRY_AFTER))
            }
        }
    }
}

/// Files and directories that an instance of this may have open: none where it was granted no directory.
pub(crate) fn wanted(deployment: &Deployment) -> u32 {
    let directories = u32::try_from(deployment.directories.len()).unwrap_or(u32::MAX);
    if directories == 0 { 0 } else { directories.saturating_add(deployment.limits.open_files) }
}
