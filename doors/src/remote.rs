//! A broker elsewhere, reached as any client reaches it: what stands behind a door in a process of its own.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use http::StatusCode;
use nigh_client::{Admin, CallQueue, Caller};
use nigh_proto::asynchronous::{Accepted, Settled};
use nigh_proto::ingress::http::HttpHandler;
use nigh_proto::{
    Acceptance, Call, CallId, Exchange, Exchanged, FunctionName, Kind, PlatformError, Priority, Reason, Reply,
};
use nigh_telemetry::{HttpResponses, Telemetry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::backend::Backend;
use crate::believed::Believed;

/// Calls under way at once through one door, at most.
const CALLS_MAX: usize = 4096;
/// When to come again where there are as many.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A broker elsewhere, and the controller that knows what it serves.
#[derive(Debug)]
pub struct RemoteBroker {
    caller: Caller,
    queue: CallQueue,
    admin: Admin,
    places: Arc<Semaphore>,
    known: Believed<Functions>,
    responses: HttpResponses,
}

/// The functions that there are, and of which kind those are that are deployed.
type Functions = HashMap<FunctionName, Option<Kind>>;

impl RemoteBroker {
    /// One that is called, has calls run later, and is looked after by these.
    pub fn new(caller: Caller, queue: CallQueue, admin: Admin) -> Self {
        let (places, known) = (Arc::new(Semaphore::new(CALLS_MAX)), Believed::default());
        Self { caller, queue, admin, places, known, responses: HttpResponses::default() }
    }

    /// Has its door's figures told.
    pub fn describe(self: &Arc<Self>, telemetry: &Telemetry, name: impl fmt::Display) {
        let door = Arc::downgrade(self);
        telemetry.describe("proxy", name, move |out| {
            let Some(door) = door.upgrade() else { return Ok(()) };
            out.gauge("nigh_proxy_in_flight", "Calls under way", (CALLS_MAX - door.places.available_permits()) as f64)?;
            door.responses.write("nigh_proxy_http_responses_total", out)
        });
        telemetry.ready_when(|| Ok(()));
    }

    /// The functions that there are, as of a moment ago.
    async fn known(&self) -> Result<Arc<Functions>, PlatformError> {
        let look = |_| async {
            let listing = self.admin.list().await?;
            let own = listing.computers.into_iter().flat_map(|computer| computer.own_functions);
            let own = own.map(|function| (function, None));
            let deployed = listing.functions.into_iter().map(|deployment| (deployment.name, Some(deployment.kind)));
            Ok(Arc::new(own.chain(deployed).collect()))
        };
        self.known.get(look).await
    }
}

impl HttpHandler for RemoteBroker {
    type Place = OwnedSemaphorePermit;

    fn kind(&self, function: &FunctionName) -> Option<Kind> {
        self.known.last()?.get(function).copied().flatten()
    }

    fn admit(&self, _: Priority) -> Result<OwnedSemaphorePermit, PlatformError> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{CALLS_MAX} calls are under way through this door, all that it takes");
            PlatformError::new(Reason::OutOfBudget, message).retry_after(RETRY_AFTER)
        })
    }

    async fn handle_in(&self, place: OwnedSemaphorePermit, call: Call, _: Instant) -> Result<Reply, PlatformError> {
        let reply = self.caller.invoke(call).await;
        drop(place);
        reply
    }

    async fn exchange_in(
        &self,
        place: OwnedSemaphorePermit,
        exchange: Exchange,
        _: Instant,
    ) -> Result<Exchanged, PlatformError> {
        Ok(match self.caller.exchange(exchange).await? {
            // Until the answer has ended.
            Exchanged::Answer(head, parts) => {
                let parts = parts.map(move |part| {
                    let _place = &place;
                    part
                });
                Exchanged::Answer(head, Box::pin(parts))
            }
            failed @ Exchanged::Failed(_) => failed,
        })
    }

    async fn accept_in(&self, place: OwnedSemaphorePermit, acceptance: Acceptance) -> Result<Accepted, PlatformError> {
        let accepted = self.queue.accept(&acceptance).await;
        drop(place);
        accepted
    }

    async fn result(&self, id: &CallId, wait: Duration) -> Result<Option<Settled>, PlatformError> {
        self.queue.result(id, wait).await
    }

    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }

    // Its broker counts the calls.
    fn answered(&self, status: StatusCode) {
        self.responses.count(status.as_u16());
    }
}

impl Backend for RemoteBroker {
    async fn check_known(&self, function: &FunctionName) -> Result<(), PlatformError> {
        if self.known().await?.contains_key(function) { Ok(()) } else { Err(PlatformError::unknown_function(function)) }
    }

    // Without a controller to ask, a function is called as one of any kind can be.
    async fn learn_kind(&self, function: &FunctionName) {
        if let Err(error) = self.known().await {
            tracing::debug!(%function, %error, "its kind is not known");
        }
    }
}
