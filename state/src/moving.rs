//! How a state comes to be held here, and how it is handed over: with each step on disk before the next, so that whoever is
//! killed in between finds out from the directory how things stand.
//!
//! ```text
//!   holder              claims                  directory says
//!   held ─ take ─► offered                      holder            neither uses it, both have it
//!                       │      taken ─ claim ─► ───────┐
//!                       │        │                     ▼
//!                   (dropped) ◄─ held              who claimed    only that one has it
//! ```

use std::ops::ControlFlow::{self, Break, Continue};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nigh_proto::{Endpoint, NodeName, StateId};
use tokio::time::Instant;

use crate::directory::{Claimed, Directory, Given, Holder};
use crate::error::StateError;
use crate::keeper::{Keeper, Kept};
use crate::record::{Record, Standing};

/// Steps on the way to a state, at most.
const STEPS_MAX: u32 = 64;
/// How often a state that was handed over is looked after, while it is left to whoever asked for it.
const LOOK: Duration = Duration::from_millis(20);
/// Times that the directory may name a holder that has not got the state before it counts as lost.
const ASTRAY_MAX: u32 = 5;

impl Keeper {
    /// Has this computer hold a state.
    pub(crate) async fn own(&self, kept: &mut Kept) -> Result<(), StateError> {
        let id = kept.id.clone();
        let Some(directory) = self.directory_of(&id) else { return self.own_alone(kept).await };
        let mut astray = 0;
        for _ in 0..STEPS_MAX {
            match self.go_on(directory, kept).await? {
                Continue(()) => {}
                Break(Some(Record { epoch: 1.., .. })) => return Ok(()),
                Break(Some(record)) => self.make_known(directory, kept, record).await?,
                Break(None) => {
                    if !self.fetch(directory, kept).await? {
                        astray += 1;
                        self.check_astray(directory, &id, astray).await?;
                    }
                }
            }
        }
        Err(StateError::InUse(id))
    }

    /// Goes one step on with a move that is under way here. Where none is, breaks with the state as it is held here, or with nothing
    /// where it is not here.
    async fn go_on(
        &self,
        directory: &dyn Directory,
        kept: &mut Kept,
    ) -> Result<ControlFlow<Option<Record>>, StateError> {
        let Some(record) = self.read(kept).await?.record.clone() else { return Ok(Break(None)) };
        match record.standing {
            Standing::Held | Standing::Leased { .. } => return Ok(Break(Some(record))),
            Standing::Offered { since_ms, .. } => self.take_back(directory, kept, since_ms).await?,
            Standing::Taken { .. } => self.claim_taken(directory, kept, record).await?,
        }
        Ok(Continue(()))
    }

    /// Without a directory, whatever is here is held here.
    async fn own_alone(&self, kept: &mut Kept) -> Result<(), StateError> {
        let standing = self.read(kept).await?.record.as_ref().map(|record| &record.standing);
        if matches!(standing, Some(Standing::Offered { .. } | Standing::Taken { .. })) {
            let why = "this computer was moving it when it had a controller, and has none now".to_owned();
            return Err(StateError::NoDirectory { id: kept.id.clone(), why });
        }
        Ok(())
    }

    /// Claims a state that was written before there was a directory.
    async fn make_known(&self, directory: &dyn Directory, kept: &mut Kept, record: Record) -> Result<(), StateError> {
        let epoch = match self.claim(directory, &kept.id, 0).await? {
            Claimed::Yes => 1,
            Claimed::No(Some(holder)) if holder.name == self.name => holder.epoch,
            Claimed::No(Some(holder)) => {
                return Err(StateError::Twice { id: kept.id.clone(), holder: holder.name });
            }
            Claimed::No(None) => return Ok(()),
        };
        self.write(kept, Record { epoch, ..record }).await.map(drop)
    }

