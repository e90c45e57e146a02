//! The forwarding table: every function's destinations, and all that is decided and learnt about them.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use rand::Rng;

use crate::health::Health;
use crate::outcome::{Demand, Observation, Pick, PickError, Scope, View};
use crate::peer::Peers;
use crate::percentile::Latencies;
use crate::policy::Strategy;
use crate::route::Route;

/// Functions of type `F`, each with destinations of type `K`. Times are counted from an arbitrary start.
///
/// These are two tables in one: the [overall](Scope::Overall) one has every destination, the [final](Scope::Final) one only
/// those that run calls themselves. Each learns by itself; that a destination is dead is known to both at once.
///
/// Neither choosing nor learning allocates. With `n` destinations both take `O(log n)`, but for round robin where the least
/// weight changes (it tells anew who is light enough to take turns) and for proportional fairness, whose scores change with
/// time: there `O(n)`, as for estimators, which look at everyone.
#[derive(Debug)]
pub struct Table<F, K> {
    strategy: Strategy,
    functions: HashMap<F, Function<K>>,
    peers: Peers<K>,
    /// The last id given to a function's destination, so that what calls report is not taken for news of a later one.
    last_id: u64,
}

/// A destination as it is put into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<K> {
    /// Which.
    pub destination: K,
    /// It runs calls itself, so calls that have passed a broker may go there; false for another broker.
    pub is_final: bool,
}

/// One function's destinations in both tables.
#[derive(Debug)]
struct Function<K> {
    overall: Route<K>,
    last: Route<K>,
    latencies: Latencies,
}

impl<K: Clone + Eq + Hash> Function<K> {
    fn new(strategy: &Strategy) -> Self {
        Self { overall: Route::new(strategy), last: Route::new(strategy), latencies: Latencies::default() }
    }

    fn route(&self, scope: Scope) -> &Route<K> {
        match scope {
            Scope::Overall => &self.overall,
            Scope::Final => &self.last,
        }
    }

    fn route_mut(&mut self, scope: Scope) -> &mut Route<K> {
        match scope {
            Scope::Overall => &mut self.overall,
            Scope::Final => &mut self.last,
        }
    }

    fn hear(&mut self, destination: &K, news: Health, now: Duration) {
        self.overall.hear(destination, news, now);
        self.last.hear(destination, news, now);
    }
}

impl<F: Eq + Hash, K: Clone + Eq + Hash> Table<F, K> {
    /// An empty table.
    pub fn new(strategy: impl Into<Strategy>) -> Self {
        Self { strategy: strategy.into(), functions: HashMap::new(), peers: Peers::default(), last_id: 0 }
    }

    /// How destinations are chosen.
    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// Puts these destinations in place of a function's; what was learnt of those that stay is kept. A function may have
    /// none: it is known, but nobody serves it. Ties are broken by this order; a repeated destination counts once.
    pub fn set_destinations(&mut self, function: F, destinations: &[Member<K>], now: Duration) {
        let strategy = self.strategy;
        let function = self.functions.entry(function).or_insert_with(|| Function::new(&strategy));
        for scope in Scope::ALL {
            let keys = || destinations.iter().filter(|member| scope.admits(member.is_final)).map(|it| &it.destination);
            let route = function.route_mut(scope);
            if !route.is(keys()) {
                route.set(keys().cloned(), &mut self.last_id, &mut self.peers, now);
            }
        }
    }

    /// Forgets a function and all that was learnt about its destinations.
    pub fn remove_function<Q: Eq + Hash + ?Sized>(&mut self, function: &Q)
    where
        F: Borrow<Q>,
    {
        if let Some(function) = self.functions.remove(function) {
            function.overall.leave(&mut self.peers);
            function.last.leave(&mut self.peers);
        }
    }

    /// Sets a destination's latency in milliseconds (> 0), to stand until measurements replace it; false where the
    /// function has no such destination.
    pub fn set_latency<Q: Eq + Hash + ?Sized>(&mut self, function: &Q, destination: &K, ms: f64, now: Duration) -> bool
    where
        F: Borrow<Q>,
    {
        self.functions.get_mut(function).is_some_and(|function| {
            function.last.set_latency(destination, ms, now);
            function.overall.set_latency(destination, ms, now)
        })
    }

