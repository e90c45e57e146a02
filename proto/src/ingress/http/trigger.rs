//! `POST /trigger/{path}`: a request becomes an asynchronous call of the function that the trigger of this path names, and is
//! answered with 202 once the call is stored. Who sends a request again because it heard no answer says so by the same
//! `Idempotency-Key`, by a CloudEvent's `ce-source` and `ce-id`, or by `nigh-call-id`.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;

use super::problem::{self, Problem};
use super::request::Head;
use super::{Answer, HttpDoor, HttpHandler, later};
use crate::asynchronous::{Acceptance, Callback, CallbackUrl};
use crate::call::{CallId, Headers, Priority};
use crate::name::{Digest, FunctionName, TriggerName};
use crate::status::{PlatformError, Reason};
use crate::tls::connection::Peer;

/// What a trigger makes of requests.
#[derive(Debug, Clone)]
pub struct Triggered {
    /// The trigger.
    pub name: TriggerName,
    /// What is called.
    pub function: FunctionName,
    /// Nobody else knows it; the ids of calls are made of it and what a request says of itself.
    pub secret: String,
    /// Time for each try.
    pub timeout: Duration,
    /// Running a call twice does no harm.
    pub retry_safe: bool,
    /// Which calls give way.
    pub priority: Priority,
    /// Where outcomes are posted to.
    pub callback: Option<CallbackUrl>,
    /// Headers of every call, before those of the request.
    pub headers: Headers,
}

impl<H: HttpHandler> HttpDoor<H> {
    /// A request at a trigger's path.
    pub(super) async fn trigger(&self, path: &str, request: Request<Incoming>, peer: &Peer) -> Answer {
        let arrived = Instant::now();
        if let Err(error) = self.gate.check(peer) {
            return Problem::of_platform(&error).respond(None);
        }
        let Some(triggered) = self.handler.triggered_by(path) else {
            let message = format!("no trigger is at /trigger/{path}; `nigh trigger ls` lists those there are");
            return Problem::of_platform(&PlatformError::new(Reason::UnknownTrigger, message)).respond(None);
        };
        if request.method() != Method::POST {
            return problem::wrong_method("POST", "triggers are set off with POST /trigger/{path}");
        }
        match self.accept_triggered(triggered, request, arrived).await {
            Ok(id) => later::accepted(&id),
            Err(error) => Problem::of_platform(&error).respond(None),
        }
    }

    async fn accept_triggered(
        &self,
        triggered: Triggered,
        request: Request<Incoming>,
        arrived: Instant,
    ) -> Result<CallId, PlatformError> {
        let (parts, body) = request.into_parts();
        let head = Head::new(triggered.function.clone(), &parts, self.gate.limits(), arrived)?;
        let place = self.handler.admit(triggered.priority)?;
        let bytes_max = self.gate.limits().payload_bytes_max;
        let whole = self.gate.read(&parts.headers, body, bytes_max, head.deadline).await?;
        let mut call = head.into_call(whole.bytes.clone());
        if let Some(id) = said_id(&parts.headers) {
            call.id = id_of(&triggered.secret, &id)?;
        }
        (call.retry_safe, call.priority) = (call.retry_safe || triggered.retry_safe, triggered.priority);
        let headers = triggered.headers.iter().chain(call.headers.iter());
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        call.headers = Headers::new(headers)?;
        let callback = triggered.callback.map(Callback::Http);
        let acceptance = Acceptance { call, timeout: triggered.timeout, callback }.checked()?;
        self.handler.accept_triggered(place, &triggered.name, acceptance).await.map(|accepted| accepted.id)
    }
}

/// What a request says that tells it from others, other than by an id of the platform's own.
fn said_id(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    if let Some(key) = text("idempotency-key") {
        return Some(format!("key {key}"));
    }
    Some(format!("event {} {}", text("ce-source")?, text("ce-id")?))
}

/// The id of the call that a source's message becomes: the same for the same message, and not to be guessed.
///
/// # Errors
/// None, as digits have the form of ids.
pub fn id_of(secret: &str, said: &str) -> Result<CallId, PlatformError> {
    let digest = Digest::of(format!("{secret}\n{said}").as_bytes()).to_string();
    digest[..32].parse()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_request_that_is_sent_again_is_known() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers: HeaderMap =
                pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
            said_id(&headers)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("ce-id", "1")]), None);
        assert_eq!(of(&[("ce-id", "1"), ("ce-source", "/shop")]), Some("event /shop 1".to_owned()));
        assert_eq!(of(&[("idempotency-key", "k"), ("ce-id", "1")]), Some("key k".to_owned()));
        assert_eq!(id_of("secret", "key k").unwrap(), id_of("secret", "key k").unwrap());
        assert_ne!(id_of("secret", "key k").unwrap(), id_of("other", "key k").unwrap());
    }
}
