//! Errors of the platform, and the one mapping between them and gRPC statuses.

use std::fmt;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::tls::refusal;

const REASON_KEY: &str = "nigh-reason";
const RETRY_AFTER_KEY: &str = "nigh-retry-after-ms";
/// Bytes of a message on the wire, at most; a header block has little room.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Who has to act for the call to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Whoever made the call.
    Caller,
    /// Nobody in particular: too much is asked of the platform right now.
    Load,
    /// The platform or its operator.
    Platform,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller",
            Self::Load => "load",
            Self::Platform => "platform",
        })
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $code:ident, $fault:ident, $retry:literal, $unstarted:literal;)*) => {
        /// Why the platform could not bring a call to an outcome.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word that stands for it on the wire and in logs.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The reason that a word stands for.
            pub fn of_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.word() == word)
            }

            /// Its gRPC status code.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }

            /// Who has to act.
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// The same call may succeed if made again, perhaps elsewhere.
            pub fn retry_helps(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }

            /// The function certainly did not begin to run, so that another try can do no harm.
            pub fn certainly_not_started(self) -> bool {
                match self { $(Self::$name => $unstarted,)* }
            }
        }
    };
}

reasons! {
    // word, gRPC code, fault, a retry helps, certainly not started
    /// No function of that name is deployed.
    UnknownFunction = "unknown-function", NotFound, Caller, false, true;
    /// No asynchronous call of that id is known, or its result was kept long enough.
    UnknownCall = "unknown-call", NotFound, Caller, false, true;
    /// No trigger of that name is there.
    UnknownTrigger = "unknown-trigger", NotFound, Caller, false, true;
    /// The request does not have its form.
    Malformed = "malformed", InvalidArgument, Caller, false, true;
    /// A payload, module or header block is over its limit.
    TooLarge = "too-large", OutOfRange, Caller, false, true;
    /// The deadline passed, or cannot be met.
    Late = "late", DeadlineExceeded, Caller, false, false;
    /// The queue for this function or computer is full.
    QueueFull = "queue-full", ResourceExhausted, Load, true, true;
    /// The wait for a turn is longer than the call's deadline, or its function's limit, allows.
    TooBusy = "too-busy", ResourceExhausted, Load, true, true;
    /// The computer's or broker's own budget (memory, instances, calls in flight) is used up.
    OutOfBudget = "out-of-budget", ResourceExhausted, Load, true, true;
    /// Nobody who serves this function can be connected to.
    Unreachable = "unreachable", Unavailable, Platform, true, true;
    /// The connection broke while the call was under way; it may have run.
    Disconnected = "disconnected", Unavailable, Platform, true, false;
    /// The role is starting or stopping and takes no calls.
    NotServing = "not-serving", Unavailable, Platform, true, true;
    /// The computer does not have this function ready (any more).
    NotReady = "not-ready", Unavailable, Platform, true, true;
    /// A state that the function depends on cannot be brought to the computer: whoever holds it is away, or it is in use.
    StateUnavailable = "state-unavailable", Unavailable, Platform, true, true;
    /// Somebody else has written a state that the call was about to write. Nothing of the call was written.
    StateConflict = "state-conflict", Aborted, Load, true, false;
    /// The states that the call was about to write could not be; nothing of them was.
    StateUnsaved = "state-unsaved", Unavailable, Platform, true, false;
    /// What was asked for is not allowed here.
    NotAllowed = "not-allowed", PermissionDenied, Caller, false, true;
    /// The caller did not prove who it is.
    Unauthenticated = "unauthenticated", Unauthenticated, Caller, false, true;
    /// Passed on too often: brokers forward to each other in a circle.
    LoopDetected = "loop-detected", FailedPrecondition, Platform, false, true;
    /// The peer speaks another version of the protocol.
    Protocol = "protocol", FailedPrecondition, Platform, false, true;
    /// The caller went away.
    Cancelled = "cancelled", Cancelled, Caller, false, false;
    /// A defect of the platform.
    Internal = "internal", Internal, Platform, false, false;
}

/// A failure of the platform: why, in words that say what to do, and when a retry makes sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PlatformError {
    /// Why.
    pub reason: Reason,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// Not to be tried again before this much time, where the platform knows.
    pub retry_after: Option<Duration>,
}

impl PlatformError {
    /// A failure for this reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }

    /// The same failure with the least time to wait before a retry.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// [`Reason::Malformed`] with this message.
    pub fn malformed(message: impl fmt::Display) -> Self {
        Self::new(Reason::Malformed, message.to_string())
    }

    /// [`Reason::UnknownFunction`] for this name.
    pub fn unknown_function(name: impl fmt::Display) -> Self {
        Self::new(Reason::UnknownFunction, format!("no function {name} is deployed; `nigh ls` lists those that are"))
    }
}

impl From<crate::name::NameError> for PlatformError {
    fn from(error: crate::name::NameError) -> Self {
        Self::malformed(error)
    }
}

