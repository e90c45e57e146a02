//! The states of calls: leased before a call waits for its turn, written once its function has answered. Calls of functions
//! without states have nothing to do with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{Call, CarriedState, Deployment, Outcome, PlatformError, Remote, StateName};
use nigh_state::{Access, Keeper, RemoteDirectory, RemotePeers, Session, StateError};

use crate::admission;
use crate::computer::Computer;
use crate::config::Config;
use crate::function::Callee;

/// What keeps the states of a computer of this configuration.
pub(crate) fn keeper(config: &Config) -> Arc<Keeper> {
    let controller = config.controller.as_ref().map(|controllers| Remote::any_of(controllers, config.tls.clone()));
    let directory = controller.map(|controller| Arc::new(RemoteDirectory::new(controller)) as Arc<_>);
    let peers = Arc::new(RemotePeers::new(config.tls.clone()));
    Keeper::new(config.states.clone(), config.name.clone(), directory, peers)
}

/// How long a call waits for states that only travel with it.
const PASS_BY_WAIT: Duration = Duration::from_secs(10);

/// What a function may have of states.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// The states that it was deployed with.
    pub(crate) declared: &'a [StateName],
    /// Bytes that it may write to each.
    pub(crate) bytes_max: u64,
    /// How long its calls wait.
    pub(crate) wait: Duration,
    /// How long they run.
    pub(crate) term: Duration,
}

impl Computer {
    /// The states that a call is to have, leased to it; nothing where its function has none.
    pub(crate) async fn states_of(
        &self,
        callee: &Callee,
        call: &Call,
        arrived: Instant,
    ) -> Result<Option<Box<Session>>, PlatformError> {
        let Deployment { states: declared, limits, .. } = &*callee.version.deployment;
        if !are_wanted(callee, call) {
            return Ok(None);
        }
        let bytes_max = limits.state_bytes;
        let terms = Terms { declared, bytes_max, wait: limits.queue_wait, term: limits.timeout };
        let opened = Box::pin(open(&self.states, call, terms, arrived)).await;
        opened.map(Some).inspect_err(|error| admission::refused(&callee.function, error))
    }
}

/// Whether a call comes with states, or goes to a function that has some.
pub(crate) fn are_wanted(callee: &Callee, call: &Call) -> bool {
    !callee.version.deployment.states.is_empty() || !call.states.is_empty()
}

/// The states that travel with a call, for a function that a computer brings itself: it has none of its own, and changes none.
pub(crate) async fn pass_by(
    keeper: &Arc<Keeper>,
    call: &Call,
    arrived: Instant,
) -> Result<Option<Box<Session>>, PlatformError> {
    if call.states.is_empty() {
        return Ok(None);
    }
    let terms = Terms { declared: &[], bytes_max: 0, wait: PASS_BY_WAIT, term: PASS_BY_WAIT };
    Box::pin(open(keeper, call, terms, arrived)).await.map(Some)
}

/// Leases the states that a call is to have.
pub(crate) async fn open(
    keeper: &Arc<Keeper>,
    call: &Call,
    terms: Terms<'_>,
    arrived: Instant,
) -> Result<Box<Session>, PlatformError> {
    let until = call.deadline.min(arrived + terms.wait);
    let access = Access {
        function: &call.function,
        application: call.application.as_ref(),
        declared: terms.declared,
        carried: &call.states,
        bytes_max: terms.bytes_max,
        until: until.into(),
        term: terms.term,
    };
    let opened = Session::open(keeper, access).await.map_err(|error| match error {
        // There would be time, but no function waits for longer.
        StateError::Late(id) if until < call.deadline => StateError::InUse(id),
        error => error,
    });
    Ok(Box::new(opened?))
}

/// Writes what a call has done with its states, if its function answered. Where that fails, so has the call.
pub(crate) async fn settle(
    outcome: Result<Outcome, PlatformError>,
    session: Box<Session>,
) -> (Result<Outcome, PlatformError>, Vec<CarriedState>) {
    if !matches!(outcome, Ok(Outcome::Answer { .. })) {
        return (outcome, Vec::new());
    }
    match session.commit().await {
        Ok(carried) => (outcome, carried),
        Err(error) => (Err(error.into()), Vec::new()),
    }
}
