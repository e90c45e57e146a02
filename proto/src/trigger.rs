//! Triggers: what comes from elsewhere, a request over HTTP, a message of NATS or MQTT, a time, and becomes an asynchronous
//! call. Checked here as far as that needs no library of theirs.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::asynchronous::CallbackUrl;
use crate::call::{Headers, Priority};
use crate::name::{Endpoint, FunctionName, TriggerName};
use crate::status::{PlatformError, Reason};
use crate::time::{asked, ms_of, time_of_ms, us};
use crate::v1;
use crate::v1::trigger::Source as WireSource;

pub use v1::MissedTicks;
pub use v1::trigger_record::State;

/// Bytes of a path, subject or topic, at most.
const ADDRESS_BYTES_MAX: usize = 256;
/// Bytes of the list of servers, of a user's name and of a password, at most.
const SERVERS_BYTES_MAX: usize = 1024;
/// Bytes of a schedule and of a time zone's name, at most.
const SCHEDULE_BYTES_MAX: usize = 128;
/// Bytes of a schedule's payload, at most: it is kept with the trigger.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// A trigger.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// Its name, unique in its store.
    pub name: TriggerName,
    /// What is called.
    pub function: FunctionName,
    /// Where calls come from.
    pub source: Source,
    /// Time for each try of a call, where the broker's default will not do.
    pub timeout: Option<Duration>,
    /// Running a call twice does no harm.
    pub retry_safe: bool,
    /// Which calls give way.
    pub priority: Priority,
    /// Messages per second, at most, where the broker's default will not do.
    pub rate_max: Option<u32>,
    /// Where outcomes are posted to.
    pub callback: Option<CallbackUrl>,
    /// Headers of every call.
    pub headers: Headers,
}

/// Where calls come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Requests `POST /trigger/{path}` at any broker that shares the store.
    Http {
        /// Segments of letters, digits and `-._~`.
        path: String,
    },
    /// Messages of NATS.
    Nats {
        /// `nats://…` or `tls://…`
        servers: String,
        /// A subject, wildcards included.
        subject: String,
        /// The stream of JetStream that has them, if they are to be acknowledged.
        stream: Option<String>,
        /// Who this side is there.
        login: Option<Login>,
    },
    /// Messages of MQTT.
    Mqtt {
        /// The server.
        server: Endpoint,
        /// A filter of topics.
        topic: String,
        /// They are acknowledged (quality of service 1).
        acknowledged: bool,
        /// Who this side is there.
        login: Option<Login>,
    },
    /// Times.
    Cron {
        /// As cron writes it.
        schedule: String,
        /// As in `Europe/Rome`.
        zone: String,
        /// What becomes of times at which nobody was there.
        missed: MissedTicks,
        /// Of each call.
        payload: Bytes,
    },
}

/// A user at a server. Whoever prints it sees no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A trigger and how it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The trigger, without a password.
    pub trigger: Trigger,
    /// How it is.
    pub record: v1::TriggerRecord,
    /// When it was added.
    pub added: SystemTime,
    /// When its schedule is due next.
    pub next: Option<SystemTime>,
}

impl Trigger {
    /// The zone where none is said.
    pub const ZONE: &str = "UTC";

    /// Checks a trigger as it arrives.
    ///
    /// # Errors
    /// [`Reason::Malformed`] or [`Reason::TooLarge`].
    pub fn from_wire(wire: v1::Trigger) -> Result<Self, PlatformError> {
        let source =
            wire.source.ok_or_else(|| PlatformError::malformed("the trigger says not where calls come from"))?;
        let callback = if wire.callback.is_empty() { None } else { Some(wire.callback.parse()?) };
        Ok(Self {
            name: wire.name.parse()?,
            function: wire.function.parse()?,
            source: Source::from_wire(source)?,
            timeout: asked(wire.timeout_us),
            retry_safe: wire.retry_safe,
            priority: Priority::from_wire(wire.priority),
            rate_max: (wire.rate_max > 0).then_some(wire.rate_max),
            callback,
            headers: Headers::from_wire(wire.headers)?,
        })
    }

