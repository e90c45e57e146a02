//! Putting an action deploys its function and keeps what else is put of it; deleting it removes both. Its code is a Wasm module, or
//! a component, in Base64, alone or in a zip archive; a sequence has none.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http::StatusCode;
use nigh_client::DeployRequest;
use nigh_proto::{Deployment, FunctionName, Limits};
use serde::Deserialize;
use serde_json::Value;

use super::entity::{Action, Body, MIB, SEQUENCE};
use super::failure::Failure;
use super::kept::{Contents, Entry, Kept, Of, Pair};
use super::parameters::checked_pairs;
use super::record::ms_now;
use super::{Asked, Openwhisk, archive, sequence};
use crate::answer::{self, Answer};
use crate::backend::Backend;
use crate::namespace::{Entity, Namespace};

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
/// What is told where there is nothing to run.
const NO_CODE: &str = "exec undefined";

/// An action as it is put. What a client says beside this is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Put<'a> {
    #[serde(borrow)]
    exec: Option<Exec<'a>>,
    limits: LimitsGiven,
    parameters: Option<Vec<Pair>>,
    annotations: Option<Vec<Pair>>,
    version: Option<String>,
    publish: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Exec<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    components: Option<Vec<String>>,
}

/// What an action is to be from now on.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// What it was.
    Same,
    Module(Bytes),
    Sequence(Vec<String>),
}

/// What was there before an action is put.
struct Before {
    function: FunctionName,
    deployed: Vec<Deployment>,
    contents: Arc<Contents>,
}

impl Before {
    fn deployment(&self) -> Option<&Deployment> {
        self.deployed.iter().find(|deployment| deployment.name == self.function)
    }

    fn entry(&self) -> Option<&Arc<Entry>> {
        self.contents.action(&self.function)
    }

    fn sequence(&self) -> Option<&Arc<Entry>> {
        self.entry().filter(|entry| !entry.kept.components.is_empty())
    }

    fn is_there(&self) -> bool {
        self.deployment().is_some() || self.sequence().is_some()
    }

