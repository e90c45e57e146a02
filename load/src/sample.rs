//! What became of one call.

use std::time::Duration;

use nigh_proto::{Endpoint, NodeName, Outcome, PlatformError, Reason, Reply, Timing};

/// One call that was due. Times are from the start of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When it should have been made.
    pub due: Duration,
    /// When it was.
    pub sent: Duration,
    /// When its outcome was there.
    pub ended: Duration,
    /// Which client made it.
    pub client: u32,
    /// Which function it was of, by place.
    pub function: u32,
    /// Bytes that it sent.
    pub request_bytes: usize,
    /// How it ended.
    pub ending: Ending,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// With an answer; in a dry run with an estimate.
    Answered(Facts),
    /// With the function's own error of this kind.
    FunctionError(String, Facts),
    /// With an error of the platform.
    Failed(Reason),
    /// It was not made: too many were under way.
    Overflow,
    /// It was not made: it had expired before its client was free.
    Expired,
}

/// What a reply tells beside the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Who ran it.
    pub computer: NodeName,
    /// Where that is reached, if it went through a broker.
    pub responder: Option<Endpoint>,
    /// Percent of the computer that was in use over the last second.
    pub load1: u32,
    /// Brokers that it went through.
    pub hops: u32,
    /// Bytes of the answer.
    pub answer_bytes: usize,
    /// Where its time went.
    pub timing: Timing,
    /// What a dry run was told.
    pub estimate: Option<Duration>,
}

impl Sample {
    /// From when it was due to its outcome: what a caller waited who came at that time.
    pub fn latency(&self) -> Duration {
        self.ended.saturating_sub(self.due)
    }

    /// From when it was made to its outcome.
    pub fn service(&self) -> Duration {
        self.ended.saturating_sub(self.sent)
    }

    /// How much later than due it was made.
    pub fn start_delay(&self) -> Duration {
        self.sent.saturating_sub(self.due)
    }

    /// Whether it was made at all.
    pub(crate) fn was_made(&self) -> bool {
        !matches!(self.ending, Ending::Overflow | Ending::Expired)
    }
}

impl From<Result<Reply, PlatformError>> for Ending {
    fn from(outcome: Result<Reply, PlatformError>) -> Self {
        let reply = match outcome {
            Ok(reply) => reply,
            Err(error) => return Self::Failed(error.reason),
        };
        let mut facts = Facts {
            computer: reply.computer,
            responder: reply.responder,
            load1: percent(reply.load.utilisation[0]),
            hops: reply.hops,
            answer_bytes: 0,
            timing: reply.timing,
            estimate: None,
        };
        match reply.outcome {
            Outcome::Answer { payload, .. } => facts.answer_bytes = payload.len(),
            Outcome::Estimate(estimate) => facts.estimate = Some(estimate.queue + estimate.init + estimate.run),
            Outcome::Error { kind, .. } => return Self::FunctionError(kind, facts),
        }
        Self::Answered(facts)
    }
}

/// A share as a whole number of percent, as the older system tells it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "made to fit")]
fn percent(share: f32) -> u32 {
    (0.5 + 100.0 * share.clamp(0.0, 1.0)) as u32
}
