//! Requests to the system elsewhere, over connections that are kept, each answer counted.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use nigh_proto::http_client::{self, HttpClient, Unanswered};
use nigh_proto::tls::https::{HttpsConnector, Trust};
use nigh_telemetry::HttpResponses;

/// The longest that a server's wish to be left alone is heeded.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// When to come again to who is busy and does not say.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// Sends requests.
pub(super) struct Client {
    http: HttpClient,
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

impl Client {
    /// Keeps so many connections when they are not used.
    pub(super) fn new(trust: Option<Trust>, kept_max: usize) -> Self {
        Self { http: HttpClient::new(HttpsConnector::new(trust), kept_max), responses: HttpResponses::default() }
    }

    /// Sends a request and reads the answer, up to so many bytes of its body.
    pub(super) async fn send(&self, request: Request<Bytes>, bytes_max: usize) -> Result<Answer, Unanswered> {
        let answer = self.http.begin(request).await?;
        self.responses.count(answer.status().as_u16());
        let (head, body) = http_client::read(answer, bytes_max).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Asks for something.
    pub(super) async fn get(
        &self,
        url: &str,
        authorization: Option<http::HeaderValue>,
        bytes_max: usize,
    ) -> Result<Answer, Unanswered> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri_of(url)?;
        if let Some(authorization) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization);
        }
        self.send(request, bytes_max).await
    }

    /// Whether a connection can be made.
    pub(super) async fn connect(&self, url: &str) -> Result<(), Unanswered> {
        self.http.connect(uri_of(url)?).await
    }
}

/// A URL that was checked before.
pub(super) fn uri_of(url: &str) -> Result<Uri, Unanswered> {
    url.parse().map_err(|_| Unanswered::Unconnected(format!("{url} is no URL")))
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
