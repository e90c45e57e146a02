//! One activation: an invocation that has ended, as OpenWhisk tells of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use bytes::Bytes;
use nigh_proto::reply::KINDS_OF_PLATFORM;
use nigh_proto::{CallId, NodeName, Outcome, PlatformError, Reply};
use serde_json::{Value, json};

use super::entity::SEQUENCE;
use crate::namespace::{Entity, Namespace};
use crate::shape::{Shape, shape_of};

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
    pub(super) ran: Ran,
    pub(super) ending: Ending,
    /// Whether the result is a JSON array.
    pub(super) is_array: bool,
    /// JSON.
    pub(super) result: Bytes,
    pub(super) computer: Option<NodeName>,
    /// Of a sequence, the activations of its actions.
    pub(super) components: Option<Vec<CallId>>,
    /// Until its end.
    took: Duration,
    /// Of a sequence, how long its actions ran.
    ran_for: Option<Duration>,
    wait: Duration,
    init: Duration,
    digest: Option<String>,
}

/// What ran, and since when.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) id: CallId,
    pub(super) entity: Entity,
    /// Whose activation it is; the action may be another's that is published.
    pub(super) owner: Namespace,
    pub(super) version: String,
    /// `exec.kind`.
    pub(super) kind: &'static str,
    /// `NAMESPACE/PACKAGE` by which it was called, where that is bound to another.
    pub(super) binding: Option<String>,
    /// The sequence's activation that it is part of.
    pub(super) cause: Option<CallId>,
    pub(super) start: SystemTime,
    pub(super) at: Instant,
}

impl Record {
    /// The record of what has ended so.
    pub(super) fn new(ran: Ran, outcome: Result<Reply, PlatformError>) -> Self {
        let mut record = Self::ended(ran, Ending::InternalError, Bytes::new());
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

    /// The record of a sequence that has ended as the last of its actions did.
    pub(super) fn of_sequence(ran: Ran, last: &Self, components: Vec<CallId>, ran_for: Duration) -> Self {
        let (is_array, components) = (last.is_array, Some(components));
        Self { is_array, components, ran_for: Some(ran_for), ..Self::ended(ran, last.ending, last.result.clone()) }
    }

    /// The record of a sequence that could not go on.
    pub(super) fn of_broken_sequence(
        ran: Ran,
        (ending, message): (Ending, &str),
        components: Vec<CallId>,
        ran_for: Duration,
    ) -> Self {
        Self { components: Some(components), ran_for: Some(ran_for), ..Self::ended(ran, ending, failure(message)) }
    }

    fn ended(ran: Ran, ending: Ending, result: Bytes) -> Self {
        let took = ran.at.elapsed();
        Self {
            ran,
            ending,
            is_array: false,
            result,
            computer: None,
            components: None,
            took,
            ran_for: None,
            wait: Duration::ZERO,
            init: Duration::ZERO,
            digest: None,
        }
    }

    /// Its id.
    pub(super) fn id(&self) -> &CallId {
        &self.ran.id
    }

    /// How long something of it ran.
    pub(super) fn duration(&self) -> Duration {
        self.ran_for.unwrap_or(self.took)
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
        let ids = self.components.as_ref().map_or(0, |ids| ids.len() * CallId::BYTES_MAX);
        size_of::<Self>() + self.result.len() + self.ran.entity.name.len() + ids
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
        told["subject"] = self.ran.owner.as_str().into();
        told["logs"] = match &self.components {
            Some(ids) => ids.iter().map(CallId::as_str).collect(),
            None => logs.into(),
        };
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
        let Ran { id, entity, owner, version, kind, binding, cause, start, .. } = &self.ran;
        let pair = |key: &str, value: Value| json!({ "key": key, "value": value });
        let path = format!("{}/{}", entity.namespace, entity.path());
        let mut annotations = vec![pair("path", path.into()), pair("kind", (*kind).into())];
        if self.components.is_none() {
            annotations.push(pair("waitTime", as_ms(self.wait).into()));
        } else if cause.is_none() {
            annotations.push(pair("topmost", true.into()));
        }
        if !self.init.is_zero() {
            annotations.push(pair("initTime", as_ms(self.init).into()));
        }
        let causer = cause.as_ref().map(|_| SEQUENCE.to_owned());
        let computer = self.computer.as_ref().map(ToString::to_string);
        let further = [
            ("causedBy", causer),
            ("binding", binding.clone()),
            ("computer", computer),
            ("digest", self.digest.clone()),
        ];
        annotations.extend(further.into_iter().filter_map(|(key, value)| Some(pair(key, value?.into()))));
        // Rounded but once, so that what ended later is never told to have ended earlier.
        let (began, ended) = (ms(*start), ms(*start + self.took));
        let mut told = json!({
            "activationId": id.as_str(),
            "namespace": owner.as_str(),
            "name": entity.name,
            "version": version,
            "publish": false,
            "start": began,
            "end": ended,
            "duration": self.ran_for.map_or(ended - began, as_ms),
            "annotations": annotations,
        });
        if let Some(cause) = cause {
            told["cause"] = cause.as_str().into();
        }
        told
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

/// Milliseconds from 1970 until now.
pub(super) fn ms_now() -> u64 {
    ms(SystemTime::now())
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
        let ran = Ran { start, ..ran(name) };
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
        Record::new(ran, outcome.map(reply))
    }

    /// An action that begins to run.
    pub(in crate::openwhisk) fn ran(name: &str) -> Ran {
        Ran {
            id: CallId::random(),
            entity: Entity::of(&name.parse().unwrap()),
            owner: Namespace::default(),
            version: "0.0.1".into(),
            kind: "wasm:default",
            binding: None,
            cause: None,
            start: SystemTime::now(),
            at: Instant::now(),
        }
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
            assert_eq!((&summary["start"], &summary["activationId"]), (&json!(1000), &json!(record.id().as_str())));
        }
    }

    #[test]
    fn a_sequence_is_told_by_the_activations_of_its_actions() {
        let first = record("a", 1, answer(b"[7]"));
        let ids = vec![first.id().clone()];
        let whole = Record::of_sequence(ran("both"), &first, ids.clone(), Duration::from_millis(5));
        let told: Value = serde_json::from_slice(&whole.whole(&["none of these".into()])).unwrap();
        assert_eq!((&told["logs"], &told["duration"]), (&json!([ids[0].as_str()]), &json!(5)));
        assert_eq!((&told["response"]["result"], whole.is_array), (&json!([7]), true));
        assert!(told["annotations"].as_array().unwrap().contains(&json!({ "key": "topmost", "value": true })));
        let inner = Ran { cause: Some(whole.id().clone()), binding: Some("guest/b".into()), ..ran("a") };
        let inner = Record::new(inner, Err(PlatformError::new(Reason::Internal, "gone"))).summary();
        assert_eq!(inner["cause"], whole.id().as_str());
        let annotations = inner["annotations"].as_array().unwrap();
        for (key, value) in [("causedBy", "sequence"), ("binding", "guest/b")] {
            assert!(annotations.contains(&json!({ "key": key, "value": value })), "{annotations:?}");
        }
    }
}
