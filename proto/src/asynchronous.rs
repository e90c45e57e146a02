//! Calls that are accepted now and run later: what is asked for, what is kept of it, and what came of it.

use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::Uri;
use prost::Message as _;

use crate::call::{Call, CallId, CallLimits};
use crate::name::Endpoint;
use crate::older::rpc;
use crate::reply::Reply;
use crate::status::{PlatformError, Reason};
use crate::time::{asked, ms_of, time_of_ms, us};
use crate::v1;

/// Bytes of a callback's address, at most.
const CALLBACK_BYTES_MAX: usize = 2048;

/// A call to be accepted.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// The call; its deadline counts for nothing.
    pub call: Call,
    /// Time for each try.
    pub timeout: Duration,
    /// Who is told of the outcome.
    pub callback: Option<Callback>,
}

/// A call that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id, by which its result is asked for.
    pub id: CallId,
    /// It had been accepted before.
    pub known: bool,
}

/// Who is told of an outcome.
#[derive(Debug, Clone, PartialEq)]
pub enum Callback {
    /// It is posted there.
    Http(CallbackUrl),
    /// A `CallbackServer` of the older system.
    Older {
        /// Where it is.
        endpoint: Endpoint,
        /// What its answer holds whatever comes of the call: the states that travel along.
        response: Box<rpc::LambdaResponse>,
    },
}

/// Where an outcome is posted to: `http://HOST[:PORT]/…` or `https://…`, without user or fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackUrl(Uri);

impl CallbackUrl {
    /// The whole address.
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// The host: a name or an address, IPv6 in brackets.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(self.standard_port())
    }

    /// The port that goes without saying.
    pub fn standard_port(&self) -> u16 {
        if self.is_https() { 443 } else { 80 }
    }

    /// Whether it is posted over TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl FromStr for CallbackUrl {
    type Err = PlatformError;

    fn from_str(given: &str) -> Result<Self, PlatformError> {
        let wrong = || {
            let given: String = given.chars().take(128).collect();
            PlatformError::malformed(format!("callback {given:?}: write http://HOST[:PORT]/PATH or https://…"))
        };
        let uri: Uri = given.parse().ok().filter(|_| given.len() <= CALLBACK_BYTES_MAX).ok_or_else(wrong)?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let fits = matches!(uri.scheme_str(), Some("http" | "https"))
            && !authority.as_str().contains('@')
            && !authority.host().is_empty();
        if fits { Ok(Self(uri)) } else { Err(wrong()) }
    }
}

impl std::fmt::Display for CallbackUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Acceptance {
    /// Checks a request as it arrives.
    ///
    /// # Errors
    /// As of [`Call::from_wire`], and [`Reason::Malformed`] for a dry run or a callback that is none.
    pub fn from_wire(request: v1::AcceptRequest, limits: &CallLimits, now: Instant) -> Result<Self, PlatformError> {
        let call = request.call.ok_or_else(|| PlatformError::malformed("a request to accept has no call"))?;
        let timeout = limits.time(asked(request.timeout_us));
        let call = Call::from_wire(call, Some(timeout), limits, now)?;
        let callback = match request.callback.as_str() {
            "" => None,
            url => Some(Callback::Http(url.parse()?)),
        };
        Self { call, timeout, callback }.checked()
    }

    /// Refuses what makes no sense for a call that runs later.
    ///
    /// # Errors
    /// [`Reason::Malformed`].
    pub fn checked(self) -> Result<Self, PlatformError> {
        if self.call.dry_run {
            return Err(PlatformError::malformed("a dry run is answered at once; make it without being asynchronous"));
        }
        Ok(self)
    }

    /// The message that asks for it.
    pub fn to_wire(&self) -> v1::AcceptRequest {
        let callback = match &self.callback {
            Some(Callback::Http(url)) => url.to_string(),
            Some(Callback::Older { .. }) | None => String::new(),
        };
        v1::AcceptRequest { call: Some(self.call.to_wire()), timeout_us: us(self.timeout), callback }
    }

    /// What is kept of it, without its payload where that is kept apart.
    pub fn to_stored(&self, payload_apart: bool) -> Bytes {
        let mut call = self.call.to_wire();
        if payload_apart {
            call.payload = Bytes::new();
        }
        let mut stored = v1::StoredCall {
            call: Some(call),
            timeout_us: us(self.timeout),
            payload_apart,
            accepted_ms: ms_of(SystemTime::now()),
            ..v1::StoredCall::default()
        };
        match &self.callback {
            Some(Callback::Http(url)) => stored.callback = url.to_string(),
            Some(Callback::Older { endpoint, response }) => {
                stored.older_callback = endpoint.to_string();
                stored.older_response = response.encode_to_vec().into();
            }
            None => {}
        }
        stored.encode_to_vec().into()
    }
}

