//! Actions of OpenWhisk: listed page by page, called with their caller waiting, and asked after where that took too long.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use nigh_proto::cdn_loop::{self, CDN_LOOP};
use nigh_proto::http_client::Unanswered;
use nigh_proto::{Call, FunctionName, Headers, Outcome, PlatformError, Reason};
use serde_json::{Value, json};

use super::api::{self, FUNCTIONS_MAX, Failure, LISTING_BYTES_MAX, Listing, Sign, Target, said};
use super::client::{Answer, Client, uri_of};
use super::settings::{RootUrl, segment};
use crate::outcome;

/// Actions of one page, as many as there may be.
const PAGE: usize = 200;
/// How long OpenWhisk has a caller wait, at most.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Time between two questions after an activation: the first, and the longest.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// So long before a call's deadline it is given up whose activation goes on, so that its caller is still told which that is.
const TELL: Duration = Duration::from_millis(50);
/// Bytes of an activation's id, at most.
const ID_BYTES_MAX: usize = 64;
/// What a record holds besides its result, at most: logs and annotations.
const RECORD_BYTES: usize = 1 << 20;
/// Carries a call's id.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A host of OpenWhisk.
pub(super) struct OpenWhisk {
    /// Where its namespaces are.
    namespaces: String,
    /// Whose actions are offered; `_` for those of the credentials.
    namespace: String,
    payload_only: bool,
    authorization: HeaderValue,
}

impl OpenWhisk {
    /// Bytes of an action's parameters, at most.
    pub(super) const PARAMETERS_BYTES_MAX: usize = 1 << 20;

    /// # Errors
    /// Where the namespace cannot be one.
    pub(super) fn new(
        root: &RootUrl,
        namespace: &str,
        payload_only: bool,
        authorization: HeaderValue,
    ) -> Result<Self, String> {
        segment(namespace).map_err(|error| format!("namespace: {error}"))?;
        let namespaces = format!("{}/api/v1/namespaces", root.as_str());
        Ok(Self { namespaces, namespace: namespace.to_owned(), payload_only, authorization })
    }

    fn target(&self, namespace: &str, package: Option<&str>, name: &str) -> Result<Target, String> {
        let package = package.map(segment).transpose()?.map(|package| package + "/").unwrap_or_default();
        let (of, name) = (segment(namespace)?, segment(name)?);
        let url = format!("{}/{of}/actions/{package}{name}", self.namespaces);
        Ok(Target { url, namespace: of })
    }

    /// An action that the operator names: `NAME`, `PACKAGE/NAME` or `/NAMESPACE/[PACKAGE/]NAME`; without that the function's own
    /// name, a dot between package and name.
    ///
    /// # Errors
    /// Where it is none of these.
    pub(super) fn named_target(&self, function: &FunctionName, remote: Option<&str>) -> Result<Target, String> {
        let remote = match remote {
            Some(remote) => remote.to_owned(),
            None => function.as_str().replacen('.', "/", 1),
        };
        let (namespace, path) = match remote.strip_prefix('/') {
            Some(path) => path.split_once('/').ok_or_else(|| format!("{remote}: write it as /NAMESPACE/NAME"))?,
            None => (self.namespace.as_str(), remote.as_str()),
        };
        match path.split_once('/') {
            Some((_, name)) if name.contains('/') => Err(format!("{remote}: write it as [/NAMESPACE/][PACKAGE/]NAME")),
            Some((package, name)) => self.target(namespace, Some(package), name),
            None => self.target(namespace, None, path),
        }
    }

    /// Whether the credentials are anybody's.
    pub(super) async fn check_credentials(&self, client: &Client) -> Result<(), String> {
        let answer = client.get(&self.namespaces, Some(self.authorization.clone()), LISTING_BYTES_MAX).await;
        api::json(&answer.map_err(|why| why.to_string())?, "the list of namespaces").map(drop)
    }