impl From<PlatformError> for Status {
    fn from(error: PlatformError) -> Self {
        let mut end = error.message.len().min(MESSAGE_BYTES_MAX);
        while !error.message.is_char_boundary(end) {
            end -= 1;
        }
        let mut status = Self::new(error.reason.code(), &error.message[..end]);
        status.metadata_mut().insert(REASON_KEY, MetadataValue::from_static(error.reason.word()));
        if let Some(wait) = error.retry_after {
            // Rounded up: a caller that waits just this long must not come too early.
            status.metadata_mut().insert(
                RETRY_AFTER_KEY,
                MetadataValue::from(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)),
            );
        }
        status
    }
}

impl From<Status> for PlatformError {
    /// A status that names a reason comes from a role of the platform; any other was made by the connection itself (or
    /// by something that is no part of Nigh), and is judged by its code.
    fn from(status: Status) -> Self {
        let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
        let named = text(REASON_KEY).and_then(Reason::of_word);
        let retry_after = text(RETRY_AFTER_KEY).and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        if named.is_none()
            && let Some(why) = refusal::in_status(&status)
        {
            return Self { reason: Reason::Unreachable, message: why, retry_after };
        }
        let reason = named.unwrap_or_else(|| reason_of_code(&status));
        Self { reason, message: status.message().to_owned(), retry_after }
    }
}

/// Whether a status was made by a role of the platform, and not by the connection to it.
pub fn names_reason(status: &Status) -> bool {
    status.metadata().contains_key(REASON_KEY)
}

/// Why a request never reached its peer, where TLS kept it from doing so: the words say what to do.
pub fn refused_by_tls(status: &Status) -> Option<String> {
    refusal::in_status(status)
}

/// What is at the bottom of a status that was made on this side; the layers above say no more than that there is one.
/// `None` for one that came over the wire.
pub fn innermost_cause(status: &Status) -> Option<String> {
    let cause = std::error::Error::source(status)?;
    Some(refusal::in_status(status).unwrap_or_else(|| innermost(cause)))
}

/// What is at the bottom of a failure.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn reason_of_code(status: &Status) -> Reason {
    match status.code() {
        Code::DeadlineExceeded => Reason::Late,
        Code::OutOfRange => Reason::TooLarge,
        Code::InvalidArgument => Reason::Malformed,
        Code::NotFound => Reason::UnknownFunction,
        Code::ResourceExhausted => Reason::OutOfBudget,
        Code::PermissionDenied => Reason::NotAllowed,
        Code::Unauthenticated => Reason::Unauthenticated,
        Code::Unimplemented | Code::FailedPrecondition => Reason::Protocol,
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled if never_sent(status) => {
            Reason::Unreachable
        }
        // The server's own time-out answers so, and so does a client-side time-out of the channel.
        Code::Cancelled if status.message().contains("Timeout expired") => Reason::Late,
        // A connection that breaks under a call shows as one of these, by where in the stack it is noticed.
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted => Reason::Disconnected,
        Code::Ok | Code::AlreadyExists | Code::DataLoss => Reason::Internal,
    }
}

/// Whether the request never reached the peer, or the peer says that it did not look at it, so that the call cannot have
/// started: no connection could be made, the connection closed with the request still waiting for its turn, or the peer
/// is closing down and refused the stream.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let still_waiting = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        let refused = error.downcast_ref::<h2::Error>().is_some_and(|error| {
            // Closing down without an error, a peer names the last stream it has looked at; those up to it go on, those
            // after it end so (RFC 9113, section 6.8).
            let unprocessed = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            error.is_remote() && (unprocessed || error.reason() == Some(h2::Reason::REFUSED_STREAM))
        });
        if error.is::<tonic::ConnectError>() || still_waiting || refused {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for &reason in Reason::ALL {
            let error = PlatformError::new(reason, "what to do").retry_after(Duration::from_millis(7));
            let status = Status::from(error.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(PlatformError::from(status), error);
        }
    }

    #[test]
    fn a_retry_delay_is_rounded_up_to_milliseconds() {
        let status = Status::from(PlatformError::new(Reason::QueueFull, "").retry_after(Duration::from_micros(1)));
        assert_eq!(PlatformError::from(status).retry_after, Some(Duration::from_millis(1)));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let status = Status::from(PlatformError::malformed("ä".repeat(2000)));
        assert!(status.message().len() <= MESSAGE_BYTES_MAX);
        assert!(status.message().chars().all(|c| c == 'ä'));
    }

    #[test]
    fn a_status_without_a_reason_is_judged_by_its_code() {
        assert_eq!(PlatformError::from(Status::new(Code::Unknown, "h2 protocol error")).reason, Reason::Disconnected);
        assert_eq!(PlatformError::from(Status::new(Code::Cancelled, "Timeout expired")).reason, Reason::Late);
        assert_eq!(PlatformError::from(Status::new(Code::OutOfRange, "too large")).reason, Reason::TooLarge);
    }
}