/// A call that was accepted, as it was kept.
#[derive(Debug, Clone)]
pub struct Stored {
    /// What was accepted, ready to be tried from now on.
    pub acceptance: Acceptance,
    /// The call's payload is an object of its own.
    pub payload_apart: bool,
    /// When it was accepted first.
    pub accepted: SystemTime,
}

impl Stored {
    /// Reads what was kept.
    ///
    /// # Errors
    /// [`Reason::Internal`] where it cannot be read, or as of [`Call::from_wire`], as limits may have changed.
    pub fn read(bytes: &[u8], limits: &CallLimits, now: Instant) -> Result<Self, PlatformError> {
        let damaged = |detail: String| {
            PlatformError::new(Reason::Internal, format!("what was kept of the call cannot be read: {detail}"))
        };
        let stored = v1::StoredCall::decode(bytes).map_err(|error| damaged(error.to_string()))?;
        let call = stored.call.ok_or_else(|| damaged("there is no call in it".to_owned()))?;
        let timeout = limits.time(asked(stored.timeout_us));
        let callback = if stored.older_callback.is_empty() {
            if stored.callback.is_empty() { None } else { Some(Callback::Http(stored.callback.parse()?)) }
        } else {
            let response = rpc::LambdaResponse::decode(stored.older_response);
            let response = Box::new(response.map_err(|error| damaged(error.to_string()))?);
            Some(Callback::Older { endpoint: stored.older_callback.parse()?, response })
        };
        Ok(Self {
            acceptance: Acceptance { call: Call::from_wire(call, Some(timeout), limits, now)?, timeout, callback },
            payload_apart: stored.payload_apart,
            accepted: time_of_ms(stored.accepted_ms),
        })
    }

    /// The name of the function that a kept call is of, if it can be read at all.
    pub fn function_of(bytes: &[u8]) -> String {
        v1::StoredCall::decode(bytes).ok().and_then(|stored| Some(stored.call?.function)).unwrap_or_default()
    }
}

/// What came of a call that ended: a reply, or why it was given up.
pub type Settled = Result<Reply, PlatformError>;

/// What is kept of an outcome: without the answer's payload, which comes back apart, where that is over this many bytes.
pub fn settled_to_stored(settled: Settled, inline_bytes_max: usize) -> (Bytes, Option<Bytes>) {
    use v1::stored_result::Outcome;
    let mut apart = None;
    let outcome = match settled {
        Err(error) => Outcome::Failed(error.to_failure()),
        Ok(reply) => {
            let mut reply = reply.into_wire();
            if let Some(v1::invoke_response::Outcome::Answer(answer)) = &mut reply.outcome
                && answer.payload.len() > inline_bytes_max
            {
                apart = Some(std::mem::take(&mut answer.payload));
            }
            Outcome::Reply(reply)
        }
    };
    let stored = v1::StoredResult { outcome: Some(outcome), payload_apart: apart.is_some() };
    (stored.encode_to_vec().into(), apart)
}

/// Reads what was kept of an outcome, and whether the answer's payload is apart.
///
/// # Errors
/// [`Reason::Internal`] where it cannot be read.
pub fn settled_from_stored(bytes: &[u8]) -> Result<(Settled, bool), PlatformError> {
    use v1::stored_result::Outcome;
    let damaged = || PlatformError::new(Reason::Internal, "what was kept of the call's outcome cannot be read");
    let stored = v1::StoredResult::decode(bytes).map_err(|_| damaged())?;
    let settled = match stored.outcome.ok_or_else(damaged)? {
        Outcome::Reply(reply) => Ok(Reply::from_wire(reply)?),
        Outcome::Failed(failure) => Err(PlatformError::of_failure(failure)),
    };
    Ok((settled, stored.payload_apart))
}

/// What is known of a call that was accepted: an outcome, or nothing yet.
pub fn result_to_wire(known: Option<Settled>) -> v1::ResultResponse {
    use v1::result_response::State;
    let state = match known {
        None => State::Pending(v1::Pending {}),
        Some(Ok(reply)) => State::Reply(reply.into_wire()),
        Some(Err(error)) => State::Failed(error.to_failure()),
    };
    v1::ResultResponse { state: Some(state) }
}

