//! The paths of an OpenFaaS gateway: `/function/NAME` and `/async-function/NAME` run functions, `/system/…` tells what there is, as
//! `faas-cli` and programs made for such a gateway use them. What runs functions is the HTTP door; this room says which function
//! is meant, and tells of it as a gateway does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::body::Incoming;
use nigh_client::Listing;
use nigh_proto::ingress::gate::Gate;
use nigh_proto::ingress::http::HttpDoor;
use nigh_proto::tls::connection::Peer;
use nigh_proto::{Deployment, FunctionName, Kind, PlatformError, Reason};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{self, Answer, put};
use crate::backend::Backend;
use crate::callers::{Caller, Callers};
use crate::namespace::Entity;
use crate::registry::Registry;

/// The one namespace of functions that a gateway's clients see.
const NAMESPACE: &str = "openfaas-fn";
/// Bytes of a request about functions, at most.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Time for it to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const PLAIN: &str = "text/plain; charset=utf-8";

static CALL_ID: HeaderName = HeaderName::from_static("x-call-id");
static START_TIME: HeaderName = HeaderName::from_static("x-start-time");
static DURATION: HeaderName = HeaderName::from_static("x-duration-seconds");
static CALLBACK: HeaderName = HeaderName::from_static("x-callback-url");
static NIGH_CALL_ID: HeaderName = HeaderName::from_static("nigh-call-id");
static NIGH_CALLBACK: HeaderName = HeaderName::from_static("nigh-callback");
static PREFER: HeaderName = HeaderName::from_static("prefer");
/// What a function that is no http function learns of the request.
static METHOD: HeaderName = HeaderName::from_static("http-method");
static PATH: HeaderName = HeaderName::from_static("http-path");

/// The door's room.
pub(crate) struct Openfaas<B> {
    http: HttpDoor<B>,
    backend: Arc<B>,
    gate: Gate,
    callers: Callers,
    registry: Registry,
    /// Calls through this door, of functions that there are.
    invocations: Mutex<HashMap<FunctionName, u64>>,
}

/// Why a request about functions is not granted.
struct Failure(StatusCode, String);

impl From<PlatformError> for Failure {
    fn from(error: PlatformError) -> Self {
        let status = match error.reason {
            Reason::UnknownFunction => StatusCode::NOT_FOUND,
            Reason::Malformed => StatusCode::BAD_REQUEST,
            Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Reason::NotAllowed | Reason::Unauthenticated => StatusCode::FORBIDDEN,
            Reason::NotServing | Reason::Unreachable | Reason::OutOfBudget => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.message)
    }
}

/// What a path below `/function/` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    function: FunctionName,
    /// Below the function's name, as it stands.
    path: Option<String>,
}

impl Target {
    fn of(rest: &str) -> Result<Self, PlatformError> {
        let (name, path) = match rest.find('/') {
            Some(end) => (&rest[..end], Some(rest[end..].to_owned())),
            None => (rest, None),
        };
        let name = percent_decode_str(name).decode_utf8_lossy();
        // Names of functions may hold dots themselves.
        let name = name.strip_suffix(NAMESPACE).and_then(|name| name.strip_suffix('.')).unwrap_or(&name);
        Ok(Self { function: name.parse()?, path })
    }
}

impl<B: Backend> Openfaas<B> {
    pub(crate) fn new(http: HttpDoor<B>, backend: Arc<B>, gate: Gate, callers: Callers, registry: Registry) -> Self {
        Self { http, backend, gate, callers, registry, invocations: Mutex::default() }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        if self.callers.keep_out(request.headers()) {
            let message = "pages in browsers are let in only where callers show credentials\n";
            return answer::bytes(StatusCode::FORBIDDEN, PLAIN, message);
        }
        let path = request.uri().path().to_owned();
        let target = |rest: &str| Target::of(rest).map_err(Failure::from);
        let outcome = if let Some(rest) = path.strip_prefix("/function/") {
            match target(rest) {
                Ok(target) => Ok(self.run(target, request, peer).await),
                Err(failure) => Err(failure),
            }
        } else if let Some(rest) = path.strip_prefix("/async-function/") {
            match target(rest) {
                Ok(target) => Ok(self.run_later(target, request, peer).await),
                Err(failure) => Err(failure),
            }
        } else if let Some(rest) = path.strip_prefix("/system/") {
            self.system(rest, request, peer).await
        } else {
            Ok(self.http.answer(request, peer).await)
        };
        outcome.unwrap_or_else(|Failure(status, message)| answer::bytes(status, PLAIN, format!("{message}\n")))
    }

