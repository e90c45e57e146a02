//! A MEC platform as a client sees it: `mec_app_support` and `mec_service_mgmt` over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use nigh_proto::http_client::{AnswerLimits, HttpClient};
use nigh_proto::tls::https::HttpsConnector;
use serde_json::{Value, json};

use super::Operation;
use crate::config::PlatformConfig;

/// Bytes of an answer, at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why a platform did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Unreachable(String),
    #[error("{what} was answered with {status}: {detail}")]
    Refused { what: &'static str, status: StatusCode, detail: String },
    #[error("{0} was answered without saying what it is called there")]
    Nameless(&'static str),
}

/// The platform, and as which application instance it is asked.
#[derive(Debug)]
pub(super) struct Platform {
    root: Uri,
    instance: String,
    timeout: Duration,
    client: HttpClient,
}

impl Platform {
    pub(super) fn new(config: &PlatformConfig) -> Self {
        let client = HttpClient::new(HttpsConnector::new(None), 0);
        Self { root: config.platform.clone(), instance: config.instance.clone(), timeout: config.timeout, client }
    }

    /// The application is up and running.
    pub(super) async fn confirm_ready(&self) -> Result<(), Failure> {
        let told = json!({ "indication": "READY" });
        self.ask("confirm_ready", Method::POST, &self.support("confirm_ready"), Some(&told)).await.map(drop)
    }

    /// Wants to hear of the end there; how the subscription is called.
    pub(super) async fn subscribe(&self, callback: &str) -> Result<String, Failure> {
        let wanted = json!({
            "subscriptionType": "AppTerminationNotificationSubscription",
            "callbackReference": callback,
            "_links": { "self": { "href": callback } },
            "appInstanceId": self.instance,
        });
        let what = "a subscription";
        let response = self.ask(what, Method::POST, &self.support("subscriptions"), Some(&wanted)).await?;
        location(&response).ok_or(Failure::Nameless(what))
    }

    pub(super) async fn unsubscribe(&self, id: &str) -> Result<(), Failure> {
        let path = self.support(&format!("subscriptions/{id}"));
        self.ask("the end of a subscription", Method::DELETE, &path, None).await.map(drop)
    }

    /// Registers a service; how it is called there.
    pub(super) async fn register(&self, service: &Value) -> Result<String, Failure> {
        let what = "a registration";
        let response = self.ask(what, Method::POST, &self.services(""), Some(service)).await?;
        let named = serde_json::from_slice::<Value>(response.body()).ok();
        let named = named.and_then(|body| body["serInstanceId"].as_str().map(str::to_owned));
        named.or_else(|| location(&response)).filter(|id| is_plain(id)).ok_or(Failure::Nameless(what))
    }

    pub(super) async fn update(&self, id: &str, service: &Value) -> Result<(), Failure> {
        let mut service = service.clone();
        service["serInstanceId"] = json!(id);
        self.ask("an update", Method::PUT, &self.services(id), Some(&service)).await.map(drop)
    }

    /// Whether a service is still known there.
    pub(super) async fn knows(&self, id: &str) -> Result<bool, Failure> {
        match self.ask("a look", Method::GET, &self.services(id), None).await {
            Ok(_) => Ok(true),
            Err(Failure::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn deregister(&self, id: &str) -> Result<(), Failure> {
        self.ask("the end of a service", Method::DELETE, &self.services(id), None).await.map(drop)
    }

    /// The application has done what there was to do before its end.
    pub(super) async fn confirm_termination(&self, operation: Operation) -> Result<(), Failure> {
        let operation = match operation {
            Operation::Stopping => "STOPPING",
            Operation::Terminating => "TERMINATING",
        };
        let told = json!({ "operationAction": operation });
        self.ask("confirm_termination", Method::POST, &self.support("confirm_termination"), Some(&told)).await.map(drop)
    }

    fn support(&self, path: &str) -> String {
        format!("/mec_app_support/v1/applications/{}/{path}", self.instance)
    }

    fn services(&self, id: &str) -> String {
        let slash = if id.is_empty() { "" } else { "/" };
        format!("/mec_service_mgmt/v1/applications/{}/services{slash}{id}", self.instance)
    }

    async fn ask(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Bytes>, Failure> {
        let uri = format!("{}{path}", self.root.to_string().trim_end_matches('/'));
        let uri: Uri = uri.parse().map_err(|error| Failure::Unreachable(format!("{uri}: {error}")))?;
        let mut request = Request::new(Bytes::from(body.map(Value::to_string).unwrap_or_default()));
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        if body.is_some() {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let limits = AnswerLimits { timeout: self.timeout, bytes_max: ANSWER_BYTES_MAX };
        let response = self.client.send(request, limits).await;
        let response = response.map_err(|why| Failure::Unreachable(why.to_string()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let detail = String::from_utf8_lossy(response.body()).chars().take(300).collect();
        Err(Failure::Refused { what, status, detail })
    }
}

/// The last part of where a resource was made.
fn location(response: &Response<Bytes>) -> Option<String> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let last = location.trim_end_matches('/').rsplit('/').next()?;
    is_plain(last).then(|| last.to_owned())
}

/// Whether a name can stand in a path as it is.
fn is_plain(id: &str) -> bool {
    (1..=256).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':'))
        && !matches!(id, "." | "..")
}
