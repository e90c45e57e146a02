//! Those who wait for a moment, and what wakes them: the thread that ticks. Those that serve the network have enough to do, and a
//! guest that sleeps for a millisecond, over and over, would have them wake as often.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;

use super::State;

/// When it is, and a number that no other has.
type Key = (Instant, u64);

/// All who wait, by when they are to be woken.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    waiting: Mutex<BTreeMap<Key, Waker>>,
    numbers: AtomicU64,
}

/// A wait for a moment.
#[derive(Debug)]
pub(crate) struct Alarm {
    key: Key,
    ticking: Arc<State>,
    is_set: bool,
}

impl Alarms {
    /// Wakes those whose moment has come.
    pub(super) fn ring(&self, now: Instant) {
        loop {
            let mut waiting = self.waiting.lock();
            let Some(first) = waiting.first_entry().filter(|first| first.key().0 <= now) else { return };
            let waker = first.remove();
            // Whoever is woken may set another one.
            drop(waiting);
            // Without this thread no guest would be interrupted any more, whatever goes wrong with one.
            if panic::catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!("a guest that slept could not be woken; please report this");
            }
        }
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.lock().first_key_value().map(|((at, _), _)| *at)
    }
}

impl Alarm {
    pub(super) fn new(at: Instant, ticking: Arc<State>) -> Self {
        let number = ticking.alarms.numbers.fetch_add(1, Ordering::Relaxed);
        Self { key: (at, number), ticking, is_set: false }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // However short the wait, it lasts until a tick: nobody goes round and round without letting others go first.
        if self.is_set && self.key.0 <= Instant::now() {
            return Poll::Ready(());
        }
        self.is_set = true;
        let former = self.ticking.alarms.waiting.lock().insert(self.key, context.waker().clone());
        if former.is_none() {
            // Before it is seen whether the thread rests: see `State::rest`.
            fence(Ordering::SeqCst);
            self.ticking.rouse();
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.is_set {
            // Dropped once the lock is free, as a waker may be the last to hold others who wait.
            let _waker = self.ticking.alarms.waiting.lock().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::epoch::Ticker;

    #[tokio::test]
    async fn whoever_waits_is_woken_in_time_whether_the_thread_rests_or_not() {
        let ticker = Ticker::start(Vec::new()).unwrap();
        for wait in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(300), Duration::from_millis(2)] {
            let began = std::time::Instant::now();
            ticker.sleep_until(began + wait).await;
            assert!(began.elapsed() >= wait, "not before");
        }
        // Of two, whichever was set last.
        let now = std::time::Instant::now();
        let late = ticker.sleep_until(now + Duration::from_secs(3600));
        let soon = ticker.sleep_until(now + Duration::from_millis(150));
        tokio::select! {
            biased;
            () = late => panic!("it is an hour away"),
            () = soon => {}
        }
        assert_eq!(ticker.state.alarms.next(), None, "those given up are put away");
    }

    #[tokio::test]
    async fn one_that_cannot_be_woken_keeps_nobody_else_asleep() {
        struct Unwakable;
        impl std::task::Wake for Unwakable {
            fn wake(self: std::sync::Arc<Self>) {
                panic!("as a waker should not");
            }
        }
        let ticker = Ticker::start(Vec::new()).unwrap();
        let waker = std::sync::Arc::new(Unwakable).into();
        let mut bad = Box::pin(ticker.sleep_until(std::time::Instant::now() + Duration::from_millis(2)));
        assert!(bad.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        ticker.sleep_until(std::time::Instant::now() + Duration::from_millis(20)).await;
        assert!(bad.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn an_alarm_given_up_wakes_nobody() {
        let ticker = Ticker::start(Vec::new()).unwrap();
        let mut alarm = Box::pin(ticker.sleep_until(std::time::Instant::now() + Duration::from_secs(3600)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(alarm.as_mut().poll(&mut context).is_pending() && alarm.as_mut().poll(&mut context).is_pending());
        assert!(ticker.state.alarms.next().is_some());
        drop(alarm);
        assert!(ticker.state.alarms.next().is_none());
    }
}
