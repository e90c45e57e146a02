//! Asking around: for the policy by which destinations themselves estimate how long each call would take there.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use nigh_proto::{Call, Outcome};
use nigh_routing::{Demand, Observation, Scope};

use crate::call::Broker;
use crate::forward::Destination;
use crate::verdict::judge;

/// Time for a first estimate; without any the call goes where it would without asking.
const PATIENCE: Duration = Duration::from_secs(1);
/// After the first estimate the others have so many times as long as it took, and at least this.
const REST_FACTOR: u32 = 2;
const REST_MIN: Duration = Duration::from_millis(10);

impl Broker {
    /// The destination that estimates the least time for the call, where the policy has them asked and one answers in time.
    pub(crate) async fn ask_around(&self, call: &Call, scope: Scope) -> Option<Destination> {
        let clients = self.probe_clients?;
        let demand = Demand { scope, exclude: None, payload_bytes: call.payload.len() as u64 };
        let candidates = self.routes.in_use(&call.function, demand);
        if candidates.len() < 2 {
            return None;
        }
        let question = Call { dry_run: true, ..call.clone() };
        let asked = Instant::now();
        let answers = stream::iter(candidates).map(|candidate| self.ask(&question, demand, candidate));
        let mut answers = answers.buffer_unordered(clients);
        let mut best: Option<(Duration, Destination)> = None;
        let mut until = asked + PATIENCE.min(call.time_left(asked));
        while let Ok(Some(answer)) = tokio::time::timeout_at(until.into(), answers.next()).await {
            let Some((estimate, destination)) = answer else { continue };
            if best.is_none() {
                let now = Instant::now();
                until = until.min(now + ((now - asked) * REST_FACTOR).max(REST_MIN));
            }
            if best.as_ref().is_none_or(|(least, _)| estimate < *least) {
                best = Some((estimate, destination));
            }
        }
        if let Some((estimate, destination)) = &best {
            tracing::debug!(?destination, ?estimate, "estimates the least");
        }
        best.map(|(_, destination)| destination)
    }

    async fn ask(
        &self,
        question: &Call,
        demand: Demand<'_, Destination>,
        destination: Destination,
    ) -> Option<(Duration, Destination)> {
        let sent = Instant::now();
        match destination.invoke(question, sent).await.map(|reply| reply.outcome) {
            Ok(Outcome::Estimate(estimate)) => Some((estimate.queue + estimate.init + estimate.run, destination)),
            Ok(_) => None,
            Err(failure) => {
                // Whoever is not there need not be asked again at once.
                if judge(&failure, sent.elapsed()).observation == Observation::Dead
                    && let Some(pick) = self.routes.pick_one(&question.function, &destination, demand)
                {
                    self.routes.observe(&question.function, &pick, Observation::Dead);
                }
                None
            }
        }
    }
}
