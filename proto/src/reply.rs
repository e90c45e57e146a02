//! What comes back for a call: its outcome, who ran it, and where the time went.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use crate::call::{CallId, Headers};
use crate::name::{Digest, Endpoint, FunctionName, NameError, NodeName};
use crate::state::{CarriedState, carried_from_wire};
use crate::status::{PlatformError, Reason};
use crate::time::us;
use crate::v1;

/// A call's outcome and its measurements.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// What the function, or in a dry run the computer, said.
    pub outcome: Outcome,
    /// Who ran it.
    pub computer: NodeName,
    /// Where whoever passed the call on last reached it; nothing straight from a computer, which does not know by which of
    /// its addresses it was reached.
    pub responder: Option<Endpoint>,
    /// Which version ran; nothing where the computer brings the function itself.
    pub version: Option<Digest>,
    /// The call's id.
    pub call: CallId,
    /// Roles that passed the call on.
    pub hops: u32,
    /// How busy the computer is.
    pub load: Load,
    /// Where the time went.
    pub timing: Timing,
    /// What ran, where more than one function was asked for.
    pub steps: Vec<StepRan>,
    /// The states that came with the call and were of use to what ran, as they are now.
    pub states: Vec<CarriedState>,
}

/// One function of a call that asks for several.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRan {
    /// Its step of the flow; nothing where a computer was asked for functions only.
    pub step: Option<NodeName>,
    /// The function.
    pub function: FunctionName,
    /// Who ran it.
    pub computer: NodeName,
    /// Where its time went.
    pub timing: Timing,
}

/// What the platform says a function failed of; any other kind of error is the function's own word.
pub const KINDS_OF_PLATFORM: [&str; 8] =
    ["panic", "trap", "time-limit", "memory-limit", "stack-limit", "answer-too-large", "malformed-answer", "exit"];

/// How a call ended, the platform having done its part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function answered.
    Answer {
        /// The answer's bytes.
        payload: Bytes,
        /// The answer's headers.
        headers: Headers,
    },
    /// The function failed: its own error, or it trapped or broke one of its limits.
    Error {
        /// A word to branch on, such as `bad-input` or `panic`.
        kind: String,
        /// For people.
        message: String,
    },
    /// A dry run's answer.
    Estimate(Estimate),
}

/// What a computer expects a call to take, from its own measurements or from its model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Waiting for a worker.
    pub queue: Duration,
    /// Making an instance.
    pub init: Duration,
    /// Running the function.
    pub run: Duration,
    /// Calls that this rests on; with 0 nothing is known, and the durations are zero.
    pub samples: u64,
    /// Of these, calls with a payload of about this size; with 0 what larger or smaller ones took was carried over.
    pub similar: u64,
    /// How far `init` varies.
    pub init_spread: Spread,
    /// How far `run` varies.
    pub run_spread: Spread,
    /// By the model of a computer whose hardware is modelled: it rests on no calls, and is exact if nothing else arrives.
    pub modelled: bool,
}

/// The range that eight of ten calls lie in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// One in ten is shorter.
    pub p10: Duration,
    /// One in ten is longer.
    pub p90: Duration,
}

/// How busy a computer is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Calls running.
    pub running: u32,
    /// Calls waiting.
    pub queued: u32,
    /// Calls that it can run at once.
    pub workers: u32,
    /// Shares of its cores spent in functions over the last 1, 10 and 30 s, from 0 to 1.
    pub utilisation: [f32; 3],
    /// Mean time that calls of late computed, whatever their function; zero where none has ended yet.
    pub service: Duration,
}

/// Where the time of one call went. Each role adds its own part on the way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Between roles: on the wire and in their transports.
    pub network: Duration,
    /// In brokers: deciding, and tries that failed before the one that did not.
    pub broker: Duration,
    /// Waiting at the computer.
    pub queue: Duration,
    /// Making an instance.
    pub init: Duration,
    /// In the function.
    pub run: Duration,
    /// Making the instance as new after the call before it; zero where it was newly made. Spent before this call came, so
    /// no part of its total.
    pub reset: Duration,
}

impl Timing {
    /// Everything measured so far.
    pub fn total(&self) -> Duration {
        self.network + self.broker + self.at_computer()
    }

    /// What was spent at the computer, from the call's arrival to its answer.
    pub fn at_computer(&self) -> Duration {
        self.queue + self.init + self.run
    }

