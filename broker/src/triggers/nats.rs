//! Messages of NATS as a source. Of a stream of JetStream, a message is acknowledged once the store has its call, and known
//! again by its number there; what is published on a plain subject comes at most once, and whoever asks for a reply is told
//! the call's id once the store has it. A publisher's `Nats-Msg-Id` tells messages apart in both.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, AckKind};
use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use futures_util::{StreamExt as _, TryStreamExt as _};
use nigh_proto::trigger::{Login, State};
use nigh_proto::{CallId, PlatformError};
use tokio::sync::mpsc;

use super::check::nats_servers;
use super::deliver::Message;
use super::{Active, Triggers};

/// Time for a connection to be made, and for the server to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that become calls at once.
const AT_ONCE: usize = 64;
/// Messages of a plain subject that may wait here; further ones are lost, and counted.
const WAITING_MAX: usize = 4096;
/// The time after which an unacknowledged message comes again; that it is still looked after is said before.
const ACK_WAIT: Duration = Duration::from_secs(10);
const SAY_EVERY: Duration = Duration::from_secs(3);
/// The header by which a publisher tells messages apart.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// Where messages come from.
#[derive(Debug)]
pub(super) struct Nats<'a> {
    pub(super) servers: &'a str,
    pub(super) subject: &'a str,
    pub(super) stream: Option<&'a str>,
    pub(super) login: Option<&'a Login>,
}

impl Nats<'_> {
    /// Takes messages; returns why that cannot go on.
    pub(super) async fn run(&self, triggers: &Triggers, active: &Active) -> String {
        let ended = match self.stream {
            Some(stream) => self.run_stream(stream, triggers, active).await,
            None => self.run_subject(triggers, active).await,
        };
        ended.unwrap_or_else(|why| why)
    }

    /// What is kept for it at the server is of no use any more.
    pub(super) async fn forget(&self, triggers: &Triggers, id: &str) -> Result<(), String> {
        let Some(stream) = self.stream else { return Ok(()) };
        let (client, _events) = self.connect(triggers).await?;
        let stream = jetstream::new(client).get_stream(stream).await.map_err(told)?;
        stream.delete_consumer(&consumer_name(id)).await.map(drop).map_err(told)
    }

    async fn run_subject(&self, triggers: &Triggers, active: &Active) -> Result<String, String> {
        let (client, mut events) = self.connect(triggers).await?;
        let messages = client.subscribe(self.subject.to_owned()).await.map_err(told)?;
        client.flush().await.map_err(told)?;
        active.record.is(State::Listening);
        let client = &client;
        let delivered = messages.for_each_concurrent(AT_ONCE, |message| async move {
            let id = message_id(message.headers.as_ref());
            let reply = message.reply.clone();
            let brought = brought(id, &message.subject, message.payload, message.headers.as_ref());
            let outcome = triggers.deliver(active, brought).await;
            if let Some(reply) = reply {
                // Who asked may be gone.
                let _ = client.publish(reply, answer(&outcome).into()).await;
            }
        });
        tokio::select! {
            () = delivered => Ok("the subscription has ended".to_owned()),
            why = until_lost(&mut events, triggers, active) => Ok(why),
        }
    }

    async fn run_stream(&self, stream: &str, triggers: &Triggers, active: &Active) -> Result<String, String> {
        let (client, mut events) = self.connect(triggers).await?;
        let stream = jetstream::new(client).get_stream(stream).await.map_err(told)?;
        let created = stream.cached_info().created.unix_timestamp();
        let consumer = self.consumer(&stream, active).await?;
        let messages = consumer.messages().await.map_err(told)?;
        active.record.is(State::Listening);
        let delivered = messages.map_err(told).try_for_each_concurrent(AT_ONCE, |message| async move {
            let id = match message_id(message.headers.as_ref()) {
                Some(id) => id,
                None => {
                    let info = message.info().map_err(|error| error.to_string())?;
                    format!("stream {} {created} {}", info.stream, info.stream_sequence)
                }
            };
            let headers = message.headers.as_ref();
            let brought = brought(Some(id), &message.subject, message.payload.clone(), headers);
            let delivering = triggers.deliver(active, brought);
            let saying = async {
                loop {
                    tokio::time::sleep(SAY_EVERY).await;
                    // Where it is not heard, the message comes again and is known by its id.
                    let _ = message.ack_with(AckKind::Progress).await;
                }
            };
            tokio::select! {
                // What can be no call is done with too.
                _ = delivering => {}
                () = saying => {}
            }
            message.ack().await.map_err(|error| error.to_string())
        });
        tokio::select! {
            ended = delivered => ended.map(|()| "the stream has no more messages".to_owned()),
            why = until_lost(&mut events, triggers, active) => Ok(why),
        }
    }

    /// The place in the stream that this trigger has come to, whoever runs it.
    async fn consumer(&self, stream: &Stream, active: &Active) -> Result<PullConsumer, String> {
        let id = &active.definition.id;
        let name = consumer_name(id);
        let start_time = active.definition.added.into();
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: self.subject.to_owned(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            deliver_policy: DeliverPolicy::ByStartTime { start_time },
            ..pull::Config::default()
        };
        stream.get_or_create_consumer(&name, config).await.map_err(told)
    }

    async fn connect(&self, triggers: &Triggers) -> Result<(Client, mpsc::Receiver<Event>), String> {
        let (servers, over_tls) = nats_servers(self.servers).map_err(|error| error.message)?;
        let (events_in, events) = mpsc::channel(16);
        let mut options = ConnectOptions::new()
            .name("nigh-trigger")
            .connection_timeout(TIMEOUT)
            .request_timeout(Some(TIMEOUT))
            .subscription_capacity(WAITING_MAX)
            .event_callback(move |event| {
                // More than fit tell no more than those that do.
                let _ = events_in.try_send(event);
                std::future::ready(())
            });
        if let Some(Login { user, password }) = self.login {
            options = options.user_and_password(user.clone(), password.clone());
        }
        let config = triggers.config().map_err(|error| error.message)?;
        if let Some(files) = config.triggers.tls.as_ref().filter(|_| over_tls) {
            options = options
                .require_tls(true)
                .add_root_certificates(files.authorities.clone())
                .add_client_certificate(files.certificate.clone(), files.key.clone());
        }
        let scheme = if over_tls { "tls" } else { "nats" };
        let addresses: Vec<String> = servers.iter().map(|server| format!("{scheme}://{server}")).collect();
        let client = options.connect(addresses).await.map_err(|error| format!("NATS at {}: {error}", self.servers))?;
        Ok((client, events))
    }
}

