//! Requests to the system elsewhere, over connections that are kept: bounded in size, redirects not followed.

use std::error::Error as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use nigh_proto::tls::https::{HttpsConnector, Trust};
use nigh_telemetry::HttpResponses;

/// How long a connection is kept that nobody uses; shorter than servers do, so that few close under a call.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// Bytes of an answer's head, at most.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of an answer, at most.
const HEADERS_MAX: usize = 100;
/// The longest that a server's wish to be left alone is heeded.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// When to come again to who is busy and does not say.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// Sends requests.
pub(super) struct Client {
    pooled: legacy::Client<HttpsConnector, Full<Bytes>>,
    connector: HttpsConnector,
    /// What was answered, by status.
    pub(super) responses: HttpResponses,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The request was certainly not sent.
    Unconnected(String),
    /// The connection broke, or what came over it was no HTTP; the request may have had its effect.
    Broken(String),
    /// The answer's body has more bytes than this.
    TooLarge(usize),
}

impl Client {
    /// Keeps so many connections when they are not used.
    pub(super) fn new(trust: Option<Trust>, kept: usize) -> Self {
        let connector = HttpsConnector::new(trust);
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(kept)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX);
        Self { pooled: builder.build(connector.clone()), connector, responses: HttpResponses::default() }
    }

    /// Sends a request and reads the answer, up to so many bytes of its body.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>, bytes_max: usize) -> Result<Answer, Trouble> {
        let response = self.pooled.request(request).await.map_err(|error| of_request(&error))?;
        let (parts, mut body) = response.into_parts();
        self.responses.count(parts.status.as_u16());
        let mut collected = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Trouble::Broken(innermost(&error)))?;
            if let Ok(data) = frame.into_data() {
                if collected.len() + data.len() > bytes_max {
                    return Err(Trouble::TooLarge(bytes_max));
                }
                collected.extend_from_slice(&data);
            }
        }
        Ok(Answer { status: parts.status, headers: parts.headers, body: collected.freeze() })
    }

    /// Asks for something.
    pub(super) async fn get(
        &self,
        url: &str,
        authorization: Option<http::HeaderValue>,
        bytes_max: usize,
    ) -> Result<Answer, Trouble> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri_of(url)?;
        if let Some(authorization) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization);
        }
        self.send(request, bytes_max).await
    }

    /// Whether a connection can be made.
    pub(super) async fn connect(&self, url: &str) -> Result<(), Trouble> {
        let connected = self.connector.clone().connect(uri_of(url)?).await;
        connected.map(drop).map_err(|error| Trouble::Unconnected(innermost(&error)))
    }
}

/// A URL that was checked before.
pub(super) fn uri_of(url: &str) -> Result<Uri, Trouble> {
    url.parse().map_err(|_| Trouble::Unconnected(format!("{url} is no URL")))
}

impl Answer {
    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Duration {
        let seconds = self.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        seconds.map_or(RETRY_AFTER_DEFAULT, Duration::from_secs).min(RETRY_AFTER_MAX)
    }

    /// Where the server would rather have one go.
    pub(super) fn location(&self) -> String {
        let location = self.headers.get(header::LOCATION).map(|value| value.as_bytes());
        crate::logs::printable(&location.unwrap_or_default()[..location.map_or(0, |bytes| bytes.len().min(200))])
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unconnected(why) | Self::Broken(why) => f.write_str(why),
            Self::TooLarge(bytes_max) => write!(f, "an answer of over {bytes_max} bytes"),
        }
    }
}

fn of_request(error: &legacy::Error) -> Trouble {
    let is_unsent = |error: &hyper::Error| error.is_canceled();
    let unsent = error.source().and_then(|cause| cause.downcast_ref()).is_some_and(is_unsent);
    let why = innermost(error);
    if error.is_connect() || unsent { Trouble::Unconnected(why) } else { Trouble::Broken(why) }
}

/// What is at the bottom of a failure; the layers above say no more than that there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_be_left_alone_is_bounded() {
        let of = |value: &'static str| {
            let headers = [(header::RETRY_AFTER, http::HeaderValue::from_static(value))].into_iter().collect();
            Answer { status: StatusCode::OK, headers, body: Bytes::new() }.retry_after().as_secs()
        };
        assert_eq!([of("7"), of("99999999999"), of("soon"), of("-1")], [7, 60, 1, 1]);
    }
}
