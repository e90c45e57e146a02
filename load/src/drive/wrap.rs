//! Targets around targets: several connections to one, answers kept as files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nigh_proto::{Call, Outcome, PlatformError, Reply};

use super::Target;

/// Answers kept of one run, at most.
const ANSWERS_MAX: usize = 10_000;

/// Several connections to the same broker, used in turn.
#[derive(Debug)]
pub struct InTurn<T> {
    targets: Vec<T>,
    next: AtomicUsize,
}

impl<T> InTurn<T> {
    /// `None` without any.
    pub fn new(targets: Vec<T>) -> Option<Self> {
        (!targets.is_empty()).then(|| Self { targets, next: AtomicUsize::new(0) })
    }
}

impl<T: Target> Target for InTurn<T> {
    async fn call(&self, call: Call) -> Result<Reply, PlatformError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.targets[turn % self.targets.len()].call(call).await
    }
}

/// Where answers are kept, the first [`ANSWERS_MAX`] of them.
#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
    count: Arc<AtomicUsize>,
}

impl Kept {
    /// In this folder, which exists.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, count: Arc::default() }
    }
}

/// Keeps answers as files, if there is a folder for them.
#[derive(Debug)]
pub struct Keeping<T> {
    target: T,
    kept: Option<Kept>,
}

impl<T> Keeping<T> {
    /// Keeps answers of this target.
    pub fn new(target: T, kept: Option<Kept>) -> Self {
        Self { target, kept }
    }
}

impl<T: Target> Target for Keeping<T> {
    async fn call(&self, call: Call) -> Result<Reply, PlatformError> {
        let outcome = self.target.call(call).await;
        if let (Some(kept), Ok(Reply { outcome: Outcome::Answer { payload, .. }, .. })) = (&self.kept, &outcome) {
            let number = kept.count.fetch_add(1, Ordering::Relaxed) + 1;
            if number <= ANSWERS_MAX {
                let path = kept.folder.join(format!("answer-{number:05}.{}", ending(payload)));
                let payload = payload.clone();
                // What cannot be kept is missing from the folder; the figures are not.
                tokio::task::spawn_blocking(move || std::fs::write(path, payload));
            }
        }
        outcome
    }
}

fn ending(answer: &[u8]) -> &'static str {
    match answer {
        [0xff, 0xd8, ..] => "jpg",
        [0x89, b'P', b'N', b'G', ..] => "png",
        [b'{' | b'[', ..] => "json",
        _ if std::str::from_utf8(answer).is_ok() => "txt",
        _ => "bin",
    }
}
