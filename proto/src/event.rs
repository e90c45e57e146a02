//! What came of a call, posted to whoever is to be told: a CloudEvent 1.0 in binary mode, whose data are what
//! `GET /result/{id}` would answer.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::BodyExt as _;

use crate::asynchronous::{CallbackUrl, Settled};
use crate::call::Call;
use crate::http_client::HttpClient;
use crate::ingress::http::later;
use crate::reply::Outcome;
use crate::tls::https::HttpsConnector;

/// Posts an outcome over a connection made so. Redirects are not followed, and of an answer only its status is read.
///
/// # Errors
/// Why it was not taken.
pub async fn post(url: &CallbackUrl, call: &Call, settled: Settled, connector: HttpsConnector) -> Result<(), String> {
    let client = HttpClient::new(connector, 0);
    let event = event(url, call, settled).await?;
    let status = client.begin(event).await.map_err(|why| why.to_string())?.status();
    if status.is_success() { Ok(()) } else { Err(format!("{url} answered {status}")) }
}

async fn event(url: &CallbackUrl, call: &Call, settled: Settled) -> Result<Request<Bytes>, String> {
    let is_answer = matches!(&settled, Ok(reply) if matches!(reply.outcome, Outcome::Answer { .. }));
    let (parts, body) = later::settled(settled, &call.id).into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let mut request = Request::new(body.to_bytes());
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
    Ok(request)
}