    fn to_wire(self) -> v1::Timing {
        v1::Timing {
            network_us: us(self.network),
            broker_us: us(self.broker),
            queue_us: us(self.queue),
            init_us: us(self.init),
            run_us: us(self.run),
            // However short, it shows that the instance was not newly made.
            reset_us: us(self.reset).max(u64::from(!self.reset.is_zero())),
        }
    }

    fn from_wire(timing: &v1::Timing) -> Self {
        Self {
            network: Duration::from_micros(timing.network_us),
            broker: Duration::from_micros(timing.broker_us),
            queue: Duration::from_micros(timing.queue_us),
            init: Duration::from_micros(timing.init_us),
            run: Duration::from_micros(timing.run_us),
            reset: Duration::from_micros(timing.reset_us),
        }
    }
}

impl std::ops::AddAssign for Timing {
    fn add_assign(&mut self, other: Self) {
        self.network += other.network;
        self.broker += other.broker;
        self.queue += other.queue;
        self.init += other.init;
        self.run += other.run;
        self.reset += other.reset;
    }
}

impl StepRan {
    fn into_wire(self) -> v1::StepRan {
        v1::StepRan {
            step: self.step.map(|step| step.to_string()).unwrap_or_default(),
            function: self.function.to_string(),
            computer: self.computer.to_string(),
            timing: Some(self.timing.to_wire()),
        }
    }

    fn from_wire(ran: v1::StepRan) -> Result<Self, NameError> {
        Ok(Self {
            step: optional(&ran.step)?,
            function: ran.function.parse()?,
            computer: ran.computer.parse()?,
            timing: ran.timing.as_ref().map(Timing::from_wire).unwrap_or_default(),
        })
    }
}

fn spread(p10_us: u64, p90_us: u64) -> Spread {
    Spread { p10: Duration::from_micros(p10_us), p90: Duration::from_micros(p90_us) }
}

impl Load {
    /// The load as its message.
    pub fn to_wire(self) -> v1::Load {
        let [utilisation_1s, utilisation_10s, utilisation_30s] = self.utilisation;
        v1::Load {
            running: self.running,
            queued: self.queued,
            workers: self.workers,
            utilisation_1s,
            utilisation_10s,
            utilisation_30s,
            service_us: us(self.service),
        }
    }

    /// The load that a message tells of.
    pub fn from_wire(load: &v1::Load) -> Self {
        let utilisation = [load.utilisation_1s, load.utilisation_10s, load.utilisation_30s];
        let service = Duration::from_micros(load.service_us);
        Self { running: load.running, queued: load.queued, workers: load.workers, utilisation, service }
    }
}

impl Reply {
    /// A reply to this call that says nothing but how it ended, and where.
    pub fn new(outcome: Outcome, computer: NodeName, call: CallId) -> Self {
        Self {
            outcome,
            computer,
            responder: None,
            version: None,
            call,
            hops: 0,
            load: Load::default(),
            timing: Timing::default(),
            steps: Vec::new(),
            states: Vec::new(),
        }
    }

    /// The reply as its message.
    pub fn into_wire(self) -> v1::InvokeResponse {
        use v1::invoke_response::Outcome as Wire;
        let outcome = match self.outcome {
            Outcome::Answer { payload, headers } => Wire::Answer(v1::Answer { payload, headers: headers.into_wire() }),
            Outcome::Error { kind, message } => Wire::Error(v1::FunctionError { kind, message }),
            Outcome::Estimate(estimate) => Wire::Estimate(v1::Estimate {
                queue_us: us(estimate.queue),
                init_us: us(estimate.init),
                run_us: us(estimate.run),
                samples: estimate.samples,
                similar: estimate.similar,
                init_p10_us: us(estimate.init_spread.p10),
                init_p90_us: us(estimate.init_spread.p90),
                run_p10_us: us(estimate.run_spread.p10),
                run_p90_us: us(estimate.run_spread.p90),
                modelled: estimate.modelled,
            }),
        };
        v1::InvokeResponse {
            outcome: Some(outcome),
            computer: self.computer.as_str().to_owned(),
            version: self.version.map(|version| version.to_string()).unwrap_or_default(),
            responder: self.responder.map(|endpoint| endpoint.to_string()).unwrap_or_default(),
            call_id: self.call.as_str().to_owned(),
            hops: self.hops,
            load: Some(self.load.to_wire()),
            timing: Some(self.timing.to_wire()),
            steps: self.steps.into_iter().map(StepRan::into_wire).collect(),
            states: self.states.iter().map(CarriedState::to_wire).collect(),
        }
    }

