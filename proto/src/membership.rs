//! A node's two lasting relations with its controller: being announced, and knowing what the controller knows. Both go on
//! through cuts and restarts of the controller, and neither ever makes a node forget what it has learnt.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::channel::{self, Remote};
use crate::discovery::{Broker, Computer, WatchEvent, check_protocol};
use crate::identity::Role;
use crate::name::{Endpoint, NodeName};
use crate::status::PlatformError;
use crate::v1::controller_client::ControllerClient;
use crate::{PROTOCOL, v1};

/// Wait after a first failure to reach the controller; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest wait between tries, so that a controller that comes back, or the way to it, is found soon.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Time for one announcement or withdrawal.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Announcements within one lease, so that two may be lost without harm.
const ANNOUNCEMENTS_PER_LEASE: u32 = 3;
/// Wait before a node announces itself anew whose attendance has ended.
const ATTEND_AGAIN: Duration = Duration::from_millis(20);
/// Events of one snapshot, at most: functions, computers and brokers together.
const SNAPSHOT_EVENTS_MAX: usize = 1_000_000;
/// What the other end must prove to be, over TLS.
const CONTROLLERS: &[Role] = &[Role::Controller];

/// Who announces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A computer.
    Computer(Computer),
    /// A broker.
    Broker(Broker),
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &NodeName {
        match self {
            Self::Computer(computer) => &computer.name,
            Self::Broker(broker) => &broker.name,
        }
    }

    /// Where it takes calls.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Computer(computer) => &computer.endpoint,
            Self::Broker(broker) => &broker.endpoint,
        }
    }

    /// Checks an announcement as it arrives.
    ///
    /// # Errors
    /// [`Reason::Protocol`](crate::Reason::Protocol), [`Reason::Malformed`](crate::Reason::Malformed) or
    /// [`Reason::TooLarge`](crate::Reason::TooLarge).
    pub fn from_wire(request: v1::AnnounceRequest) -> Result<Self, PlatformError> {
        check_protocol(request.protocol)?;
        match request.node {
            Some(v1::announce_request::Node::Computer(computer)) => Computer::from_wire(computer).map(Self::Computer),
            Some(v1::announce_request::Node::Broker(broker)) => Broker::from_wire(broker).map(Self::Broker),
            None => Err(PlatformError::malformed("an announcement of neither a computer nor a broker")),
        }
    }

    /// The announcement as its message.
    pub fn to_wire(&self) -> v1::AnnounceRequest {
        let node = match self {
            Self::Computer(computer) => v1::announce_request::Node::Computer(computer.to_wire()),
            Self::Broker(broker) => v1::announce_request::Node::Broker(broker.to_wire()),
        };
        v1::AnnounceRequest { protocol: PROTOCOL, node: Some(node) }
    }
}

/// What a watcher wants to know of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Topics {
    /// Functions deployed.
    pub functions: bool,
    /// Computers alive and what they have ready.
    pub computers: bool,
    /// Brokers alive.
    pub brokers: bool,
}

/// What a watcher learns.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "few are on their way at a time")]
pub enum Knowledge {
    /// All there is, in place of everything learnt before: a stream to the controller was (re)opened and is in step.
    /// Holds no `Synced` and no removals.
    All(Vec<WatchEvent>),
    /// One change since.
    Change(WatchEvent),
}

/// Keeps a node announced until `shutdown`, then withdraws it. Announces at once whenever `node` changes. Of several controllers each
/// is told, so that each knows by itself who is alive.
pub async fn keep_announced(controller: impl Into<Remote>, node: watch::Receiver<Node>, shutdown: CancellationToken) {
    let each = controller.into().each().into_iter();
    let announced = each.map(|controller| keep_announced_at(controller, node.clone(), shutdown.clone()));
    futures_util::future::join_all(announced).await;
}

async fn keep_announced_at(controller: Remote, mut node: watch::Receiver<Node>, shutdown: CancellationToken) {
    let remote = controller.expecting(CONTROLLERS).kept_in_step();
    let controller = remote.endpoint.clone();
    let mut client = ControllerClient::new(channel::connect_lazy(remote));
    let mut wait = RETRY_MIN;
    let mut reached = false;
    let mut attendance = None;
    loop {
        let request = node.borrow_and_update().to_wire();
        let next = match announce(&mut client, request).await {
            Ok(Announced { lease, beat }) => {
                if !reached {
                    tracing::info!(%controller, lease_ms = lease.as_millis(), "announced");
                }
                (reached, wait) = (true, RETRY_MIN);
                if let (None, Some(beat)) = (&attendance, beat) {
                    attendance = Some(Box::pin(attend(client.clone(), node.borrow().clone(), beat)));
                }
                lease / ANNOUNCEMENTS_PER_LEASE
            }
            Err(error) => {
                tracing::warn!(%controller, %error, "cannot announce, will try again");
                reached = false;
                let next = wait;
                wait = (wait * 2).min(RETRY_MAX);
                next
            }
        };
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            ended = ended(&mut attendance) => {
                tracing::debug!(%controller, reason = %ended, "no longer attended, announcing anew");
                attendance = None;
                tokio::select! {
                    () = tokio::time::sleep(ATTEND_AGAIN) => {}
                    () = shutdown.cancelled() => break,
                }
            }
            changed = node.changed() => if changed.is_err() { break },
            () = shutdown.cancelled() => break,
        }
    }
    drop(attendance);
    let request = {
        let node = node.borrow();
        v1::WithdrawRequest { name: node.name().to_string(), endpoint: node.endpoint().to_string() }
    };
    // Best effort: a controller that does not hear of it lets the lease run out.
    let _ = within(REQUEST_TIMEOUT, client.withdraw(request)).await;
}