    /// Chooses a destination in the demand's scope, and not the excluded one, where this call has failed already.
    ///
    /// A destination that is due to be tried (set aside until now, or never measured) is chosen before the policy is
    /// asked, and so is, once in a while, one long not measured; unless one is excluded: finding out is for first tries.
    /// Where all are dead, the one next due is chosen before its time, though still only one call at a time.
    ///
    /// # Errors
    /// [`PickError`]: there is nobody to choose.
    pub fn pick<Q: Eq + Hash + ?Sized>(
        &mut self,
        function: &Q,
        demand: Demand<'_, K>,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Result<Pick<K>, PickError>
    where
        F: Borrow<Q>,
    {
        let function = self.functions.get_mut(function).ok_or(PickError::UnknownFunction)?;
        let (pick, news) = function.route_mut(demand.scope).pick(demand, &mut self.peers, now, rng)?;
        self.tell(&pick.destination, news, now);
        Ok(pick)
    }

    /// Chooses this destination, if it is in the demand's scope and in use: where the destinations themselves were asked.
    pub fn pick_one<Q: Eq + Hash + ?Sized>(
        &mut self,
        function: &Q,
        destination: &K,
        demand: Demand<'_, K>,
        now: Duration,
    ) -> Option<Pick<K>>
    where
        F: Borrow<Q>,
    {
        let function = self.functions.get_mut(function)?;
        function.route_mut(demand.scope).pick_one(destination, demand, &mut self.peers, now)
    }

    /// The destinations that a call may go to, in their order.
    pub fn in_use<'a, Q: Eq + Hash + ?Sized>(
        &'a self,
        function: &Q,
        demand: Demand<'a, K>,
    ) -> impl Iterator<Item = &'a K>
    where
        F: Borrow<Q>,
    {
        let function = self.functions.get(function).into_iter();
        function.flat_map(move |function| function.route(demand.scope).in_use(demand.exclude))
    }

    /// The destination that would answer soonest, as far as the policy knows. Unlike [`pick`](Self::pick) it counts
    /// nothing and finds nothing out: for calls that only ask how long a call would take.
    ///
    /// # Errors
    /// [`PickError`]: there is nobody to choose.
    pub fn cheapest<Q: Eq + Hash + ?Sized>(
        &self,
        function: &Q,
        demand: Demand<'_, K>,
        now: Duration,
    ) -> Result<K, PickError>
    where
        F: Borrow<Q>,
    {
        let function = self.functions.get(function).ok_or(PickError::UnknownFunction)?;
        function.route(demand.scope).cheapest(demand, &self.peers, now)
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
        let report = match &observation {
            Observation::Answered { report, .. } => Some(report),
            _ => None,
        };
        self.peers.end(pick.peer, report, now);
        let Some(function) = self.functions.get_mut(function) else { return };
        if let Observation::Answered { latency, .. } = observation {
            function.latencies.record(latency);
        }
        let news = function.route_mut(pick.scope).observe(pick, observation, now);
        self.tell(&pick.destination, news, now);
    }

    /// There is reason to think that a dead destination is back, such as that it can be connected to: the next call may try
    /// it, however long it has been dead.
    pub fn may_be_back(&mut self, destination: &K, now: Duration) {
        for function in self.functions.values_mut() {
            function.overall.may_be_back(destination, now);
            function.last.may_be_back(destination, now);
        }
    }

    /// The time within which this percentage of a function's calls of late was answered; nothing where there were too few
    /// to tell.
    pub fn percentile<Q: Eq + Hash + ?Sized>(&self, function: &Q, percent: u32) -> Option<Duration>
    where
        F: Borrow<Q>,
    {
        self.functions.get(function)?.latencies.percentile(percent)
    }

    /// Every function, in no particular order.
    pub fn functions(&self) -> impl Iterator<Item = &F> {
        self.functions.keys()
    }

    /// One function's destinations in their order; none where the table does not have the function.
    pub fn destinations<Q: Eq + Hash + ?Sized>(
        &self,
        function: &Q,
        scope: Scope,
    ) -> Option<impl Iterator<Item = View<'_, K>>>
    where
        F: Borrow<Q>,
    {
        self.functions.get(function).map(|function| function.route(scope).views())
    }

    fn tell(&mut self, destination: &K, news: Option<Health>, now: Duration) {
        if let Some(news) = news {
            self.functions.values_mut().for_each(|function| function.hear(destination, news, now));
        }
    }
}
