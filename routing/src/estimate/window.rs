//! The samples of late: the last few, and none too old.

use std::collections::VecDeque;
use std::time::Duration;

use super::Samples;
use crate::conf::ConfError;

/// A moving window over samples, which are added in the order of their times.
#[derive(Debug, Clone)]
pub struct Window<T> {
    held: VecDeque<(Duration, T)>,
    samples: Samples,
}

impl<T: Copy> Window<T> {
    /// An empty window.
    ///
    /// # Errors
    /// [`ConfError::Value`] where it would hold nothing.
    pub fn new(samples: Samples) -> Result<Self, ConfError> {
        if samples.window == 0 {
            let (key, value) = ("window-size".to_owned(), "0".to_owned());
            return Err(ConfError::Value { key, value, expected: "a number above 0" });
        }
        Ok(Self::of(samples))
    }

    /// One of a size that was checked.
    pub(super) fn of(samples: Samples) -> Self {
        Self { held: VecDeque::new(), samples }
    }

    /// Adds a sample; the oldest gives way to it where there are too many, and so do those that are too old.
    pub fn push(&mut self, sample: T, now: Duration) {
        while self.held.len() >= self.samples.window || self.goes_stale().is_some_and(|at| at < now) {
            self.held.pop_front();
        }
        self.held.push_back((now, sample));
    }

    /// The samples that are not too old, oldest first.
    pub fn fresh(&self, now: Duration) -> impl Iterator<Item = T> + Clone {
        let stale = self.samples.stale;
        let is_stale = move |at: Duration| stale.is_some_and(|stale| at + stale < now);
        self.held.iter().skip_while(move |(at, _)| is_stale(*at)).map(|(_, sample)| *sample)
    }

    /// When the oldest sample gets too old.
    pub(super) fn goes_stale(&self) -> Option<Duration> {
        let (oldest, _) = self.held.front()?;
        self.samples.stale.map(|stale| *oldest + stale)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
