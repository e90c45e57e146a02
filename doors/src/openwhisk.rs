//! The REST API of OpenWhisk 1.0 (`/api/v1`), as its clients use it: actions are invoked, listed, put and deleted, activations
//! kept and told, packages, namespaces and limits read. Statuses, bodies and headers are those of OpenWhisk's controller.
//!
//! What a request is for is read off its path in this file; [`invoke`] has an action run, with the [`parameters`] that it has
//! stored, or a [`sequence`] of them, [`activations`] keeps what came of it as [`record`]s, [`deploy`] puts and deletes actions, from an
//! [`archive`] if need be, [`packages`] does so with packages; what is [`kept`] of both stands on a [`shelf`]. [`entity`] and
//! [`failure`] say how things are told.

mod activations;
mod archive;
mod deploy;
mod entity;
mod failure;
mod invoke;
mod kept;
mod packages;
mod parameters;
mod record;
mod sequence;
mod shelf;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use nigh_proto::CallId;
use nigh_proto::ingress::gate::Gate;
use nigh_proto::tls::connection::Peer;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use self::activations::ActivationLimits;
use self::activations::{Activations, Wanted};
use self::entity::{Action, Body};
use self::failure::Failure;
use self::kept::{Resolved, foreign};
use self::parameters::PARAMETERS_BYTES_MAX;
use self::record::Record;
use self::shelf::Shelf;
use crate::answer::{self, Answer, put};
use crate::backend::Backend;
use crate::callers::{Caller, Callers};
use crate::namespace::{Entity, Namespace};
use crate::query::Query;
use crate::registry::Registry;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Transaction ids that begin so are OpenWhisk's own.
const RESERVED: &str = "sid_";
const TRANSACTION_BYTES_MAX: usize = 64;
/// Characters of a name, at most.
const NAME_MAX: usize = 256;
/// Elements of a list: at most, and where nobody says how many.
const LIST_MAX: u64 = 200;
const LIST_DEFAULT: u64 = 30;
const GET: &str = "GET";

/// The door's room.
pub(crate) struct Openwhisk<B> {
    backend: Arc<B>,
    gate: Gate,
    callers: Callers,
    registry: Registry,
    shelf: Shelf,
    activations: Activations,
    /// Activations that nobody waits for.
    unattended: TaskTracker,
    /// One module at a time is taken in.
    deploying: Semaphore,
}

/// A request whose sender is known.
struct Asked {
    caller: Arc<Caller>,
    query: Query,
    request: Request<Incoming>,
}

impl<B: Backend> Openwhisk<B> {
    pub(crate) fn new(
        backend: Arc<B>,
        gate: Gate,
        callers: Callers,
        registry: Registry,
        limits: ActivationLimits,
    ) -> Self {
        let activations = Activations::new(limits, callers.namespaces());
        let (unattended, deploying) = (TaskTracker::new(), Semaphore::new(1));
        let shelf = Shelf::new(registry.clone());
        Self { backend, gate, callers, registry, shelf, activations, unattended, deploying }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let transaction = transaction_of(request.headers());
        let answer = match self.gate.check(peer) {
            Ok(()) => self.route(request).await,
            Err(error) => Err(error.into()),
        };
        let mut answer = answer.unwrap_or_else(|failure| failure.respond(&transaction));
        put(&mut answer, &REQUEST_ID, &transaction);
        if !self.callers.are_everybody() {
            allow_browsers(answer.headers_mut());
        }
        answer
    }

