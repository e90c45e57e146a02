//! Functions one after the other on this computer: what one answers goes to the next in memory.

use std::time::Instant;

use nigh_proto::state::update_carried;
use nigh_proto::{Call, FunctionName, Outcome, PlatformError, Reply, StepRan};

use crate::computer::Computer;

impl Computer {
    /// Runs a call's function, and those that are to follow it as long as they are served here. Whoever called goes on from
    /// where this ends.
    pub(crate) async fn run(&self, mut call: Call, arrived: Instant) -> Result<Reply, PlatformError> {
        if call.flow.is_some() {
            return Err(PlatformError::malformed("a computer runs functions, not flows; send a flow to a broker"));
        }
        let then = std::mem::take(&mut call.then);
        if then.is_empty() || call.dry_run {
            return self.take(call, arrived).await;
        }
        Box::pin(self.run_chain(call, then, arrived)).await
    }

    async fn run_chain(&self, call: Call, then: Vec<FunctionName>, arrived: Instant) -> Result<Reply, PlatformError> {
        let function = call.function.clone();
        let mut each = call.clone();
        let mut whole = self.take(call, arrived).await?;
        whole.steps.push(ran(&function, &whole));
        update_carried(&mut each.states, &whole.states);
        for function in then {
            let Outcome::Answer { payload, headers } = &whole.outcome else { break };
            if self.functions().get(&function).is_none() {
                break;
            }
            let (payload, headers) = (payload.clone(), headers.clone());
            let next = Call { function: function.clone(), payload, headers, ..each.clone() };
            match self.take(next, Instant::now()).await {
                Ok(reply) => {
                    whole.steps.push(ran(&function, &reply));
                    update_carried(&mut each.states, &reply.states);
                    let (timing, steps) = (whole.timing, whole.steps);
                    whole = Reply { steps, ..reply };
                    whole.timing += timing;
                }
                // It may run elsewhere.
                Err(error) if error.reason.certainly_not_started() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Reply { states: each.states, ..whole })
    }
}

fn ran(function: &FunctionName, reply: &Reply) -> StepRan {
    StepRan { step: None, function: function.clone(), computer: reply.computer.clone(), timing: reply.timing }
}
