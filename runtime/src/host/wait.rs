//! Bounds for a guest that waits for its host: a timer, a file. While a guest computes, ticks bound it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use super::Stop;
use crate::crew::{self, Crew};
use crate::reset::Ran;
use crate::threads::Handle;

/// When waiting ends.
#[derive(Debug)]
pub(crate) struct Limits {
    /// The call's last moment.
    pub(crate) until: Instant,
    /// What it means to reach that.
    pub(crate) stop: Stop,
    /// Whose guests all end when it does.
    pub(crate) crew: Handle<Crew>,
}

/// Runs a guest to its end, or to the end of its limits if it waits then; says where it ran, too. The guest is pinned already,
/// because one that was moved in would take its room twice, in every call.
pub(crate) async fn within<T>(
    limits: Option<Limits>,
    mut guest: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
) -> (wasmtime::Result<T>, Ran) {
    // Made only for a guest that does wait.
    let mut end = None;
    let mut ran = Ran::Nowhere;
    poll_fn(|context| {
        ran = ran.and(Ran::here());
        if let Poll::Ready(result) = guest.as_mut().poll(context) {
            return Poll::Ready((result, ran));
        }
        let Some(limits) = limits.as_ref().filter(|_| !crew::has_yielded()) else { return Poll::Pending };
        let end = end.get_or_insert_with(|| Box::pin(reach(limits)));
        end.as_mut().poll(context).map(|stop| (Err(stop.into()), ran))
    })
    .await
}

async fn reach(limits: &Limits) -> Stop {
    tokio::select! {
        () = limits.crew.sleep_until(limits.until) => limits.stop,
        () = limits.crew.stopping.cancelled() => Stop::Stopping,
    }
}