    /// What was kept of it; what is left of an action that is gone says nothing of one that comes.
    fn kept(&self) -> Kept {
        self.entry().filter(|_| self.is_there()).map(|entry| entry.kept.clone()).unwrap_or_default()
    }
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
        let contents = self.shelf.fresh().await?;
        check_not_bound(&entity, &contents)?;
        let before = Before { function, deployed: self.registry.list().await?, contents };
        if before.is_there() && !overwrite {
            return Err(Failure::conflict("resource already exists"));
        }
        let wanted = put.wanted()?;
        let mut kept = put.kept(&before)?;
        let body = self.realise(wanted, &put.limits, &before, &mut kept, &entity.namespace).await?;
        // Of one that is a function no longer, what was kept went with it.
        let is_kept = before.entry().filter(|_| before.deployment().is_none() || matches!(body, Body::Function(_)));
        let revision = is_kept.map_or(0, |entry| entry.revision);
        let goes_with = matches!(body, Body::Function(_)).then(|| before.function.clone());
        self.shelf.put(Of::Action, &before.function, &kept, revision, goes_with).await?;
        let parameters: BTreeMap<String, Value> =
            kept.parameters.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
        let kept = Some(Arc::new(Entry { kept, revision: 0 }));
        let told = Action { entity: Entity::of(&before.function), body, kept };
        Ok(answer::json(StatusCode::OK, &told.whole(&parameters)))
    }

    /// Makes an action what it is to be.
    async fn realise(
        &self,
        wanted: Wanted,
        limits: &LimitsGiven,
        before: &Before,
        kept: &mut Kept,
        namespace: &Namespace,
    ) -> Result<Body, Failure> {
        let module = match (wanted, before.deployment()) {
            (Wanted::Module(module), _) => module,
            (Wanted::Sequence(components), deployment) => {
                let own = (namespace, &before.function);
                kept.components = sequence::checked_components(&components, own, &before.contents, &before.deployed)?;
                if let Some(deployment) = deployment {
                    self.shelf.remove_function(&deployment.name).await?;
                }
                return Ok(Body::Sequence(kept.components.clone()));
            }
            (Wanted::Same, _) if !kept.components.is_empty() => {
                return Ok(Body::Sequence(kept.components.clone()));
            }
            (Wanted::Same, None) => return Err(Failure::bad(NO_CODE)),
            (Wanted::Same, Some(there)) => {
                if limits.applied_to(there.limits.clone())? == there.limits {
                    return Ok(Body::Function(there.clone().into()));
                }
                self.registry.module(there).await?
            }
        };
        kept.components.clear();
        let existing = before.deployment().cloned();
        let limits = limits.applied_to(existing.as_ref().map(|there| there.limits.clone()).unwrap_or_default())?;
        let (directories, hosts, placement, states) =
            existing.map(|there| (there.directories, there.hosts, there.placement, there.states)).unwrap_or_default();
        let name = before.function.clone();
        let request = DeployRequest { name, limits, directories, hosts, placement, states };
        Ok(Body::Function(self.registry.deploy(request, module, &*self.backend).await?.into()))
    }

    pub(super) async fn delete(&self, entity: &Entity, asked: &Asked) -> Result<Answer, Failure> {
        check_may_deploy(asked)?;
        let contents = self.shelf.fresh().await?;
        check_not_bound(entity, &contents)?;
        let (action, parameters) = self.find(&asked.caller.namespace, entity).await?;
        self.remove(&action).await?;
        Ok(answer::json(StatusCode::OK, &action.whole(&parameters)))
    }

    /// Removes an action's function, or what it is made of.
    pub(super) async fn remove(&self, action: &Action) -> Result<(), Failure> {
        match &action.body {
            Body::Function(deployment) => self.shelf.remove_function(&deployment.name).await,
            Body::Sequence(_) => {
                let name = action.entity.function().ok_or_else(|| Failure::unknown(action.entity.path()))?;
                self.shelf.remove(Of::Action, &name).await
            }
        }
    }
}

/// Actions of a package that is bound to another are put and deleted there.
fn check_not_bound(entity: &Entity, contents: &Contents) -> Result<(), Failure> {
    let package = entity.package.as_ref().and_then(|package| contents.package(&entity.namespace, package));
    match package.and_then(|entry| entry.kept.binding.as_ref()) {
        None => Ok(()),
        Some(to) => Err(Failure::bad(format!(
            "Operation not permitted on a package binding; put and delete actions in /{}/{}",
            to.namespace, to.name
        ))),
    }
}

pub(super) fn check_may_deploy(asked: &Asked) -> Result<(), Failure> {
    if asked.caller.may_deploy {
        return Ok(());
    }
    let message = "this credential may invoke and look, not put or delete; its line in the door's file has no `deploy`";
    Err(Failure::new(StatusCode::FORBIDDEN, message))
}