    /// Waits for the activations that nobody waits for.
    pub(crate) async fn end(&self) {
        self.unattended.close();
        self.unattended.wait().await;
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Failure> {
        let (segments, is_folder) = segments_of(request.uri().path())?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        let in_api = match segments[..] {
            _ if *request.method() == Method::OPTIONS => return Ok(answer::empty(StatusCode::OK)),
            ["ping"] if is_get => return Ok(answer::bytes(StatusCode::OK, "text/plain; charset=UTF-8", "pong")),
            [] | ["api"] if is_get => return Ok(answer::json(StatusCode::OK, &about_the_system())),
            ["api", "v1"] if is_get => return Ok(answer::json(StatusCode::OK, &about_the_api())),
            ["api", "v1", ref rest @ ..] => rest,
            _ => return Err(Failure::unknown(request.uri().path())),
        };
        if self.callers.keep_out(request.headers()) {
            let message = "pages in browsers are let in only where callers show credentials";
            return Err(Failure::new(StatusCode::FORBIDDEN, message));
        }
        let caller = self.callers.find(request.headers()).ok_or_else(|| {
            let message = "The supplied authentication is invalid, or there is none";
            Failure::new(StatusCode::UNAUTHORIZED, message)
        })?;
        let query = Query::of(request.uri().query());
        let asked = Asked { caller, query, request };
        match *in_api {
            ["namespaces"] => {
                asked.only_get()?;
                Ok(answer::json(StatusCode::OK, &json!([asked.caller.namespace.as_str()])))
            }
            ["namespaces", namespace, ref rest @ ..] => {
                let own = asked.caller.namespace.clone();
                if namespace == "_" || namespace == own.as_str() {
                    return self.in_namespace(&own, rest, is_folder, asked).await;
                }
                let namespace: Namespace = namespace.parse().map_err(|_| foreign())?;
                match *rest {
                    // What others publish can be looked at and invoked.
                    ["actions", package, _] | ["packages", package]
                        if matches!(*asked.request.method(), Method::GET | Method::HEAD | Method::POST)
                            && self.shelf.contents().await?.is_published(&namespace, package) =>
                    {
                        self.in_namespace(&namespace, rest, is_folder, asked).await
                    }
                    _ => Err(foreign()),
                }
            }
            _ => Err(Failure::unknown(asked.request.uri().path())),
        }
    }

    async fn in_namespace(
        &self,
        namespace: &Namespace,
        segments: &[&str],
        is_folder: bool,
        asked: Asked,
    ) -> Result<Answer, Failure> {
        match *segments {
            ["limits"] => {
                asked.only_get()?;
                Ok(answer::json(StatusCode::OK, &self.limits_of(namespace)))
            }
            ["actions"] => self.list_actions(None, &asked).await,
            ["actions", package] if is_folder => self.list_actions(Some(checked_name(package)?), &asked).await,
            ["actions", name] => self.action(Entity::new(namespace, None, checked_name(name)?), asked).await,
            ["actions", package, name] => {
                let entity = Entity::new(namespace, Some(checked_name(package)?), checked_name(name)?);
                self.action(entity, asked).await
            }
            ["packages"] => self.list_packages(namespace, &asked).await,
            ["packages", name] => self.package(namespace, checked_name(name)?, asked).await,
            ["activations"] => self.list_activations(&asked),
            ["activations", id] => {
                let record = self.activation(id, &asked)?;
                let logs = self.logs(&record).await;
                Ok(answer::bytes(StatusCode::OK, "application/json", record.whole(&logs)))
            }
            ["activations", id, "result"] => {
                let record = self.activation(id, &asked)?;
                Ok(answer::bytes(StatusCode::OK, "application/json", record.response()))
            }
            ["activations", id, "logs"] => {
                let record = self.activation(id, &asked)?;
                Ok(answer::json(StatusCode::OK, &json!({ "logs": self.logs(&record).await })))
            }
            // There are none, and clients that list everything ask for them too.
            [what @ ("triggers" | "rules")] => {
                asked.only_get()?;
                asked.list(what, Vec::<Value>::new(), |none| none)
            }
            [what @ ("triggers" | "rules"), name] if asked.is_get() => Err(Failure::unknown(format!("{what}/{name}"))),
            [what @ ("triggers" | "rules"), _] => {
                let message =
                    format!("there are no {what} here; what is to run when something happens calls by itself");
                Err(Failure::new(StatusCode::NOT_IMPLEMENTED, message))
            }
            _ => Err(Failure::unknown(asked.request.uri().path())),
        }
    }

    async fn action(&self, entity: Entity, asked: Asked) -> Result<Answer, Failure> {
        match *asked.request.method() {
            Method::POST => self.invoke(entity, asked).await,
            Method::GET | Method::HEAD => {
                asked.query.flag("code").map_err(Failure::bad)?;
                let (action, parameters) = self.find(&asked.caller.namespace, &entity).await?;
                Ok(answer::json(StatusCode::OK, &action.whole(&parameters)))
            }
            Method::PUT => self.put(entity, asked).await,
            Method::DELETE => self.delete(&entity, &asked).await,
            _ => Err(Failure::wrong_method("GET, PUT, POST, DELETE")),
        }
    }

    /// An action that there is, and the parameters that it is called with.
    async fn find(&self, caller: &Namespace, called: &Entity) -> Result<(Action, BTreeMap<String, Value>), Failure> {
        let contents = self.shelf.contents().await?;
        let Resolved { entity, function, parameters, components, .. } = contents.resolve(caller, called)?;
        let body = match components {
            Some(components) => Body::Sequence(components),
            None => {
                let found = self.registry.find(&function).await?;
                Body::Function(found.ok_or_else(|| Failure::unknown(called.path()))?.into())
            }
        };
        Ok((Action { entity, body, kept: contents.action(&function).cloned() }, parameters))
    }

    async fn list_actions(&self, package: Option<&str>, asked: &Asked) -> Result<Answer, Failure> {
        asked.only_get()?;
        let contents = self.shelf.contents().await?;
        let mut actions = Action::all(&asked.caller.namespace, self.registry.list().await?, &contents);
        if package.is_some() {
            actions.retain(|action| action.entity.package.as_deref() == package);
        }
        asked.list("actions", actions, |action| action.summary())
    }

    fn list_activations(&self, asked: &Asked) -> Result<Answer, Failure> {
        asked.only_get()?;
        let query = &asked.query;
        let has_docs = query.flag("docs").map_err(Failure::bad)?;
        if has_docs && query.flag("count").map_err(Failure::bad)? {
            return Err(Failure::bad("The parameters 'count' and 'docs' cannot be used together"));
        }
        let wanted = Wanted {
            name: query.text("name").map(str::to_owned),
            since: query.number("since", 0..=u64::MAX).map_err(Failure::bad)?,
            upto: query.number("upto", 0..=u64::MAX).map_err(Failure::bad)?,
        };
        let found = self.activations.of(&asked.caller.namespace).list(&wanted);
        asked.list("activations", found, |record| match has_docs {
            true => serde_json::from_slice(&record.whole(&[])).unwrap_or_default(),
            false => record.summary(),
        })
    }

    fn activation(&self, id: &str, asked: &Asked) -> Result<Arc<Record>, Failure> {
        asked.only_get()?;
        if id.len() != 32 || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Failure::bad("The activation id is not valid: 32 of 0-9 a-f are"));
        }
        let room = self.activations.of(&asked.caller.namespace);
        room.find(id)
            .ok_or_else(|| Failure::unknown(format!("activation {id}; it has not ended, or is not kept any more")))
    }

    /// What an activation logged (a sequence: what ran in it), where its computer still knows and tells this door.
    async fn logs(&self, record: &Record) -> Vec<String> {
        if let Some(ids) = &record.components {
            return ids.iter().map(ToString::to_string).collect();
        }
        let Some(computer) = &record.computer else { return Vec::new() };
        match self.registry.logs(record.id(), computer).await {
            Ok(lines) => lines.iter().map(log_line).collect(),
            Err(error) => {
                tracing::debug!(activation = %record.id(), %error, "no log is told");
                Vec::new()
            }
        }
    }

    fn limits_of(&self, namespace: &Namespace) -> Value {
        json!({
            "invocationsPerMinute": u32::MAX,
            "concurrentInvocations": self.activations.of(namespace).under_way_max(),
            "firesPerMinute": 0,
            "minActionMemory": deploy::MEMORY_MIB.start(),
            "maxActionMemory": deploy::MEMORY_MIB.end(),
            "minActionTimeout": deploy::TIMEOUT_MS.start(),
            "maxActionTimeout": deploy::TIMEOUT_MS.end(),
            "minActionLogs": deploy::LOGS_MIB.start(),
            "maxActionLogs": deploy::LOGS_MIB.end(),
            "minActionConcurrency": 1,
            "maxActionConcurrency": 1,
            "maxParameterSize": PARAMETERS_BYTES_MAX,
        })
    }
}

