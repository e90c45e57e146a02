//! What traces and logs of this computer say of one call.

use nigh_proto::{Call, NodeName, PlatformError, Reply, Timing};
use nigh_telemetry::outcome_word;
use tracing::Instrument as _;

/// Has a call taken, within a span of its own that tells at the end how that went.
pub(crate) async fn around<Taking>(
    computer: &NodeName,
    call: Call,
    take: impl FnOnce(Call) -> Taking,
) -> Result<Reply, PlatformError>
where
    Taking: Future<Output = Result<Reply, PlatformError>>,
{
    let span = tracing::debug_span!("call", id = %call.id, function = %call.function, %computer);
    let reply = take(call).instrument(span.clone()).await;
    span.in_scope(|| match &reply {
        Ok(Reply { outcome, timing, .. }) => {
            let Timing { queue, init, run, reset, .. } = timing;
            tracing::debug!(outcome = outcome_word(Ok(outcome)), ?queue, ?init, ?run, ?reset, "ended");
        }
        Err(error) => tracing::debug!(reason = error.reason.word(), %error, "not brought to an outcome"),
    });
    reply
}
