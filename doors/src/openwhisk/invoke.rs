//! Having an action run: its caller waits for the end, for a while, or not at all. What its caller does not wait for goes on
//! all the same, and there will be a record of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use hyper::body::Body as _;
use nigh_proto::{Call, CallId, Headers, PlatformError, Priority, Reply};
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::activations::Room;
use super::failure::{Failure, nothing_ran};
use super::record::{Begun, Ending, Record};
use super::{Asked, Openwhisk, PARAMETERS_BYTES_MAX};
use crate::answer::{self, Answer, put};
use crate::backend::Backend;
use crate::namespace::Entity;
use crate::query::Query;
use crate::shape::{Shape, shape_of};

/// Names the activation that an answer belongs to.
static ACTIVATION_ID: HeaderName = HeaderName::from_static("x-openwhisk-activation-id");
/// How long a caller waits, at most and where it does not say.
const WAIT_MAX_MS: u64 = 60_000;
/// Time for an activation, the wait for its turn included; its function has a limit of its own.
const TIMEOUT: Duration = Duration::from_secs(300);
/// When to come again where too many are under way.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How an action is to be run.
#[derive(Debug, PartialEq, Eq)]
struct Wishes {
    /// Nothing where its caller does not wait.
    wait: Option<Duration>,
    only_result: bool,
}

impl Wishes {
    fn of(query: &Query) -> Result<Self, String> {
        let blocking = query.flag("blocking")?;
        let only_result = query.flag("result")?;
        let wait = query.number("timeout", 1..=WAIT_MAX_MS)?.unwrap_or(WAIT_MAX_MS);
        Ok(Self { wait: blocking.then_some(Duration::from_millis(wait)), only_result })
    }
}

type Running = Pin<Box<dyn Future<Output = Result<Reply, PlatformError>> + Send>>;

/// An activation under way.
struct Activation {
    running: Running,
    begun: Begun,
    room: Arc<Room>,
}

impl Activation {
    /// Runs on to its end, which is then on record.
    async fn run_on(self) {
        let outcome = self.running.await;
        self.room.keep(Arc::new(Record::new(self.begun, outcome)));
    }
}

/// An activation that somebody waits for. It goes on where the wait is given up, also by somebody who has gone away.
struct Attended<'a> {
    activation: Option<Activation>,
    unattended: &'a TaskTracker,
}

impl Attended<'_> {
    /// How it ended, if it does within this time.
    async fn within(mut self, wait: Duration) -> Option<(Begun, Arc<Room>, Result<Reply, PlatformError>)> {
        let running = &mut self.activation.as_mut()?.running;
        let outcome = tokio::time::timeout(wait, running).await.ok()?;
        let Activation { begun, room, .. } = self.activation.take()?;
        Some((begun, room, outcome))
    }
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        let Some(activation) = self.activation.take() else { return };
        // Without a runtime the process is at its end, and so is the activation.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.unattended.spawn_on(activation.run_on(), &runtime);
        }
    }
}

impl<B: Backend> Openwhisk<B> {
    pub(super) async fn invoke(&self, entity: Entity, asked: Asked) -> Result<Answer, Failure> {
        let Wishes { wait, only_result } = Wishes::of(&asked.query).map_err(Failure::bad)?;
        let activation = self.begin(entity, asked, wait.is_some()).await?;
        let id = activation.begun.id.clone();
        let Some(wait) = wait else {
            self.unattended.spawn(activation.run_on());
            return Ok(accepted(&id));
        };
        let attended = Attended { activation: Some(activation), unattended: &self.unattended };
        let Some((begun, room, outcome)) = attended.within(wait).await else { return Ok(accepted(&id)) };
        let outcome = match outcome {
            Err(error) if nothing_ran(&error) => return Err(error.into()),
            outcome => outcome,
        };
        let record = Arc::new(Record::new(begun, outcome));
        room.keep(record.clone());
        Ok(told(&record, only_result))
    }

