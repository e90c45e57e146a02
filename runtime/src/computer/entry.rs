//! Calls at a computer's door: let in at once, once their function is at hand, or not at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::future::{BoxFuture, Either};
use nigh_proto::{Call, Exchanged, PlatformError, Reason, Reply};

use super::Computer;
use crate::admission::{self, Admitted, Brought};
use crate::function::Callee;
use crate::{http, states};

/// What came of a call at the door.
pub(super) enum Entered {
    /// It is let in.
    Admitted(Admitted),
    /// It was a dry run, which is over.
    Estimated(Reply),
}

impl Entered {
    async fn replied(self, deadline: Instant) -> Result<Reply, PlatformError> {
        match self {
            Self::Admitted(Admitted::Answered(answer)) => answer,
            Self::Admitted(Admitted::Waits(mut place)) => place.answer(deadline).await,
            Self::Admitted(Admitted::Answers(place, answered, about)) => {
                let answer = async { http::whole(http::begin(place, answered, about, deadline).await?).await };
                Box::pin(answer).await
            }
            Self::Estimated(reply) => Ok(reply),
        }
    }

    pub(super) async fn exchanged(self, deadline: Instant) -> Result<Exchanged, PlatformError> {
        match self {
            Self::Admitted(Admitted::Answers(place, answered, about)) => {
                http::begin(place, answered, about, deadline).await
            }
            Self::Admitted(Admitted::Answered(answer)) => answer.map(Exchanged::Failed),
            Self::Admitted(Admitted::Waits(mut place)) => place.answer(deadline).await.map(Exchanged::Failed),
            Self::Estimated(reply) => Ok(Exchanged::Failed(reply)),
        }
    }
}

impl Computer {
    /// Brings a call to its outcome.
    pub(crate) async fn take(&self, call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        let deadline = call.deadline;
        let entered = self.enter(call, Brought::Payload, arrived).await?;
        entered.replied(deadline).await
    }

    /// Lets a call in: mostly at once. What else may come before that has a room of its own, which most calls need not carry along.
    pub(super) fn enter(
        &self,
        call: Call,
        brought: Brought,
        arrived: Instant,
    ) -> impl Future<Output = Result<Entered, PlatformError>> + Send {
        if !call.dry_run
            && let Some(callee) = self.functions.callee(&call.function, &self.crew, arrived)
        {
            if !states::are_wanted(&callee, &call) {
                let admitted = admission::admit(&callee, call, brought, None, arrived);
                return Either::Left(std::future::ready(admitted.map(Entered::Admitted)));
            }
            let with_states: BoxFuture<'_, _> = Box::pin(self.enter_with_states(callee, call, brought, arrived));
            return Either::Right(with_states);
        }
        Either::Right(Box::pin(self.enter_unready(call, brought, arrived)))
    }

    async fn enter_with_states(
        &self,
        callee: Arc<Callee>,
        call: Call,
        brought: Brought,
        arrived: Instant,
    ) -> Result<Entered, PlatformError> {
        let states = self.states_of(&callee, &call, arrived).await?;
        admission::admit(&callee, call, brought, states, arrived).map(Entered::Admitted)
    }

    /// Lets a call in whose function is not at hand, or one that is not to be run.
    async fn enter_unready(&self, call: Call, brought: Brought, arrived: Instant) -> Result<Entered, PlatformError> {
        let Some(known) = self.functions.call(&call.function, arrived) else { return Err(self.unknown(&call)) };
        let function = known.function;
        if call.dry_run {
            // It needs no code, and is to cost nothing.
            let deployment = known
                .deployment
                .ok_or_else(|| admission::not_ready(&call.function, known.problem.map(|(_, message)| message)))?;
            let (estimate, load) = admission::estimate(&self.crew, &function, &deployment, &call)?;
            let estimated = admission::estimated(&self.name, &deployment, call, estimate, load);
            return Ok(Entered::Estimated(estimated));
        }
        let late = |_| Err(admission::late_waiting());
        let brought_back = tokio::time::timeout_at(call.deadline.into(), self.bring_back(&function)).await;
        let version = brought_back.unwrap_or_else(late).inspect_err(|error| admission::refused(&function, error))?;
        let callee = Arc::new(Callee::new(function, version, &self.crew));
        self.enter_with_states(callee, call, brought, arrived).await
    }

    fn unknown(&self, call: &Call) -> PlatformError {
        let error = if self.is_learning.load(Ordering::Relaxed) {
            let message = "this computer has not learnt yet what is deployed; try another, or again soon";
            PlatformError::new(Reason::NotReady, message)
        } else {
            PlatformError::unknown_function(&call.function)
        };
        self.functions.meters().unknown().record_refused(error.reason);
        error
    }
}
