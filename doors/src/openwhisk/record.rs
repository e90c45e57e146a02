//! One activation: an invocation that has ended, as OpenWhisk tells of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use bytes::Bytes;
use nigh_proto::reply::KINDS_OF_PLATFORM;
use nigh_proto::{CallId, Kind, NodeName, Outcome, PlatformError, Reply};
use serde_json::{Value, json};

use super::entity::kind_word;
use crate::namespace::Entity;
use crate::shape::{Shape, shape_of};

/// The version that every action has: what is deployed has a digest in place of a count.
pub(super) const VERSION: &str = "0.0.1";

/// How an activation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Success,
    /// The function said that it failed.
    ApplicationError,
    /// The function broke down, or was ended at a limit.
    DeveloperError,
    /// The platform failed.
    InternalError,
}

impl Ending {
    fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ApplicationError => "application error",
            Self::DeveloperError => "action developer error",
            Self::InternalError => "whisk internal error",
        }
    }
}

/// An activation that has ended.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: CallId,
    pub(super) entity: Entity,
    pub(super) start: SystemTime,
    pub(super) ending: Ending,
    /// Whether the result is a JSON array.
    pub(super) is_array: bool,
    /// JSON.
    pub(super) result: Bytes,
    pub(super) computer: Option<NodeName>,
    took: Duration,
    kind: Option<Kind>,
    wait: Duration,
    init: Duration,
    digest: Option<String>,
}

/// What ran, and since when.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) id: CallId,
    pub(super) entity: Entity,
    pub(super) kind: Option<Kind>,
    pub(super) start: SystemTime,
    pub(super) at: std::time::Instant,
}

impl Record {
    /// The record of what has ended so.
    pub(super) fn new(begun: Begun, outcome: Result<Reply, PlatformError>) -> Self {
        let mut record = Self {
            id: begun.id,
            entity: begun.entity,
            start: begun.start,
            ending: Ending::InternalError,
            is_array: false,
            result: Bytes::new(),
            computer: None,
            took: begun.at.elapsed(),
            kind: begun.kind,
            wait: Duration::ZERO,
            init: Duration::ZERO,
            digest: None,
        };
        match outcome {
            Ok(reply) => {
                record.wait = reply.timing.broker + reply.timing.queue + reply.timing.network;
                record.init = reply.timing.init;
                record.computer = Some(reply.computer);
                record.digest = reply.version.map(|version| version.to_string());
                record.conclude(reply.outcome);
            }
            Err(error) => record.result = failure(&error.message),
        }
        record
    }

    fn conclude(&mut self, outcome: Outcome) {
        let (ending, result) = match outcome {
            Outcome::Answer { payload, .. } => match shape_of(&payload) {
                Shape::Object { has_error: true } => (Ending::ApplicationError, payload),
                Shape::Object { has_error: false } => (Ending::Success, payload),
                Shape::Array => {
                    self.is_array = true;
                    (Ending::Success, payload)
                }
                Shape::Other => (Ending::Success, wrapped(&payload)),
            },
            Outcome::Error { kind, message } => {
                let of_platform = KINDS_OF_PLATFORM.contains(&kind.as_str());
                let ending = if of_platform { Ending::DeveloperError } else { Ending::ApplicationError };
                (ending, failure(&format!("{kind}: {message}")))
            }
            Outcome::Estimate(_) => (Ending::InternalError, failure("a call was answered with an estimate")),
        };
        (self.ending, self.result) = (ending, result);
    }

    /// Bytes that it holds, about.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.result.len() + self.entity.name.len()
    }

    /// As an element of a list.
    pub(super) fn summary(&self) -> Value {
        let mut told = self.told();
        told["statusCode"] = (self.ending as u8).into();
        told
    }

    /// All of it, with these lines of its log.
    pub(super) fn whole(&self, logs: &[String]) -> Vec<u8> {
        let mut told = self.told();
        told["subject"] = self.entity.namespace.as_str().into();
        told["logs"] = logs.into();
        // The result stands in it byte for byte.
        let mut whole = serde_json::to_vec(&told).unwrap_or_default();
        whole.pop();
        whole.extend_from_slice(b",\"response\":");
        whole.extend_from_slice(&self.response());
        whole.push(b'}');
        whole
    }

    /// What came of it.
    pub(super) fn response(&self) -> Vec<u8> {
        let is_success = self.ending == Ending::Success;
        let head = format!(
            "{{\"status\":\"{}\",\"success\":{is_success},\"size\":{},\"result\":",
            self.ending.word(),
            self.result.len()
        );
        [head.as_bytes(), &self.result, b"}"].concat()
    }

    fn told(&self) -> Value {
        let (start, took) = (ms(self.start), as_ms(self.took));
        let mut annotations = vec![
            json!({ "key": "path", "value": format!("{}/{}", self.entity.namespace, self.entity.path()) }),
            json!({ "key": "kind", "value": kind_word(self.kind) }),
            json!({ "key": "waitTime", "value": as_ms(self.wait) }),
        ];
        if !self.init.is_zero() {
            annotations.push(json!({ "key": "initTime", "value": as_ms(self.init) }));
        }
        if let Some(computer) = &self.computer {
            annotations.push(json!({ "key": "computer", "value": computer.as_str() }));
        }
        if let Some(digest) = &self.digest {
            annotations.push(json!({ "key": "digest", "value": digest }));
        }
        json!({
            "activationId": self.id.as_str(),
            "namespace": self.entity.namespace.as_str(),
            "name": self.entity.name,
            "version": VERSION,
            "publish": false,
            "start": start,
            "end": start + took,
            "duration": took,
            "annotations": annotations,
        })
    }
}