impl Asked {
    fn is_get(&self) -> bool {
        matches!(*self.request.method(), Method::GET | Method::HEAD)
    }

    fn only_get(&self) -> Result<(), Failure> {
        if self.is_get() { Ok(()) } else { Err(Failure::wrong_method(GET)) }
    }

    /// A page of a list, or how many there are.
    fn list<T>(&self, what: &str, all: Vec<T>, tell: impl Fn(T) -> Value) -> Result<Answer, Failure> {
        let number = |name, range| self.query.number(name, range).map_err(Failure::bad);
        let limit = match number("limit", 0..=LIST_MAX)?.unwrap_or(LIST_DEFAULT) {
            0 => LIST_MAX,
            limit => limit,
        };
        let skip = usize::try_from(number("skip", 0..=u64::MAX)?.unwrap_or(0)).unwrap_or(usize::MAX);
        if self.query.flag("count").map_err(Failure::bad)? {
            return Ok(answer::json(StatusCode::OK, &json!({ what: all.len().saturating_sub(skip) })));
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let page: Vec<Value> = all.into_iter().skip(skip).take(limit).map(tell).collect();
        Ok(answer::json(StatusCode::OK, &page))
    }
}

/// A path's segments, decoded, and whether a slash ends it.
fn segments_of(path: &str) -> Result<(Vec<String>, bool), Failure> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (path, is_folder) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
    let decode = |segment| percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned);
    let segments = path.split('/').filter(|_| !path.is_empty()).map(decode).collect::<Result<_, _>>();
    Ok((segments.map_err(|_| Failure::bad("the path is not UTF-8"))?, is_folder))
}

