//! The one thread that writes. Whatever has come while it waited for the disk is committed together, so that many writes
//! share one wait: under load each costs a part of it, and alone none waits for others.

use std::sync::{Arc, OnceLock};

use redb::{Database, WriteTransaction};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::error::StoreError;

/// Writes in one transaction, at most.
const BATCH_MAX: usize = 1024;
/// Writes that wait for their turn; further ones wait outside.
const WAITING_MAX: usize = 1024;
/// KiB of all writes that wait; further ones wait outside.
const WAITING_KIB_MAX: u32 = 64 << 10;

/// Does one write within a transaction; what it returns is done once that is committed.
type Work = Box<dyn FnOnce(&WriteTransaction) -> Result<Settle, redb::Error> + Send>;
type Settle = Box<dyn FnOnce() + Send>;

/// Hands writes to the thread. Dropping it waits for those under way.
pub(super) struct Writer {
    sender: Option<mpsc::Sender<Work>>,
    room: Arc<Semaphore>,
    broken: Arc<OnceLock<String>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(database: Arc<Database>) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let broken = Arc::<OnceLock<String>>::default();
        let told = broken.clone();
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            if let Err(error) = serve(&database, receiver) {
                tracing::error!(%error, "the store failed; nothing more is written");
                let _ = told.set(error.to_string());
            }
        })?;
        let room = Arc::new(Semaphore::new(WAITING_KIB_MAX as usize));
        Ok(Self { sender: Some(sender), room, broken, thread: Some(thread) })
    }

    /// Does a write of about so many bytes. `work` either changes what it has to or refuses and changes nothing, as others
    /// share its transaction; `settle` is called once it is committed, in the order of commits. It is done also where the
    /// caller goes away.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&WriteTransaction) -> Result<Result<T, StoreError>, redb::Error> + Send + 'static,
        settle: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, StoreError> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1).min(WAITING_KIB_MAX);
        let room = self.room.clone().acquire_many_owned(kib).await;
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |transaction| {
            let done = work(transaction)?;
            Ok(Box::new(move || {
                let _room = room;
                if let Ok(done) = &done {
                    settle(done);
                }
                // The caller may be gone.
                let _ = reply.send(done);
            }))
        });
        let sent = match &self.sender {
            Some(sender) => sender.send(work).await.is_ok(),
            None => false,
        };
        match (sent, answer.await) {
            (true, Ok(done)) => done,
            (true, Err(_)) | (false, _) => {
                let why = self.broken.get().map_or("the thread that writes has ended", String::as_str);
                Err(StoreError::Failed(why.to_owned()))
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // It has said itself why it failed.
            let _ = thread.join();
        }
    }
}

fn serve(database: &Database, mut writes: mpsc::Receiver<Work>) -> Result<(), redb::Error> {
    let mut batch = Vec::new();
    while writes.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        let transaction = database.begin_write()?;
        let settles = batch.drain(..).map(|work| work(&transaction)).collect::<Result<Vec<_>, _>>()?;
        transaction.commit()?;
        for settle in settles {
            settle();
        }
    }
    Ok(())
}
