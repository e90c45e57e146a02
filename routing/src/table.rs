//! The forwarding table: every function's destinations, and all that is decided and learnt about them.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use rand::Rng;

use crate::health::Health;
use crate::outcome::{Observation, Pick, PickError, View};
use crate::policy::PolicyKind;
use crate::route::Route;

/// Functions of type `F`, each with destinations of type `K`. Times are counted from an arbitrary start.
///
/// Neither choosing nor learning allocates. With `n` destinations both take `O(log n)`, but round robin's learning
/// `O(n)`, since it tells anew who is fast enough to take turns.
#[derive(Debug)]
pub struct Table<F, K> {
    policy: PolicyKind,
    functions: HashMap<F, Route<K>>,
    /// The last id given to a function's destination, so that what calls report is not taken for news of a later one.
    last_id: u64,
}

impl<F: Eq + Hash, K: Clone + Eq + Hash> Table<F, K> {
    /// An empty table.
    pub fn new(policy: PolicyKind) -> Self {
        Self { policy, functions: HashMap::new(), last_id: 0 }
    }

    /// How destinations are chosen.
    pub fn policy(&self) -> PolicyKind {
        self.policy
    }

    /// Puts these destinations in place of a function's; what was learnt of those that stay is kept. A function may have
    /// none: it is known, but nobody serves it. Ties are broken by this order; a repeated destination counts once.
    pub fn set_destinations(&mut self, function: F, destinations: &[K], now: Duration) {
        let policy = self.policy;
        let route = self.functions.entry(function).or_insert_with(|| Route::new(policy));
        if !route.is(destinations) {
            route.set(destinations.iter().cloned(), &mut self.last_id, now);
        }
    }

    /// Forgets a function and all that was learnt about its destinations.
    pub fn remove_function<Q: Eq + Hash + ?Sized>(&mut self, function: &Q)
    where
        F: Borrow<Q>,
    {
        self.functions.remove(function);
    }

    /// Sets a destination's latency in milliseconds (> 0), to stand until measurements replace it; false where the
    /// function has no such destination.
    pub fn set_latency<Q: Eq + Hash + ?Sized>(&mut self, function: &Q, destination: &K, ms: f64) -> bool
    where
        F: Borrow<Q>,
    {
        self.functions.get_mut(function).is_some_and(|route| route.set_latency(destination, ms))
    }

    /// Chooses a destination other than `exclude`, which is the one where this call has failed already.
    ///
    /// A destination that is due to be tried (set aside until now, or never measured) is chosen before the policy is
    /// asked, and so is, once in a while, one long not measured; unless one is excluded: finding out is for first tries. Where all are dead, the one next due is
    /// chosen before its time, though still only one call at a time.
    ///
    /// # Errors
    /// [`PickError`]: there is nobody to choose.
    pub fn pick<Q: Eq + Hash + ?Sized>(
        &mut self,
        function: &Q,
        exclude: Option<&K>,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Result<Pick<K>, PickError>
    where
        F: Borrow<Q>,
    {
        let route = self.functions.get_mut(function).ok_or(PickError::UnknownFunction)?;
        let (pick, news) = route.pick(exclude, now, rng)?;
        self.tell(&pick.destination, news);
        Ok(pick)
    }

    /// Learns from what became of a call. A function or destination removed meanwhile has nothing to learn.
    pub fn observe<Q: Eq + Hash + ?Sized>(
        &mut self,
        function: &Q,
        pick: &Pick<K>,
        observation: Observation,
        now: Duration,
    ) where
        F: Borrow<Q>,
    {
        let news = self.functions.get_mut(function).and_then(|route| route.observe(pick, observation, now));
        self.tell(&pick.destination, news);
    }

    /// Every function and its destinations, in no particular order.
    pub fn functions(&self) -> impl Iterator<Item = (&F, impl Iterator<Item = View<'_, K>>)> {
        self.functions.iter().map(|(function, route)| (function, route.views()))
    }

    /// One function's destinations in their order; none where the table does not have the function.
    pub fn destinations<Q: Eq + Hash + ?Sized>(&self, function: &Q) -> Option<impl Iterator<Item = View<'_, K>>>
    where
        F: Borrow<Q>,
    {
        self.functions.get(function).map(Route::views)
    }

    fn tell(&mut self, destination: &K, news: Option<Health>) {
        if let Some(news) = news {
            self.functions.values_mut().for_each(|route| route.hear(destination, news));
        }
    }
}
