//! Calls at a computer's door: let in at once, once their function is at hand, or not at all.

use std::future::{Ready, ready};
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

/// A call at the door. Most are let in at once, and are over then. Whatever else it takes has a room of its own, which those need
/// not carry from hand to hand.
#[expect(clippy::large_enum_variant, reason = "the large one is what mostly comes")]
pub(super) enum Entering<'a> {
    At(Result<Entered, PlatformError>),
    Later(BoxFuture<'a, Result<Entered, PlatformError>>),
}

/// What is there already, or will be.
type Soon<'a, T> = Either<Ready<Result<T, PlatformError>>, BoxFuture<'a, Result<T, PlatformError>>>;

fn at_once<'a, T>(result: Result<T, PlatformError>) -> Soon<'a, T> {
    Either::Left(ready(result))
}

impl<'a> Entering<'a> {
    /// Its reply.
    pub(super) fn replied(self, deadline: Instant) -> Soon<'a, Reply> {
        match self {
            Self::At(Err(error)) => at_once(Err(error)),
            Self::At(Ok(Entered::Admitted(Admitted::Answered(answer)))) => at_once(answer),
            later => {
                let exchanged = later.exchanged(deadline);
                Either::Right(Box::pin(async move { http::whole(exchanged.await?).await }))
            }
        }
    }

    /// The head of its answer, and the parts to come.
    pub(super) fn exchanged(self, deadline: Instant) -> Soon<'a, Exchanged> {
        match self {
            Self::At(Err(error)) => at_once(Err(error)),
            Self::At(Ok(Entered::Admitted(Admitted::Answers(place, mut answered, about)))) => {
                let begun = answered.try_recv();
                match begun {
                    Ok(begun) => at_once(http::answering(begun, Some(place), None, about)),
                    Err(_) => Either::Right(Box::pin(http::begin(place, answered, about, deadline))),
                }
            }
            Self::At(Ok(entered)) => Either::Right(Box::pin(entered.exchanged(deadline))),
            Self::Later(entering) => Either::Right(Box::pin(async move { entering.await?.exchanged(deadline).await })),
        }
    }
}

impl Entered {
    async fn exchanged(self, deadline: Instant) -> Result<Exchanged, PlatformError> {
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
    pub(crate) fn take(
        &self,
        call: Call,
        arrived: Instant,
    ) -> impl Future<Output = Result<Reply, PlatformError>> + Send {
        let deadline = call.deadline;
        self.enter(call, Brought::Payload, arrived).replied(deadline)
    }

    /// Lets a call in.
    pub(super) fn enter(&self, call: Call, brought: Brought, arrived: Instant) -> Entering<'_> {
        if !call.dry_run
            && let Some(callee) = self.functions.callee(&call.function, &self.crew, arrived)
        {
            if !states::are_wanted(&callee, &call) {
                let admitted = admission::admit(&callee, call, brought, None, arrived);
                return Entering::At(admitted.map(Entered::Admitted));
            }
            return Entering::Later(Box::pin(self.enter_with_states(callee, call, brought, arrived)));
        }
        Entering::Later(Box::pin(self.enter_unready(call, brought, arrived)))
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