    /// The message for it.
    pub fn to_wire(&self) -> v1::Trigger {
        v1::Trigger {
            name: self.name.to_string(),
            function: self.function.to_string(),
            source: Some(self.source.to_wire()),
            timeout_us: self.timeout.map_or(0, us),
            retry_safe: self.retry_safe,
            priority: self.priority.to_wire().into(),
            rate_max: self.rate_max.unwrap_or_default(),
            callback: self.callback.as_ref().map(ToString::to_string).unwrap_or_default(),
            headers: self.headers.clone().into_wire(),
        }
    }
}

impl Source {
    fn from_wire(wire: WireSource) -> Result<Self, PlatformError> {
        Ok(match wire {
            WireSource::Http(v1::HttpSource { path }) => Self::Http { path: checked_path(&path)? },
            WireSource::Nats(v1::NatsSource { servers, subject, stream, user, password }) => Self::Nats {
                servers: checked_length("list of servers", servers, SERVERS_BYTES_MAX)?,
                subject: checked_subject(subject)?,
                stream: if stream.is_empty() { None } else { Some(checked_stream(stream)?) },
                login: login(user, password)?,
            },
            WireSource::Mqtt(v1::MqttSource { server, topic, qos, user, password }) => Self::Mqtt {
                server: server.parse()?,
                topic: checked_topic(topic)?,
                acknowledged: match qos {
                    0 => false,
                    1 => true,
                    _ => return Err(PlatformError::malformed("a trigger's quality of service is 0 or 1")),
                },
                login: login(user, password)?,
            },
            WireSource::Cron(v1::CronSource { schedule, zone, missed, payload }) => {
                if payload.len() > PAYLOAD_BYTES_MAX {
                    let message = format!("the payload of a schedule has at most {PAYLOAD_BYTES_MAX} bytes");
                    return Err(PlatformError::new(Reason::TooLarge, message));
                }
                let zone = if zone.is_empty() { Trigger::ZONE.to_owned() } else { zone };
                let missed = match MissedTicks::try_from(missed) {
                    Ok(MissedTicks::Unspecified) => MissedTicks::Once,
                    Ok(missed) => missed,
                    Err(_) => return Err(PlatformError::malformed("times that were missed: once, skip or all")),
                };
                Self::Cron {
                    schedule: checked_length("schedule", schedule, SCHEDULE_BYTES_MAX)?,
                    zone: checked_length("time zone", zone, SCHEDULE_BYTES_MAX)?,
                    missed,
                    payload,
                }
            }
        })
    }

    fn to_wire(&self) -> WireSource {
        let spelt = |login: &Option<Login>| login.clone().map(|login| (login.user, login.password)).unwrap_or_default();
        match self {
            Self::Http { path } => WireSource::Http(v1::HttpSource { path: path.clone() }),
            Self::Nats { servers, subject, stream, login } => {
                let (user, password) = spelt(login);
                let (servers, subject) = (servers.clone(), subject.clone());
                let stream = stream.clone().unwrap_or_default();
                WireSource::Nats(v1::NatsSource { servers, subject, stream, user, password })
            }
            Self::Mqtt { server, topic, acknowledged, login } => {
                let (user, password) = spelt(login);
                let (server, topic) = (server.to_string(), topic.clone());
                WireSource::Mqtt(v1::MqttSource { server, topic, qos: u32::from(*acknowledged), user, password })
            }
            Self::Cron { schedule, zone, missed, payload } => WireSource::Cron(v1::CronSource {
                schedule: schedule.clone(),
                zone: zone.clone(),
                missed: (*missed).into(),
                payload: payload.clone(),
            }),
        }
    }

