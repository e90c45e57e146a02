//! Answers over HTTP, counted by status.

use std::fmt;

use crate::exposition::Exposition;
use crate::outcomes::Counts;

/// HTTP statuses: from 100 to 599.
const STATUS_MIN: u16 = 100;
const STATUSES: usize = 500;

/// How many answers there were of each status.
#[derive(Debug, Default)]
pub struct HttpResponses(Counts<STATUSES>);

impl HttpResponses {
    /// Counts one.
    pub fn count(&self, status: u16) {
        self.0.add(status.saturating_sub(STATUS_MIN).into(), 1);
    }

    /// Writes them as a metric of this name.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, name: &str, out: &mut Exposition<'_>) -> fmt::Result {
        out.counters(name, "Requests over HTTP that were answered, by status", |samples| {
            for (at, responses) in self.0.read() {
                samples.counter(&[("code", &(at + usize::from(STATUS_MIN)).to_string())], responses)?;
            }
            Ok(())
        })
    }
}
