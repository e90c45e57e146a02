//! Why a call does not get its states, or cannot write them.

use nigh_proto::{Endpoint, NodeName, PlatformError, Reason, StateId};
use nigh_store::StoreError;

/// A failure; nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The computer that holds it does not answer.
    #[error(
        "the state {id} is held by {holder} at {endpoint}, which does not hand it over: {why}; is that computer up? Try again once it is"
    )]
    Away {
        /// The state.
        id: StateId,
        /// Who holds it.
        holder: NodeName,
        /// Where that is.
        endpoint: Endpoint,
        /// What went wrong.
        why: String,
    },
    /// The directory does not answer, and the state is not here.
    #[error(
        "the state {id} is not held here, and the controller does not tell by whom it is: {why}; try again once it does"
    )]
    NoDirectory {
        /// The state.
        id: StateId,
        /// What went wrong.
        why: String,
    },
    /// Its holder has lost it.
    #[error(
        "the state {id} is said to be held by {holder}, which has not got it: has its data folder been lost? Bring that back, or begin anew with `nigh state rm`"
    )]
    Lost {
        /// The state.
        id: StateId,
        /// Who should have it.
        holder: NodeName,
    },
    /// It was written here before there was a controller, and elsewhere too.
    #[error(
        "the state {id} is kept here from before this computer had a controller, and is held by {holder} too; remove one with `nigh state rm`"
    )]
    Twice {
        /// The state.
        id: StateId,
        /// Who else holds it.
        holder: NodeName,
    },
    /// Others use it or take it over all the time.
    #[error("the state {0} is in use, or moves from computer to computer; try again later")]
    InUse(StateId),
    /// Too many calls wait for it.
    #[error("{limit} calls wait for the state {id} already, as many as may; try again later")]
    Crowded {
        /// The state.
        id: StateId,
        /// The limit.
        limit: usize,
    },
    /// The deadline passed before the call had it.
    #[error("the deadline passed while the call waited for the state {0}; give it more time")]
    Late(StateId),
    /// A state server of the older system.
    #[error("the state {state} cannot be fetched from {location}: {why}")]
    Older {
        /// The state.
        state: String,
        /// Where it was said to be.
        location: Endpoint,
        /// What went wrong.
        why: String,
    },
    /// A caller of the older system named a server that nobody allowed.
    #[error(
        "states are not fetched from {0}: it is neither the caller's own machine nor this one; the computer's operator can allow its host with [states] older_hosts"
    )]
    Foreign(Endpoint),
    /// Somebody else has written it.
    #[error(
        "the state {0} was written by somebody else while it was leased to this call, whose lease had ended; call again"
    )]
    Conflict(StateId),
    /// It cannot be read.
    #[error("states cannot be read: {0}")]
    Unreadable(String),
    /// It cannot be written.
    #[error("states cannot be written, so nothing of this call was: {0}")]
    Unsaved(StoreError),
}

impl StateError {
    /// A store that cannot be read.
    #[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
    pub(crate) fn unreadable(error: StoreError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<StateError> for PlatformError {
    fn from(error: StateError) -> Self {
        let reason = match &error {
            StateError::Away { .. }
            | StateError::NoDirectory { .. }
            | StateError::Lost { .. }
            | StateError::Twice { .. }
            | StateError::InUse(_)
            | StateError::Older { .. }
            | StateError::Unreadable(_) => Reason::StateUnavailable,
            StateError::Crowded { .. } => Reason::QueueFull,
            StateError::Late(_) => Reason::Late,
            StateError::Foreign(_) => Reason::NotAllowed,
            StateError::Conflict(_) => Reason::StateConflict,
            StateError::Unsaved(StoreError::TooLarge { .. }) => Reason::TooLarge,
            StateError::Unsaved(_) => Reason::StateUnsaved,
        };
        Self::new(reason, error.to_string())
    }
}