    /// All actions of the namespace.
    pub(super) async fn list(&self, client: &Client) -> Result<Listing, String> {
        let mut listing = Listing::new();
        let actions = format!("{}/{}/actions", self.namespaces, segment(&self.namespace)?);
        for skip in (0..FUNCTIONS_MAX).step_by(PAGE) {
            let url = format!("{actions}?limit={PAGE}&skip={skip}");
            let answer = client.get(&url, Some(self.authorization.clone()), LISTING_BYTES_MAX).await;
            let page = api::json(&answer.map_err(|why| why.to_string())?, "the list of actions")?;
            let page = page.as_array().ok_or("the list of actions is no list")?;
            listing.extend(page.iter().take(PAGE).filter_map(|action| self.listed(action)));
            if page.len() < PAGE {
                break;
            }
        }
        Ok(listing)
    }

    /// An action of a list; nothing for one that has no name that callers could use.
    fn listed(&self, action: &Value) -> Option<(FunctionName, Target)> {
        let name = action.get("name")?.as_str()?;
        // Whose it is, and after that its package.
        let home = action.get("namespace")?.as_str()?;
        let package = home.split_once('/').map(|(_, package)| package);
        let function = package.map_or_else(|| name.to_owned(), |package| format!("{package}.{name}"));
        Some((function.parse().ok()?, self.target(&self.namespace, package, name).ok()?))
    }

    /// Makes a call, and asks after it where its caller is not to wait on.
    pub(super) async fn invoke(
        &self,
        client: &Client,
        target: &Target,
        call: &Call,
        bytes_max: usize,
    ) -> Result<Outcome, Failure> {
        let wait = call.time_left(Instant::now()).min(WAIT_MAX).as_millis().max(1);
        let url = format!("{}?blocking=true&result=true&timeout={wait}", target.url);
        let mut request = Request::new(parameters(&call.payload));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri_of(&url)?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        headers.insert(CDN_LOOP.clone(), cdn_loop::passed_on(call));
        if let Ok(id) = HeaderValue::from_str(call.id.as_str()) {
            headers.insert(REQUEST_ID.clone(), id);
        }
        let sent = tokio::time::timeout_at(call.deadline.into(), client.send(request, bytes_max)).await;
        let answer = sent.map_err(|_| Failure { error: outcome::late_running(), sign: Sign::None })??;
        if answer.status.as_u16() == 202 {
            return self.follow(client, target, call, &answer, bytes_max).await;
        }
        self.judge(call, answer)
    }

    /// What an answer means.
    fn judge(&self, call: &Call, answer: Answer) -> Result<Outcome, Failure> {
        match answer.status.as_u16() {
            200 => self.result(answer.body),
            // Whoever stands before OpenWhisk says 502 too, but in no JSON.
            502 => failed(&answer.body).ok_or_else(|| Failure::broken(&answer)),
            300..=399 => {
                let what = format!("redirects are not followed; is its URL right? ({})", answer.location());
                Err(Failure::operator(&answer, &what))
            }
            400 => Err(Failure::new(Reason::Malformed, format!("OpenWhisk says: {}", said(&answer)), Sign::None)),
            401 | 403 => {
                let what = "it refuses the computer's credentials; its operator may set others (--auth-file)";
                Err(Failure::operator(&answer, what))
            }
            404 => Err(Failure::unknown(call)),
            413 => Err(Failure::new(Reason::TooLarge, format!("OpenWhisk says: {}", said(&answer)), Sign::None)),
            429 | 503 => Err(Failure::busy(&answer)),
            508 => Err(Failure::circle(&answer)),
            500..=599 => Err(Failure::broken(&answer)),
            _ => Err(Failure::operator(&answer, &said(&answer))),
        }
    }

