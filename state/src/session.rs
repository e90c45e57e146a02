//! The states of one call: what its function depends on, leased to it before it runs, and written once it has answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nigh_proto::{ApplicationName, CarriedState, Endpoint, FunctionName, StateId, StateName, StatePlace};
use tokio::time::Instant;

use crate::error::StateError;
use crate::keeper::Keeper;
use crate::lease::{self, Change, Lease};

/// What a call is to have of states.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The function that is to run.
    pub function: &'a FunctionName,
    /// The application that the call names.
    pub application: Option<&'a ApplicationName>,
    /// The states that the function was deployed with.
    pub declared: &'a [StateName],
    /// The states that travel with the call.
    pub carried: &'a [CarriedState],
    /// Bytes that the function may write to each.
    pub bytes_max: u64,
    /// How long to wait for them.
    pub until: Instant,
    /// How long the function may run.
    pub term: Duration,
}

/// The states of one call.
#[derive(Debug)]
pub struct Session {
    keeper: Arc<Keeper>,
    entries: Vec<Entry>,
    bytes_max: u64,
}

#[derive(Debug)]
struct Entry {
    name: StateName,
    source: Source,
    change: Option<Change>,
}

#[derive(Debug)]
enum Source {
    /// Of the application.
    Leased(Lease),
    /// The call has brought it, and takes it back.
    Brought { content: Bytes, needed_by: Vec<FunctionName> },
    /// The call has said where it is: at a server of the older system, or already here.
    Fetched { lease: Lease, content: Bytes, from: Option<Endpoint>, own: Endpoint, needed_by: Vec<FunctionName> },
}

/// Why a function may not do something with a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not depend on it.
    #[error("the function was not deployed with the state {0}; deploy it with --state {0}")]
    Undeclared(String),
    /// It is more than may be written.
    #[error(
        "{bytes} bytes are too many for the state {state}; deploy the function with a larger --state-bytes than {limit}"
    )]
    TooLarge {
        /// The state.
        state: String,
        /// What was given.
        bytes: usize,
        /// What may be.
        limit: u64,
    },
}

impl Session {
    /// Leases all states that the call is to have, in an order that all calls keep to, so that no two wait for each other.
    ///
    /// # Errors
    /// [`StateError`]; then none is leased.
    pub async fn open(keeper: &Arc<Keeper>, access: Access<'_>) -> Result<Self, StateError> {
        let is_needed = |carried: &&CarriedState| carried.is_needed_by(access.function);
        let needed: Vec<_> = access.carried.iter().filter(is_needed).collect();
        let mut wanted: Vec<(StateId, Option<&CarriedState>)> = Vec::new();
        for name in access.declared.iter().filter(|name| needed.iter().all(|carried| carried.name != **name)) {
            wanted.push((id_of(access.application, name), None));
        }
        let older: ApplicationName = ApplicationName::OLDER.parse().expect("a constant of the form of a name");
        let mut entries = Vec::with_capacity(wanted.len() + needed.len());
        for carried in needed {
            match &carried.place {
                StatePlace::Content(content) => {
                    let needed_by = carried.needed_by.clone();
                    let source = Source::Brought { content: content.clone(), needed_by };
                    entries.push(Entry { name: carried.name.clone(), source, change: None });
                }
                StatePlace::At(_) => {
                    let id = StateId { application: older.clone(), state: carried.name.clone() };
                    wanted.push((id, Some(carried)));
                }
            }
        }
        wanted.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (id, carried) in wanted {
            let lease = keeper.lease(&id, access.until, access.term).await?;
            let source = match carried {
                Some(carried) => keeper.fetched(lease, carried, access.until).await?,
                None => Source::Leased(lease),
            };
            entries.push(Entry { name: id.state, source, change: None });
        }
        Ok(Self { keeper: keeper.clone(), entries, bytes_max: access.bytes_max })
    }

    /// The content of a state, as the function has left it so far; nothing where there is none.
    ///
    /// # Errors
    /// [`Refusal::Undeclared`].
    pub fn get(&self, name: &str) -> Result<Option<&Bytes>, Refusal> {
        let entry = self.entries.iter().find(|entry| entry.name.as_str() == name);
        let entry = entry.ok_or_else(|| undeclared(name))?;
        Ok(match (&entry.change, &entry.source) {
            (Some(Change::Put(content)), _) => Some(content),
            (Some(Change::Delete), _) => None,
            (None, Source::Leased(lease)) => lease.content(),
            (None, Source::Brought { content, .. } | Source::Fetched { content, .. }) => Some(content),
        })
    }

