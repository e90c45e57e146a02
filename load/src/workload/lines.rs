//! Lines of files from elsewhere, none of them longer than a limit.

use std::io::{BufRead, Read as _};

use super::WorkloadError;

/// Bytes of a line, at most; a day of a function by minutes has some ten thousand.
const LINE_BYTES_MAX: u64 = 256 << 10;

/// Reads lines one by one into the same memory.
#[derive(Debug)]
pub(super) struct Lines<R> {
    source: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, line: Vec::new(), number: 0 }
    }

    /// The next line that is not blank, with its number from 1.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &str)>, WorkloadError> {
        loop {
            self.line.clear();
            self.number += 1;
            let number = self.number;
            let read = self.source.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut self.line);
            let read = read.map_err(|error| WorkloadError::new(format!("line {number}: cannot be read: {error}")))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 > LINE_BYTES_MAX {
                return Err(WorkloadError::new(format!(
                    "line {number}: over {LINE_BYTES_MAX} bytes; is this a trace?"
                )));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let number = self.number;
        let line = std::str::from_utf8(self.line.trim_ascii());
        line.map(|line| Some((number, line)))
            .map_err(|_| WorkloadError::new(format!("line {number}: not text (UTF-8); is this a trace?")))
    }
}

/// What is wrong with a line, its beginning included.
pub(super) fn malformed(number: u64, what: &str, line: &str) -> WorkloadError {
    let shown: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
    WorkloadError::new(format!("line {number}: {what}: {shown:?}"))
}
