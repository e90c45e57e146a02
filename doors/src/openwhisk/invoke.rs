//! Having an action run: its caller waits for the end, for a while, or not at all. What its caller does not wait for goes on
//! all the same, and there will be a record of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use hyper::body::Body as _;
use nigh_proto::cdn_loop::{self, CDN_LOOP};
use nigh_proto::{Call, CallId, Headers, PlatformError, Priority, Reason};
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::activations::Room;
use super::entity::{SEQUENCE, kind_word};
use super::failure::{Failure, nothing_ran};
use super::kept::{Contents, Resolved};
use super::parameters::{self, PARAMETERS_BYTES_MAX};
use super::record::{Ending, Ran, Record};
use super::sequence::Left;
use super::{Asked, Openwhisk};
use crate::answer::{self, Answer, put};
use crate::backend::Backend;
use crate::namespace::{Entity, Namespace};
use crate::query::Query;

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

/// How something ended; where nothing of it ran, also why, for whoever was not told an id yet.
pub(super) type Ended = (Record, Option<PlatformError>);
pub(super) type Running = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// An activation under way.
struct Activation {
    id: CallId,
    running: Running,
    room: Arc<Room>,
}

impl Activation {
    /// Runs on to its end, which is then on record.
    async fn run_on(self) {
        let (record, _) = self.running.await;
        self.room.keep(Arc::new(record));
    }
}

/// An activation that somebody waits for. It goes on where the wait is given up, also by somebody who has gone away.
struct Attended<'a> {
    activation: Option<Activation>,
    unattended: &'a TaskTracker,
}

impl Attended<'_> {
    /// How it ended, if it does within this time.
    async fn within(mut self, wait: Duration) -> Option<(Ended, Arc<Room>)> {
        let running = &mut self.activation.as_mut()?.running;
        let ended = tokio::time::timeout(wait, running).await.ok()?;
        Some((ended, self.activation.take()?.room))
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

/// Runs actions for one activation, with all that is one and the same for each of them.
pub(super) struct Runner<B> {
    pub(super) backend: Arc<B>,
    pub(super) contents: Arc<Contents>,
    pub(super) room: Arc<Room>,
    pub(super) owner: Namespace,
    pub(super) deadline: Instant,
    payload_bytes_max: usize,
    hops: u32,
    /// Of each call: what is there, and who passed it on before.
    headers: Headers,
}

impl<B: Backend> Runner<B> {
    /// What is to be known of an action that begins to run.
    pub(super) fn ran(&self, resolved: &Resolved, cause: Option<CallId>) -> Ran {
        let kind = match &resolved.components {
            Some(_) => SEQUENCE,
            None => kind_word(self.backend.kind(&resolved.function)),
        };
        Ran {
            id: CallId::random(),
            entity: resolved.entity.clone(),
            owner: self.owner.clone(),
            version: resolved.version.clone(),
            kind,
            binding: resolved.binding.clone(),
            cause,
            start: SystemTime::now(),
            at: Instant::now(),
        }
    }

    /// Runs a function as an action.
    pub(super) async fn action(&self, place: B::Place, resolved: &Resolved, ran: Ran, payload: Bytes) -> Ended {
        let outcome = async {
            if payload.len() > self.payload_bytes_max {
                let message = format!("parameters of {} bytes; {} are taken", payload.len(), self.payload_bytes_max);
                return Err(PlatformError::new(Reason::TooLarge, message));
            }
            let mut call = Call::until(self.deadline, ran.id.clone(), resolved.function.clone(), payload);
            call.hops = self.hops;
            call.application = self.owner.application();
            call.headers = self.headers.clone();
            self.backend.handle_in(place, call, ran.at).await
        };
        let outcome = outcome.await;
        let refusal = outcome.as_ref().err().filter(|error| nothing_ran(error)).cloned();
        (Record::new(ran, outcome), refusal)
    }
}

impl<B: Backend> Openwhisk<B> {
    pub(super) async fn invoke(&self, entity: Entity, asked: Asked) -> Result<Answer, Failure> {
        let Wishes { wait, only_result } = Wishes::of(&asked.query).map_err(Failure::bad)?;
        let activation = self.begin(entity, asked, wait.is_some()).await?;
        let id = activation.id.clone();
        let Some(wait) = wait else {
            self.unattended.spawn(activation.run_on());
            return Ok(accepted(&id));
        };
        let attended = Attended { activation: Some(activation), unattended: &self.unattended };
        let Some(((record, refusal), room)) = attended.within(wait).await else { return Ok(accepted(&id)) };
        if let Some(refusal) = refusal {
            return Err(refusal.into());
        }
        let record = Arc::new(record);
        room.keep(record.clone());
        Ok(told(&record, only_result))
    }

    /// Takes a request in, up to where its action may run.
    async fn begin(&self, entity: Entity, asked: Asked, is_attended: bool) -> Result<Activation, Failure> {
        let at = Instant::now();
        let contents = self.shelf.contents().await?;
        let resolved = contents.resolve(&asked.caller.namespace, &entity)?;
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
        let arrived = self.gate.read(&parts.headers, body, bytes_max, deadline).await?;
        let payload = parameters::merged(&resolved, parameters::checked(&arrived.bytes)?)?;
        if !is_attended && resolved.components.is_none() {
            // Whoever waits is told by the call itself.
            self.backend.check_known(&resolved.function).await?;
        }
        let runner = Runner {
            backend: self.backend.clone(),
            contents,
            room: room.clone(),
            owner: asked.caller.namespace.clone(),
            deadline,
            payload_bytes_max: limits.payload_bytes_max,
            hops: cdn_loop::hops_of(&parts.headers, limits)?,
            headers: headers_of(&parts.headers)?,
        };
        let ran = Ran { at, ..runner.ran(&resolved, None) };
        let id = ran.id.clone();
        let running = Box::pin(async move {
            let ended = match &resolved.components {
                None => runner.action(admitted, &resolved, ran, payload).await,
                Some(components) => {
                    drop(admitted);
                    runner.sequence(components, ran, payload, &mut Left::default()).await
                }
            };
            drop((arrived, place));
            ended
        });
        Ok(Activation { id, running, room })
    }
}

/// What actions are told beside parameters.
fn headers_of(headers: &HeaderMap) -> Result<Headers, PlatformError> {
    let passed = headers.get_all(&CDN_LOOP).iter().filter_map(|list| list.to_str().ok());
    let passed = passed.map(|list| (CDN_LOOP.as_str().to_owned(), list.to_owned()));
    let content = ("content-type".to_owned(), "application/json".to_owned());
    Headers::new(std::iter::once(content).chain(passed).collect())
}

/// No type at all is right where there is nothing of a type.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return false };
    let form = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    form.eq_ignore_ascii_case("application/json")
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
    put(&mut told, &ACTIVATION_ID, record.id().as_str());
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
    fn an_array_is_answered_bare() {
        let status_and_body = |payload, only_result| {
            let told = told(&record("a", 1, answer(payload)), only_result);
            (told.status().as_u16(), told.headers().contains_key(&ACTIVATION_ID))
        };
        assert_eq!(status_and_body(b"[1]", false), (200, true));
        assert_eq!(status_and_body(b"{\"error\":1}", true), (502, true));
    }
}
