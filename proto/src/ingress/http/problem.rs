//! Failures as problem documents (RFC 9457), each with a `type`, `title`, `status` and `detail`, and beside these
//! `reason` (a word to branch on), `fault` (who has to act: caller, load, platform or function) and `retry` (whether the
//! same request may succeed if made again). Functions' errors also have their `kind`.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use super::Answer;
use super::answer::put_call_id;
use super::body::AnswerBody;
use crate::call::CallId;
use crate::status::{PlatformError, Reason};

/// The kind of a function's error that says that its input is at fault.
const BAD_INPUT: &str = "bad-input";

/// A failure, ready to be told.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    title: String,
    detail: String,
    reason: String,
    fault: String,
    retry: bool,
    kind: Option<String>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// The platform could not bring the call to an outcome.
    pub(super) fn of_platform(error: &PlatformError) -> Self {
        let (status, title) = status_and_title(error.reason);
        Self {
            status,
            title: title.to_owned(),
            detail: error.message.clone(),
            reason: error.reason.word().to_owned(),
            fault: error.reason.fault().to_string(),
            retry: error.reason.retry_helps(),
            kind: None,
            retry_after: error.retry_after,
        }
    }

    /// The function failed: the caller's fault where its input is bad, the function's own otherwise.
    pub(super) fn of_function(kind: &str, message: &str) -> Self {
        let (status, fault) = match kind {
            BAD_INPUT => (StatusCode::BAD_REQUEST, "caller"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "function"),
        };
        Self {
            status,
            title: "The function failed".to_owned(),
            detail: message.to_owned(),
            reason: "function-error".to_owned(),
            fault: fault.to_owned(),
            retry: false,
            kind: Some(kind.to_owned()),
            retry_after: None,
        }
    }

    /// The request is not one for a function.
    pub(super) fn of_request(status: StatusCode, reason: &str, title: &str, detail: &str) -> Self {
        Self {
            status,
            title: title.to_owned(),
            detail: detail.to_owned(),
            reason: reason.to_owned(),
            fault: "caller".to_owned(),
            retry: false,
            kind: None,
            retry_after: None,
        }
    }

    /// The document as an answer.
    pub(super) fn respond(self, call: Option<&CallId>) -> Answer {
        let mut document = serde_json::json!({
            "type": format!("urn:nigh:problem:{}", self.reason),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "reason": self.reason,
            "fault": self.fault,
            "retry": self.retry,
        });
        if let Some(kind) = self.kind {
            document["kind"] = kind.into();
        }
        let mut response = Response::new(AnswerBody::whole(document.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: a caller that waits just this long must not come too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(id) = call {
            put_call_id(headers, id);
        }
        response
    }
}

/// 405 with the methods that would do.
pub(super) fn wrong_method(allowed: &'static str, detail: &str) -> Answer {
    let problem = Problem::of_request(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "Wrong method", detail);
    let mut response = problem.respond(None);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn status_and_title(reason: Reason) -> (StatusCode, &'static str) {
    match reason {
        Reason::UnknownFunction => (StatusCode::NOT_FOUND, "No such function"),
        Reason::UnknownCall => (StatusCode::NOT_FOUND, "No such call"),
        Reason::UnknownTrigger => (StatusCode::NOT_FOUND, "No such trigger"),
        Reason::Malformed => (StatusCode::BAD_REQUEST, "The request does not have its form"),
        Reason::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The request or the answer is too large"),
        Reason::Late => (StatusCode::GATEWAY_TIMEOUT, "The deadline passed"),
        Reason::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, "The queue is full"),
        Reason::TooBusy => (StatusCode::SERVICE_UNAVAILABLE, "The wait would be too long"),
        Reason::OutOfBudget => (StatusCode::SERVICE_UNAVAILABLE, "Out of budget"),
        Reason::Unreachable => (StatusCode::SERVICE_UNAVAILABLE, "Nobody can be reached"),
        Reason::Disconnected => (StatusCode::BAD_GATEWAY, "The connection broke under the call"),
        Reason::NotServing => (StatusCode::SERVICE_UNAVAILABLE, "Not serving"),
        Reason::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "The function is not ready"),
        Reason::StateUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "A state cannot be reached"),
        Reason::StateConflict => (StatusCode::SERVICE_UNAVAILABLE, "Somebody else has written the state"),
        Reason::StateUnsaved => (StatusCode::SERVICE_UNAVAILABLE, "A state cannot be written"),
        Reason::NotAllowed => (StatusCode::FORBIDDEN, "Not allowed"),
        Reason::Unauthenticated => (StatusCode::UNAUTHORIZED, "Unauthenticated"),
        Reason::LoopDetected => (StatusCode::LOOP_DETECTED, "Passed on in a circle"),
        Reason::Protocol => (StatusCode::BAD_GATEWAY, "A peer speaks another protocol"),
        Reason::Cancelled => (StatusCode::BAD_GATEWAY, "The call was cancelled"),
        Reason::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "A defect of the platform"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_told_as_a_failure_and_by_fault() {
        for &reason in Reason::ALL {
            let response = Problem::of_platform(&PlatformError::new(reason, "x")).respond(None);
            let status = response.status();
            assert!(status.is_client_error() || status.is_server_error(), "{reason:?}");
            let by_caller = status.is_client_error();
            let expected = reason.fault() == crate::status::Fault::Caller;
            let gateway = matches!(reason, Reason::Late | Reason::Cancelled);
            assert!(by_caller == expected || gateway, "{reason:?} is told with {status}");
        }
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_rounded_up() {
        let told = |wait| {
            let error = PlatformError::new(Reason::QueueFull, "x").retry_after(wait);
            let response = Problem::of_platform(&error).respond(None);
            response.headers()[header::RETRY_AFTER].to_str().unwrap().to_owned()
        };
        assert_eq!(told(Duration::from_millis(1)), "1");
        assert_eq!(told(Duration::from_secs(2)), "2");
        assert_eq!(told(Duration::from_millis(2001)), "3");
    }
}
