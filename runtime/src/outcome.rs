//! From the way a guest ended to what its caller is told.

use nigh_proto::{Limits, Outcome, PlatformError, Reason};
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::ResourceTableError;

use crate::engine::STACK_BYTES;
use crate::host::{Guest, Stop};
use crate::logs::printable;

/// Bytes of an error's kind, at most.
const KIND_BYTES_MAX: usize = 64;
/// Bytes of an error's message, at most.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Kinds of errors of functions that want more than they may have, at once and each time. Those that ran out of time are not among
/// them: what they wait for may come back.
pub(crate) const BREACHES: [&str; 5] = ["memory-limit", "table-limit", "file-limit", "stack-limit", "answer-too-large"];

/// A guest that came to no outcome by itself.
pub(crate) type Failure = wasmtime::Error;

/// An outcome for which the function is to blame.
pub(crate) fn error(kind: &str, message: impl Into<String>) -> Outcome {
    Outcome::Error { kind: kind.to_owned(), message: message.into() }
}

/// The function's own error, made presentable.
pub(crate) fn function_error(kind: &[u8], message: &[u8]) -> Outcome {
    let kind = printable(&kind[..kind.len().min(KIND_BYTES_MAX)]);
    let kind = kind.trim();
    let message = printable(&message[..message.len().min(MESSAGE_BYTES_MAX)]);
    error(if kind.is_empty() { "failed" } else { kind }, message)
}

/// The function answered with more than it may.
pub(crate) fn answer_too_large(bytes_max: u64) -> Outcome {
    error(
        "answer-too-large",
        format!("the function's answer is over its limit of {bytes_max} bytes; deploy it with a larger payload limit"),
    )
}

/// Judges a guest that was ended, by itself or by the host.
pub(crate) fn of_failure(failure: &Failure, guest: &Guest) -> Result<Outcome, PlatformError> {
    let limits = &guest.version().deployment.limits;
    if let Some(stop) = failure.downcast_ref::<Stop>() {
        return of_stop(*stop, limits);
    }
    if is_want_of_room(failure) {
        let message = "the computer has no room for another instance; try again, or another computer";
        return Err(PlatformError::new(Reason::OutOfBudget, message));
    }
    if let Some(message) = &guest.panic {
        return Ok(error("panic", message.clone()));
    }
    let trap = failure.downcast_ref::<Trap>();
    if guest.is_out_of_memory {
        let message = format!(
            "the function wanted more memory than its limit of {} bytes; deploy it with a higher --memory, or give it less to do",
            limits.memory_bytes
        );
        return Ok(error("memory-limit", message));
    }
    if guest.is_out_of_table {
        let message = format!(
            "the function wanted more elements in a table than its limit of {}; deploy it with more --table-elements",
            limits.table_elements
        );
        return Ok(error("table-limit", message));
    }
    if matches!(failure.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
        let message = format!(
            "the function wanted to have more files and directories open than its limit of {}; have it close some, or deploy it with more --open-files",
            limits.open_files
        );
        return Ok(error("file-limit", message));
    }
    if trap == Some(&Trap::StackOverflow) {
        let message = format!(
            "the function's calls are nested deeper than its stack of {STACK_BYTES} bytes allows; does it recurse without end?"
        );
        return Ok(error("stack-limit", message));
    }
    // The innermost reason is the one that says what the guest did.
    let reason = trap.map_or_else(|| failure.root_cause().to_string(), ToString::to_string);
    Ok(error("trap", format!("the function trapped: {reason}; `nigh logs` shows what it said before")))
}

/// Whether the computer has no place for another instance: none in its pool or, where it has no pool, no memory or address
/// space. Only what makes an instance fails so; a guest that runs is told that its memory does not grow.
pub(crate) fn is_want_of_room(failure: &Failure) -> bool {
    let is_of_host = |errno: &rustix::io::Errno| *errno == rustix::io::Errno::NOMEM;
    let is_of_memory = |error: &std::io::Error| error.kind() == std::io::ErrorKind::OutOfMemory;
    failure.is::<PoolConcurrencyLimitError>()
        || failure.downcast_ref().is_some_and(is_of_host)
        || failure.downcast_ref().is_some_and(is_of_memory)
}

fn of_stop(stop: Stop, limits: &Limits) -> Result<Outcome, PlatformError> {
    match stop {
        Stop::TimeLimit => {
            let ms = limits.timeout.as_millis();
            let message = format!(
                "the function ran into its time limit of {ms} ms; deploy it with a higher --timeout, or give it less to do"
            );
            Ok(error("time-limit", message))
        }
        Stop::AnswerTooLarge => Ok(answer_too_large(limits.payload_bytes)),
        Stop::Late => Err(late_running()),
        Stop::Cancelled => {
            Err(PlatformError::new(Reason::Cancelled, "the caller went away, so the function was ended"))
        }
        Stop::Stopping => Err(stopped_running()),
    }
}

/// The computer ends before a call has.
pub(crate) fn stopped_running() -> PlatformError {
    PlatformError::new(Reason::Disconnected, "the computer stopped before the call had ended; try another")
}

/// The caller's deadline passed while the function ran.
pub(crate) fn late_running() -> PlatformError {
    PlatformError::new(Reason::Late, "the deadline passed while the function ran; give the call more time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_memory_is_not_the_functions_fault() {
        let failed = |error: Failure| error.context("mmap failed to allocate 0x10000 bytes");
        assert!(is_want_of_room(&failed(rustix::io::Errno::NOMEM.into())));
        assert!(is_want_of_room(&failed(std::io::Error::from(std::io::ErrorKind::OutOfMemory).into())));
        assert!(!is_want_of_room(&failed(rustix::io::Errno::INVAL.into())));
        assert!(!is_want_of_room(&Trap::UnreachableCodeReached.into()));
    }

    #[test]
    fn a_functions_own_words_are_bounded_and_printable() {
        let Outcome::Error { kind, message } = function_error(&[b'k'; 100], &[b'm'; 10_000]) else { panic!() };
        assert_eq!((kind.len(), message.len()), (KIND_BYTES_MAX, MESSAGE_BYTES_MAX));
        assert_eq!(function_error(b" \n", b"\x1b"), error("failed", "\\u{1b}"));
    }
}
