//! A store in NATS JetStream: values in key-value buckets, queues in work-queue streams, objects in object stores. Several
//! roles on several machines share it. A connection that breaks is made again by itself; what is asked for meanwhile fails
//! with [`StoreError::Unavailable`] when its time is over.

mod bucket;
mod objects;
mod queue;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::ConnectOptions;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context, ErrorCode};
use async_trait::async_trait;

use crate::Store;
use crate::bucket::{Bucket, BucketSettings};
use crate::error::StoreError;
use crate::key::Key;
use crate::nats::bucket::NatsBucket;
use crate::nats::objects::NatsObjects;
use crate::nats::queue::NatsQueue;
use crate::objects::{Objects, ObjectsSettings};
use crate::place::TlsFiles;
use crate::queue::{Queue, QueueSettings};

/// Time for a connection to be made, and for the server to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Before something is made for which there is no stream yet, each time up to this passes.
const MAKING_APART: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// Longest wait before a connection that broke is tried again.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);
/// Servers on which everything is kept, where there are as many.
const REPLICAS_MAX: usize = 3;
/// What is kept here is called so, that it is told from what others keep on the same servers.
const PREFIX: &str = "nigh-";

/// A connection to the servers.
#[derive(Debug)]
pub(crate) struct Nats {
    server: Server,
}

/// What all that is kept there shares.
#[derive(Debug, Clone)]
struct Server {
    context: Context,
    replicas: usize,
}

impl Nats {
    pub(crate) async fn connect(servers: &[String], tls: Option<&TlsFiles>) -> Result<Self, StoreError> {
        let scheme = if tls.is_some() { "tls" } else { "nats" };
        let mut options = ConnectOptions::new()
            .name("nigh")
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(ANSWER_TIMEOUT))
            .reconnect_delay_callback(|attempts| {
                let doubled = Duration::from_millis(10).saturating_mul(1 << attempts.min(10));
                doubled.min(RECONNECT_DELAY_MAX)
            });
        if let Some(files) = tls {
            options = options
                .require_tls(true)
                .add_root_certificates(files.authorities.clone())
                .add_client_certificate(files.certificate.clone(), files.key.clone());
        }
        let addresses: Vec<String> = servers.iter().map(|server| format!("{scheme}://{server}")).collect();
        let client = options
            .connect(addresses)
            .await
            .map_err(|error| StoreError::Unavailable(format!("NATS at {}: {error}", servers.join(", "))))?;
        let mut context = jetstream::new(client);
        context.set_timeout(ANSWER_TIMEOUT);
        let replicas = if servers.len() >= REPLICAS_MAX { REPLICAS_MAX } else { 1 };
        Ok(Self { server: Server { context, replicas } })
    }
}

#[async_trait]
impl Store for Nats {
    async fn bucket(&self, settings: BucketSettings) -> Result<Arc<dyn Bucket>, StoreError> {
        self.made(&format!("KV_{}", named(&settings.name)?), || NatsBucket::open(self.server.clone(), settings.clone()))
            .await
            .map(|bucket| Arc::new(bucket) as _)
    }

    async fn queue(&self, settings: QueueSettings) -> Result<Arc<dyn Queue>, StoreError> {
        self.made(&named(&settings.name)?, || NatsQueue::open(self.server.clone(), settings.clone()))
            .await
            .map(|queue| Arc::new(queue) as _)
    }

    async fn objects(&self, settings: ObjectsSettings) -> Result<Arc<dyn Objects>, StoreError> {
        self.made(&format!("OBJ_{}", named(&settings.name)?), || {
            NatsObjects::open(self.server.clone(), settings.clone())
        })
        .await
        .map(|objects| Arc::new(objects) as _)
    }
}

impl Nats {
    /// What is made where its stream is not there yet. Of several who make the same at once a server refuses some, or never answers
    /// them (seen with 2.9), so they come at times that chance tells apart, and ask again.
    async fn made<T, Making>(&self, stream: &str, make: impl Fn() -> Making) -> Result<T, StoreError>
    where
        Making: Future<Output = Result<T, StoreError>>,
    {
        for pause in MAKING_APART {
            if self.server.context.get_stream(stream).await.is_err() {
                tokio::time::sleep(pause.mul_f64(rand::random())).await;
            }
            match make().await {
                Err(StoreError::Refused(_) | StoreError::Unavailable(_)) => {}
                made => return made,
            }
        }
        make().await
    }
}

impl Server {
    /// Publishes a message and waits until the stream has it; its number there. Where the message expects another one to be
    /// the last of its subject, that may be a [`StoreError::Conflict`].
    async fn publish(&self, what: &str, subject: String, message: PublishMessage) -> Result<u64, StoreError> {
        let sent = self.context.send_publish(subject, message).await.map_err(|error| of_publish(what, &error))?;
        sent.await.map(|ack| ack.sequence).map_err(|error| of_publish(what, &error))
    }
}

