//! Invoke of AWS Lambda (`2015-03-31`), as boto3, the `aws` command and every SDK of AWS use it: functions are invoked and waited
//! for, accepted to be run later, or tried for whether they could be; and they are listed. Statuses, headers and error bodies
//! are those of AWS. [`signature`] says who has signed a request, [`told`] how things are told.

mod signature;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use nigh_proto::cdn_loop::{self, CDN_LOOP};
use nigh_proto::ingress::gate::{Arrived, Gate};
use nigh_proto::tls::connection::Peer;
use nigh_proto::{
    Acceptance, Call, CallId, Digest, FunctionName, Headers, Outcome, PlatformError, Priority, Reason, Reply,
};
use percent_encoding::percent_decode_str;
use serde_json::json;

use self::signature::{Signed, Unsigned};
use self::told::{Failure, function_of, qualified};
use crate::answer::{self, Answer, put};
use crate::backend::Backend;
use crate::callers::{Caller, Callers};
use crate::query::Query;
use crate::registry::Registry;

const REST: &str = "2015-03-31";
const ASYNC: &str = "2014-11-13";
/// Bytes of a payload, at most.
const PAYLOAD_BYTES_MAX: usize = 6 << 20;
/// Time for a call, the wait for its turn included; its function has a limit of its own.
const TIMEOUT: Duration = Duration::from_secs(900);
/// Bytes of a log's end that are told with an answer.
const LOG_TAIL_BYTES: usize = 4096;
/// Bytes of what a client says of itself.
const CONTEXT_BYTES_MAX: usize = 3583;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
static EXECUTED_VERSION: HeaderName = HeaderName::from_static("x-amz-executed-version");
static FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
static LOG_RESULT: HeaderName = HeaderName::from_static("x-amz-log-result");
const CONTEXT: &str = "x-amz-client-context";
/// The same for each try of one invocation.
const INVOCATION_ID: &str = "amz-sdk-invocation-id";

/// The door's room.
pub(crate) struct Lambda<B> {
    backend: Arc<B>,
    gate: Gate,
    callers: Callers,
    registry: Registry,
}

/// How a function is to be invoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Waited for; with the end of its log, where that is wanted.
    RequestResponse { tail: bool },
    /// To be run later.
    Event,
    /// Whether it could be.
    DryRun,
}

impl<B: Backend> Lambda<B> {
    pub(crate) fn new(backend: Arc<B>, gate: Gate, callers: Callers, registry: Registry) -> Self {
        Self { backend, gate, callers, registry }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let id = CallId::random();
        let answer = match self.gate.check(peer) {
            Ok(()) => self.route(request, &id).await,
            Err(error) => Err(error.into()),
        };
        let mut answer = answer.unwrap_or_else(Failure::respond);
        put(&mut answer, &REQUEST_ID, &as_uuid(&id));
        answer
    }

    async fn route(&self, request: Request<Incoming>, id: &CallId) -> Result<Answer, Failure> {
        if self.callers.keep_out(request.headers()) {
            let message = "pages in browsers are let in only where callers sign their requests";
            return Err(Failure::new(StatusCode::FORBIDDEN, "AccessDeniedException", message));
        }
        let (at, (parts, body)) = (Instant::now(), request.into_parts());
        let deadline = at + TIMEOUT.min(self.gate.limits().timeout_max);
        // Taken before the body is read, so that bodies too are bounded in number.
        let admitted = self.backend.admit(Priority::default())?;
        let bytes_max = PAYLOAD_BYTES_MAX.min(self.gate.limits().payload_bytes_max);
        let arrived = self.gate.read(&parts.headers, body, bytes_max, deadline).await?;
        let caller = self.caller(&parts, &arrived.bytes)?;
        let path = parts.uri.path().to_owned();
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let is_get = matches!(parts.method, Method::GET | Method::HEAD);
        let invocation = match segments[..] {
            [REST, "functions", name, "invocations"] if parts.method == Method::POST => {
                (name, mode_of(&parts.headers)?)
            }
            [ASYNC, "functions", name, "invoke-async"] if parts.method == Method::POST => (name, Mode::Event),
            [REST, "functions"] if is_get => return self.list(&caller, &Query::of(parts.uri.query())).await,
            [REST, "functions", name] if is_get => return self.find(&caller, name, true).await,
            [REST, "functions", name, "configuration"] if is_get => return self.find(&caller, name, false).await,
            ["healthz"] if is_get => return Ok(answer::bytes(StatusCode::OK, "text/plain", "ok\n")),
            _ => return Err(Failure::unknown_path(&parts.method, &path)),
        };
        let (name, mode) = invocation;
        let function = named(&caller, name, Query::of(parts.uri.query()).text("Qualifier"))?;
        let call = Call {
            id: id.clone(),
            headers: headers_of(&parts.headers)?,
            hops: cdn_loop::hops_of(&parts.headers, self.gate.limits())?,
            deadline,
            application: caller.namespace.application(),
            ..Call::new(function, arrived.bytes.clone(), Duration::ZERO)
        };
        match mode {
            Mode::RequestResponse { tail } => self.invoke(admitted, call, arrived, at, tail).await,
            Mode::Event => {
                let accepted = self.accept(admitted, call, &parts.headers, &caller, deadline - at).await;
                drop(arrived);
                // The older path tells its status in the body as well.
                accepted.map(|()| match segments[0] {
                    ASYNC => answer::json(StatusCode::ACCEPTED, &json!({ "Status": 202 })),
                    _ => answer::empty(StatusCode::ACCEPTED),
                })
            }
            Mode::DryRun => {
                self.backend.check_known(&call.function).await?;
                Ok(answer::empty(StatusCode::NO_CONTENT))
            }
        }
    }

