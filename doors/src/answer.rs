//! Answers of the doors: all there, JSON unless said otherwise.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use nigh_proto::ingress::http::AnswerBody;
use serde::Serialize;

/// An answer on its way to a caller.
pub(crate) type Answer = Response<AnswerBody>;

/// An answer of these bytes, which are of this type.
pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(AnswerBody::whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A value as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // Of values made here none has a form that JSON lacks.
    bytes(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

/// Nothing but a status.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::whole(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// Sets a header where its value can be one.
pub(crate) fn put(answer: &mut Answer, name: &HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}
