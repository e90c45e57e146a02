//! Putting an action deploys its function, deleting it removes it. Its code is a Wasm module, or a component, in Base64.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http::StatusCode;
use nigh_client::DeployRequest;
use nigh_proto::Limits;
use serde::Deserialize;
use serde_json::Value;

use super::entity::{Action, MIB};
use super::failure::Failure;
use super::{Asked, Openwhisk};
use crate::answer::{self, Answer};
use crate::backend::Backend;
use crate::namespace::Entity;

/// What an action may ask for.
pub(super) const TIMEOUT_MS: RangeInclusive<u64> = 100..=300_000;
pub(super) const MEMORY_MIB: RangeInclusive<u64> = 1..=512;
pub(super) const LOGS_MIB: RangeInclusive<u64> = 0..=10;
/// Bytes of code, at most, and of a request that brings it in Base64.
const CODE_BYTES_MAX: usize = 48 << 20;
const REQUEST_BYTES_MAX: usize = CODE_BYTES_MAX / 3 * 4 + (64 << 10);
/// Time for it to come.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// When to come again where another module is being taken in.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How a Wasm module and a zip archive begin, in Base64.
const MODULE_BEGINS: &str = "AGFzbQ";
const ARCHIVE_BEGINS: &str = "UEsD";

/// An action as it is put. What a client says beside this is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Put<'a> {
    #[serde(borrow)]
    exec: Option<Exec<'a>>,
    limits: LimitsGiven,
    parameters: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Exec<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LimitsGiven {
    timeout: Option<u64>,
    memory: Option<u64>,
    logs: Option<u64>,
}

impl<B: Backend> Openwhisk<B> {
    pub(super) async fn put(&self, entity: Entity, asked: Asked) -> Result<Answer, Failure> {
        check_may_deploy(&asked)?;
        let overwrite = asked.query.flag("overwrite").map_err(Failure::bad)?;
        let function = entity.function().ok_or_else(|| {
            Failure::bad(format!("{}: functions here have names of a-z 0-9 - _ . alone", entity.path()))
        })?;
        let Ok(_one) = self.deploying.try_acquire() else {
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "another action is being put; try again");
            return Err(failure.retry_after(RETRY_AFTER));
        };
        let (parts, body) = asked.request.into_parts();
        let until = Instant::now() + UPLOAD_TIMEOUT;
        let arrived = self.gate.read(&parts.headers, body, REQUEST_BYTES_MAX, until).await?;
        let malformed = |error| Failure::bad(format!("The request content was malformed: {error}"));
        let put: Put<'_> = serde_json::from_slice(&arrived.bytes).map_err(malformed)?;
        let existing = self.registry.find(&function).await?;
        if existing.is_some() && !overwrite {
            return Err(Failure::new(StatusCode::CONFLICT, "resource already exists"));
        }
        let module = put.module()?;
        let limits = put.limits.applied_to(existing.as_ref().map(|there| there.limits.clone()).unwrap_or_default())?;
        let (directories, hosts, placement, states) =
            existing.map(|there| (there.directories, there.hosts, there.placement, there.states)).unwrap_or_default();
        let request = DeployRequest { name: function, limits, directories, hosts, placement, states };
        let deployment = self.registry.deploy(request, module, &*self.backend).await?;
        let told = Action { entity: Entity::of(&deployment.name), deployment };
        Ok(answer::json(StatusCode::OK, &told.whole()))
    }

    pub(super) async fn delete(&self, entity: &Entity, asked: &Asked) -> Result<Answer, Failure> {
        check_may_deploy(asked)?;
        let action = self.find(entity).await?;
        self.registry.remove(&action.deployment.name).await?;
        Ok(answer::json(StatusCode::OK, &action.whole()))
    }
}

fn check_may_deploy(asked: &Asked) -> Result<(), Failure> {
    if asked.caller.may_deploy {
        return Ok(());
    }
    let message = "this credential may invoke and look, not put or delete; its line in the door's file has no `deploy`";
    Err(Failure::new(StatusCode::FORBIDDEN, message))
}

