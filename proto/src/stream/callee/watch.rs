//! Tells a stream when to look after itself. Timers and tokens take locks whenever they are polled, so a task of their own
//! polls them, and a stream that is polled for each frame reads a flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What a stream is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    None,
    /// Some time has passed.
    Look,
    /// The server stops.
    Leave,
    /// It has been stopping for long enough.
    End,
}

/// Time for callers to hear that a stream should end, in which it still takes calls.
const LEAVING: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Signs {
    look: AtomicBool,
    leave: AtomicBool,
    end: AtomicBool,
    reader: AtomicWaker,
}

pub(super) struct Watch {
    signs: Arc<Signs>,
    _watching: AbortOnDropHandle<()>,
}

impl Watch {
    /// Gives a sign to look each time so much has passed, and those to leave and to end at the stop.
    pub(super) fn begin(stop: CancellationToken, every: Duration) -> Self {
        let signs = Arc::new(Signs::default());
        let watching = AbortOnDropHandle::new(tokio::spawn(watch(signs.clone(), stop, every)));
        Self { signs, _watching: watching }
    }

    /// What there is to be told; whoever polls is woken for more.
    pub(super) fn look(&self, context: &mut Context<'_>) -> Sign {
        self.signs.reader.register(context.waker());
        if self.signs.leave.load(Ordering::Relaxed) {
            return if self.signs.end.load(Ordering::Relaxed) { Sign::End } else { Sign::Leave };
        }
        let is_due = self.signs.look.load(Ordering::Relaxed);
        if is_due {
            self.signs.look.store(false, Ordering::Relaxed);
        }
        if is_due { Sign::Look } else { Sign::None }
    }
}

async fn watch(signs: Arc<Signs>, stop: CancellationToken, every: Duration) {
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        signs.look.store(true, Ordering::Relaxed);
        signs.reader.wake();
    }
    for (sign, lasts) in [(&signs.leave, LEAVING), (&signs.end, Duration::ZERO)] {
        sign.store(true, Ordering::Relaxed);
        signs.reader.wake();
        tokio::time::sleep(lasts).await;
    }
}
