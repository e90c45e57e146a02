//! Where samples go: into the tally, and line by line into files, on a thread of its own, so that no call waits for a disk.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::report::{Calls, Progress, Tally};
use crate::sample::Sample;

/// Samples that wait for the recorder; with more, calls that have ended wait to tell of it.
const SAMPLES_QUEUED_MAX: usize = 1 << 16;
/// Samples taken in at once.
const BATCH: usize = 1024;

/// Takes samples in until the last of its senders is gone.
#[derive(Debug)]
pub struct Recorder {
    tally: Arc<Mutex<Option<Tally>>>,
    ended: oneshot::Receiver<Option<Calls>>,
}

impl Recorder {
    /// Starts one; samples are sent to the other value.
    ///
    /// # Errors
    /// Where there can be no further thread.
    pub fn start(tally: Tally, calls: Option<Calls>) -> std::io::Result<(Self, mpsc::Sender<Sample>)> {
        let (samples, taken) = mpsc::channel(SAMPLES_QUEUED_MAX);
        let (done, ended) = oneshot::channel();
        let tally = Arc::new(Mutex::new(Some(tally)));
        let shared = tally.clone();
        std::thread::Builder::new().name("nigh-load-record".into()).spawn(move || {
            // Whoever waits for it may have been given up.
            let _ = done.send(take_in(taken, &shared, calls));
        })?;
        Ok((Self { tally, ended }, samples))
    }

    /// How it goes; what happened lately is from the last time that this was asked.
    pub fn progress(&self) -> Progress {
        self.tally.lock().as_mut().map(Tally::progress).unwrap_or_default()
    }

    /// Waits until all samples are taken in, and gives back what they went into.
    ///
    /// # Panics
    /// Where the recorder has.
    pub async fn finish(self) -> (Tally, Option<Calls>) {
        let calls = self.ended.await.expect("a recorder ends in order");
        let tally = self.tally.lock().take();
        (tally.expect("nobody else takes the tally"), calls)
    }
}

fn take_in(mut taken: mpsc::Receiver<Sample>, tally: &Mutex<Option<Tally>>, mut calls: Option<Calls>) -> Option<Calls> {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(sample) = taken.blocking_recv() {
        batch.push(sample);
        while batch.len() < BATCH
            && let Ok(sample) = taken.try_recv()
        {
            batch.push(sample);
        }
        if let Some(tally) = tally.lock().as_mut() {
            batch.iter().for_each(|sample| tally.record(sample));
        }
        for sample in batch.drain(..) {
            if let Some(calls) = &mut calls {
                calls.write(&sample);
            }
        }
    }
    calls
}
