//! Calls over a broker's HTTP door, `POST /function/{name}`, as any HTTP client would make them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use nigh_proto::http_client::{self, HttpClient, Unanswered};
use nigh_proto::tls::https::HttpsConnector;
use nigh_proto::{Call, Endpoint, Estimate, Headers, NodeName, Outcome, PlatformError, Reason, Reply, Timing};
use serde_json::Value;

use super::Target;

/// Bytes of an answer, at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Connections kept without a call.
const IDLE_CONNECTIONS_MAX: usize = 1024;

/// Calls one broker over HTTP/1.1, each call under way on a connection of its own.
#[derive(Debug, Clone)]
pub struct HttpCaller {
    endpoint: Endpoint,
    client: HttpClient,
}

impl HttpCaller {
    /// A caller of the broker whose HTTP door is here.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, client: HttpClient::new(HttpsConnector::new(None), IDLE_CONNECTIONS_MAX) }
    }

    async fn exchange(&self, call: Call) -> Result<Reply, PlatformError> {
        let began = Instant::now();
        let request = self.request(&call)?;
        let answering = async { http_client::read(self.client.begin(request).await?, ANSWER_BYTES_MAX).await };
        let response = answering.await.map_err(|why| {
            let reason = match why {
                Unanswered::Unconnected(_) => Reason::Unreachable,
                Unanswered::Broken(_) | Unanswered::TooLarge(_) => Reason::Disconnected,
            };
            PlatformError::new(reason, format!("no answer from {}: {why}", self.endpoint))
        })?;
        reply(call, &response, began.elapsed())
    }

    fn request(&self, call: &Call) -> Result<Request<Bytes>, PlatformError> {
        let timeout_ms = call.time_left(Instant::now()).as_millis().max(1);
        let mut request = Request::post(format!("http://{}/function/{}", self.endpoint, call.function))
            .header("nigh-call-id", call.id.as_str())
            .header("nigh-timeout", format!("{timeout_ms}ms"))
            .header("nigh-priority", call.priority.as_str());
        for (flag, is_set) in [("nigh-dry-run", call.dry_run), ("nigh-retry-safe", call.retry_safe)] {
            if is_set {
                request = request.header(flag, "true");
            }
        }
        for (name, value) in call.headers.iter() {
            let name = HeaderName::try_from(name).map_err(PlatformError::malformed)?;
            let value = HeaderValue::try_from(value).map_err(PlatformError::malformed)?;
            request = request.header(name, value);
        }
        request.body(call.payload.clone()).map_err(PlatformError::malformed)
    }
}

impl Target for HttpCaller {
    async fn call(&self, call: Call) -> Result<Reply, PlatformError> {
        let given = call.time_left(Instant::now());
        let deadline = tokio::time::Instant::from_std(call.deadline);
        tokio::time::timeout_at(deadline, self.exchange(call)).await.unwrap_or_else(|_| {
            Err(PlatformError::new(Reason::Late, format!("no answer from {} within {given:?}", self.endpoint)))
        })
    }
}

/// What a response says of a call that took so long.
fn reply(call: Call, response: &Response<Bytes>, elapsed: Duration) -> Result<Reply, PlatformError> {
    let (status, headers, body) = (response.status(), response.headers(), response.body());
    let outcome = if is_problem(headers) {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
        match problem["kind"].as_str() {
            Some(kind) => Outcome::Error { kind: kind.to_owned(), message: text("detail") },
            None => return Err(PlatformError::new(reason(&text("reason"), status), text("detail"))),
        }
    } else if status.is_client_error() || status.is_server_error() {
        Outcome::Error { kind: format!("http-{}", status.as_u16()), message: String::new() }
    } else if call.dry_run {
        Outcome::Estimate(estimate(body))
    } else {
        Outcome::Answer { payload: body.clone(), headers: Headers::default() }
    };
    let mut timing = timing(headers);
    timing.network += elapsed.saturating_sub(timing.total());
    Ok(Reply { hops: 1, timing, ..Reply::new(outcome, computer(headers)?, call.id) })
}

