//! What came of a call, posted to whoever is to be told: a CloudEvent 1.0 in binary mode, whose data are what
//! `GET /result/{id}` would answer.

use std::time::SystemTime;

use http::{HeaderName, HeaderValue, Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::asynchronous::{CallbackUrl, Settled};
use crate::call::Call;
use crate::ingress::http::body::AnswerBody;
use crate::ingress::http::later;
use crate::reply::Outcome;

/// Posts an outcome. Redirects are not followed.
///
/// # Errors
/// Why it was not taken.
pub async fn post(url: &CallbackUrl, call: &Call, settled: Settled) -> Result<(), String> {
    let client: Client<HttpConnector, AnswerBody> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(event(url, call, settled)).await.map_err(|error| innermost(&error))?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("{url} answered {status}")) }
}

fn event(url: &CallbackUrl, call: &Call, settled: Settled) -> Request<AnswerBody> {
    let is_answer = matches!(&settled, Ok(reply) if matches!(reply.outcome, Outcome::Answer { .. }));
    let (parts, body) = later::settled(settled, &call.id).into_parts();
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.uri().clone();
    let headers = request.headers_mut();
    *headers = parts.headers;
    let attributes = [
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", call.id.to_string()),
        ("ce-source", format!("/function/{}", call.function)),
        ("ce-type", if is_answer { "nigh.call.answered" } else { "nigh.call.failed" }.to_owned()),
        ("ce-subject", call.function.to_string()),
        ("ce-time", humantime::format_rfc3339_millis(SystemTime::now()).to_string()),
        ("ce-nighstatus", parts.status.as_u16().to_string()),
        // As gateways of OpenFaaS tell it.
        ("x-call-id", call.id.to_string()),
        ("x-function-name", call.function.to_string()),
        ("x-function-status", parts.status.as_u16().to_string()),
    ];
    for (name, value) in attributes {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    request
}

/// What is at the bottom of a failure; the layers above say no more than that there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
