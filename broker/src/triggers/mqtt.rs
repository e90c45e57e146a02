//! Messages of MQTT 3.1.1 as a source. Those of quality of service 1 are acknowledged once the store has their call, in their
//! order; the session stays at the server while nobody is there, so what comes meanwhile comes later. MQTT names no message for
//! longer than it is unacknowledged: one that comes again over a connection made anew is known by that name where this broker
//! has seen it, and is another call where a broker died in between.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use nigh_proto::trigger::{Login, State};
use nigh_proto::{Digest, Endpoint};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS, SubscribeReasonCode};
use tokio::sync::mpsc;

use super::deliver::Message;
use super::{Active, Triggers};

/// The server takes a connection for dead when nothing is heard for half as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Messages that become calls at once.
const AT_ONCE: usize = 64;
/// Messages that may wait here; of those that are not acknowledged further ones are lost, and counted.
const WAITING_MAX: usize = 1024;
/// Words to the server that may wait.
const WORDS_MAX: usize = 2 * WAITING_MAX;
/// Bytes of a message, at most: all that MQTT can say. One that is too large for a call is refused when it is there, as it
/// would else come again for ever.
const MESSAGE_BYTES_MAX: usize = 268_435_460;
/// Time for what is kept at the server to be forgotten there.
const FORGET_TIMEOUT: Duration = Duration::from_secs(5);

/// Where messages come from.
#[derive(Debug)]
pub(super) struct Mqtt<'a> {
    pub(super) server: &'a Endpoint,
    pub(super) topic: &'a str,
    pub(super) acknowledged: bool,
    pub(super) login: Option<&'a Login>,
}

/// What is known of messages that may come again.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By the server's name for them.
    messages: HashMap<u16, (Digest, String)>,
    /// This process has subscribed in the session that is at the server.
    has_subscribed: bool,
}

impl Seen {
    /// What tells a message from others.
    fn id_of(&mut self, message: &Publish) -> Option<String> {
        if message.qos == QoS::AtMostOnce {
            return None;
        }
        let digest = Digest::of(&[message.topic.as_bytes(), b"\0", &message.payload].concat());
        let before = self.messages.get(&message.pkid);
        if let Some((_, id)) = before.filter(|(before, _)| message.dup && *before == digest) {
            return Some(id.clone());
        }
        let id = format!("mqtt {:032x}", rand::random::<u128>());
        self.messages.insert(message.pkid, (digest, id.clone()));
        Some(id)
    }
}

impl Mqtt<'_> {
    /// Takes messages; returns why that cannot go on.
    pub(super) async fn run(&self, triggers: &Triggers, active: &Active) -> String {
        let (client, events) = AsyncClient::new(self.options(active, false), WORDS_MAX);
        let (messages_in, mut messages) = mpsc::channel(WAITING_MAX);
        let messages = stream::poll_fn(move |context| messages.poll_recv(context));
        let client = &client;
        let delivered = messages
            .map(|message: Publish| async move {
                let id = active.seen.lock().id_of(&message);
                let headers = vec![
                    ("mqtt-topic".to_owned(), message.topic.clone()),
                    ("mqtt-retain".to_owned(), message.retain.to_string()),
                ];
                let brought = Message { id, payload: message.payload.clone(), headers };
                // What can be no call is done with too.
                let _ = triggers.deliver(active, brought).await;
                message
            })
            .buffered(AT_ONCE)
            .for_each(|message| async move {
                if message.qos != QoS::AtMostOnce {
                    // Where the connection is gone, the message comes again.
                    let _ = client.ack(&message).await;
                }
            });
        tokio::select! {
            why = self.receive(events, client, &messages_in, triggers, active) => why,
            () = delivered => "messages are taken no more".to_owned(),
        }
    }

    /// Listens to the server; returns why that cannot go on.
    async fn receive(
        &self,
        mut events: EventLoop,
        client: &AsyncClient,
        messages: &mpsc::Sender<Publish>,
        triggers: &Triggers,
        active: &Active,
    ) -> String {
        loop {
            let event = match events.poll().await {
                Ok(event) => event,
                Err(error) => return format!("MQTT at {}: {error}", self.server),
            };
            match event {
                Event::Incoming(Packet::ConnAck(answer)) => {
                    // Subscribing again would bring what is retained again.
                    if answer.session_present && active.seen.lock().has_subscribed {
                        active.record.is(State::Listening);
                        continue;
                    }
                    let quality = if self.acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                    if let Err(error) = client.subscribe(self.topic, quality).await {
                        return error.to_string();
                    }
                }
                Event::Incoming(Packet::SubAck(answer)) => {
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                        return format!("MQTT at {} refuses the topic {}", self.server, self.topic);
                    }
                    active.seen.lock().has_subscribed = true;
                    active.record.is(State::Listening);
                }
                Event::Incoming(Packet::Publish(message)) => {
                    let is_acknowledged = message.qos != QoS::AtMostOnce;
                    match messages.try_send(message) {
                        Ok(()) => {}
                        // A new connection brings it again.
                        Err(_) if is_acknowledged => {
                            return format!(
                                "over {WAITING_MAX} messages wait here; lower `max_inflight_messages` at the server"
                            );
                        }
                        Err(_) => {
                            let why = "messages came faster than they could be accepted; --qos 1 would have them kept";
                            triggers.refused_many(active, 1, why);
                        }
                    }
                }
                Event::Incoming(Packet::Disconnect) => return format!("MQTT at {} has hung up", self.server),
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
    }

    /// What is kept for it at the server is of no use any more: a session that begins anew takes the place of the old one.
    pub(super) async fn forget(&self, active: &Active) -> Result<(), String> {
        let (client, mut events) = AsyncClient::new(self.options(active, true), 1);
        let forgetting = async {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let _ = client.disconnect().await;
                    }
                    Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return Ok(()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        tokio::time::timeout(FORGET_TIMEOUT, forgetting).await.unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    fn options(&self, active: &Active, clean: bool) -> MqttOptions {
        let id = &active.definition.id;
        let port = self.server.port();
        let mut options = MqttOptions::new(format!("nigh-{}", &id[..id.len().min(16)]), self.server.host(), port);
        options.set_keep_alive(KEEP_ALIVE);
        // What is not acknowledged is not to be kept either.
        options.set_clean_session(clean || !self.acknowledged);
        options.set_manual_acks(true);
        options.set_max_packet_size(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        if let Some(Login { user, password }) = self.login {
            options.set_credentials(user, password);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_again_is_known_by_its_name_and_what_it_is() {
        let mut seen = Seen::default();
        let message = |pkid, dup, payload: &str| Publish { pkid, dup, ..Publish::new("a", QoS::AtLeastOnce, payload) };
        let first = seen.id_of(&message(1, false, "x")).unwrap();
        assert_eq!(seen.id_of(&message(1, true, "x")), Some(first.clone()));
        assert_ne!(seen.id_of(&message(1, true, "y")), Some(first.clone()), "another under a name used again");
        assert_ne!(seen.id_of(&message(1, false, "x")), Some(first), "the same, sent on purpose");
        assert_eq!(seen.id_of(&Publish::new("a", QoS::AtMostOnce, "x")), None);
    }
}