impl Put<'_> {
    /// What the action is to be.
    fn wanted(&self) -> Result<Wanted, Failure> {
        let Some(exec) = &self.exec else { return Ok(Wanted::Same) };
        if exec.kind == SEQUENCE {
            return Ok(Wanted::Sequence(exec.components.clone().unwrap_or_default()));
        }
        let code = exec.code.as_deref().map(str::trim).filter(|code| !code.is_empty());
        let code = code.ok_or_else(|| Failure::bad(NO_CODE))?;
        let is_archive = code.starts_with(ARCHIVE_BEGINS);
        if !is_archive && !code.starts_with(MODULE_BEGINS) {
            let kind: String = exec.kind.chars().take(64).collect();
            return Err(Failure::bad(format!(
                "the code (of kind {kind:?}) is no Wasm module in Base64, nor a zip archive of one; nothing else runs here. Build one, and send its bytes"
            )));
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(code);
        let decoded = decoded.map_err(|error| Failure::bad(format!("the code is not Base64: {error}")))?;
        let module = if is_archive { archive::module(&decoded, CODE_BYTES_MAX)? } else { decoded.into() };
        Ok(Wanted::Module(module))
    }

    /// What is to be kept: what is not said stays as it was.
    fn kept(&self, before: &Before) -> Result<Kept, Failure> {
        let mut kept = before.kept();
        if let Some(parameters) = &self.parameters {
            kept.parameters = checked_pairs("parameters", parameters.clone())?;
        }
        if let Some(annotations) = &self.annotations {
            kept.annotations = checked_pairs("annotations", annotations.clone())?;
        }
        kept.publish = self.publish.unwrap_or(kept.publish);
        kept.updated = ms_now();
        match &self.version {
            Some(version) => kept.version = version.parse().map_err(Failure::bad)?,
            None if before.is_there() => kept.version = kept.version.next(),
            None => {}
        }
        Ok(kept)
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

    fn wanted(text: &str) -> Result<Wanted, String> {
        let put: Put<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        put.wanted().map_err(|failure| failure.message)
    }

    #[test]
    fn code_is_a_module_in_base64() {
        let put =
            r#"{"exec":{"kind":"nodejs:default","code":"AGFzbQEAAAA="},"name":"x","annotations":[],"parameters":[]}"#;
        assert_eq!(wanted(put).unwrap(), Wanted::Module((&b"\0asm\x01\0\0\0"[..]).into()));
        assert_eq!(wanted(r#"{"parameters":[{"key":"a","value":1}]}"#).unwrap(), Wanted::Same);
        let sequence = r#"{"exec":{"kind":"sequence","code":"","components":["/_/a"]}}"#;
        assert_eq!(wanted(sequence).unwrap(), Wanted::Sequence(vec!["/_/a".into()]));
        for (wrong, word) in [
            (r#"{"exec":{"kind":"wasm:default"}}"#, "exec undefined"),
            (r#"{"exec":{"kind":"nodejs:20","code":"function main() {}"}}"#, "nodejs:20"),
            (r#"{"exec":{"kind":"wasm:default","code":"UEsDBAo="}}"#, "archive that cannot be read"),
            (r#"{"exec":{"kind":"wasm:default","code":"AGFzbQ?"}}"#, "Base64"),
            (r#"{"exec":7}"#, "invalid type"),
            (r#"{"parameters":{"a":1}}"#, "invalid type"),
        ] {
            let told = wanted(wrong).unwrap_err();
            assert!(told.contains(word), "{wrong}: {told}");
        }
    }

    #[test]
    fn what_is_not_said_of_an_action_stays_as_it_was() {
        let put = |text: &str, before: &Before| serde_json::from_str::<Put<'_>>(text).unwrap().kept(before);
        let pair = |value: u8| vec![Pair { key: "a".into(), value: value.into() }];
        let kept =
            Kept { parameters: pair(1), annotations: pair(2), components: vec!["/_/b".into()], ..Kept::default() };
        let contents = Arc::new(super::super::kept::tests::contents(&[("seq", kept)], &[]));
        let before =
            |name: &str| Before { function: name.parse().unwrap(), deployed: Vec::new(), contents: contents.clone() };
        let after = put(r#"{"annotations":[],"publish":true}"#, &before("seq")).unwrap();
        assert_eq!((after.parameters, after.annotations, after.publish), (pair(1), vec![], true));
        assert_eq!((after.version.to_string(), after.updated > 0), ("0.0.2".into(), true));
        let new = put(r#"{"version":"1.2.3","parameters":[{"key":"a","value":1}]}"#, &before("new")).unwrap();
        assert_eq!((new.version.to_string(), new.parameters), ("1.2.3".into(), pair(1)));
        assert!(put(r#"{"version":"new"}"#, &before("new")).is_err());
        assert!(put(r#"{"parameters":[{"key":"","value":1}]}"#, &before("new")).is_err());
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
