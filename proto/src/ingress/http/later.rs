//! Calls over HTTP that run later: `POST /function/{name}` with `Prefer: respond-async` (RFC 7240) is answered with 202 and a
//! `Location` where the outcome will be, once the call is stored; `GET /result/{id}` tells it, just as the call itself would
//! have been answered, or 202 while there is none. `Prefer: wait=SECONDS` waits for it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::Answer;
use super::answer::{self, put_call_id};
use super::body::AnswerBody;
use super::problem::Problem;
use super::request::path_segment;
use crate::asynchronous::Settled;
use crate::call::CallId;

static PREFER: HeaderName = HeaderName::from_static("prefer");
static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// What a client does that was told that there is no outcome yet: it asks again after so many seconds.
const ASK_AGAIN_S: u64 = 1;

/// What a request prefers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Preferences {
    pub(super) respond_async: bool,
    pub(super) wait: Duration,
}

impl Preferences {
    /// Preferences that make no sense here are passed over, as the standard has it.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut preferences = Self::default();
        let values = headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            let preference = preference.split(';').next().unwrap_or_default().trim();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => preferences.respond_async = true,
                "wait" => {
                    let seconds = value.trim().trim_matches('"').parse().unwrap_or_default();
                    preferences.wait = Duration::from_secs(seconds);
                }
                _ => {}
            }
        }
        preferences
    }
}

/// An outcome, told as the call itself would have been answered.
pub(crate) fn settled(settled: Settled, id: &CallId) -> Answer {
    match settled {
        Ok(reply) => answer::respond(reply),
        Err(error) => Problem::of_platform(&error).respond(Some(id)),
    }
}

/// The call is stored; there will be an outcome.
pub(super) fn accepted(id: &CallId) -> Answer {
    let mut answer = pending(id);
    answer.headers_mut().insert(&PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
    answer
}

/// There is no outcome yet, and where it will be.
pub(super) fn pending(id: &CallId) -> Answer {
    let location = format!("/result/{}", path_segment(id.as_str()));
    let document = serde_json::json!({ "call": id.as_str(), "state": "pending", "result": location });
    let mut answer = Response::new(AnswerBody::whole(document.to_string()));
    *answer.status_mut() = StatusCode::ACCEPTED;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(ASK_AGAIN_S));
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    put_call_id(headers, id);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_as_the_standard_writes_them() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&PREFER, HeaderValue::from_static(value));
            }
            let Preferences { respond_async, wait } = Preferences::of(&headers);
            (respond_async, wait.as_secs())
        };
        assert_eq!(of(&[]), (false, 0));
        assert_eq!(of(&["respond-async"]), (true, 0));
        assert_eq!(of(&["Respond-Async, wait=10"]), (true, 10));
        assert_eq!(of(&["return=minimal", "wait = \"5\";x=y, respond-async"]), (true, 5));
        assert_eq!(of(&["wait=soon, respond-asynchronously"]), (false, 0));
    }
}