/// What a controller answers to an announcement.
struct Announced {
    lease: Duration,
    /// How often it wants to hear from the node, if it does.
    beat: Option<Duration>,
}

async fn announce(
    client: &mut ControllerClient<Channel>,
    request: v1::AnnounceRequest,
) -> Result<Announced, PlatformError> {
    let v1::AnnounceResponse { lease_ms, beat_ms } =
        within(REQUEST_TIMEOUT, client.announce(request)).await?.into_inner();
    // A lease of nothing would make this a busy loop.
    let at_least_10_ms = |ms: u64| Duration::from_millis(ms.max(10));
    Ok(Announced { lease: at_least_10_ms(lease_ms), beat: (beat_ms > 0).then(|| at_least_10_ms(beat_ms)) })
}

/// Lets the controller hear from a node, until it hears no more; returns why.
async fn attend(mut client: ControllerClient<Channel>, node: Node, beat: Duration) -> String {
    let first = v1::AttendRequest { name: node.name().to_string(), endpoint: node.endpoint().to_string() };
    let mut beats = tokio::time::interval(beat);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let beats = futures_util::stream::unfold((beats, first), |(mut beats, next)| async move {
        beats.tick().await;
        Some((next, (beats, v1::AttendRequest::default())))
    });
    match client.attend(beats).await {
        Ok(_) => "the controller wants it".to_owned(),
        Err(status) => PlatformError::from(status).to_string(),
    }
}

/// Waits until an attendance ends, if there is one.
async fn ended(attendance: &mut Option<Pin<Box<impl Future<Output = String>>>>) -> String {
    match attendance {
        Some(attendance) => attendance.await,
        None => std::future::pending().await,
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, PlatformError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time").into()),
    }
}

/// Tells `learnt` all that the controller knows and every change, until `shutdown` or until nobody listens. Of several controllers
/// one is listened to, and the next one where that fails.
pub async fn keep_watching(
    controller: impl Into<Remote>,
    topics: Topics,
    learnt: mpsc::Sender<Knowledge>,
    shutdown: CancellationToken,
) {
    let connected = controller.into().expecting(CONTROLLERS).kept_in_step().each().into_iter().map(|remote| {
        let controller = remote.endpoint.clone();
        let client = ControllerClient::new(channel::connect_lazy(remote));
        (controller, client.max_decoding_message_size(channel::message_bytes_max(16 << 20)))
    });
    let mut controllers: Vec<_> = connected.collect();
    let mut wait = RETRY_MIN;
    for at in 0usize.. {
        let which = at % controllers.len();
        let (controller, client) = &mut controllers[which];
        let watched = tokio::select! {
            watched = watch_once(client, topics, &learnt, &mut wait) => watched,
            () = shutdown.cancelled() => return,
        };
        if learnt.is_closed() {
            return;
        }
        if let Err(error) = watched {
            tracing::warn!(%controller, %error, "not in step with the controller, going on with what is known");
        }
        // The next one may be there at once.
        if which + 1 < controllers.len() {
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn watch_once(
    client: &mut ControllerClient<Channel>,
    topics: Topics,
    learnt: &mpsc::Sender<Knowledge>,
    wait: &mut Duration,
) -> Result<(), PlatformError> {
    let Topics { functions, computers, brokers } = topics;
    let request = v1::WatchRequest { protocol: PROTOCOL, functions, computers, brokers };
    let mut events = within(REQUEST_TIMEOUT, client.watch(request)).await?.into_inner();
    let mut snapshot = Some(Vec::new());
    while let Some(event) = events.next().await {
        let Some(event) = WatchEvent::from_wire(event?)? else { continue };
        let knowledge = match (&mut snapshot, event) {
            (Some(known), WatchEvent::Synced) => {
                *wait = RETRY_MIN;
                let known = std::mem::take(known);
                snapshot = None;
                Knowledge::All(known)
            }
            (Some(known), event) => {
                if known.len() >= SNAPSHOT_EVENTS_MAX {
                    return Err(PlatformError::malformed("the controller tells of more than any edge has"));
                }
                known.push(event);
                continue;
            }
            (None, WatchEvent::Synced) => continue,
            (None, event) => Knowledge::Change(event),
        };
        if learnt.send(knowledge).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
