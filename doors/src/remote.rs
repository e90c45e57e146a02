//! A broker elsewhere, reached as any client reaches it: what stands behind a door in a process of its own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use nigh_client::{Admin, CallQueue, Caller};
use nigh_proto::asynchronous::{Accepted, Settled};
use nigh_proto::ingress::http::HttpHandler;
use nigh_proto::{
    Acceptance, Call, CallId, Exchange, Exchanged, FunctionName, Kind, PlatformError, Priority, Reason, Reply,
};
use nigh_telemetry::{HttpResponses, Telemetry};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::backend::Backend;

/// Calls under way at once through one door, at most.
const CALLS_MAX: usize = 4096;
/// When to come again where there are as many.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// For how long what was learnt of which functions there are is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// A broker elsewhere, and the controller that knows what it serves.
#[derive(Debug)]
pub struct RemoteBroker {
    caller: Caller,
    queue: CallQueue,
    admin: Admin,
    places: Arc<Semaphore>,
    known: Mutex<Option<(Instant, Arc<[FunctionName]>)>>,
    responses: HttpResponses,
}

impl RemoteBroker {
    /// One that is called, has calls run later, and is looked after by these.
    pub fn new(caller: Caller, queue: CallQueue, admin: Admin) -> Self {
        let (places, known) = (Arc::new(Semaphore::new(CALLS_MAX)), Mutex::default());
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

    /// The functions that are deployed, as of a moment ago.
    async fn known(&self) -> Result<Arc<[FunctionName]>, PlatformError> {
        if let Some((since, known)) = &*self.known.lock()
            && since.elapsed() < BELIEVED
        {
            return Ok(known.clone());
        }
        let functions = self.admin.list().await?.functions.into_iter();
        let known: Arc<[FunctionName]> = functions.map(|deployment| deployment.name).collect();
        *self.known.lock() = Some((Instant::now(), known.clone()));
        Ok(known)
    }
}

impl HttpHandler for RemoteBroker {
    type Place = OwnedSemaphorePermit;

    // A broker takes calls of every kind as calls.
    fn kind(&self, _: &FunctionName) -> Option<Kind> {
        None
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
        _: OwnedSemaphorePermit,
        exchange: Exchange,
        _: Instant,
    ) -> Result<Exchanged, PlatformError> {
        let message = format!("{}: requests pass at the broker's own door, calls here", exchange.call.function);
        Err(PlatformError::malformed(message))
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
        if self.known().await?.contains(function) { Ok(()) } else { Err(PlatformError::unknown_function(function)) }
    }
}