    /// A result, in whatever shape the action gave it.
    fn result(&self, body: Bytes) -> Result<Outcome, Failure> {
        let (payload, form) = if self.payload_only {
            let told: Option<Value> = serde_json::from_slice(&body).ok();
            match told.as_ref().and_then(|told| told.get("payload")?.as_str()) {
                Some(text) => (Bytes::copy_from_slice(text.as_bytes()), "text/plain; charset=utf-8"),
                None => {
                    let message = "the action's result has no text in a field `payload`, which this computer answers";
                    return Ok(outcome::error("malformed-answer", message));
                }
            }
        } else {
            (body, "application/json")
        };
        let headers = vec![("content-type".to_owned(), form.to_owned())];
        Ok(Outcome::Answer { payload, headers: Headers::new(headers).unwrap_or_default() })
    }

    /// Asks after an activation until it has ended, or the call's deadline has passed.
    async fn follow(
        &self,
        client: &Client,
        target: &Target,
        call: &Call,
        accepted: &Answer,
        bytes_max: usize,
    ) -> Result<Outcome, Failure> {
        let id = activation_id(&accepted.body).ok_or_else(|| {
            let message = "the gateway answered 202 without an activation's id; the function may run all the same";
            Failure::new(Reason::Disconnected, message, Sign::None)
        })?;
        let asking = async {
            let url = format!("{}/{}/activations/{id}", self.namespaces, target.namespace);
            let (mut wait, wait_max) = ASK_AGAIN;
            loop {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(wait_max);
                let bytes_max = bytes_max.saturating_add(RECORD_BYTES);
                match client.get(&url, Some(self.authorization.clone()), bytes_max).await {
                    Ok(answer) if answer.status.as_u16() == 200 => return self.ended(&id, &answer),
                    Ok(answer) if matches!(answer.status.as_u16(), 401 | 403) => return self.judge(call, answer),
                    Err(Unanswered::TooLarge(bytes_max)) => return Err(Unanswered::TooLarge(bytes_max).into()),
                    // It has not ended, or cannot be asked after right now.
                    Ok(answer) => wait = wait.max(if is_busy(&answer) { answer.retry_after() } else { wait }),
                    Err(Unanswered::Unconnected(_) | Unanswered::Broken(_)) => {}
                }
            }
        };
        let until = call.deadline.checked_sub(TELL).unwrap_or(call.deadline);
        tokio::time::timeout_at(until.into(), asking).await.unwrap_or_else(|_| {
            let message = format!(
                "the deadline passed while the function ran at OpenWhisk, as activation {id}; give the call more time"
            );
            Err(Failure { error: PlatformError::new(Reason::Late, message), sign: Sign::None })
        })
    }

    /// What a record says of how an activation ended.
    fn ended(&self, id: &str, answer: &Answer) -> Result<Outcome, Failure> {
        let record: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let response = record.get("response").unwrap_or(&Value::Null);
        let result = response.get("result").unwrap_or(&Value::Null);
        let is_success = response.get("success").and_then(Value::as_bool);
        let is_internal = response.get("status").and_then(Value::as_str) == Some("whisk internal error");
        match is_success {
            Some(true) => self.result(result.to_string().into()),
            Some(false) if !is_internal => Ok(error_of(result)),
            _ => {
                let message = format!("OpenWhisk lost activation {id}: {}; the function may have run", said(answer));
                Err(Failure::new(Reason::Disconnected, message, Sign::None))
            }
        }
    }
}

/// What an action is given: an object as it is, and anything else in a field of one.
fn parameters(payload: &Bytes) -> Bytes {
    if payload.iter().all(u8::is_ascii_whitespace) {
        return Bytes::from_static(b"{}");
    }
    let opens = payload.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if opens && serde_json::from_slice::<serde::de::IgnoredAny>(payload).is_ok() {
        return payload.clone();
    }
    match std::str::from_utf8(payload) {
        Ok(text) => json!({ "payload": text }).to_string().into(),
        Err(_) => json!({ "payload_base64": BASE64_STANDARD.encode(payload) }).to_string().into(),
    }
}

