//! The one room that writes to standard output and standard error: answers byte for byte, lines and tables for people,
//! JSON for programs.

mod table;

use std::fmt;
use std::io::{self, Write as _};

use serde::Serialize;

pub(crate) use table::{Column, Table};

/// Why something could not be written to standard output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// Whoever read it has seen enough, as `head` does. No failure of the command.
    #[error("standard output is closed")]
    Closed,
    /// Anything else, such as a full disk.
    #[error("cannot write to standard output: {0}")]
    Write(#[source] io::Error),
    /// A value without a JSON form.
    #[error("cannot be written as JSON: {0}")]
    Json(#[source] serde_json::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Write(error),
        }
    }
}

/// Where a command's results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Results as JSON, or for people.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// A result: `value` as one line of JSON, or what `for_people` makes of it.
    pub(crate) fn result<T: Serialize, P: fmt::Display>(
        self,
        value: &T,
        for_people: impl FnOnce(&T) -> P,
    ) -> Result<(), OutputError> {
        if self.json {
            let line = serde_json::to_string(value).map_err(OutputError::Json)?;
            self.line(line)
        } else {
            self.line(for_people(value))
        }
    }

    /// One or several lines to standard output; nothing for an empty text.
    pub(crate) fn line(self, text: impl fmt::Display) -> Result<(), OutputError> {
        let text = text.to_string();
        let text = text.trim_end_matches('\n');
        if text.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    /// These very bytes to standard output.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// A remark to standard error, beside the results.
    pub(crate) fn note(self, text: impl fmt::Display) {
        // Where even standard error is closed there is nobody left to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}