    /// Brings a state here that is not; false where whoever should hold it has not got it.
    async fn fetch(&self, directory: &dyn Directory, kept: &mut Kept) -> Result<bool, StateError> {
        let id = kept.id.clone();
        let taken = |record, from| Record { standing: Standing::Taken { from }, ..record };
        let Some(holder) = self.locate(directory, &id).await? else {
            self.write(kept, taken(Record::empty(1), None)).await?;
            return Ok(true);
        };
        if holder.name == self.name {
            if self.is_lasting() {
                return Err(StateError::Lost { id, holder: holder.name });
            }
            // What this computer held before it was started anew is gone, as is agreed.
            self.write(kept, taken(Record::empty(holder.epoch + 1), None)).await?;
            return Ok(true);
        }
        let own = self.own_endpoint(&id)?;
        let asked = self.peers.take(&holder.endpoint, &id, &self.name, own).await;
        let given = asked.map_err(|error| StateError::Away {
            id: id.clone(),
            holder: holder.name.clone(),
            endpoint: holder.endpoint.clone(),
            why: error.message,
        })?;
        let Some(Given { epoch, version, content }) = given else { return Ok(false) };
        let record = Record { epoch: epoch + 1, version, content, standing: Standing::Held };
        self.write(kept, taken(record, Some(holder.endpoint))).await?;
        Ok(true)
    }

    /// The directory may be ahead of a move, or the state is lost.
    async fn check_astray(&self, directory: &dyn Directory, id: &StateId, astray: u32) -> Result<(), StateError> {
        if astray >= ASTRAY_MAX
            && let Some(holder) = self.locate(directory, id).await?
        {
            return Err(StateError::Lost { id: id.clone(), holder: holder.name });
        }
        tokio::time::sleep(LOOK * astray).await;
        Ok(())
    }

    /// Claims a state that was received. The claim may have been made before, or somebody else's.
    async fn claim_taken(&self, directory: &dyn Directory, kept: &mut Kept, record: Record) -> Result<(), StateError> {
        let from = match &record.standing {
            Standing::Taken { from } => from.clone(),
            Standing::Held | Standing::Offered { .. } | Standing::Leased { .. } => None,
        };
        match self.claim(directory, &kept.id, record.epoch.saturating_sub(1)).await? {
            Claimed::Yes => {
                let epoch = record.epoch;
                let is_written = self.write(kept, Record { standing: Standing::Held, ..record }).await?;
                if let Some(from) = from.filter(|_| is_written) {
                    let (peers, id, name) = (self.peers.clone(), kept.id.clone(), self.name.clone());
                    // Where it is not told, it finds out when somebody asks it for the state.
                    tokio::spawn(async move { peers.taken(&from, &id, &name, epoch - 1).await });
                }
                Ok(())
            }
            // Epochs only grow, so this claim can never be made any more.
            Claimed::No(_) => self.delete(kept).await,
        }
    }

    /// Takes a state back that was handed over, once whoever asked for it has had its time; or learns that it is held there.
    async fn take_back(&self, directory: &dyn Directory, kept: &mut Kept, since_ms: u64) -> Result<(), StateError> {
        let holder = self.locate(directory, &kept.id).await?.filter(|holder| holder.name == self.name);
        let Some(holder) = holder else { return self.delete(kept).await };
        let offered = Duration::from_millis(now_ms().saturating_sub(since_ms));
        if offered < self.config.offer {
            tokio::time::sleep((self.config.offer - offered).min(LOOK.max(self.config.offer / 32))).await;
            return Ok(());
        }
        // From now on the claim of whoever asked for it comes too late.
        if self.claim(directory, &kept.id, holder.epoch).await? == Claimed::Yes
            && let Some(record) = self.read(kept).await?.record.clone()
        {
            self.write(kept, Record { epoch: holder.epoch + 1, standing: Standing::Held, ..record }).await?;
        }
        Ok(())
    }

