//! Telling a failure: what happened, whose fault it is, whether trying again helps.

use std::fmt;
use std::process::ExitCode;

use nigh_proto::PlatformError;
use serde_json::{Value, json};

use crate::output::{Output, OutputError};

/// The function itself failed; the platform did its part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub(super) struct FunctionFailed {
    /// A word to branch on.
    pub(super) kind: String,
    /// For people.
    pub(super) message: String,
}

/// Tells of an error on standard error, in the form that was asked for, and gives the exit status.
pub(super) fn report(error: &anyhow::Error, output: Output) -> ExitCode {
    if matches!(error.downcast_ref(), Some(OutputError::Closed)) {
        return ExitCode::SUCCESS;
    }
    if output.is_json() {
        output.note(as_json(error));
    } else if let Some(failed) = error.downcast_ref::<FunctionFailed>() {
        output.note(failed);
    } else {
        output.note(ForPeople(error));
    }
    ExitCode::FAILURE
}

fn as_json(error: &anyhow::Error) -> Value {
    let mut told = json!({ "message": format!("{error:#}") });
    if let Some(FunctionFailed { kind, message }) = error.downcast_ref() {
        told = json!({ "message": message, "kind": kind, "fault": "function", "retry_helps": false });
    } else if let Some(error) = error.downcast_ref::<PlatformError>() {
        told["reason"] = error.reason.word().into();
        told["fault"] = error.reason.fault().to_string().into();
        told["retry_helps"] = error.reason.retry_helps().into();
        told["retry_after_ms"] = error.retry_after.and_then(|wait| u64::try_from(wait.as_millis()).ok()).into();
    }
    json!({ "error": told })
}

struct ForPeople<'a>(&'a anyhow::Error);

impl fmt::Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        write!(f, "error: {error:#}")?;
        let Some(PlatformError { reason, retry_after, .. }) = error.downcast_ref() else { return Ok(()) };
        write!(f, "\n  reason: {} (fault: {})", reason.word(), reason.fault())?;
        match (reason.retry_helps(), retry_after) {
            (false, _) => f.write_str("; the same again will fail again"),
            (true, None) => f.write_str("; trying again may help"),
            (true, Some(wait)) => write!(f, "; try again after {}", humantime::format_duration(*wait)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::Context as _;
    use nigh_proto::Reason;

    use super::*;

    #[test]
    fn a_platform_error_says_whose_fault_it_is_and_when_to_try_again() {
        let full = PlatformError::new(Reason::QueueFull, "the queue is full").retry_after(Duration::from_millis(20));
        let error = Err::<(), _>(full).context("calling echo").unwrap_err();
        assert_eq!(
            ForPeople(&error).to_string(),
            "error: calling echo: the queue is full\n  reason: queue-full (fault: load); try again after 20ms"
        );
        let json = as_json(&error);
        assert_eq!(json["error"]["reason"], "queue-full");
        assert_eq!(json["error"]["retry_helps"], true);
    }

    #[test]
    fn an_error_of_the_function_is_its_own() {
        let failed = FunctionFailed { kind: "bad-input".into(), message: "not a picture".into() };
        assert_eq!(failed.to_string(), "bad-input: not a picture");
        let json = as_json(&failed.into());
        assert_eq!((&json["error"]["kind"], &json["error"]["fault"]), (&"bad-input".into(), &"function".into()));
    }
}