fn is_problem(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json")
}

/// The reason that a problem names; what stands between a broker and this client has reasons of its own.
fn reason(word: &str, status: StatusCode) -> Reason {
    Reason::of_word(word).unwrap_or(if status.is_client_error() { Reason::Malformed } else { Reason::Unreachable })
}

fn computer(headers: &HeaderMap) -> Result<NodeName, PlatformError> {
    let named = headers.get("nigh-computer").and_then(|name| name.to_str().ok()?.parse().ok());
    named.ok_or_else(|| {
        PlatformError::new(Reason::Protocol, "the answer names no computer; is this the HTTP door of a broker?")
    })
}

fn estimate(body: &[u8]) -> Estimate {
    let told: Value = serde_json::from_slice(body).unwrap_or_default();
    let time = |key: &str| Duration::from_micros(told[key].as_u64().unwrap_or_default());
    let count = |key: &str| told[key].as_u64().unwrap_or_default();
    Estimate {
        queue: time("queue_us"),
        init: time("init_us"),
        run: time("run_us"),
        samples: count("samples"),
        similar: count("similar"),
        modelled: told["modelled"].as_bool().unwrap_or_default(),
        ..Estimate::default()
    }
}

/// The times of a `Server-Timing` header, those that are missing or malformed left at zero.
fn timing(headers: &HeaderMap) -> Timing {
    let mut timing = Timing::default();
    let told = headers.get("server-timing").and_then(|value| value.to_str().ok()).unwrap_or_default();
    for entry in told.split(',') {
        let Some((name, ms)) = entry.trim().split_once(";dur=") else { continue };
        let time = ms.parse().ok().and_then(|ms: f64| Duration::try_from_secs_f64(ms / 1e3).ok()).unwrap_or_default();
        match name {
            "network" => timing.network = time,
            "broker" => timing.broker = time,
            "queue" => timing.queue = time,
            "init" => timing.init = time,
            "run" => timing.run = time,
            "reset" => timing.reset = time,
            _ => {}
        }
    }
    timing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, headers: &[(&str, &str)], body: &'static str) -> Result<Reply, PlatformError> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let call = Call::new("echo".parse().unwrap(), "", Duration::from_secs(1));
        reply(call, &response.body(Bytes::from_static(body.as_bytes())).unwrap(), Duration::from_millis(10))
    }

    #[test]
    fn an_answer_tells_who_gave_it_and_where_the_time_went() {
        let times = "network;dur=1.000, broker;dur=0.500, queue;dur=0.000, init;dur=odd, run;dur=2.250";
        let reply = told(200, &[("nigh-computer", "computer-1"), ("server-timing", times)], "hello").unwrap();
        assert_eq!(reply.computer.as_str(), "computer-1");
        assert_eq!(reply.timing.run, Duration::from_micros(2250));
        assert_eq!(reply.timing.total(), Duration::from_millis(10));
        assert!(matches!(reply.outcome, Outcome::Answer { payload, .. } if payload == "hello"));
    }

    #[test]
    fn problems_are_errors_of_the_function_or_of_the_platform() {
        let problem = [("content-type", "application/problem+json"), ("nigh-computer", "computer-1")];
        let reply = told(400, &problem, r#"{"reason":"function-error","kind":"bad-input","detail":"no"}"#).unwrap();
        assert!(matches!(reply.outcome, Outcome::Error { kind, .. } if kind == "bad-input"));
        let error = told(503, &problem[..1], r#"{"reason":"queue-full","detail":"full"}"#).unwrap_err();
        assert_eq!((error.reason, error.message.as_str()), (Reason::QueueFull, "full"));
        assert_eq!(told(502, &problem[..1], "not JSON").unwrap_err().reason, Reason::Unreachable);
        assert!(
            matches!(told(404, &problem[1..], "").unwrap().outcome, Outcome::Error { kind, .. } if kind == "http-404")
        );
        assert_eq!(told(200, &[], "from elsewhere").unwrap_err().reason, Reason::Protocol);
    }
}
