//! Requests at an HTTP door: whatever head arrives becomes a call within the limits, or a refusal with its reason.

use std::time::Instant;

use http::{HeaderName, HeaderValue, Method, Request};
use nigh_proto::CallLimits;

/// The first line is the target, each further one a header with a colon.
pub(super) fn check(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let mut request = Request::builder().method(Method::POST).uri(target);
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else { return };
        request = request.header(name, value);
    }
    let Ok(request) = request.body(()) else { return };
    let limits = CallLimits::default();
    let now = Instant::now();
    match nigh_proto::ingress::http::call_for_fuzzing(
        "f".parse().expect("a name"),
        &request.into_parts().0,
        &limits,
        now,
    ) {
        Ok(call) => {
            assert!(call.deadline > now && call.deadline <= now + limits.timeout_max);
            assert!(call.headers.iter().all(|(name, _)| !name.is_empty()));
        }
        Err(refusal) => assert!(!refusal.message.is_empty()),
    }
}
