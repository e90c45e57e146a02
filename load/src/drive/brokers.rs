//! Several brokers at once: each call goes to the one that answered last, and with some probability to each other one too.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nigh_proto::{Call, Endpoint, Outcome, PlatformError, Reason, Reply};
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;

use super::Target;
use crate::dice::{self, Purpose};
use crate::workload::CLIENTS_MAX;

/// Brokers called at once, at most.
pub const BROKERS_MAX: usize = 64;

/// Why these brokers cannot be called.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BrokersError {
    /// There is none.
    #[error("no broker to call; name one with --to HOST:PORT")]
    None,
    /// There are too many.
    #[error("{0} brokers; at most {BROKERS_MAX} can be called at once")]
    TooMany(usize),
    /// Not a probability.
    #[error("a persistence of {0}: it is a probability, from 0 to 1")]
    Persistence(f64),
}

/// Whom calls go to.
///
/// Each client has a broker of its own that it asks first: the one that answered its last call. Further ones are asked as well,
/// each with probability `persistence`. The first answer counts and makes its broker the first one; the other tries are
/// cancelled.
#[derive(Debug)]
pub struct Brokers<T> {
    targets: Vec<(Endpoint, T)>,
    persistence: f64,
    /// The first broker of each client, by place.
    first: Vec<AtomicUsize>,
}

impl<T: Target> Brokers<T> {
    /// For so many clients.
    ///
    /// # Errors
    /// [`BrokersError`].
    pub fn new(targets: Vec<(Endpoint, T)>, persistence: f64, clients: u32) -> Result<Self, BrokersError> {
        match targets.len() {
            0 => return Err(BrokersError::None),
            1..=BROKERS_MAX => {}
            many => return Err(BrokersError::TooMany(many)),
        }
        if !(0.0..=1.0).contains(&persistence) {
            return Err(BrokersError::Persistence(persistence));
        }
        let first = (0..clients.clamp(1, CLIENTS_MAX)).map(|_| AtomicUsize::new(0)).collect();
        Ok(Self { targets, persistence, first })
    }

    /// Draws for each call of these clients the brokers that it also goes to.
    pub(super) fn draws(&self, seed: u64, clients: u32) -> Draws {
        Draws((0..clients).map(|client| self.draws_of(seed, client)).collect())
    }

    pub(super) fn draws_of(&self, seed: u64, client: u32) -> DrawsOf {
        let brokers = if self.targets.len() > 1 && self.persistence > 0.0 { self.targets.len() } else { 0 };
        let dice = dice::stream(seed, client, Purpose::Persistence);
        DrawsOf { brokers, persistence: self.persistence, dice }
    }

    /// Makes a call of a client: to the broker named, or to its first and to those in the set `also`.
    pub(super) async fn call(
        &self,
        client: u32,
        broker: Option<u32>,
        also: u64,
        call: Call,
    ) -> Result<Reply, PlatformError> {
        if let Some(named) = broker.and_then(|place| self.targets.get(usize::try_from(place).ok()?)) {
            return named.1.call(call).await;
        }
        let client = usize::try_from(client).unwrap_or(usize::MAX) % self.first.len();
        let first = self.first[client].load(Ordering::Relaxed) % self.targets.len();
        let asked = also | 1 << first;
        if asked.count_ones() == 1 {
            let (endpoint, target) = &self.targets[first];
            let reply = target.call(call).await;
            return if self.targets.len() > 1 { reply.map(|reply| from(reply, endpoint)) } else { reply };
        }
        let places = (0..self.targets.len()).filter(|place| asked & 1 << place != 0);
        let tries = places.map(|place| {
            let ((endpoint, target), call) = (&self.targets[place], call.clone());
            async move { (place, target.call(call).await.map(|reply| from(reply, endpoint))) }
        });
        let mut tries: FuturesUnordered<_> = tries.collect();
        let mut worst = Err(PlatformError::new(Reason::Unreachable, "no broker answered"));
        while let Some((place, outcome)) = tries.next().await {
            let is_answer = |reply: &Reply| !matches!(reply.outcome, Outcome::Error { .. });
            if outcome.as_ref().is_ok_and(is_answer) {
                self.first[client].store(place, Ordering::Relaxed);
                return outcome;
            }
            // What a function says tells more than that a broker is away.
            if outcome.is_ok() || worst.is_err() {
                worst = outcome;
            }
        }
        worst
    }
}

/// A reply with the place where it came from, if it does not say a better one.
fn from(mut reply: Reply, endpoint: &Endpoint) -> Reply {
    reply.responder.get_or_insert_with(|| endpoint.clone());
    reply
}

/// The draws of all clients.
#[derive(Debug)]
pub(super) struct Draws(Vec<DrawsOf>);

impl Draws {
    pub(super) fn draw(&mut self, client: u32) -> u64 {
        let place = usize::try_from(client).unwrap_or(usize::MAX);
        self.0.get_mut(place).map_or(0, DrawsOf::draw)
    }
}

/// The draws of one client.
#[derive(Debug)]
pub(super) struct DrawsOf {
    brokers: usize,
    persistence: f64,
    dice: ChaCha8Rng,
}

impl DrawsOf {
    /// The set of brokers that the next call also goes to. The first is drawn like the others, so that the same seed gives
    /// the same draws whichever is the first.
    pub(super) fn draw(&mut self) -> u64 {
        (0..self.brokers).fold(0, |set, place| set | u64::from(self.dice.random_bool(self.persistence)) << place)
    }
}
