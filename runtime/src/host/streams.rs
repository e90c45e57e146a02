//! The standard streams of a guest: a program reads its payload and writes its answer; all else is text for the log.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::Stop;
use crate::logs::{self, CallLog};

/// Bytes of an unfinished line that are kept waiting for its end.
const PENDING_BYTES_MAX: usize = logs::LINE_BYTES_MAX;
/// Bytes of text between two drains (one in each millisecond that the guest runs); what is more is dropped, because the
/// log would cut it.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Bytes of standard error that an error message ends with.
const TAIL_BYTES: usize = 1024;
/// What a stream says it takes at once.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// One guest's streams. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    input: Bytes,
    output: Sink,
    errors: Sink,
}

/// Where what is written goes.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    /// Into the answer.
    Answer(Arc<Mutex<AnswerBytes>>),
    /// Into the log.
    Text(Arc<Mutex<Text>>),
}

#[derive(Debug)]
pub(crate) struct AnswerBytes {
    bytes: BytesMut,
    bytes_max: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    tail: Vec<u8>,
}

impl Streams {
    /// For a native guest: nothing to read, and what it prints is logged.
    pub(crate) fn of_native() -> Self {
        Self { input: Bytes::new(), output: Sink::text(), errors: Sink::text() }
    }

    /// For a program: the payload to read, and what it writes is its answer.
    pub(crate) fn of_command(payload: Bytes, answer_bytes_max: usize) -> Self {
        let answer = AnswerBytes { bytes: BytesMut::new(), bytes_max: answer_bytes_max };
        Self { input: payload, output: Sink::Answer(Arc::new(Mutex::new(answer))), errors: Sink::text() }
    }

    pub(super) fn stdin(&self) -> impl StdinStream + 'static {
        MemoryInputPipe::new(self.input.clone())
    }

    pub(super) fn stdout(&self) -> Sink {
        self.output.clone()
    }

    pub(super) fn stderr(&self) -> Sink {
        self.errors.clone()
    }

    /// A line of the host's own, in the log among those that the guest writes to standard error.
    pub(crate) fn note(&self, line: &str) {
        if let Sink::Text(text) = &self.errors {
            text.lock().take(format!("{line}\n").as_bytes());
        }
    }

    /// The answer written so far, taken out.
    pub(crate) fn take_answer(&self) -> Bytes {
        match &self.output {
            Sink::Answer(answer) => std::mem::take(&mut answer.lock().bytes).freeze(),
            Sink::Text(_) => Bytes::new(),
        }
    }

    /// The end of what went to standard error.
    pub(crate) fn error_tail(&self) -> String {
        match &self.errors {
            Sink::Text(text) => logs::printable(&text.lock().tail).trim_end().to_owned(),
            Sink::Answer(_) => String::new(),
        }
    }

    /// Moves the lines written to the log; at the end also one that is unfinished.
    pub(super) fn drain_lines(&self, log: &mut CallLog, is_end: bool) {
        for (sink, level) in [(&self.output, logs::INFO), (&self.errors, logs::WARN)] {
            if let Sink::Text(text) = sink {
                let lines = text.lock().take_lines(is_end);
                if !lines.is_empty() {
                    log.write(level, &lines);
                }
            }
        }
    }
}

impl Sink {
    fn text() -> Self {
        Self::Text(Arc::default())
    }

    fn take(&self, bytes: &[u8]) -> Result<(), Stop> {
        match self {
            Self::Answer(answer) => {
                let mut answer = answer.lock();
                if bytes.len() > answer.bytes_max - answer.bytes.len() {
                    return Err(Stop::AnswerTooLarge);
                }
                answer.bytes.extend_from_slice(bytes);
            }
            Self::Text(text) => text.lock().take(bytes),
        }
        Ok(())
    }
}

impl Text {
    fn take_lines(&mut self, is_end: bool) -> Vec<u8> {
        if is_end || self.bytes.len() > PENDING_BYTES_MAX {
            return std::mem::take(&mut self.bytes);
        }
        let whole = self.bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.bytes.drain(..whole).collect()
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = TEXT_BYTES_MAX - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
    }
}

impl IsTerminal for Sink {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Sink {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    // WASI p1 and p2 write through `p2_stream` alone.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {}
}

impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes).map_err(|stop| StreamError::Trap(stop.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}