/// A name of an entity has its form.
fn checked_name(name: &str) -> Result<&str, Failure> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let fits = name.chars().count() <= NAME_MAX
        && name.starts_with(is_word)
        && !name.ends_with(' ')
        && name.chars().all(|character| is_word(character) || matches!(character, '@' | '.' | '&' | '-' | ' '));
    if fits {
        Ok(name)
    } else {
        Err(Failure::bad("The name of the entity contains illegal characters, or is too long"))
    }
}

/// What a request is called in logs and answers: as its sender says, or something new.
fn transaction_of(headers: &HeaderMap) -> String {
    let given = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let fits = |id: &&str| {
        (1..=TRANSACTION_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_graphic())
            && !id.starts_with(RESERVED)
    };
    given.filter(fits).map_or_else(|| CallId::random().to_string(), str::to_owned)
}

/// Lets pages of any origin in, which need credentials as everybody does.
fn allow_browsers(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let methods = HeaderValue::from_static("GET, DELETE, POST, PUT, HEAD");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let allowed = "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent";
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
}

fn log_line(line: &crate::registry::Logged) -> String {
    let stream = if line.is_error { "stderr" } else { "stdout" };
    format!("{} {stream}: {}", humantime::format_rfc3339_millis(line.time), line.text)
}

fn about_the_api() -> Value {
    json!({
        "description": "OpenWhisk API of Nigh",
        "api_version": "1.0.0",
        "api_version_path": "v1",
        "build": env!("CARGO_PKG_VERSION"),
        "buildno": env!("CARGO_PKG_VERSION"),
        "swagger_paths": { "ui": "/docs", "api-docs": "/api-docs" },
    })
}

fn about_the_system() -> Value {
    let kinds = ["wasm:native", "wasm:http", "wasm:command"];
    let kinds: Vec<_> =
        kinds.map(|kind| json!({ "kind": kind, "deprecated": false, "default": kind == kinds[0] })).into();
    json!({
        "description": "OpenWhisk API of Nigh",
        "api_paths": ["/api/v1"],
        "runtimes": { "wasm": kinds },
        "limits": {
            "min_action_duration": deploy::TIMEOUT_MS.start(),
            "max_action_duration": deploy::TIMEOUT_MS.end(),
            "min_action_memory": deploy::MEMORY_MIB.start() * entity::MIB,
            "max_action_memory": deploy::MEMORY_MIB.end() * entity::MIB,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_as_they_stand() {
        let of = |path: &str| segments_of(path).map_err(|failure| failure.status.as_u16());
        assert_eq!(of("/"), Ok((vec![], false)));
        assert_eq!(of(""), Ok((vec![], false)));
        assert_eq!(of("/api/v1/"), Ok((vec!["api".into(), "v1".into()], true)));
        assert_eq!(of("/a%2Fb/c"), Ok((vec!["a/b".into(), "c".into()], false)));
        assert_eq!(of("/a//b"), Ok((vec!["a".into(), String::new(), "b".into()], false)));
        assert_eq!(of("/%ff"), Err(400));
    }

    #[test]
    fn names_have_their_form() {
        for fine in ["a", "_x", "9 lives", "a@b.c&d-e", "Größe"] {
            assert!(checked_name(fine).is_ok(), "{fine}");
        }
        for odd in ["", " a", "a ", "-a", "a/b", "a\0", "../x", &"a".repeat(257)] {
            assert!(checked_name(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_transaction_is_its_senders_if_it_may_be() {
        let of = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(&REQUEST_ID, id.parse().unwrap());
            transaction_of(&headers)
        };
        assert_eq!(of("mine-1"), "mine-1");
        for odd in ["sid_x", "two words", &"x".repeat(65)] {
            assert_eq!(of(odd).len(), 32, "{odd}");
        }
    }
}