    /// Hands a state over to another computer, once no call uses it here; nothing where it is not here.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn give(
        &self,
        id: &StateId,
        name: &NodeName,
        endpoint: &Endpoint,
        until: Instant,
    ) -> Result<Option<Given>, StateError> {
        let giving = async {
            let mut kept = self.lock(id).await?;
            let Some(directory) = self.directory_of(id) else { return Ok(None) };
            let mut is_offered_now = false;
            for _ in 0..STEPS_MAX {
                // Whoever asked for it before may not have heard the answer.
                if let Some(Record { standing: Standing::Offered { to, .. }, epoch, version, content }) =
                    self.read(&mut kept).await?.record.clone()
                    && to == *name
                {
                    let ahead = match is_offered_now {
                        true => None,
                        false => self.locate(directory, id).await?.filter(|holder| holder.name == self.name),
                    };
                    let Some(holder) = ahead.filter(|holder| holder.epoch > epoch) else {
                        return Ok(Some(Given { epoch, version, content }));
                    };
                    // It was killed while it took this back: only the directory knows, and no claim after the old epoch counts.
                    let record = Record { epoch: holder.epoch, version, content, standing: Standing::Held };
                    self.write(&mut kept, record).await?;
                    continue;
                }
                match self.go_on(directory, &mut kept).await? {
                    Continue(()) => {}
                    Break(Some(record)) => {
                        self.offer(&mut kept, record, name, endpoint).await?;
                        is_offered_now = true;
                    }
                    Break(None) if self.is_lasting() => return Ok(None),
                    Break(None) => {
                        let holder = self.locate(directory, id).await?.filter(|holder| holder.name == self.name);
                        return Ok(holder.map(|holder| Given { epoch: holder.epoch, version: 0, content: None }));
                    }
                }
            }
            Err(StateError::InUse(id.clone()))
        };
        tokio::time::timeout_at(until, giving).await.unwrap_or_else(|_| Err(StateError::InUse(id.clone())))
    }

    async fn offer(
        &self,
        kept: &mut Kept,
        record: Record,
        name: &NodeName,
        endpoint: &Endpoint,
    ) -> Result<(), StateError> {
        let standing = Standing::Offered { to: name.clone(), endpoint: endpoint.clone(), since_ms: now_ms() };
        self.write(kept, Record { standing, ..record }).await.map(drop)
    }

    /// A state handed over is held by that computer now, by a claim after this epoch.
    ///
    /// # Errors
    /// [`StateError`]; nothing is lost then.
    pub async fn was_taken(&self, id: &StateId, name: &NodeName, epoch: u64) -> Result<(), StateError> {
        let mut kept = self.lock(id).await?;
        let is_meant = match &self.read(&mut kept).await?.record {
            Some(Record { standing: Standing::Offered { to, .. }, epoch: offered, .. }) => {
                to == name && *offered == epoch
            }
            _ => false,
        };
        if is_meant { self.delete(&mut kept).await } else { Ok(()) }
    }

    /// Removes a state that is held here: from then on nobody holds it. Says whether there was one.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remove(&self, id: &StateId, until: Instant) -> Result<bool, StateError> {
        let removing = async {
            let mut kept = self.lock(id).await?;
            let record = self.read(&mut kept).await?.record.clone();
            self.delete(&mut kept).await?;
            if let Some(directory) = self.directory_of(id).filter(|_| !self.is_shared(id)) {
                let forgotten = directory.forget(id, &self.name).await;
                forgotten.map_err(|error| StateError::NoDirectory { id: id.clone(), why: error.message })?;
            }
            Ok(record.is_some_and(|record| record.content.is_some()))
        };
        tokio::time::timeout_at(until, removing).await.unwrap_or_else(|_| Err(StateError::InUse(id.clone())))
    }

    async fn locate(&self, directory: &dyn Directory, id: &StateId) -> Result<Option<Holder>, StateError> {
        let located = directory.locate(id).await;
        located.map_err(|error| StateError::NoDirectory { id: id.clone(), why: error.message })
    }

    async fn claim(&self, directory: &dyn Directory, id: &StateId, expected: u64) -> Result<Claimed, StateError> {
        let claimed = directory.claim(id, &self.name, self.own_endpoint(id)?, expected).await;
        claimed.map_err(|error| StateError::NoDirectory { id: id.clone(), why: error.message })
    }

    fn own_endpoint(&self, id: &StateId) -> Result<&Endpoint, StateError> {
        let why = || "this computer has no address yet; it is only starting".to_owned();
        self.endpoint().ok_or_else(|| StateError::NoDirectory { id: id.clone(), why: why() })
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
