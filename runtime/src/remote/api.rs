//! What the computer wants of a system elsewhere, whichever that speaks: which functions there are, and to have one run.

use std::time::Duration;

use http::HeaderValue;
use nigh_proto::http_client::Unanswered;
use nigh_proto::{Call, FunctionName, Outcome, PlatformError, Reason};

use super::client::{Answer, Client};
use super::http::Http;
use super::openwhisk::OpenWhisk;
use super::settings::{RemoteApi, RemoteSettings};
use crate::error::Error;
use crate::logs::printable;
use crate::outcome;

/// Bytes of what a system says of itself, at most.
pub(super) const LISTING_BYTES_MAX: usize = 8 << 20;
/// Functions taken up from a list, at most.
pub(super) const FUNCTIONS_MAX: usize = 10_000;
/// Bytes of a failure's body that are repeated.
const SAID_BYTES_MAX: usize = 512;

/// A function there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Where it is called.
    pub(super) url: String,
    /// Whose it is, where that matters.
    pub(super) namespace: String,
}

/// Functions there, by their names here.
pub(super) type Listing = Vec<(FunctionName, Target)>;

/// A system elsewhere.
pub(super) enum Api {
    Http(Http),
    OpenWhisk(OpenWhisk),
}

/// What to look at from time to time.
pub(super) enum Look {
    /// Nobody named functions: all that there are are offered.
    All(Listing),
    /// Somebody answers.
    Alive,
}

/// A call that came to no outcome, and what that says of the system.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: PlatformError,
    pub(super) sign: Sign,
}

/// What a failed call says of the system that it was made at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Nothing.
    None,
    /// Nobody is there.
    Unconnected,
    /// Somebody answers, but the function is none of theirs any more.
    Gone,
    /// Somebody answers, and takes no calls of the function for a time.
    Busy,
    /// The answer itself was more than is taken.
    TooLarge,
}

impl Failure {
    pub(super) fn new(reason: Reason, message: impl Into<String>, sign: Sign) -> Self {
        Self { error: PlatformError::new(reason, message), sign }
    }

    /// The system is busy, or does not serve right now: other computers may have the function too.
    pub(super) fn busy(answer: &Answer) -> Self {
        let retry_after = answer.retry_after();
        let status = answer.status.as_u16();
        let (reason, what) = match status {
            429 => (Reason::TooBusy, "it is asked too much"),
            _ => (Reason::NotServing, "it does not serve the function right now"),
        };
        let message = format!("the gateway answered {status}: {what}; try again later, or another computer");
        Self { error: PlatformError::new(reason, message).retry_after(retry_after), sign: Sign::Busy }
    }

    /// The answer is for the operator to act on: no retry helps.
    pub(super) fn operator(answer: &Answer, what: &str) -> Self {
        let message = format!("the gateway answered {}: {what}", answer.status.as_u16());
        Self::new(Reason::Protocol, message, Sign::None)
    }

    /// The system failed in the middle, and the function may have run.
    pub(super) fn broken(answer: &Answer) -> Self {
        let message = format!(
            "the gateway answered {}: {}; the function may have run, so make the call again only if that does no harm",
            answer.status.as_u16(),
            said(answer)
        );
        Self::new(Reason::Disconnected, message, Sign::None)
    }

    /// The call was passed on too often, perhaps back and forth.
    pub(super) fn circle(answer: &Answer) -> Self {
        let message = format!("the gateway answered 508, as the call goes in a circle: {}", said(answer));
        Self::new(Reason::LoopDetected, message, Sign::None)
    }

    /// The system knows no such function.
    pub(super) fn unknown(call: &Call) -> Self {
        let message = format!("the gateway has no function for {} (any more); is it deployed there?", call.function);
        Self::new(Reason::UnknownFunction, message, Sign::Gone)
    }
}

impl From<Unanswered> for Failure {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Unconnected(why) => {
                let message = format!("the gateway cannot be reached: {why}; the computer's operator may see why");
                Self::new(Reason::Unreachable, message, Sign::Unconnected)
            }
            Unanswered::Broken(why) => {
                let message = format!("the connection to the gateway broke: {why}; the function may have run");
                Self::new(Reason::Disconnected, message, Sign::None)
            }
            Unanswered::TooLarge(bytes_max) => {
                Self::new(Reason::TooLarge, format!("the answer has over {bytes_max} bytes"), Sign::TooLarge)
            }
        }
    }
}