    /// Who has signed a request.
    fn caller(&self, parts: &Parts, body: &[u8]) -> Result<Arc<Caller>, Failure> {
        if let Some(everybody) = self.callers.everybody_is() {
            return Ok(everybody);
        }
        let signed = Signed::of(parts, body, SystemTime::now()).map_err(|unsigned| match unsigned {
            Unsigned::Missing => Failure::new(
                StatusCode::FORBIDDEN,
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            ),
            Unsigned::Expired => {
                let message = "Signature expired: the clocks of both sides are over five minutes apart, or it is old";
                Failure::new(StatusCode::FORBIDDEN, "InvalidSignatureException", message)
            }
        })?;
        let mut known = false;
        for (key, caller) in self.callers.keys_of(&signed.key_id) {
            known = true;
            if signed.is_by(key) {
                return Ok(caller.clone());
            }
        }
        Err(if known {
            let message = "The request signature we calculated does not match the signature you provided.";
            Failure::new(StatusCode::FORBIDDEN, "InvalidSignatureException", message)
        } else {
            let message = "The security token included in the request is invalid.";
            Failure::new(StatusCode::FORBIDDEN, "UnrecognizedClientException", message)
        })
    }

    async fn invoke(
        &self,
        admitted: B::Place,
        call: Call,
        arrived: Arrived,
        at: Instant,
        tail: bool,
    ) -> Result<Answer, Failure> {
        let reply = self.backend.handle_in(admitted, call, at).await;
        drop(arrived);
        let Reply { outcome, computer, call, .. } = reply?;
        let mut told = match outcome {
            Outcome::Answer { payload, headers } => {
                let mut told = answer::bytes(StatusCode::OK, "application/json", payload);
                if let Some(content_type) = headers.get("content-type") {
                    put(&mut told, &header::CONTENT_TYPE, content_type);
                }
                told
            }
            Outcome::Error { kind, message } => {
                let mut told = answer::json(StatusCode::OK, &json!({ "errorMessage": message, "errorType": kind }));
                put(&mut told, &FUNCTION_ERROR, "Unhandled");
                told
            }
            Outcome::Estimate(_) => {
                return Err(PlatformError::new(Reason::Internal, "a call was answered with an estimate").into());
            }
        };
        put(&mut told, &EXECUTED_VERSION, told::LATEST);
        if tail {
            let lines = self.registry.logs(&call, &computer).await.unwrap_or_default();
            let log: String = lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
            let end = &log.as_bytes()[log.len().saturating_sub(LOG_TAIL_BYTES)..];
            put(&mut told, &LOG_RESULT, &base64::engine::general_purpose::STANDARD.encode(end));
        }
        Ok(told)
    }

    /// Has a call kept to be run later. What an SDK tries again is kept once.
    async fn accept(
        &self,
        admitted: B::Place,
        mut call: Call,
        headers: &HeaderMap,
        caller: &Caller,
        timeout: Duration,
    ) -> Result<(), Failure> {
        self.backend.check_known(&call.function).await?;
        if let Some(invocation) = headers.get(INVOCATION_ID) {
            // Another namespace's invocation of this id is another.
            let whole = [caller.namespace.as_str().as_bytes(), b"/", invocation.as_bytes()].concat();
            call.id = Digest::of(&whole).to_string()[..32].parse()?;
        }
        let acceptance = Acceptance { call, timeout, callback: None }.checked()?;
        self.backend.accept_in(admitted, acceptance).await?;
        Ok(())
    }

    async fn list(&self, caller: &Caller, query: &Query) -> Result<Answer, Failure> {
        let wrong = |message| Failure::new(StatusCode::BAD_REQUEST, "InvalidParameterValueException", message);
        let most = query.number("MaxItems", 1..=told::LIST_MAX).map_err(wrong)?.unwrap_or(told::LIST_DEFAULT);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let after = query.text("Marker").unwrap_or_default();
        let all = told::of_namespace(&caller.namespace, self.registry.list().await?);
        let mut further = all.into_iter().skip_while(|(name, _)| name.as_str() <= after);
        let page: Vec<_> = further.by_ref().take(most).collect();
        let functions: Vec<_> = page.iter().map(|(name, deployment)| told::configuration(name, deployment)).collect();
        let mut document = json!({ "Functions": functions });
        if let (Some((last, _)), true) = (page.last(), further.next().is_some()) {
            document["NextMarker"] = last.as_str().into();
        }
        Ok(answer::json(StatusCode::OK, &document))
    }