/// The error in the body of an action that failed.
fn failed(body: &Bytes) -> Option<Outcome> {
    let told: Value = serde_json::from_slice(body).ok()?;
    // Whoever asks for the result only is still told the whole record by some.
    let result = told.get("response").and_then(|response| response.get("result")).unwrap_or(&told);
    result.is_object().then(|| error_of(result))
}

fn error_of(result: &Value) -> Outcome {
    let message = match result.get("error") {
        Some(Value::String(message)) => message.clone(),
        Some(error) => error.to_string(),
        None => result.to_string(),
    };
    outcome::function_error(b"failed", message.as_bytes())
}

fn activation_id(body: &Bytes) -> Option<String> {
    let told: Value = serde_json::from_slice(body).ok()?;
    let id = told.get("activationId")?.as_str()?;
    let is_id = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_id.then(|| id.to_owned())
}

fn is_busy(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 429 | 503)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn api(namespace: &str) -> OpenWhisk {
        let root = "https://whisk:444/".parse().unwrap();
        OpenWhisk::new(&root, namespace, false, HeaderValue::from_static("Basic x")).unwrap()
    }

    #[test]
    fn actions_are_found_by_their_names() {
        let of = |name: &str, remote| api("_").named_target(&name.parse().unwrap(), remote).map(|target| target.url);
        let at = |path: &str| Ok(format!("https://whisk:444/api/v1/namespaces/{path}"));
        assert_eq!(of("hello", None), at("_/actions/hello"));
        assert_eq!(of("math.add", None), at("_/actions/math/add"));
        assert_eq!(of("hello", Some("Hello World")), at("_/actions/Hello%20World"));
        assert_eq!(of("add", Some("/acme/math/add")), at("acme/actions/math/add"));
        assert_eq!(of("add", Some("/acme/add")), at("acme/actions/add"));
        for wrong in ["", "/", "/acme", "a/b/c", "../x", "a/..", "/a/b/c/d"] {
            assert!(of("hello", Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_listed_is_offered_where_it_has_a_name() {
        let of = |action: Value| api("_").listed(&action).map(|(name, target)| (name.to_string(), target.url));
        let (name, url) = of(json!({ "namespace": "guest/math", "name": "add" })).unwrap();
        assert_eq!((name.as_str(), url.rsplit_once("_/").unwrap().1), ("math.add", "actions/math/add"));
        for odd in [
            json!({ "namespace": "guest", "name": "Hello World" }),
            json!({ "namespace": "guest/..", "name": "x" }),
            json!({ "namespace": "guest", "name": 7 }),
            json!({ "name": "x" }),
            json!("x"),
        ] {
            assert_eq!(of(odd), None);
        }
    }

    #[test]
    fn parameters_are_an_object_whatever_comes() {
        let of = |payload: &'static [u8]| String::from_utf8(parameters(&payload.into()).to_vec()).unwrap();
        assert_eq!(of(b""), "{}");
        assert_eq!(of(b" {\"a\": 1} "), " {\"a\": 1} ");
        assert_eq!(of(b"[1]"), r#"{"payload":"[1]"}"#);
        assert_eq!(of(b"{ \"broken\""), r#"{"payload":"{ \"broken\""}"#);
        assert_eq!(of(b"\xff\x00"), r#"{"payload_base64":"/wA="}"#);
    }

    proptest! {
        #[test]
        fn parameters_are_an_object_whatever_bytes_come(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(serde_json::from_slice::<Value>(&parameters(&payload.into())).unwrap().is_object());
        }

        #[test]
        fn an_id_is_never_more_than_one(id in "\\PC{0,80}") {
            let body = json!({ "activationId": id }).to_string().into();
            if let Some(id) = activation_id(&body) {
                prop_assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()) && id.len() <= ID_BYTES_MAX);
            }
        }
    }
}