impl Api {
    pub(super) fn new(settings: &RemoteSettings) -> Result<Self, Error> {
        if settings.refresh < Duration::from_millis(10) {
            return Err(Error::Config(format!("remote: a look every {:?} is too often", settings.refresh)));
        }
        let authorization = settings.credentials.as_ref().map(super::Credentials::header);
        match &settings.api {
            RemoteApi::Http { url, namespace } => {
                let lists = settings.functions.is_empty();
                Http::new(url.clone(), namespace.clone(), authorization, lists).map(Self::Http).map_err(Error::Config)
            }
            RemoteApi::OpenWhisk { root, namespace, payload_only } => {
                let authorization = authorization.ok_or_else(|| {
                    let message = "OpenWhisk asks everybody for credentials: give them by --auth-file";
                    Error::Config(message.to_owned())
                })?;
                let api = OpenWhisk::new(root, namespace, *payload_only, authorization);
                api.map(Self::OpenWhisk).map_err(Error::Config)
            }
        }
    }

    /// The functions that the operator names.
    pub(super) fn named(&self, settings: &RemoteSettings) -> Result<Listing, Error> {
        let target = |function: &super::RemoteFunction| {
            let given = function.remote.as_deref();
            let target = match self {
                Self::Http(api) => api.target(given.unwrap_or(function.name.as_str())),
                Self::OpenWhisk(api) => api.named_target(&function.name, given),
            };
            let target = target.map_err(|error| Error::Config(format!("function {}: {error}", function.name)))?;
            Ok((function.name.clone(), target))
        };
        settings.functions.iter().map(target).collect()
    }

    /// Looks whether anybody answers and, where nobody named them, which functions there are.
    pub(super) async fn look(&self, client: &Client, lists: bool) -> Result<Look, String> {
        match (self, lists) {
            (Self::Http(api), true) => api.list(client).await.map(Look::All),
            (Self::Http(api), false) => {
                client.connect(api.any_url()).await.map(|()| Look::Alive).map_err(|why| why.to_string())
            }
            (Self::OpenWhisk(api), true) => api.list(client).await.map(Look::All),
            (Self::OpenWhisk(api), false) => api.check_credentials(client).await.map(|()| Look::Alive),
        }
    }

    /// Has a function run, until the call's deadline.
    pub(super) async fn invoke(
        &self,
        client: &Client,
        target: &Target,
        call: &Call,
        bytes_max: usize,
    ) -> Result<Outcome, Failure> {
        let invoked = match self {
            Self::Http(api) => {
                let calling = api.invoke(client, target, call, bytes_max);
                let late = |_| Failure { error: outcome::late_running(), sign: Sign::None };
                tokio::time::timeout_at(call.deadline.into(), calling).await.map_err(late)?
            }
            Self::OpenWhisk(api) => api.invoke(client, target, call, bytes_max).await,
        };
        match invoked {
            Err(Failure { sign: Sign::TooLarge, .. }) => {
                let message = format!(
                    "the function's answer is over {bytes_max} bytes; have the computer's operator raise payload_bytes_max in [limits]"
                );
                Ok(outcome::error("answer-too-large", message))
            }
            invoked => invoked,
        }
    }

    /// Bytes of a payload, at most, where the system has a limit of its own.
    pub(super) fn payload_bytes_max(&self) -> usize {
        match self {
            Self::Http(_) => usize::MAX,
            Self::OpenWhisk(_) => OpenWhisk::PARAMETERS_BYTES_MAX,
        }
    }
}

/// What an answer says for people: its text, in short.
pub(super) fn said(answer: &Answer) -> String {
    let text = printable(&answer.body[..answer.body.len().min(SAID_BYTES_MAX)]);
    if text.trim().is_empty() { "it says nothing more".to_owned() } else { text.trim().to_owned() }
}

/// Reads a list, told by somebody who may say anything.
pub(super) fn json(answer: &Answer, what: &str) -> Result<serde_json::Value, String> {
    match answer.status.as_u16() {
        200 => serde_json::from_slice(&answer.body).map_err(|error| format!("{what} is no JSON: {error}")),
        401 | 403 => Err(format!(
            "{what} was answered {}: the gateway refuses the credentials; the operator may set others (--auth-file)",
            answer.status.as_u16()
        )),
        300..=399 => Err(format!("{what} was answered {}: redirects are not followed", answer.status.as_u16())),
        status => Err(format!("{what} was answered {status}: {}", said(answer))),
    }
}

/// The header that says who makes a request.
pub(super) fn authorize(headers: &mut http::HeaderMap, authorization: Option<&HeaderValue>) {
    if let Some(authorization) = authorization {
        headers.insert(http::header::AUTHORIZATION, authorization.clone());
    }
}
