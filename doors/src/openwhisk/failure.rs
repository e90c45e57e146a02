//! Requests that cannot be granted, as OpenWhisk tells of it: `{"error": …, "code": …}`, the code naming the transaction.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use nigh_proto::{PlatformError, Reason};
use serde_json::json;

use crate::answer::{self, Answer};

/// Why a request is not granted.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) message: String,
    retry_after: Option<Duration>,
    allowed: Option<&'static str>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None, allowed: None }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn unknown(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("The requested resource does not exist: {what}"))
    }

    /// 405 with the methods that would do.
    pub(super) fn wrong_method(allowed: &'static str) -> Self {
        let failure = Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("this resource takes {allowed}"));
        Self { allowed: Some(allowed), ..failure }
    }

    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    pub(super) fn respond(self, transaction: &str) -> Answer {
        let mut told = answer::json(self.status, &json!({ "error": self.message, "code": transaction }));
        let headers = told.headers_mut();
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: a caller that waits just this long must not come too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allowed) = self.allowed {
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"nigh\""));
        }
        told
    }
}

impl From<PlatformError> for Failure {
    fn from(error: PlatformError) -> Self {
        let failure = Self::new(status_of(error.reason), error.message);
        match error.retry_after {
            Some(wait) => failure.retry_after(wait),
            None => failure,
        }
    }
}

fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::UnknownFunction | Reason::UnknownCall | Reason::UnknownTrigger => StatusCode::NOT_FOUND,
        Reason::Malformed => StatusCode::BAD_REQUEST,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::QueueFull | Reason::TooBusy | Reason::OutOfBudget => StatusCode::TOO_MANY_REQUESTS,
        Reason::Unreachable | Reason::NotServing | Reason::NotReady | Reason::StateUnavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::LoopDetected => StatusCode::LOOP_DETECTED,
        Reason::NotAllowed => StatusCode::FORBIDDEN,
        Reason::Unauthenticated => StatusCode::UNAUTHORIZED,
        Reason::Late
        | Reason::Disconnected
        | Reason::StateConflict
        | Reason::StateUnsaved
        | Reason::Protocol
        | Reason::Cancelled
        | Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Whether an error says that nothing ran, so that there is no activation to tell of.
pub(super) fn nothing_ran(error: &PlatformError) -> bool {
    status_of(error.reason) != StatusCode::INTERNAL_SERVER_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_with_what_clients_need() {
        let told = Failure::bad("no").respond("t1");
        assert_eq!(
            (told.status(), told.headers()[header::CONTENT_TYPE].to_str().unwrap()),
            (StatusCode::BAD_REQUEST, "application/json")
        );
        let busy = PlatformError::new(Reason::QueueFull, "full").retry_after(Duration::from_millis(1100));
        let told = Failure::from(busy).respond("t1");
        assert_eq!((told.status().as_u16(), &told.headers()[header::RETRY_AFTER]), (429, &HeaderValue::from(2)));
        let told = Failure::wrong_method("GET, PUT").respond("t1");
        assert_eq!((told.status().as_u16(), told.headers()[header::ALLOW].to_str().unwrap()), (405, "GET, PUT"));
        let told = Failure::new(StatusCode::UNAUTHORIZED, "who?").respond("t1");
        assert!(told.headers().contains_key(header::WWW_AUTHENTICATE));
    }

    #[test]
    fn every_reason_has_a_status_and_says_whether_anything_ran() {
        for &reason in Reason::ALL {
            let error = PlatformError::new(reason, "x");
            let may_have_run = matches!(reason, Reason::Disconnected | Reason::Late | Reason::Cancelled);
            assert!(!(may_have_run && nothing_ran(&error)), "{reason:?}");
            assert!(Failure::from(error).status.as_u16() >= 400, "{reason:?}");
        }
    }
}