    /// The word for its kind.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Nats { .. } => "nats",
            Self::Mqtt { .. } => "mqtt",
            Self::Cron { .. } => "cron",
        }
    }

    /// The same without a password, to be shown.
    #[must_use]
    pub(crate) fn without_password(mut self) -> Self {
        if let Self::Nats { login: Some(login), .. } | Self::Mqtt { login: Some(login), .. } = &mut self {
            login.password.clear();
        }
        self
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { path } => write!(f, "http /trigger/{path}"),
            Self::Nats { servers, subject, stream: None, .. } => write!(f, "{servers} {subject}"),
            Self::Nats { servers, subject, stream: Some(stream), .. } => write!(f, "{servers} {subject} in {stream}"),
            Self::Mqtt { server, topic, .. } => write!(f, "mqtt://{server} {topic}"),
            Self::Cron { schedule, zone, .. } => write!(f, "cron {schedule} {zone}"),
        }
    }
}

impl Listed {
    /// Checks what a broker tells.
    ///
    /// # Errors
    /// [`Reason::Protocol`] where it makes no sense.
    pub fn from_wire(wire: v1::ListedTrigger) -> Result<Self, PlatformError> {
        let foreign = || {
            PlatformError::new(
                Reason::Protocol,
                "what the broker tells of a trigger makes no sense; is it of this release?",
            )
        };
        Ok(Self {
            trigger: Trigger::from_wire(wire.trigger.ok_or_else(foreign)?).map_err(|_| foreign())?,
            record: wire.record.unwrap_or_default(),
            added: time_of_ms(wire.added_ms),
            next: (wire.next_ms > 0).then(|| time_of_ms(wire.next_ms)),
        })
    }

    /// The message for it.
    pub fn to_wire(&self) -> v1::ListedTrigger {
        let shown = Trigger { source: self.trigger.source.clone().without_password(), ..self.trigger.clone() };
        v1::ListedTrigger {
            trigger: Some(shown.to_wire()),
            record: Some(self.record.clone()),
            added_ms: ms_of(self.added),
            next_ms: self.next.map_or(0, ms_of),
        }
    }
}

fn checked_length(what: &str, given: String, bytes_max: usize) -> Result<String, PlatformError> {
    let fits = (1..=bytes_max).contains(&given.len()) && !given.chars().any(char::is_control);
    let wrong = || {
        PlatformError::malformed(format!("the {what} of a trigger has 1 to {bytes_max} bytes, no control characters"))
    };
    if fits { Ok(given) } else { Err(wrong()) }
}

fn login(user: String, password: String) -> Result<Option<Login>, PlatformError> {
    if user.is_empty() {
        return Ok(None);
    }
    let user = checked_length("user", user, SERVERS_BYTES_MAX)?;
    if password.len() > SERVERS_BYTES_MAX {
        return Err(PlatformError::malformed(format!("a password has at most {SERVERS_BYTES_MAX} bytes")));
    }
    Ok(Some(Login { user, password }))
}

fn checked_path(given: &str) -> Result<String, PlatformError> {
    let path = given.strip_prefix('/').unwrap_or(given);
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let fits = path.len() <= ADDRESS_BYTES_MAX && path.split('/').all(is_segment);
    if fits {
        Ok(path.to_owned())
    } else {
        Err(malformed_address("path", given, "shop/orders, of letters, digits and -._~"))
    }
}

fn checked_subject(given: String) -> Result<String, PlatformError> {
    let tokens: Vec<&str> = given.split('.').collect();
    let is_token = |(at, token): (usize, &&str)| match *token {
        ">" => at + 1 == tokens.len(),
        "*" => true,
        token => !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte)),
    };
    let fits = given.len() <= ADDRESS_BYTES_MAX && tokens.iter().enumerate().all(is_token);
    if fits { Ok(given) } else { Err(malformed_address("subject", &given, "orders.*.new or orders.>")) }
}

fn checked_stream(given: String) -> Result<String, PlatformError> {
    let fits = given.len() <= ADDRESS_BYTES_MAX
        && given.bytes().all(|byte| byte.is_ascii_graphic() && !b".*>/\\".contains(&byte));
    if fits { Ok(given) } else { Err(malformed_address("stream", &given, "ORDERS")) }
}

