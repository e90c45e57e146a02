//! The doors of a computer whose functions run elsewhere: the same services as of any other.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use nigh_proto::ingress::Handler as _;
use nigh_proto::ingress::http::HttpHandler;
use nigh_proto::{Call, CallLimits, Exchange, Exchanged, FunctionName, Kind, Load, PlatformError, Priority, Reply, v1};
use tokio_util::sync::CancellationToken;

use super::RemoteComputer;
use crate::error::Error;
use crate::ingress::inside::{Inside, Watched};
use crate::ingress::{Doors, function_status, processor_shares, serve_with};
use crate::probe;
use crate::serve::Computing;

/// Serves the doors until `shutdown`, and then until all calls under way have been answered.
pub(super) async fn serve(
    computer: Arc<RemoteComputer>,
    doors: Doors,
    limits: CallLimits,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let inside = Inside::new(computer.clone(), shutdown.clone());
    let states = nigh_state::ingress::Door::new(computer.states.clone());
    serve_with(computer, inside, states, doors, limits, shutdown).await
}

/// What the door for HTTP leads to.
impl HttpHandler for RemoteComputer {
    type Place = ();

    fn kind(&self, function: &FunctionName) -> Option<Kind> {
        self.functions().contains_key(function).then_some(Kind::Native)
    }

    fn admit(&self, _priority: Priority) -> Result<(), PlatformError> {
        Ok(())
    }

    async fn handle_in(&self, _place: (), call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        self.handle(call, arrived).await
    }

    async fn exchange_in(&self, _place: (), exchange: Exchange, arrived: Instant) -> Result<Exchanged, PlatformError> {
        self.exchange(exchange, arrived).await
    }

    fn readiness(&self) -> Result<(), String> {
        Computing::readiness(self)
    }

    fn answered(&self, status: StatusCode) {
        self.http.count(status.as_u16());
    }
}

impl Watched for RemoteComputer {
    fn status(&self) -> v1::StatusResponse {
        let functions = self
            .function_statuses()
            .into_iter()
            .map(|status| function_status(&status.name, None, status.summary, (status.running, status.queued)));
        v1::StatusResponse {
            name: self.name().as_str().to_owned(),
            load: Some(self.load().to_wire()),
            functions: functions.collect(),
            resident_bytes: probe::resident_bytes(),
            instances_max: 0,
            instances: 0,
            processors: processor_shares(Watched::processors(self)),
            modelled: false,
        }
    }

    fn load(&self) -> Load {
        self.load()
    }

    /// There is none here; what it would be is the share of the calls that may be under way.
    fn processors(&self) -> Vec<(String, f32)> {
        vec![("remote".to_owned(), self.load().utilisation[0])]
    }
}
