//! What came of a call, posted to whoever is to be told: a CloudEvent 1.0 in binary mode, whose data are what
//! `GET /result/{id}` would answer.

use std::pin::pin;
use std::time::SystemTime;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::asynchronous::{CallbackUrl, Settled};
use crate::call::Call;
use crate::ingress::http::body::AnswerBody;
use crate::ingress::http::later;
use crate::reply::Outcome;
use crate::tls::Outgoing;

/// Posts an outcome; over https to whom `outgoing` believes. Redirects are not followed.
///
/// # Errors
/// Why it was not taken.
pub async fn post(url: &CallbackUrl, call: &Call, settled: Settled, outgoing: &Outgoing) -> Result<(), String> {
    let event = event(url, call, settled);
    let status = if url.is_https() {
        post_over_tls(url, event, outgoing).await?
    } else {
        let client: Client<HttpConnector, AnswerBody> = Client::builder(TokioExecutor::new()).build_http();
        client.request(event).await.map_err(|error| innermost(&error))?.status()
    };
    if status.is_success() { Ok(()) } else { Err(format!("{url} answered {status}")) }
}

async fn post_over_tls(
    url: &CallbackUrl,
    mut event: Request<AnswerBody>,
    outgoing: &Outgoing,
) -> Result<StatusCode, String> {
    let stream = outgoing.connect(url.host().trim_matches(['[', ']']), url.port()).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| innermost(&error))?;
    let authority = url.uri().authority().map(ToString::to_string).unwrap_or_default();
    let host = HeaderValue::from_str(&authority).map_err(|error| error.to_string())?;
    event.headers_mut().insert(header::HOST, host);
    let path = url.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *event.uri_mut() = path.into();
    let mut answering = pin!(sender.send_request(event));
    let mut connection = pin!(connection);
    // The connection is driven until the answer's head is there, and no longer.
    let answer = tokio::select! {
        biased;
        answer = &mut answering => answer,
        _ = &mut connection => answering.await,
    };
    answer.map(|answer| answer.status()).map_err(|error| innermost(&error))
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
