//! Answers whose readers stall. An answer that travels in parts holds what makes it, all the way to the guest; a reader that
//! takes nothing of what is there for it holds that no longer than it may.
//!
//! The transport asks for the next part only when it can send it, so a reader that stalls is seen by nobody asking. That is
//! why an answer whose end is not at hand with its first part is watched by a task of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::exchange::{Part, Parts};
use crate::status::{PlatformError, Reason};

/// The same answer, dropped where its reader takes nothing of it for so long.
pub(crate) fn within(stall_max: Duration, parts: Parts) -> Parts {
    let held = Arc::new(Mutex::new(Held { parts: Some(parts), ahead: None, given: None }));
    Box::pin(Read { held, stall_max, watch: None })
}

struct Held {
    /// Nothing once they have ended, or were taken from a reader that stalled.
    parts: Option<Parts>,
    /// What came after the first part.
    ahead: Option<Option<Item>>,
    /// Since when it is the reader's turn.
    given: Option<Instant>,
}

type Item = Result<Part, PlatformError>;

struct Read {
    held: Arc<Mutex<Held>>,
    stall_max: Duration,
    watch: Option<AbortOnDropHandle<()>>,
}

impl Stream for Read {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = &mut *self;
        let mut held = this.held.lock();
        held.given = None;
        if let Some(ahead) = held.ahead.take() {
            if !matches!(ahead, Some(Ok(Part::Body(_)))) {
                held.parts = None;
            }
            return Poll::Ready(ahead);
        }
        let Some(parts) = &mut held.parts else { return Poll::Ready(Some(Err(stalled(this.stall_max)))) };
        let part = parts.poll_next_unpin(context);
        if !matches!(part, Poll::Ready(Some(Ok(Part::Body(_))))) {
            return part;
        }
        if this.watch.is_none() {
            // Most answers are small, and their end is there already.
            if let Poll::Ready(next) = parts.poll_next_unpin(context) {
                held.ahead = Some(next);
            }
            if !matches!(held.ahead, Some(Some(Ok(Part::End(_))))) {
                let watching = watch(this.held.clone(), this.stall_max);
                this.watch = Some(AbortOnDropHandle::new(tokio::spawn(watching)));
            }
        }
        held.given = Some(Instant::now());
        part
    }
}

/// Takes the answer from a reader that stalls.
async fn watch(held: Arc<Mutex<Held>>, stall_max: Duration) {
    loop {
        let since = held.lock().given;
        let until = since.unwrap_or_else(Instant::now) + stall_max;
        tokio::time::sleep_until(until).await;
        let mut now = held.lock();
        if since.is_some() && now.given == since {
            let (parts, ahead) = (now.parts.take(), now.ahead.take());
            drop(now);
            tracing::debug!("an answer was taken from a reader that does not read it");
            drop((parts, ahead));
            return;
        }
    }
}

fn stalled(stall_max: Duration) -> PlatformError {
    let message = format!("the reader took nothing of the answer for {} ms", stall_max.as_millis());
    PlatformError::new(Reason::Cancelled, message)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    const STALL: Duration = Duration::from_secs(30);

    fn body(text: &'static str) -> Item {
        Ok(Part::Body(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stalls_loses_its_answer_and_all_that_made_it() {
        let (made, parts) = mpsc::channel(1);
        let mut read = within(STALL, Box::pin(ReceiverStream::new(parts)));
        made.send(body("one")).await.unwrap();
        assert_eq!(read.next().await, Some(body("one")));
        let began = Instant::now();
        made.closed().await;
        assert_eq!(began.elapsed(), STALL);
        assert_eq!(read.next().await.unwrap().unwrap_err().reason, Reason::Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_for_the_function_may_wait() {
        let (made, parts) = mpsc::channel(1);
        let mut read = within(STALL, Box::pin(ReceiverStream::new(parts)));
        for part in ["one", "two", "three"] {
            made.send(body(part)).await.unwrap();
            assert_eq!(read.next().await, Some(body(part)));
            let waiting = tokio::time::timeout(10 * STALL, read.next()).await;
            assert!(waiting.is_err(), "nothing comes");
        }
        drop(made);
        assert_eq!(read.next().await, None);
    }

    #[tokio::test]
    async fn what_is_there_at_once_is_not_watched_and_comes_in_order() {
        let error = PlatformError::malformed("broken");
        let parts = [body("one"), body("two"), Err(error.clone())];
        let read = within(STALL, Box::pin(stream::iter(parts.clone())));
        assert_eq!(read.collect::<Vec<_>>().await, parts);
    }
}