    /// Checks a message as it arrives.
    ///
    /// # Errors
    /// [`Reason::Protocol`] where the peer's message is not of this protocol.
    pub fn from_wire(response: v1::InvokeResponse) -> Result<Self, PlatformError> {
        use v1::invoke_response::Outcome as Wire;
        let foreign = |what: &str| {
            PlatformError::new(
                Reason::Protocol,
                format!("the peer's response has no valid {what}; is it of the same version?"),
            )
        };
        let outcome = match response.outcome.ok_or_else(|| foreign("outcome"))? {
            Wire::Answer(answer) => Outcome::Answer {
                payload: answer.payload,
                headers: Headers::from_wire(answer.headers).map_err(|_| foreign("headers"))?,
            },
            Wire::Error(error) => Outcome::Error { kind: error.kind, message: error.message },
            Wire::Estimate(estimate) => Outcome::Estimate(Estimate {
                queue: Duration::from_micros(estimate.queue_us),
                init: Duration::from_micros(estimate.init_us),
                run: Duration::from_micros(estimate.run_us),
                samples: estimate.samples,
                similar: estimate.similar,
                init_spread: spread(estimate.init_p10_us, estimate.init_p90_us),
                run_spread: spread(estimate.run_p10_us, estimate.run_p90_us),
                modelled: estimate.modelled,
            }),
        };
        let steps = response.steps.into_iter().map(StepRan::from_wire).collect::<Result<_, _>>();
        Ok(Self {
            outcome,
            computer: response.computer.parse().map_err(|_| foreign("computer"))?,
            responder: optional(&response.responder).map_err(|_| foreign("responder"))?,
            version: optional(&response.version).map_err(|_| foreign("version"))?,
            call: response.call_id.parse().map_err(|_| foreign("call id"))?,
            hops: response.hops,
            load: response.load.as_ref().map(Load::from_wire).unwrap_or_default(),
            timing: response.timing.as_ref().map(Timing::from_wire).unwrap_or_default(),
            steps: steps.map_err(|_| foreign("steps"))?,
            states: carried_from_wire(response.states).map_err(|_| foreign("states"))?,
        })
    }
}

/// A value whose absence the wire tells with an empty text.
fn optional<T: FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(outcome: Outcome) -> Reply {
        Reply {
            outcome,
            computer: "computer-1".parse().unwrap(),
            responder: Some("127.0.0.1:10000".parse().unwrap()),
            version: Some(Digest::of(b"x")),
            call: CallId::random(),
            hops: 1,
            load: Load {
                running: 1,
                queued: 2,
                workers: 3,
                utilisation: [0.5, 0.25, 0.125],
                service: Duration::from_micros(40),
            },
            timing: Timing { run: Duration::from_micros(7), reset: Duration::from_micros(2), ..Timing::default() },
            steps: vec![StepRan {
                step: Some("blur".parse().unwrap()),
                function: "echo".parse().unwrap(),
                computer: "computer-1".parse().unwrap(),
                timing: Timing { queue: Duration::from_micros(3), ..Timing::default() },
            }],
            states: vec![CarriedState {
                name: "s0".parse().unwrap(),
                place: crate::StatePlace::Content(Bytes::from_static(b"0")),
                needed_by: vec!["echo".parse().unwrap()],
            }],
        }
    }

    #[test]
    fn replies_survive_the_wire() {
        let headers = Headers::new(vec![("a".into(), "1".into())]).unwrap();
        for outcome in [
            Outcome::Answer { payload: Bytes::from_static(b"x"), headers },
            Outcome::Error { kind: "panic".into(), message: "at the disco".into() },
            Outcome::Estimate(Estimate {
                run: Duration::from_micros(9),
                samples: 3,
                similar: 2,
                run_spread: spread(8, 11),
                ..Estimate::default()
            }),
        ] {
            let there = reply(outcome);
            assert_eq!(Reply::from_wire(there.clone().into_wire()).unwrap(), there);
        }
    }

    #[test]
    fn a_response_without_an_outcome_is_of_another_protocol() {
        let response =
            v1::InvokeResponse { outcome: None, ..reply(Outcome::Estimate(Estimate::default())).into_wire() };
        assert_eq!(Reply::from_wire(response).unwrap_err().reason, Reason::Protocol);
    }
}
