//! From a reply to an HTTP answer: the function's payload as body and its headers as headers, beside what the platform
//! measured. The function's headers about the connection and those that begin with `nigh-` are left out, and so is what
//! HTTP cannot carry.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::AnswerBody;
use super::problem::Problem;
use super::request::{ABOUT_THE_CONNECTION, PLATFORM_PREFIX};
use super::{Answer, cloudevent};
use crate::call::{CallId, Headers};
use crate::name::{Digest, FunctionName};
use crate::reply::{Estimate, Outcome, Reply, Timing};
use crate::time::us;

/// Where the time went, as the `Server-Timing` header tells it: durations in milliseconds.
static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Bytes that most of these take.
const SERVER_TIMING_BYTES: usize = 128;
static CALL_ID: HeaderName = HeaderName::from_static("nigh-call-id");
pub(super) static COMPUTER: HeaderName = HeaderName::from_static("nigh-computer");
static VERSION: HeaderName = HeaderName::from_static("nigh-version");

/// The answer to a call that has an outcome.
pub(super) fn respond(reply: Reply) -> Answer {
    respond_with(reply, answer)
}

/// The same to a call that was an event.
pub(super) fn respond_to_event(reply: Reply, mode: cloudevent::Mode, function: &FunctionName) -> Answer {
    respond_with(reply, |payload, headers| cloudevent::answered(mode, function, payload, headers))
}

fn respond_with(reply: Reply, answer: impl FnOnce(Bytes, &Headers) -> Answer) -> Answer {
    let mut response = match reply.outcome {
        Outcome::Answer { payload, headers } => answer(payload, &headers),
        Outcome::Error { kind, message } => Problem::of_function(&kind, &message).respond(None),
        Outcome::Estimate(estimate) => told(estimate),
    };
    let headers = response.headers_mut();
    put_call_id(headers, &reply.call);
    put(headers, &COMPUTER, reply.computer.as_str());
    if let Some(version) = reply.version {
        put_version(headers, &version);
    }
    put_timing(headers, reply.timing);
    response
}

/// Says in an answer where the time went.
pub(super) fn put_timing(headers: &mut HeaderMap, timing: Timing) {
    put(headers, &SERVER_TIMING, &server_timing(timing));
}

/// Names the version that answered.
pub(super) fn put_version(headers: &mut HeaderMap, version: &Digest) {
    put(headers, &VERSION, version.hexadecimal(&mut [0; Digest::DIGITS]));
}

/// Names the call in an answer.
pub(super) fn put_call_id(headers: &mut HeaderMap, id: &CallId) {
    put(headers, &CALL_ID, id.as_str());
}

pub(super) fn put(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

pub(super) fn answer(payload: Bytes, from_function: &Headers) -> Answer {
    let mut response = Response::new(AnswerBody::whole(payload));
    let headers = response.headers_mut();
    for (name, value) in from_function.iter() {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) else {
            tracing::debug!(name, "a function's header that HTTP cannot carry is left out");
            continue;
        };
        if !ABOUT_THE_CONNECTION.contains(&name.as_str()) && !name.as_str().starts_with(PLATFORM_PREFIX) {
            headers.append(name, value);
        }
    }
    // A browser must not guess what a function's bytes are.
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    *response.status_mut() = StatusCode::OK;
    response
}

fn told(estimate: Estimate) -> Answer {
    let document = serde_json::json!({
        "queue_us": us(estimate.queue),
        "init_us": us(estimate.init),
        "run_us": us(estimate.run),
        "samples": estimate.samples,
        "similar": estimate.similar,
        "modelled": estimate.modelled,
        "init_p10_us": us(estimate.init_spread.p10),
        "init_p90_us": us(estimate.init_spread.p90),
        "run_p10_us": us(estimate.run_spread.p10),
        "run_p90_us": us(estimate.run_spread.p90),
    });
    let mut response = Response::new(AnswerBody::whole(document.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn server_timing(timing: Timing) -> String {
    let parts = [
        ("network", timing.network),
        ("broker", timing.broker),
        ("queue", timing.queue),
        ("init", timing.init),
        ("run", timing.run),
        ("reset", timing.reset),
    ];
    let mut text = String::with_capacity(SERVER_TIMING_BYTES);
    for (name, duration) in parts {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(name);
        text.push_str(";dur=");
        push_milliseconds(&mut text, us(duration));
    }
    text
}

/// Every answer tells six of them, so they are written without the machinery for formatting.
fn push_milliseconds(text: &mut String, us: u64) {
    text.push_str(itoa::Buffer::new().format(us / 1000));
    text.push('.');
    // With a digit in front that is left out, zeros stay.
    text.push_str(&itoa::Buffer::new().format(1000 + us % 1000)[1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_cannot_speak_for_the_connection_or_the_platform() {
        let headers = Headers::new(
            [
                ("Content-Type", "image/png"),
                ("Connection", "close"),
                ("Transfer-Encoding", "chunked"),
                ("Content-Length", "9"),
                ("nigh-computer", "forged"),
                ("not a token", "x"),
                ("x-mine", "1"),
                ("X-Mine", "2"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        )
        .unwrap();
        let response = answer(Bytes::new(), &headers);
        let names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "x-mine", "x-content-type-options"]);
        assert_eq!(response.headers().get_all("x-mine").iter().count(), 2);
    }

    #[test]
    fn times_are_told_in_milliseconds() {
        let timing = Timing { run: std::time::Duration::from_micros(1500), ..Timing::default() };
        assert_eq!(
            server_timing(timing),
            "network;dur=0.000, broker;dur=0.000, queue;dur=0.000, init;dur=0.000, run;dur=1.500, reset;dur=0.000"
        );
    }
}