    async fn run(&self, target: Target, mut request: Request<Incoming>, peer: &Peer) -> Answer {
        let (since, began) = (SystemTime::now(), Instant::now());
        self.backend.learn_kind(&target.function).await;
        match self.backend.kind(&target.function) {
            Some(Kind::Http) => set_path(&mut request, &target.function, target.path.as_deref()),
            _ => as_plain_call(&mut request, &target),
        }
        let mut answer = self.http.answer(request, peer).await;
        if answer.status() != StatusCode::NOT_FOUND {
            *self.invocations.lock().entry(target.function).or_default() += 1;
        }
        tell_call_id(&mut answer);
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        put(&mut answer, &START_TIME, &since.to_string());
        put(&mut answer, &DURATION, &format!("{:.6}", began.elapsed().as_secs_f64()));
        answer
    }

    async fn run_later(&self, target: Target, mut request: Request<Incoming>, peer: &Peer) -> Answer {
        if request.method() != Method::POST {
            let mut told = answer::bytes(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "what runs later is posted\n");
            told.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return told;
        }
        as_plain_call(&mut request, &target);
        let headers = request.headers_mut();
        headers.insert(&PREFER, HeaderValue::from_static("respond-async"));
        if let Some(callback) = headers.remove(&CALLBACK) {
            headers.insert(&NIGH_CALLBACK, callback);
        }
        let mut told = self.http.answer(request, peer).await;
        if told.status() != StatusCode::ACCEPTED {
            return told;
        }
        tell_call_id(&mut told);
        let mut accepted = answer::empty(StatusCode::ACCEPTED);
        if let Some(id) = told.headers().get(&CALL_ID) {
            accepted.headers_mut().insert(&CALL_ID, id.clone());
        }
        accepted
    }