/// Waits until the connection is lost; why it was. What was lost before that is counted.
async fn until_lost(events: &mut mpsc::Receiver<Event>, triggers: &Triggers, active: &Active) -> String {
    while let Some(event) = events.recv().await {
        match event {
            Event::Disconnected | Event::Closed => return "the connection to NATS was lost".to_owned(),
            Event::SlowConsumer(_) => {
                let why = "messages came faster than they could be accepted; a stream of JetStream would keep them";
                triggers.refused_many(active, 1, why);
            }
            Event::ServerError(error) => active.record.failed(&error.to_string(), State::Retrying),
            Event::Connected | Event::LameDuckMode | Event::Draining | Event::ClientError(_) => {}
        }
    }
    "the connection to NATS was closed".to_owned()
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn consumer_name(id: &str) -> String {
    format!("nigh-{}", &id[..id.len().min(16)])
}

fn message_id(headers: Option<&HeaderMap>) -> Option<String> {
    let id = headers?.get(MESSAGE_ID)?.as_str();
    Some(format!("message {id}"))
}

fn brought(id: Option<String>, subject: &str, payload: bytes::Bytes, headers: Option<&HeaderMap>) -> Message {
    let own = [("nats-subject".to_owned(), subject.to_owned())].into_iter();
    let sent = headers.into_iter().flat_map(HeaderMap::iter).filter_map(|(name, values)| {
        let value = values.first()?;
        Some((name.to_string(), value.to_string()))
    });
    Message { id, payload, headers: own.chain(sent).collect() }
}

/// What whoever asked for a reply is told.
fn answer(outcome: &Result<CallId, PlatformError>) -> String {
    let told = match outcome {
        Ok(id) => serde_json::json!({ "call": id.as_str() }),
        Err(error) => serde_json::json!({ "reason": error.reason.word(), "error": error.message }),
    };
    told.to_string()
}