fn of_publish(what: &str, error: &PublishError) -> StoreError {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => StoreError::Conflict,
        PublishErrorKind::StreamNotFound
        | PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending => StoreError::Unavailable(error.to_string()),
        PublishErrorKind::MaxPayloadExceeded => StoreError::Refused(error.to_string()),
        PublishErrorKind::Other => of_source(what, error),
    }
}

/// A failure, by what is at its bottom: an answer of the server, or no answer at all.
fn of_source(what: &str, error: &(dyn std::error::Error + 'static)) -> StoreError {
    let mut cause = Some(error);
    while let Some(found) = cause {
        if let Some(answer) = found.downcast_ref::<jetstream::Error>() {
            let code = answer.error_code();
            let is_full = code == ErrorCode::STORAGE_RESOURCES_EXCEEDED
                || code == ErrorCode::INSUFFICIENT_RESOURCES
                || (code == ErrorCode::STREAM_STORE_FAILED && answer.to_string().contains("maximum"));
            // A server that starts or has lost its leader says so for a while.
            let will_pass = answer.code() == 503 || code == ErrorCode::STREAM_NOT_FOUND;
            return if is_full {
                StoreError::Full { what: what.to_owned(), limit: format!("as much as it may ({answer})") }
            } else if will_pass {
                StoreError::Unavailable(answer.to_string())
            } else {
                StoreError::Refused(answer.to_string())
            };
        }
        cause = found.source();
    }
    // Where the library keeps the answer's text alone.
    let text = error.to_string();
    if text.contains("maximum bytes exceeded") || text.contains("maximum messages exceeded") {
        return StoreError::Full { what: what.to_owned(), limit: format!("as much as it may ({text})") };
    }
    match code_in(&text) {
        Some(code) if code == ErrorCode::STORAGE_RESOURCES_EXCEEDED.0 => StoreError::Refused(format!(
            "the server has not as much storage left as {what} may take ({text}); lower the limit, or raise `max_file_store` there"
        )),
        Some(code) if code != ErrorCode::STREAM_NOT_FOUND.0 && !text.contains("code 503") => StoreError::Refused(text),
        Some(_) | None => StoreError::Unavailable(text),
    }
}

/// The code of a server's answer, in its text.
fn code_in(text: &str) -> Option<u64> {
    let digits = text.rsplit_once("error code ")?.1;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// What a request failed with.
fn failed<E: std::error::Error + 'static>(what: &str) -> impl FnOnce(E) -> StoreError {
    move |error| of_source(what, &error)
}

/// A key as one token of a subject: letters, digits, `-` and `_` stand for themselves.
fn token_of(key: &Key) -> String {
    key.as_str().bytes().fold(String::with_capacity(key.as_str().len()), |mut token, byte| {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
        token
    })
}

/// The key that a token stands for.
fn key_of(token: &str) -> Option<Key> {
    let mut key = String::with_capacity(token.len());
    let mut rest = token;
    while let Some(at) = rest.find('=') {
        key.push_str(&rest[..at]);
        let byte = u8::from_str_radix(rest.get(at + 1..at + 3)?, 16).ok()?;
        key.push(char::from(byte));
        rest = &rest[at + 3..];
    }
    key.push_str(rest);
    key.parse().ok()
}

/// What is kept under this name.
fn named(name: &str) -> Result<String, StoreError> {
    let fits = !name.is_empty()
        && name.len() <= Key::BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if fits { Ok(format!("{PREFIX}{name}")) } else { Err(StoreError::Name(name.chars().take(64).collect())) }
}

fn limit_of(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn time_of_nanos(nanos: i128) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())).unwrap_or(UNIX_EPOCH)
}

fn ms_of(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn time_of_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_server_answers_is_told_from_its_silence() {
        assert_eq!(code_in("refused (code 500, error code 10047): refused (code 500, error code 10047)"), Some(10047));
        assert_eq!(code_in("timed out"), None);
        let of = |text: &str| of_source("the queue x", &std::io::Error::other(text.to_owned()));
        assert!(matches!(of("no storage (code 500, error code 10047)"), StoreError::Refused(_)));
        assert!(matches!(of("stream not found (code 404, error code 10059)"), StoreError::Unavailable(_)));
        assert!(matches!(of("timed out"), StoreError::Unavailable(_)));
    }

    proptest! {
        #[test]
        fn keys_survive_as_tokens_of_subjects(key in "[!-~]{1,128}") {
            let key: Key = key.parse().unwrap();
            let token = token_of(&key);
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte)));
            prop_assert_eq!(key_of(&token), Some(key));
        }

        #[test]
        fn any_token_is_read_without_panic(token in ".{0,40}") {
            let _ = key_of(&token);
        }
    }
}