impl Put<'_> {
    fn module(&self) -> Result<Bytes, Failure> {
        let has_parameters = match &self.parameters {
            None | Some(Value::Null) => false,
            Some(Value::Array(parameters)) => !parameters.is_empty(),
            Some(_) => true,
        };
        if has_parameters {
            return Err(Failure::bad("parameters are not kept here; send them with each invocation"));
        }
        let missing = "exec undefined";
        let exec = self.exec.as_ref().ok_or_else(|| Failure::bad(missing))?;
        let code = exec.code.as_deref().map(str::trim).filter(|code| !code.is_empty());
        let code = code.ok_or_else(|| Failure::bad(missing))?;
        if code.starts_with(ARCHIVE_BEGINS) {
            return Err(Failure::bad("the code is an archive; send the Wasm module itself, in Base64"));
        }
        if !code.starts_with(MODULE_BEGINS) {
            let kind: String = exec.kind.chars().take(64).collect();
            return Err(Failure::bad(format!(
                "the code (of kind {kind:?}) is no Wasm module in Base64; nothing else runs here. Build one, and send its bytes"
            )));
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(code);
        decoded.map(Bytes::from).map_err(|error| Failure::bad(format!("the code is not Base64: {error}")))
    }
}

impl LimitsGiven {
    fn applied_to(&self, mut limits: Limits) -> Result<Limits, Failure> {
        if let Some(ms) = checked("timeout", self.timeout, &TIMEOUT_MS)? {
            limits.timeout = Duration::from_millis(ms);
        }
        if let Some(mib) = checked("memory", self.memory, &MEMORY_MIB)? {
            limits.memory_bytes = mib * MIB;
        }
        if let Some(mib) = checked("logs", self.logs, &LOGS_MIB)? {
            // No limit is zero; a byte is as good as nothing.
            limits.log_bytes = (mib * MIB).max(1);
        }
        Ok(limits)
    }
}

fn checked(what: &str, given: Option<u64>, range: &RangeInclusive<u64>) -> Result<Option<u64>, Failure> {
    match given {
        Some(given) if !range.contains(&given) => {
            let (least, most) = (range.start(), range.end());
            Err(Failure::bad(format!("limits.{what}: {given} is outside {least} to {most}")))
        }
        given => Ok(given),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text: &str) -> Result<Bytes, String> {
        let put: Put<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        put.module().map_err(|failure| failure.message)
    }

    #[test]
    fn code_is_a_module_in_base64() {
        let put =
            r#"{"exec":{"kind":"nodejs:default","code":"AGFzbQEAAAA="},"name":"x","annotations":[],"parameters":[]}"#;
        assert_eq!(module(put).unwrap(), &b"\0asm\x01\0\0\0"[..]);
        for (wrong, word) in [
            ("{}", "exec undefined"),
            (r#"{"exec":{"kind":"wasm:default"}}"#, "exec undefined"),
            (r#"{"exec":{"kind":"nodejs:20","code":"function main() {}"}}"#, "nodejs:20"),
            (r#"{"exec":{"kind":"wasm:default","code":"UEsDBAo="}}"#, "archive"),
            (r#"{"exec":{"kind":"wasm:default","code":"AGFzbQ?"}}"#, "Base64"),
            (r#"{"exec":{"code":"AGFzbQEAAAA="},"parameters":[{"key":"a","value":1}]}"#, "parameters"),
            (r#"{"exec":7}"#, "invalid type"),
        ] {
            let told = module(wrong).unwrap_err();
            assert!(told.contains(word), "{wrong}: {told}");
        }
    }

    #[test]
    fn limits_are_those_given_and_else_as_they_were() {
        let before = Limits { memory_bytes: 7 * MIB, ..Limits::default() };
        let given = LimitsGiven { timeout: Some(2000), memory: None, logs: Some(0) };
        let after = given.applied_to(before).unwrap();
        assert_eq!((after.timeout, after.memory_bytes, after.log_bytes), (Duration::from_secs(2), 7 * MIB, 1));
        let much = LimitsGiven { memory: Some(1024), ..LimitsGiven::default() };
        assert!(much.applied_to(Limits::default()).unwrap_err().message.contains("memory: 1024"));
    }
}