    async fn system(&self, rest: &str, request: Request<Incoming>, peer: &Peer) -> Result<Answer, Failure> {
        self.gate.check(peer)?;
        let Some(caller) = self.callers.find(request.headers()) else {
            let mut told = answer::bytes(StatusCode::UNAUTHORIZED, PLAIN, "credentials are missing or wrong\n");
            told.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"nigh\""));
            return Ok(told);
        };
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        match (rest.trim_end_matches('/'), is_get) {
            ("functions", true) => {
                let listing = self.registry.listing().await?;
                let told: Vec<_> = self.functions(&caller, &listing).collect();
                Ok(answer::json(StatusCode::OK, &told))
            }
            ("functions", false) => self.change(&caller, request).await,
            ("info", true) => Ok(answer::json(StatusCode::OK, &about())),
            ("namespaces", true) => Ok(answer::json(StatusCode::OK, &json!([NAMESPACE]))),
            (rest, true) => match rest.strip_prefix("function/") {
                Some(name) => {
                    let listing = self.registry.listing().await?;
                    let found = self.functions(&caller, &listing).find(|told| told["name"] == name);
                    let unknown = || Failure(StatusCode::NOT_FOUND, format!("no function {name} is deployed"));
                    Ok(answer::json(StatusCode::OK, &found.ok_or_else(unknown)?))
                }
                None => Err(Failure(StatusCode::NOT_FOUND, "there is nothing here".into())),
            },
            _ => Err(Failure(StatusCode::NOT_FOUND, "there is nothing here".into())),
        }
    }

    /// Removes a function; there are no images to deploy.
    async fn change(&self, caller: &Caller, request: Request<Incoming>) -> Result<Answer, Failure> {
        if *request.method() != Method::DELETE {
            let message = "functions here are Wasm modules, not container images; deploy them with `nigh deploy`";
            return Err(Failure(StatusCode::NOT_IMPLEMENTED, message.into()));
        }
        if !caller.may_deploy {
            let message = "this credential may look, not remove; its line in the door's file has no `deploy`";
            return Err(Failure(StatusCode::FORBIDDEN, message.into()));
        }
        let (parts, body) = request.into_parts();
        let until = Instant::now() + REQUEST_TIMEOUT;
        let arrived = self.gate.read(&parts.headers, body, REQUEST_BYTES_MAX, until).await?;
        let asked: Removal = serde_json::from_slice(&arrived.bytes)
            .map_err(|error| Failure(StatusCode::BAD_REQUEST, error.to_string()))?;
        let unknown = || Failure(StatusCode::NOT_FOUND, format!("no function {} is deployed", asked.function_name));
        let function = Entity::new(&caller.namespace, None, &asked.function_name).function().ok_or_else(unknown)?;
        self.registry.remove(&function).await?;
        Ok(answer::empty(StatusCode::OK))
    }

    /// A caller's functions, as a gateway tells of them.
    fn functions<'a>(&'a self, caller: &'a Caller, listing: &'a Listing) -> impl Iterator<Item = Value> + 'a {
        let computers = &listing.computers;
        listing.functions.iter().filter_map(move |deployment| {
            let entity = Entity::of(&deployment.name);
            let name = match &entity.package {
                Some(package) => format!("{package}.{}", entity.name),
                None => entity.name.clone(),
            };
            let is_ready = |version: &(FunctionName, _)| *version == (deployment.name.clone(), deployment.version);
            let ready = computers.iter().filter(|computer| computer.ready.iter().any(is_ready)).count();
            let invocations = self.invocations.lock().get(&deployment.name).copied().unwrap_or_default();
            (entity.namespace == caller.namespace).then(|| told(&name, deployment, ready, computers.len(), invocations))
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Removal {
    function_name: String,
}

fn told(name: &str, deployment: &Deployment, ready: usize, computers: usize, invocations: u64) -> Value {
    json!({
        "name": name,
        "namespace": NAMESPACE,
        "image": format!("sha256:{}", deployment.module),
        "envProcess": "",
        "labels": { "nigh.kind": deployment.kind.to_string() },
        "annotations": { "nigh.version": deployment.version.to_string() },
        "invocationCount": invocations,
        "replicas": computers,
        "availableReplicas": ready,
    })
}

fn about() -> Value {
    let release = env!("CARGO_PKG_VERSION");
    json!({
        "provider": {
            "provider": "nigh",
            "orchestration": "nigh",
            "version": { "sha": "", "release": release },
        },
        "version": { "sha": "", "release": release, "commit_message": "" },
        "arch": std::env::consts::ARCH,
    })
}

/// What a call is named in answers of a gateway.
fn tell_call_id(answer: &mut Answer) {
    if let Some(id) = answer.headers().get(&NIGH_CALL_ID).cloned() {
        answer.headers_mut().insert(&CALL_ID, id);
    }
}

/// Makes any request one that a function which is no http function takes: posted, and told of the rest by headers.
fn as_plain_call(request: &mut Request<Incoming>, target: &Target) {
    let method = HeaderValue::from_str(request.method().as_str());
    let path = HeaderValue::from_str(target.path.as_deref().unwrap_or("/"));
    for (name, value) in [(&METHOD, method), (&PATH, path)] {
        if let Ok(value) = value {
            request.headers_mut().insert(name, value);
        }
    }
    *request.method_mut() = Method::POST;
    set_path(request, &target.function, None);
}

fn set_path(request: &mut Request<Incoming>, function: &FunctionName, path: Option<&str>) {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let whole: Result<PathAndQuery, _> = format!("/function/{function}{}{query}", path.unwrap_or_default()).parse();
    let mut parts = request.uri().clone().into_parts();
    // It was a path before, and a function's name has no characters that are none of a path's.
    if let Ok(whole) = whole {
        parts.path_and_query = Some(whole);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_that_there_is_is_taken_off_a_name() {
        let of = |rest: &str| {
            let target = Target::of(rest).map_err(|error| error.reason)?;
            Ok((target.function.to_string(), target.path.unwrap_or_default()))
        };
        let named = |name: &str, path: &str| Ok((name.to_owned(), path.to_owned()));
        assert_eq!(of("echo"), named("echo", ""));
        assert_eq!(of("echo.openfaas-fn/a%20b"), named("echo", "/a%20b"));
        assert_eq!(of("v1.2"), named("v1.2", ""));
        assert_eq!(of("v1.2.openfaas-fn"), named("v1.2", ""));
        assert_eq!(of("echo%2Eopenfaas-fn"), named("echo", ""));
        for odd in ["", "/x", ".openfaas-fn", "No-Name", "a%2Fb"] {
            assert_eq!(of(odd), Err(Reason::Malformed), "{odd}");
        }
    }
}
