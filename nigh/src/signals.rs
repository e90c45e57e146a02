//! The stop signals of a process: the first asks a role to finish what it has, the second ends it at once.

use std::future::Future;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT from now on.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes both signals over from the system's default, which is to end the process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Runs `role` to its end. The first signal cancels `shutdown`, so that it drains; a second one gives it up.
    pub(crate) async fn run<T>(
        mut self,
        role: impl Future<Output = anyhow::Result<T>>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<T> {
        let mut role = std::pin::pin!(role);
        tokio::select! {
            ended = &mut role => return ended,
            () = self.next() => {}
        }
        tracing::info!("stopping once the calls under way have ended; signal again to stop at once");
        shutdown.cancel();
        tokio::select! {
            ended = &mut role => ended,
            () = self.next() => Err(anyhow::anyhow!("stopped at once; calls under way were lost")),
        }
    }
}
