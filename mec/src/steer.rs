//! Keeps devices where they are best: takes in what changes, has it decided anew, and has those told whom it concerns.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nigh_proto::membership::Knowledge;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::CHANGES_WAITING_MAX;
use crate::config::DeciderConfig;
use crate::decide::file::Rows;
use crate::mec::Mec;
use crate::notify;

/// How often the file of associations is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Steers for as long as it is polled.
pub(crate) async fn steer(mec: Arc<Mec>, mut learnt: mpsc::Receiver<Knowledge>) {
    let (mut news, mut telling) = (Vec::new(), JoinSet::new());
    let mut file = Watched::of(&mec.config.decider);
    let every = match &mec.config.decider {
        DeciderConfig::Balanced { period } => Some(*period),
        DeciderConfig::File { .. } => Some(LOOK_EVERY),
        DeciderConfig::Associations => None,
    };
    let mut ticks = every.map(|every| {
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let mut is_told_by_controller = true;
    loop {
        tokio::select! {
            count = learnt.recv_many(&mut news, CHANGES_WAITING_MAX), if is_told_by_controller => {
                is_told_by_controller = count > 0;
                mec.learn(news.drain(..));
            }
            () = mec.changed.notified() => {}
            () = tick(ticks.as_mut()) => match &mut file {
                Some(file) => file.look(&mec),
                None => mec.period_over(),
            },
            // They have no result; this frees what is left of them.
            Some(_) = telling.join_next() => continue,
        }
        let due = mec.due();
        for (id, turn) in due.tell {
            telling.spawn(notify::tell(mec.clone(), id, turn));
        }
        for id in due.gone {
            let mec = mec.clone();
            telling.spawn(async move { mec.keep_later(id).await });
        }
    }
}

async fn tick(ticks: Option<&mut tokio::time::Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// The file of associations, as it was when it was read last.
struct Watched {
    path: std::path::PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl Watched {
    fn of(decider: &DeciderConfig) -> Option<Self> {
        let DeciderConfig::File { path } = decider else { return None };
        Some(Self { path: path.clone(), seen: stamp(path) })
    }

    /// Reads the file if it is another. One that is no good changes nothing but the log.
    fn look(&mut self, mec: &Mec) {
        let now = stamp(&self.path);
        if now == self.seen {
            return;
        }
        self.seen = now;
        match Rows::read(&self.path) {
            Ok(rows) => {
                tracing::info!(file = %self.path.display(), lines = rows.len(), "other associations");
                mec.take_rows(rows);
            }
            Err(error) => tracing::error!(%error, "going on with the associations before"),
        }
    }
}

/// Tells one state of a file from another.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
