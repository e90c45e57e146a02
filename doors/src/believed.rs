//! What was learnt a moment ago of something elsewhere, so that calls seldom wait for it: believed for a second, for a few more
//! while somebody looks again, and for as long as nobody there can be asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{PlatformError, Reason};
use parking_lot::Mutex;

/// For how long what was learnt is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// For how long it does while somebody looks again.
const BELIEVED_MEANWHILE: Duration = Duration::from_secs(5);
/// Time for a look, where something is known already.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Something that is looked at now and then.
#[derive(Debug)]
pub(crate) struct Believed<T> {
    known: Mutex<Option<Known<T>>>,
    /// One looks at a time.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Known<T> {
    /// Why nothing is known, where no look was of use yet.
    outcome: Result<Arc<T>, PlatformError>,
    /// When somebody looked last, with or without success.
    looked: Instant,
}

impl<T> Default for Believed<T> {
    fn default() -> Self {
        Self { known: Mutex::new(None), looking: tokio::sync::Mutex::default() }
    }
}

impl<T> Believed<T> {
    /// What was known last, however long ago.
    pub(crate) fn last(&self) -> Option<Arc<T>> {
        self.known.lock().as_ref().and_then(|known| known.outcome.clone().ok())
    }

    fn within(&self, time: Duration) -> Option<Result<Arc<T>, PlatformError>> {
        let known = self.known.lock();
        known.as_ref().filter(|known| known.looked.elapsed() < time).map(|known| known.outcome.clone())
    }

    /// What is known as of a moment ago. `look` is told what was known before; it finds that again where nothing has changed.
    ///
    /// # Errors
    /// Those of `look`, where nothing is known yet.
    pub(crate) async fn get<F>(&self, look: impl FnOnce(Option<Arc<T>>) -> F) -> Result<Arc<T>, PlatformError>
    where
        F: Future<Output = Result<Arc<T>, PlatformError>>,
    {
        if let Some(known) = self.within(BELIEVED) {
            return known;
        }
        let _one = match (self.looking.try_lock(), self.within(BELIEVED_MEANWHILE)) {
            (Ok(one), _) => one,
            (Err(_), Some(known)) => return known,
            (Err(_), None) => self.looking.lock().await,
        };
        // Whoever had the turn before may just have looked.
        if let Some(known) = self.within(BELIEVED) {
            return known;
        }
        let Some(before) = self.last() else { return self.take_up(look(None).await) };
        let late = || PlatformError::new(Reason::Late, format!("no answer within {LOOK_MAX:?}"));
        let looked = tokio::time::timeout(LOOK_MAX, look(Some(before.clone()))).await.unwrap_or_else(|_| Err(late()));
        self.take_up(Ok(looked.unwrap_or_else(|error| {
            tracing::debug!(%error, "a look in vain, going on with what is known");
            before
        })))
    }

    /// What is so now.
    ///
    /// # Errors
    /// Those of `look`.
    pub(crate) async fn fresh<F>(&self, look: impl FnOnce() -> F) -> Result<Arc<T>, PlatformError>
    where
        F: Future<Output = Result<Arc<T>, PlatformError>>,
    {
        let _one = self.looking.lock().await;
        let found = look().await?;
        self.take_up(Ok(found))
    }

    /// Makes a change, of which whoever asks next will know. Nobody looks meanwhile, who could take what was for what is.
    pub(crate) async fn change<C>(&self, change: impl Future<Output = C>) -> C {
        let _one = self.looking.lock().await;
        let changed = change.await;
        *self.known.lock() = None;
        changed
    }

    fn take_up(&self, outcome: Result<Arc<T>, PlatformError>) -> Result<Arc<T>, PlatformError> {
        *self.known.lock() = Some(Known { outcome: outcome.clone(), looked: Instant::now() });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn gone() -> PlatformError {
        PlatformError::new(Reason::Unreachable, "gone")
    }

    /// Makes what is known older by so much.
    fn age<T>(believed: &Believed<T>, by: Duration) {
        if let Some(known) = &mut *believed.known.lock() {
            known.looked = known.looked.checked_sub(by).unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_just_learnt_is_not_asked_again_and_stays_good_while_nobody_answers() {
        let believed = Believed::default();
        let looked = believed.get(|_| async { Err::<Arc<u8>, _>(gone()) }).await;
        assert_eq!(looked.unwrap_err().reason, Reason::Unreachable);
        // Nobody waits for it again at once.
        assert!(believed.get(|_| async { Ok(Arc::new(0)) }).await.is_err());
        age(&believed, BELIEVED);
        assert_eq!(*believed.get(|_| async { Ok(Arc::new(1)) }).await.unwrap(), 1);
        assert_eq!(*believed.get(|_| async { Ok(Arc::new(2)) }).await.unwrap(), 1);
        age(&believed, BELIEVED);
        assert_eq!(*believed.get(|before| async { Ok(Arc::new(*before.unwrap() + 6)) }).await.unwrap(), 7);
        age(&believed, BELIEVED_MEANWHILE);
        assert_eq!(*believed.get(|_| async { Err(gone()) }).await.unwrap(), 7);
        // Nor is asked again at once who did not answer.
        assert_eq!(*believed.get(|_| async { Ok(Arc::new(8)) }).await.unwrap(), 7);
        assert_eq!(*believed.fresh(|| async { Ok(Arc::new(9)) }).await.unwrap(), 9);
        believed.change(async {}).await;
        assert_eq!(*believed.get(|_| async { Ok(Arc::new(10)) }).await.unwrap(), 10);
        assert_eq!(believed.last().as_deref(), Some(&10));
    }

    #[tokio::test]
    async fn one_looks_for_all() {
        let (believed, looks) = (Believed::default(), AtomicUsize::new(0));
        let look = |_| async {
            looks.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(Arc::new(()))
        };
        let (one, two, three) = tokio::join!(believed.get(look), believed.get(look), believed.get(look));
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
        assert_eq!(looks.load(Ordering::Relaxed), 1);
    }
}