    /// Gives a state this content, once the function has answered.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn put(&mut self, name: &str, content: Bytes) -> Result<(), Refusal> {
        self.check(name, content.len())?;
        self.change(name, Change::Put(content))
    }

    /// Whether a function may give a state so many bytes.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, name: &str, bytes: usize) -> Result<(), Refusal> {
        if !self.entries.iter().any(|entry| entry.name.as_str() == name) {
            return Err(undeclared(name));
        }
        if bytes as u64 > self.bytes_max {
            return Err(Refusal::TooLarge { state: name.to_owned(), bytes, limit: self.bytes_max });
        }
        Ok(())
    }

    /// Takes a state's content away, once the function has answered.
    ///
    /// # Errors
    /// [`Refusal::Undeclared`].
    pub fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        self.change(name, Change::Delete)
    }

    fn change(&mut self, name: &str, change: Change) -> Result<(), Refusal> {
        let entry = self.entries.iter_mut().find(|entry| entry.name.as_str() == name);
        entry.ok_or_else(|| undeclared(name))?.change = Some(change);
        Ok(())
    }

    /// Writes what the function has done, and tells what has become of the states that travel with the call.
    ///
    /// # Errors
    /// [`StateError`]; nothing was written then.
    pub async fn commit(mut self) -> Result<Vec<CarriedState>, StateError> {
        let mut changes = Vec::new();
        for entry in &mut self.entries {
            match (&mut entry.source, entry.change.take()) {
                (Source::Leased(lease), Some(change)) => changes.push((lease, change)),
                (Source::Leased(_), None) | (Source::Brought { .. }, None) => {}
                (Source::Brought { content, .. }, Some(change)) => *content = after(change),
                // It is kept here from now on, changed or not.
                (Source::Fetched { lease, content, from, .. }, change) => {
                    let is_changed = change.is_some();
                    if let Some(change) = change {
                        *content = after(change);
                    }
                    if is_changed || from.is_some() {
                        changes.push((lease, Change::Put(content.clone())));
                    }
                }
            }
        }
        if !changes.is_empty() {
            lease::commit(&self.keeper, &mut changes).await?;
        }
        let mut carried = Vec::new();
        for Entry { name, source, .. } in self.entries {
            let (place, needed_by) = match source {
                Source::Leased(_) => continue,
                Source::Brought { content, needed_by } => (StatePlace::Content(content), needed_by),
                Source::Fetched { from, own, needed_by, .. } => {
                    if let Some(from) = from {
                        self.keeper.drop_older(&from, &name).await;
                    }
                    (StatePlace::At(own), needed_by)
                }
            };
            carried.push(CarriedState { name, place, needed_by });
        }
        Ok(carried)
    }
}

impl Keeper {
    /// The content of a state that a call has said the place of.
    async fn fetched(
        self: &Arc<Self>,
        lease: Lease,
        carried: &CarriedState,
        until: Instant,
    ) -> Result<Source, StateError> {
        let needed_by = carried.needed_by.clone();
        let StatePlace::At(location) = &carried.place else {
            return Ok(Source::Brought { content: Bytes::new(), needed_by });
        };
        let failed = |why: &str| StateError::Older {
            state: carried.name.to_string(),
            location: location.clone(),
            why: why.to_owned(),
        };
        let own = self.endpoint().ok_or_else(|| failed("this computer has no address of its own"))?.clone();
        if *location == own {
            let content = lease.content().cloned().ok_or_else(|| failed("there is no such state here"))?;
            return Ok(Source::Fetched { lease, content, from: None, own, needed_by });
        }
        let content = self.fetch_older(location, &carried.name, until).await?;
        Ok(Source::Fetched { lease, content, from: Some(location.clone()), own, needed_by })
    }
}

fn undeclared(name: &str) -> Refusal {
    Refusal::Undeclared(name.chars().take(64).collect())
}

/// What travels with a call is there, if only as nothing.
fn after(change: Change) -> Bytes {
    match change {
        Change::Put(content) => content,
        Change::Delete => Bytes::new(),
    }
}

fn id_of(application: Option<&ApplicationName>, state: &StateName) -> StateId {
    let default = || ApplicationName::DEFAULT.parse().expect("a constant of the form of a name");
    StateId { application: application.cloned().unwrap_or_else(default), state: state.clone() }
}
