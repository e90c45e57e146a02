//! Failures as the standard tells them: `ProblemDetails` in `application/problem+json`.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use nigh_store::StoreError;
use serde_json::json;

use crate::error::Refusal;

/// A refusal as an answer.
pub(super) fn of(refusal: &Refusal) -> Response {
    let (status, title) = status_and_title(refusal);
    told(status, title, &refusal.to_string())
}

/// The method is none of this path's; which there are is in the header that the router adds.
pub(super) fn wrong_method() -> Response {
    told(
        StatusCode::METHOD_NOT_ALLOWED,
        "Wrong method",
        "this path does not know that method; Allow has those that it does",
    )
}

/// A problem document.
pub(super) fn told(status: StatusCode, title: &str, detail: &str) -> Response {
    let document = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

fn status_and_title(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::Malformed(_) => (StatusCode::BAD_REQUEST, "Bad Request"),
        Refusal::UnknownApplication(_) | Refusal::NoServer(_) | Refusal::UnknownContext | Refusal::UnknownPath => {
            (StatusCode::NOT_FOUND, "Not Found")
        }
        // No more contexts fit: the same request may do later.
        Refusal::TooMany { .. } | Refusal::Callback(_) | Refusal::Store(StoreError::Full { .. }) => {
            (StatusCode::FORBIDDEN, "Forbidden")
        }
        Refusal::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
    }
}
