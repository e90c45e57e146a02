//! What is called, and when: a pure description, of which the same seed makes the same calls however many threads make them.

mod arrivals;
mod azure;
mod bodies;
mod gaps;
mod lines;
mod merge;
mod timetable;

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;

pub use self::arrivals::{Arrivals, Within};
pub use self::azure::{Scale, invocations, minutes, replay};
pub use self::bodies::{Body, Fill, PAYLOAD_BYTES_MAX, Payloads, Sizes};
pub use self::gaps::Gaps;
pub use self::merge::Merged;
pub use self::timetable::{Entry, Generator, Timetable};

use self::arrivals::Instants;
use crate::dice::{self, Purpose};

/// Clients of one workload, at most.
pub const CLIENTS_MAX: u32 = 100_000;

/// What is wrong with a workload, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WorkloadError(pub(crate) String);

impl WorkloadError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// One call to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When, from the start of the run.
    pub at: Duration,
    /// From when on it is of no use any more, so that a client that is busy until then leaves it out.
    pub expires: Option<Duration>,
    /// Which client makes it.
    pub client: u32,
    /// Which of the functions, by place.
    pub function: u32,
    /// What is sent.
    pub body: Body,
    /// Which of the brokers, by place, where the workload itself says so.
    pub broker: Option<u32>,
}

/// Which functions are called with which payloads.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Shares of the functions, added up.
    shares: Vec<f64>,
    sizes: Sizes,
}

impl Mix {
    /// Functions with these shares of the calls, by place, and payloads of these sizes.
    ///
    /// # Errors
    /// [`WorkloadError`] where there is no share over zero, or one is no number.
    pub fn new(shares: &[f64], sizes: Sizes) -> Result<Self, WorkloadError> {
        if shares.iter().any(|share| !share.is_finite() || *share < 0.0) || shares.iter().sum::<f64>() <= 0.0 {
            return Err(WorkloadError::new("shares of functions must be numbers of 0 and more, not all of them 0"));
        }
        let mut sum = 0.0;
        let shares = shares.iter().map(|share| {
            sum += share;
            sum
        });
        Ok(Self { shares: shares.collect(), sizes })
    }

    fn draw(&self, dice: &mut ChaCha8Rng, turn: &mut u64) -> (u32, Body) {
        // One function needs no draw, so that adding one changes no sizes of payloads.
        let function = if self.shares.len() > 1 {
            let at = dice.random::<f64>() * self.shares.last().copied().unwrap_or_default();
            self.shares.partition_point(|share| *share <= at)
        } else {
            0
        };
        (u32::try_from(function).unwrap_or(u32::MAX), self.sizes.draw(dice, turn))
    }
}

/// Calls to be made: by clients that know nothing of each other, or by a timetable.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What the streams of randomness start from.
    pub seed: u64,
    /// Clients, each with streams of its own.
    pub clients: u32,
    /// When calls are due.
    pub arrivals: Arrivals,
    /// What is called.
    pub mix: Mix,
}

impl Workload {
    /// Checks the number of clients and the arrivals.
    ///
    /// # Errors
    /// [`WorkloadError`], with what may be said instead.
    pub fn check(&self) -> Result<(), WorkloadError> {
        if !(1..=CLIENTS_MAX).contains(&self.clients) {
            return Err(WorkloadError::new(format!("{} clients: use 1 to {CLIENTS_MAX}", self.clients)));
        }
        self.arrivals.check()
    }

    /// All calls in the order in which they are due, those of one instant by client.
    pub fn merged(&self) -> Merged {
        Merged::new((0..self.streams()).map(|client| self.client(client)))
    }

    /// Streams that are independent of each other: one for each client, or the one of a timetable.
    pub fn streams(&self) -> u32 {
        if matches!(self.arrivals, Arrivals::Timetable(_)) { 1 } else { self.clients }
    }

    /// The calls of one client, in order.
    pub fn client(&self, client: u32) -> ClientCalls {
        ClientCalls {
            client,
            clients: self.clients,
            instants: self.arrivals.instants(self.seed, client, self.clients),
            choices: Choices::new(self, client),
        }
    }

    /// What a client calls, one after another, where its answers say when.
    pub fn choices(&self, client: u32) -> Choices {
        Choices::new(self, client)
    }
}

/// What one client calls, without end.
#[derive(Debug)]
pub struct Choices {
    mix: Mix,
    dice: ChaCha8Rng,
    turn: u64,
}

impl Choices {
    fn new(workload: &Workload, client: u32) -> Self {
        Self {
            mix: workload.mix.clone(),
            dice: dice::stream(workload.seed, client, Purpose::Choice),
            // Clients that go through the same payloads in order do not go in step.
            turn: u64::from(client),
        }
    }

    /// The next function, by place, and what is sent to it.
    pub fn draw(&mut self) -> (u32, Body) {
        self.mix.draw(&mut self.dice, &mut self.turn)
    }
}

/// The calls of one client, in order.
#[derive(Debug)]
pub struct ClientCalls {
    client: u32,
    clients: u32,
    instants: Instants,
    choices: Choices,
}

impl Iterator for ClientCalls {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        match &mut self.instants {
            Instants::Timetable(timetable, next) => {
                let entry = *timetable.entries.get(*next)?;
                *next += 1;
                let (_, drawn) = self.choices.draw();
                let body = entry.body.unwrap_or(drawn);
                let client = u32::try_from(*next - 1).unwrap_or(u32::MAX) % self.clients;
                Some(Due { at: entry.at, expires: None, client, function: entry.function, body, broker: entry.broker })
            }
            Instants::Drawn(instants) => {
                let (at, expires) = instants.next();
                let (function, body) = self.choices.draw();
                Some(Due { at, expires, client: self.client, function, body, broker: None })
            }
        }
    }
}