    async fn find(&self, caller: &Caller, name: &str, is_whole: bool) -> Result<Answer, Failure> {
        let function = named(caller, name, None)?;
        let found = self.registry.find(&function).await?.ok_or_else(|| Failure::unknown(function.as_str()))?;
        let configuration = told::configuration(&told::name_of(&function), &found);
        let document = if is_whole { json!({ "Configuration": configuration, "Code": {} }) } else { configuration };
        Ok(answer::json(StatusCode::OK, &document))
    }
}

/// The function that a segment of a path names, of a version if at all.
fn named(caller: &Caller, segment: &str, qualifier: Option<&str>) -> Result<FunctionName, Failure> {
    let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| Failure::unknown(segment))?;
    let (name, in_name) = qualified(&decoded);
    match qualifier.map(str::to_owned).or(in_name) {
        Some(version) if version != told::LATEST => Err(Failure::unknown(&format!("{name}:{version}"))),
        _ => function_of(&caller.namespace, &name).ok_or_else(|| Failure::unknown(&name)),
    }
}

fn mode_of(headers: &HeaderMap) -> Result<Mode, Failure> {
    let word = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let tail = match word("x-amz-log-type") {
        None | Some("None") => false,
        Some("Tail") => true,
        Some(_) => return Err(Failure::invalid("X-Amz-Log-Type is None or Tail")),
    };
    match word("x-amz-invocation-type") {
        None | Some("RequestResponse") => Ok(Mode::RequestResponse { tail }),
        Some("Event") => Ok(Mode::Event),
        Some("DryRun") => Ok(Mode::DryRun),
        Some(_) => Err(Failure::invalid("X-Amz-Invocation-Type is RequestResponse, Event or DryRun")),
    }
}

/// What a function sees beside the payload. Never what a request proves itself with.
fn headers_of(headers: &HeaderMap) -> Result<Headers, Failure> {
    let mut seen = Vec::new();
    for name in [header::CONTENT_TYPE.as_str(), CONTEXT, CDN_LOOP.as_str()] {
        let Some(value) = headers.get(name) else { continue };
        let value = value.to_str().map_err(|_| Failure::invalid(&format!("{name} is no text")))?;
        if value.len() > CONTEXT_BYTES_MAX {
            return Err(Failure::invalid(&format!("{name} is over {CONTEXT_BYTES_MAX} bytes")));
        }
        seen.push((name.to_owned(), value.to_owned()));
    }
    if seen.iter().all(|(name, _)| name != header::CONTENT_TYPE.as_str()) {
        // What SDKs send is JSON, without saying so.
        seen.push((header::CONTENT_TYPE.as_str().to_owned(), "application/json".to_owned()));
    }
    Ok(Headers::new(seen)?)
}

/// A call's id in the form that clients expect.
fn as_uuid(id: &CallId) -> String {
    let id = id.as_str();
    match id.len() {
        32 => [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-"),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn modes_are_read_off_the_headers() {
        let of = |pairs: &[_]| mode_of(&headers(pairs)).map_err(|failure| failure.status.as_u16());
        assert_eq!(of(&[]), Ok(Mode::RequestResponse { tail: false }));
        assert_eq!(of(&[("x-amz-log-type", "Tail")]), Ok(Mode::RequestResponse { tail: true }));
        assert_eq!(of(&[("x-amz-invocation-type", "Event")]), Ok(Mode::Event));
        assert_eq!(of(&[("x-amz-invocation-type", "DryRun")]), Ok(Mode::DryRun));
        assert_eq!(of(&[("x-amz-invocation-type", "Soon")]), Err(400));
        assert_eq!(of(&[("x-amz-log-type", "All")]), Err(400));
    }

    #[test]
    fn a_function_sees_no_signature() {
        let seen =
            headers_of(&headers(&[("authorization", "AWS4 x"), (CONTEXT, "e30="), ("x-amz-date", "x")])).unwrap();
        let seen: Vec<_> = seen.iter().collect();
        assert_eq!(seen, [(CONTEXT, "e30="), ("content-type", "application/json")]);
        assert!(headers_of(&headers(&[(CONTEXT, &"x".repeat(CONTEXT_BYTES_MAX + 1))])).is_err());
    }

    #[test]
    fn calls_have_ids_as_clients_expect_them() {
        let id = "00112233445566778899aabbccddeeff".parse().unwrap();
        assert_eq!(as_uuid(&id), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn only_the_latest_version_can_be_named() {
        let caller = Caller { namespace: Default::default(), may_deploy: false };
        let of = |segment, qualifier| named(&caller, segment, qualifier).map(|name| name.to_string()).ok();
        assert_eq!(of("echo", None).as_deref(), Some("echo"));
        assert_eq!(of("echo%3A%24LATEST", None).as_deref(), Some("echo"));
        assert_eq!(of("echo", Some("$LATEST")).as_deref(), Some("echo"));
        assert_eq!(
            of("arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Aecho", None).as_deref(),
            Some("echo")
        );
        for (segment, qualifier) in [("echo:7", None), ("echo", Some("prod")), ("acme..echo", None), ("%ff", None)] {
            assert_eq!(of(segment, qualifier), None, "{segment} {qualifier:?}");
        }
    }
}