fn checked_topic(given: String) -> Result<String, PlatformError> {
    let levels: Vec<&str> = given.split('/').collect();
    let is_level = |(at, level): (usize, &&str)| match *level {
        "#" => at + 1 == levels.len(),
        "+" => true,
        level => !level.chars().any(|c| c.is_control() || c == '#' || c == '+'),
    };
    let fits = (1..=ADDRESS_BYTES_MAX).contains(&given.len()) && levels.iter().enumerate().all(is_level);
    if fits { Ok(given) } else { Err(malformed_address("topic", &given, "shop/+/door or shop/#")) }
}

fn malformed_address(what: &str, given: &str, example: &str) -> PlatformError {
    let given: String = given.chars().take(64).collect();
    PlatformError::malformed(format!("{what} {given:?}: write it as {example}, in at most {ADDRESS_BYTES_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn trigger(source: Source) -> Trigger {
        Trigger {
            name: "orders".parse().unwrap(),
            function: "resize".parse().unwrap(),
            source,
            timeout: Some(Duration::from_secs(5)),
            retry_safe: true,
            priority: Priority::Low,
            rate_max: Some(7),
            callback: Some("http://h/x".parse().unwrap()),
            headers: Headers::new(vec![("size".into(), "small".into())]).unwrap(),
        }
    }

    fn sources() -> Vec<Source> {
        let login = Some(Login { user: "ada".into(), password: "secret".into() });
        vec![
            Source::Http { path: "shop/orders".into() },
            Source::Nats { servers: "nats://h:4222".into(), subject: "a.*.>".into(), stream: None, login: None },
            Source::Nats {
                servers: "tls://h:1,i:2".into(),
                subject: "a".into(),
                stream: Some("S".into()),
                login: login.clone(),
            },
            Source::Mqtt { server: "h:1883".parse().unwrap(), topic: "a/+/#".into(), acknowledged: true, login },
            Source::Cron {
                schedule: "*/5 * * * *".into(),
                zone: "UTC".into(),
                missed: MissedTicks::All,
                payload: "p".into(),
            },
        ]
    }

    #[test]
    fn triggers_survive_the_wire_and_show_no_password() {
        for source in sources() {
            let trigger = trigger(source);
            assert_eq!(Trigger::from_wire(trigger.to_wire()).unwrap(), trigger);
            assert!(!format!("{trigger:?} {}", trigger.source).contains("secret"));
            let listed =
                Listed { trigger, record: v1::TriggerRecord::default(), added: SystemTime::UNIX_EPOCH, next: None };
            assert!(!listed.to_wire().encode_to_vec().windows(6).any(|bytes| bytes == b"secret"));
            Listed::from_wire(listed.to_wire()).unwrap();
        }
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for path in ["", "/", "a//b", "a/../b", "a?b", "ä", "a b", "./a"] {
            assert_eq!(checked_path(path).unwrap_err().reason, Reason::Malformed, "{path:?}");
        }
        assert_eq!(checked_path("/shop/orders.v1").unwrap(), "shop/orders.v1");
        for subject in ["", "a..b", "a.>.b", "a b", "a.b*", ">a", "a."] {
            assert!(checked_subject(subject.into()).is_err(), "{subject:?}");
        }
        for topic in ["", "a/#/b", "a+/b", "#a", "a\0"] {
            assert!(checked_topic(topic.into()).is_err(), "{topic:?}");
        }
        assert!(checked_topic("/a//b".into()).is_ok() && checked_topic("#".into()).is_ok());
    }

    proptest! {
        #[test]
        fn anything_is_checked_without_panic(bytes: Vec<u8>) {
            if let Ok(wire) = v1::Trigger::decode(&*bytes) {
                let _ = Trigger::from_wire(wire);
            }
        }
    }
}