/// An answer that is no object and no array, as one.
fn wrapped(payload: &[u8]) -> Bytes {
    let value = match std::str::from_utf8(payload) {
        Ok(text) => json!({ "payload": text }),
        Err(_) => json!({ "payload_base64": base64::engine::general_purpose::STANDARD.encode(payload) }),
    };
    value.to_string().into()
}

fn failure(message: &str) -> Bytes {
    json!({ "error": message }).to_string().into()
}

/// Milliseconds since 1970.
pub(super) fn ms(time: SystemTime) -> u64 {
    as_ms(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use nigh_proto::{Headers, Load, Reason, Timing};

    use super::*;

    /// An activation of `name`, which began so many milliseconds after 1970.
    pub(in crate::openwhisk) fn record(name: &str, start_ms: u64, outcome: Result<Outcome, PlatformError>) -> Record {
        let start = UNIX_EPOCH + Duration::from_millis(start_ms);
        let entity = Entity::of(&name.parse().unwrap());
        let begun = Begun { id: CallId::random(), entity, kind: None, start, at: std::time::Instant::now() };
        let reply = |outcome| Reply {
            outcome,
            computer: "c".parse().unwrap(),
            responder: None,
            version: None,
            call: CallId::random(),
            hops: 1,
            load: Load::default(),
            timing: Timing::default(),
            steps: Vec::new(),
            states: Vec::new(),
        };
        Record::new(begun, outcome.map(reply))
    }

    pub(in crate::openwhisk) fn answer(payload: &'static [u8]) -> Result<Outcome, PlatformError> {
        Ok(Outcome::Answer { payload: payload.into(), headers: Headers::default() })
    }

    #[test]
    fn answers_of_any_form_have_a_result() {
        let error = |kind: &str| Ok(Outcome::Error { kind: kind.into(), message: "no \"luck\"".into() });
        for (outcome, ending, result) in [
            (answer(b"{\"a\":1}"), Ending::Success, json!({ "a": 1 })),
            (answer(b"[1,2]"), Ending::Success, json!([1, 2])),
            (answer(b"{\"error\":\"x\"}"), Ending::ApplicationError, json!({ "error": "x" })),
            (answer("say \"ö\"\n".as_bytes()), Ending::Success, json!({ "payload": "say \"ö\"\n" })),
            (answer(b""), Ending::Success, json!({ "payload": "" })),
            (answer(b"\xff\x00"), Ending::Success, json!({ "payload_base64": "/wA=" })),
            (error("bad-input"), Ending::ApplicationError, json!({ "error": "bad-input: no \"luck\"" })),
            (error("panic"), Ending::DeveloperError, json!({ "error": "panic: no \"luck\"" })),
            (Err(PlatformError::new(Reason::Disconnected, "gone")), Ending::InternalError, json!({ "error": "gone" })),
        ] {
            let record = record("math.add", 1000, outcome);
            let whole: Value = serde_json::from_slice(&record.whole(&["line".into()])).unwrap();
            assert_eq!((record.ending, &whole["response"]["result"]), (ending, &result));
            assert_eq!(whole["response"]["status"], ending.word());
            assert_eq!(whole["response"]["success"], ending == Ending::Success);
            assert_eq!((&whole["name"], &whole["logs"]), (&json!("add"), &json!(["line"])));
            assert_eq!(whole["annotations"][0], json!({ "key": "path", "value": "guest/math/add" }));
            let summary = record.summary();
            assert!(summary.get("response").is_none() && summary["statusCode"] == ending as u8, "{summary}");
            assert_eq!((&summary["start"], &summary["activationId"]), (&json!(1000), &json!(record.id.as_str())));
        }
    }
}