    /// Takes a request in, up to where its function may run.
    async fn begin(&self, entity: Entity, asked: Asked, is_attended: bool) -> Result<Activation, Failure> {
        let at = Instant::now();
        let function = entity.function().ok_or_else(|| Failure::unknown(entity.path()))?;
        let room = self.activations.of(&asked.caller.namespace);
        let place = room.enter().ok_or_else(|| {
            let message =
                format!("Too many concurrent requests in flight (count: {0}, allowed: {0})", room.under_way_max());
            Failure::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(RETRY_AFTER)
        })?;
        let admitted = self.backend.admit(Priority::default())?;
        let (parts, body) = asked.request.into_parts();
        if !is_json(&parts.headers) && !body.is_end_stream() {
            let message = "The request's Content-Type is not supported; parameters are application/json";
            return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let limits = self.gate.limits();
        let deadline = at + TIMEOUT.min(limits.timeout_max);
        let bytes_max = PARAMETERS_BYTES_MAX.min(limits.payload_bytes_max);
        let parameters = self.gate.read(&parts.headers, body, bytes_max, deadline).await?;
        let payload = checked_parameters(&parameters.bytes)?;
        if !is_attended {
            // Whoever waits is told by the call itself.
            self.backend.check_known(&function).await?;
        }
        let begun =
            Begun { id: CallId::random(), entity, kind: self.backend.kind(&function), start: SystemTime::now(), at };
        let mut call = Call::new(function, payload, Duration::ZERO);
        call.deadline = deadline;
        call.id = begun.id.clone();
        call.application = asked.caller.namespace.application();
        call.headers = Headers::new(vec![("content-type".to_owned(), "application/json".to_owned())])?;
        let backend = self.backend.clone();
        let running = Box::pin(async move {
            let outcome = backend.handle_in(admitted, call, at).await;
            drop((parameters, place));
            outcome
        });
        Ok(Activation { running, begun, room })
    }
}

/// No type at all is right where there is nothing of a type.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return false };
    let form = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    form.eq_ignore_ascii_case("application/json")
}

/// Parameters are one JSON object; nothing at all means one without members.
fn checked_parameters(bytes: &Bytes) -> Result<Bytes, Failure> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::from_static(b"{}"));
    }
    match shape_of(bytes) {
        Shape::Object { .. } => Ok(bytes.clone()),
        Shape::Array | Shape::Other => {
            Err(Failure::bad("The request content was malformed: parameters are one JSON object"))
        }
    }
}

/// It goes on, and its record can be asked for once it has ended.
fn accepted(id: &CallId) -> Answer {
    let mut accepted = answer::json(StatusCode::ACCEPTED, &json!({ "activationId": id.as_str() }));
    put(&mut accepted, &ACTIVATION_ID, id.as_str());
    accepted
}

fn told(record: &Record, only_result: bool) -> Answer {
    let status = match record.ending {
        Ending::Success => StatusCode::OK,
        Ending::ApplicationError | Ending::DeveloperError => StatusCode::BAD_GATEWAY,
        Ending::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let body = if only_result || record.is_array { record.result.clone() } else { record.whole(&[]).into() };
    let mut told = answer::bytes(status, "application/json", body);
    put(&mut told, &ACTIVATION_ID, record.id.as_str());
    told
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{answer, record};
    use super::*;

    #[test]
    fn wishes_are_read_off_the_query() {
        let of = |query: &str| Wishes::of(&Query::of(Some(query)));
        let minute = Duration::from_secs(60);
        assert_eq!(of("result=true"), Ok(Wishes { wait: None, only_result: true }));
        assert_eq!(of("blocking=true"), Ok(Wishes { wait: Some(minute), only_result: false }));
        let short = Wishes { wait: Some(Duration::from_millis(200)), only_result: true };
        assert_eq!(of("blocking=True&result=true&timeout=200"), Ok(short));
        for wrong in ["blocking=maybe", "timeout=0", "blocking=true&timeout=60001", "timeout=soon"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn parameters_are_an_object() {
        let of = |text: &'static str| checked_parameters(&text.into()).map_err(|failure| failure.status.as_u16());
        assert_eq!(of(""), Ok("{}".into()));
        assert_eq!(of("\n"), Ok("{}".into()));
        assert_eq!(of("{\"a\":1}\n"), Ok("{\"a\":1}\n".into()));
        for wrong in ["[]", "7", "{", "null"] {
            assert_eq!(of(wrong), Err(400), "{wrong}");
        }
    }

    #[test]
    fn an_array_is_answered_bare() {
        let status_and_body = |payload, only_result| {
            let told = told(&record("a", 1, answer(payload)), only_result);
            (told.status().as_u16(), told.headers().contains_key(&ACTIVATION_ID))
        };
        assert_eq!(status_and_body(b"[1]", false), (200, true));
        assert_eq!(status_and_body(b"{\"error\":1}", true), (502, true));
    }
}