/// Reads what is known of a call.
///
/// # Errors
/// [`Reason::Protocol`] where the message makes no sense.
pub fn result_from_wire(response: v1::ResultResponse) -> Result<Option<Settled>, PlatformError> {
    use v1::result_response::State;
    Ok(match response.state {
        Some(State::Pending(_)) => None,
        Some(State::Reply(reply)) => Some(Ok(Reply::from_wire(reply)?)),
        Some(State::Failed(failure)) => Some(Err(PlatformError::of_failure(failure))),
        None => {
            return Err(PlatformError::new(
                Reason::Protocol,
                "the broker says nothing of the call; is it of this release?",
            ));
        }
    })
}

impl PlatformError {
    /// The error as a message of its own.
    pub(crate) fn to_failure(&self) -> v1::CallFailure {
        let retry_after_ms =
            self.retry_after.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        v1::CallFailure {
            code: self.reason.code().into(),
            reason: self.reason.word().to_owned(),
            message: self.message.clone(),
            retry_after_ms,
        }
    }

    /// The error that a message tells of.
    pub fn of_failure(failure: v1::CallFailure) -> Self {
        let reason = Reason::of_word(&failure.reason).unwrap_or(Reason::Internal);
        let retry_after = (failure.retry_after_ms > 0).then(|| Duration::from_millis(failure.retry_after_ms));
        Self { reason, message: failure.message, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn acceptance(callback: Option<Callback>) -> Acceptance {
        let mut call = Call::new("echo".parse().unwrap(), "payload", Duration::from_secs(5));
        call.retry_safe = true;
        Acceptance { call, timeout: Duration::from_secs(5), callback }
    }

    fn read(stored: &[u8]) -> Stored {
        Stored::read(stored, &CallLimits::default(), Instant::now()).unwrap()
    }

    #[test]
    fn what_is_kept_is_what_was_accepted() {
        let older = rpc::LambdaResponse { output: "kept".into(), ..rpc::LambdaResponse::default() };
        let older = Callback::Older { endpoint: "127.0.0.1:6480".parse().unwrap(), response: Box::new(older) };
        for callback in [None, Some(Callback::Http("http://h:81/a?b=c".parse().unwrap())), Some(older)] {
            let accepted = acceptance(callback.clone());
            let stored = read(&accepted.to_stored(false));
            assert_eq!(stored.acceptance.callback, callback);
            assert_eq!(stored.acceptance.call.to_wire(), accepted.call.to_wire());
            assert_eq!((stored.acceptance.timeout, stored.payload_apart), (Duration::from_secs(5), false));
            assert!(stored.accepted.elapsed().unwrap() < Duration::from_secs(60));
            let apart = read(&accepted.to_stored(true));
            assert!(apart.payload_apart && apart.acceptance.call.payload.is_empty());
        }
        assert_eq!(Stored::function_of(&acceptance(None).to_stored(true)), "echo");
    }

    #[test]
    fn a_callback_is_an_address_that_can_be_posted_to() {
        let url: CallbackUrl = "http://hooks.example:81/nigh?x=1".parse().unwrap();
        assert_eq!((url.host(), url.port()), ("hooks.example", 81));
        assert_eq!("http://h/".parse::<CallbackUrl>().unwrap().port(), 80);
        assert_eq!("https://h/".parse::<CallbackUrl>().unwrap().port(), 443);
        for wrong in ["", "h", "/path", "ftp://h/", "https:///", "http://u:p@h/", "http:///x", "http://h\n/"] {
            assert_eq!(wrong.parse::<CallbackUrl>().unwrap_err().reason, Reason::Malformed, "{wrong:?}");
        }
    }

    #[test]
    fn a_dry_run_is_refused() {
        let mut dry = acceptance(None);
        dry.call.dry_run = true;
        let refused = Acceptance::from_wire(dry.to_wire(), &CallLimits::default(), Instant::now());
        assert_eq!(refused.unwrap_err().reason, Reason::Malformed);
    }

    #[test]
    fn an_error_survives_as_a_message() {
        for &reason in Reason::ALL {
            let error = PlatformError::new(reason, "what to do").retry_after(Duration::from_millis(7));
            assert_eq!(PlatformError::of_failure(error.to_failure()), error);
        }
    }

    proptest! {
        #[test]
        fn anything_kept_is_read_without_panic(bytes: Vec<u8>) {
            let _ = Stored::read(&bytes, &CallLimits::default(), Instant::now());
            let _ = settled_from_stored(&bytes);
            let _ = Stored::function_of(&bytes);
        }
    }
}
