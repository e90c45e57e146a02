//! A computer as its role and its doors see it, whatever runs its functions.

use std::sync::Arc;

use nigh_proto::ingress::Handler;
use nigh_proto::membership::Node;
use nigh_proto::{Digest, Endpoint, FunctionName, Kind, Load, NodeName, Remote};
use nigh_state::Keeper;
use nigh_telemetry::HttpResponses;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::function::Functions;
use crate::measure::Summary;

/// One function, as `Status` tells of it.
pub(crate) struct FunctionStatus {
    pub(crate) name: FunctionName,
    /// The version in use, of one that was deployed.
    pub(crate) version: Option<Digest>,
    pub(crate) summary: Summary,
    pub(crate) running: u32,
    pub(crate) queued: u32,
    /// It breaks its limits again and again, and so runs one call at a time.
    pub(crate) held_back: bool,
}

/// What answers calls as a computer does.
pub(crate) trait Computing: Handler {
    fn name(&self) -> &NodeName;

    /// The states that it holds.
    fn states(&self) -> &Arc<Keeper>;

    /// Answers at its door for HTTP.
    fn http_responses(&self) -> &HttpResponses;

    /// Whether calls have a chance; else why not.
    fn readiness(&self) -> Result<(), String>;

    /// The kind of a function, if there is one of this name.
    fn kind(&self, function: &FunctionName) -> Option<Kind>;

    /// How busy it is.
    fn load(&self) -> Load;

    /// By name, the share of each processor that was busy in the last second.
    fn processors(&self) -> Vec<(String, f32)>;

    /// All functions with their measurements.
    fn function_statuses(&self) -> Vec<FunctionStatus>;

    /// Instances that there are, and those that there is room for.
    fn instances(&self) -> (u32, u32) {
        (0, 0)
    }

    /// Whether it tells what hardware would do that is not there.
    fn is_modelled(&self) -> bool {
        false
    }

    /// The functions deployed to it, whose logs can be read; nothing where it brings its functions itself.
    fn deployed(&self) -> Option<&Functions> {
        None
    }

    /// What it announces of itself, being reached at `endpoint`; nothing while it is of no use to anybody.
    fn node(&self, endpoint: Endpoint) -> Option<Node>;

    /// Told whenever what it announces may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// What it is told to run, until `shutdown`; what brings its functions itself is told nothing.
    fn follow(
        self: Arc<Self>,
        _controller: Remote,
        _shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        std::future::ready(())
    }

    /// Takes no more calls; those that wait or run go on.
    fn close(&self);

    /// Calls that wait or run.
    fn under_way(&self) -> usize;

    /// Ends everything at once.
    fn end(&self);
}
