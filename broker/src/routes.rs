//! The forwarding table and what it is made of: destinations announced by the controller and those set by hand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nigh_proto::{CallLimits, Endpoint, Endpoints, FunctionName, Kind, PlatformError, Reason, Remote, Tls};
use nigh_routing::{Cause, Demand, Member, Observation, Pick, PickError, Scope, State, Strategy, Table};
use nigh_telemetry::PerFunction;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::forward::{Destination, WeakConnection};
use crate::metrics::Meters;
use crate::returns::Returns;

/// Destinations set by hand, of all functions, at most.
pub(crate) const BY_HAND_MAX: usize = 65_536;
/// When to come again while the controller has not been heard of, or nobody has a function ready.
const UNKNOWN_RETRY_AFTER: Duration = Duration::from_millis(500);

/// Who serves each function: where, and whether it runs calls itself.
pub(crate) type Serving = BTreeMap<FunctionName, BTreeMap<Endpoint, bool>>;

/// The forwarding table, shared by all calls. Its lock is held for a decision or a lesson, never across an await.
#[derive(Debug)]
pub(crate) struct Routes {
    this: Weak<Self>,
    returns: Returns,
    /// Takes those that cannot be reached, for a controller of the older system.
    reports: Option<mpsc::Sender<Endpoint>>,
    table: Mutex<Table<FunctionName, Destination>>,
    plan: Mutex<Plan>,
    meters: PerFunction<Meters>,
    links: Links,
    /// Of the functions deployed.
    kinds: ArcSwap<BTreeMap<FunctionName, Kind>>,
    controller: Option<Endpoints>,
    /// The controller has told what there is, or there is none to wait for.
    in_step: AtomicBool,
    started: Instant,
}

/// How destinations are connected to.
#[derive(Debug)]
struct Links {
    limits: CallLimits,
    tls: Option<Tls>,
}

/// What the table is made of. Its lock is taken before the table's.
#[derive(Default)]
struct Plan {
    announced: Serving,
    by_hand: Serving,
    /// Connections in use, so that one endpoint has one whatever the number of its functions.
    known: HashMap<Endpoint, WeakConnection>,
}

/// One destination as listed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    pub(crate) endpoint: Endpoint,
    pub(crate) latency_ms: Option<f64>,
    pub(crate) state: State,
    pub(crate) in_flight: u32,
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) by_hand: bool,
    pub(crate) is_final: bool,
}

/// How many functions and destinations the table has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) functions: u64,
    pub(crate) in_use: u64,
    pub(crate) set_aside: u64,
    pub(crate) probing: u64,
}

impl Routes {
    /// An empty table.
    pub(crate) fn new(config: &Config, reports: Option<mpsc::Sender<Endpoint>>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            returns: Returns::default(),
            reports,
            table: Mutex::new(Table::new(config.strategy())),
            plan: Mutex::default(),
            meters: PerFunction::default(),
            links: Links { limits: config.limits.clone(), tls: config.tls.clone() },
            kinds: ArcSwap::default(),
            in_step: AtomicBool::new(config.controller.is_none()),
            controller: config.controller.clone(),
            started: Instant::now(),
        })
    }

    /// Chooses a destination in the scope, and other than the excluded one, of the demand.
    ///
    /// # Errors
    /// [`Reason::UnknownFunction`], [`Reason::NotServing`] before the controller has been heard of, [`Reason::NotReady`],
    /// [`Reason::Unreachable`] or [`Reason::QueueFull`].
    pub(crate) fn pick(
        &self,
        function: &FunctionName,
        demand: Demand<'_, Destination>,
    ) -> Result<Pick<Destination>, PlatformError> {
        let now = self.started.elapsed();
        let picked = self.table.lock().pick(function, demand, now, &mut rand::rng());
        picked.map_err(|error| self.nobody(function, demand.scope, error))
    }

    /// Chooses this destination, if it is in use.
    pub(crate) fn pick_one(
        &self,
        function: &FunctionName,
        destination: &Destination,
        demand: Demand<'_, Destination>,
    ) -> Option<Pick<Destination>> {
        let now = self.started.elapsed();
        self.table.lock().pick_one(function, destination, demand, now)
    }

    /// The destinations that a call may go to.
    pub(crate) fn in_use(&self, function: &FunctionName, demand: Demand<'_, Destination>) -> Vec<Destination> {
        self.table.lock().in_use(function, demand).cloned().collect()
    }

    /// The destination that would answer soonest, for a call that only asks how long it would take.
    ///
    /// # Errors
    /// As [`Routes::pick`].
    pub(crate) fn cheapest(
        &self,
        function: &FunctionName,
        demand: Demand<'_, Destination>,
    ) -> Result<Destination, PlatformError> {
        let now = self.started.elapsed();
        let cheapest = self.table.lock().cheapest(function, demand, now);
        cheapest.map_err(|error| self.nobody(function, demand.scope, error))
    }

    /// The time within which this percentage of the function's calls is answered, if there were enough to tell.
    pub(crate) fn percentile(&self, function: &FunctionName, percent: u32) -> Option<Duration> {
        self.table.lock().percentile(function, percent)
    }

    /// Records what became of a call.
    pub(crate) fn observe(&self, function: &FunctionName, pick: &Pick<Destination>, observation: Observation) {
        let now = self.started.elapsed();
        self.table.lock().observe(function, pick, observation, now);
        if observation == Observation::Dead {
            self.returns.look_out_for(&pick.destination, self.this.clone());
        }
    }

    /// Whoever was there cannot be connected to any more.
    pub(crate) fn is_away(&self, endpoint: &Endpoint) {
        if let Some(reports) = &self.reports
            && reports.try_send(endpoint.clone()).is_err()
        {
            tracing::debug!(%endpoint, "not reported as unreachable: too many are");
        }
    }

    /// Whoever is there can be connected to again.
    pub(crate) fn may_be_back(&self, endpoint: &Endpoint) {
        let known = self.plan.lock().known.get(endpoint).and_then(|known| known.upgrade(self.meters.unknown()));
        if let Some(destination) = known {
            self.table.lock().may_be_back(&destination, self.started.elapsed());
        }
    }

    /// Whether calls have a chance.
    pub(crate) fn is_ready(&self) -> bool {
        self.in_step.load(Ordering::Acquire) || !self.plan.lock().by_hand.is_empty()
    }

    /// As [`Routes::is_ready`].
    ///
    /// # Errors
    /// Why they have none.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        if self.is_ready() { Ok(()) } else { Err("the broker has not heard from its controller yet".to_owned()) }
    }

    /// A function's kind, if the controller has told of it.
    pub(crate) fn kind(&self, function: &FunctionName) -> Option<Kind> {
        self.kinds.load().get(function).copied()
    }

    /// Whether a function is deployed, as far as this broker knows.
    ///
    /// # Errors
    /// [`Reason::UnknownFunction`] where it certainly is not.
    pub(crate) fn check_known(&self, function: &FunctionName) -> Result<(), PlatformError> {
        let is_in_step = self.in_step.load(Ordering::Acquire);
        let is_known = self.table.lock().destinations(function, Scope::Overall).is_some();
        if is_in_step && !is_known { Err(PlatformError::unknown_function(function)) } else { Ok(()) }
    }

    /// How destinations are chosen.
    pub(crate) fn strategy(&self) -> Strategy {
        *self.table.lock().strategy()
    }

    /// Puts what the controller knows in place of what it knew; all at once for the calls. What was learnt of
    /// destinations that stay is kept.
    pub(crate) fn announce(&self, announced: Serving, kinds: BTreeMap<FunctionName, Kind>) {
        self.kinds.store(Arc::new(kinds));
        let mut plan = self.plan.lock();
        let before = std::mem::replace(&mut plan.announced, announced);
        let after = &plan.announced;
        let changed: BTreeSet<FunctionName> = before
            .keys()
            .chain(after.keys())
            .filter(|&function| before.get(function) != after.get(function))
            .cloned()
            .collect();
        self.apply(&mut plan, changed.iter());
        self.in_step.store(true, Ordering::Release);
    }

    /// Adds a destination by hand, or makes an announced one stay, with this latency in milliseconds until measured. In
    /// the final table only if it `is_final`.
    ///
    /// # Errors
    /// [`Reason::Malformed`] for a latency that is none; [`Reason::OutOfBudget`] beyond [`BY_HAND_MAX`] destinations.
    pub(crate) fn set_by_hand(
        &self,
        function: &FunctionName,
        endpoint: &Endpoint,
        latency_ms: Option<f64>,
        is_final: bool,
    ) -> Result<(), PlatformError> {
        if let Some(weight) = latency_ms.filter(|ms| !(ms.is_finite() && *ms > 0.0)) {
            return Err(PlatformError::malformed(format!("weight {weight}: give a latency in milliseconds above 0")));
        }
        let mut plan = self.plan.lock();
        let is_new = !plan.by_hand.get(function).is_some_and(|endpoints| endpoints.contains_key(endpoint));
        if is_new && plan.by_hand.values().map(BTreeMap::len).sum::<usize>() >= BY_HAND_MAX {
            let message = format!("{BY_HAND_MAX} routes are set by hand already; remove some first");
            return Err(PlatformError::new(Reason::OutOfBudget, message));
        }
        plan.by_hand.entry(function.clone()).or_default().insert(endpoint.clone(), is_final);
        self.apply(&mut plan, std::iter::once(function));
        if let Some(ms) = latency_ms
            && let Some(destination) = plan.known.get(endpoint).and_then(|known| known.upgrade(self.meters.unknown()))
        {
            self.table.lock().set_latency(function, &destination, ms, self.started.elapsed());
        }
        Ok(())
    }

    /// Removes a destination from both tables; one that is announced comes back when the controller next tells of a change.
    ///
    /// # Errors
    /// [`Reason::UnknownFunction`] or [`Reason::Malformed`] where there is no such destination.
    pub(crate) fn remove(&self, function: &FunctionName, endpoint: &Endpoint) -> Result<(), PlatformError> {
        let mut plan = self.plan.lock();
        let Plan { announced, by_hand, .. } = &mut *plan;
        if !announced.contains_key(function) && !by_hand.contains_key(function) {
            return Err(PlatformError::unknown_function(function));
        }
        let was_announced = announced.get_mut(function).is_some_and(|endpoints| endpoints.remove(endpoint).is_some());
        let was_by_hand = by_hand.get_mut(function).is_some_and(|endpoints| endpoints.remove(endpoint).is_some());
        if !was_announced && !was_by_hand {
            return Err(PlatformError::malformed(format!("{function} has no route to {endpoint}")));
        }
        by_hand.retain(|_, endpoints| !endpoints.is_empty());
        self.apply(&mut plan, std::iter::once(function));
        Ok(())
    }

    /// What is counted of each function.
    pub(crate) fn meters(&self) -> &PerFunction<Meters> {
        &self.meters
    }

    /// Functions known, and their destinations: in use, set aside, and being tried.
    pub(crate) fn census(&self) -> Census {
        let table = self.table.lock();
        let mut census = Census::default();
        for name in table.functions() {
            census.functions += 1;
            for view in table.destinations(name, Scope::Overall).into_iter().flatten() {
                match view.state {
                    State::InUse => census.in_use += 1,
                    State::SetAside(_) => census.set_aside += 1,
                    State::Probing(_) => census.probing += 1,
                }
            }
        }
        census
    }

    /// Removes everything from both tables; what is announced comes back when the controller next tells of a change.
    pub(crate) fn flush(&self) {
        let mut plan = self.plan.lock();
        let functions: BTreeSet<FunctionName> = plan.announced.keys().chain(plan.by_hand.keys()).cloned().collect();
        plan.announced.clear();
        plan.by_hand.clear();
        self.apply(&mut plan, functions.iter());
    }

    /// Every function's destinations in one of the two tables, or one function's.
    ///
    /// # Errors
    /// [`Reason::UnknownFunction`].
    pub(crate) fn list(
        &self,
        function: Option<&FunctionName>,
        scope: Scope,
    ) -> Result<BTreeMap<FunctionName, Vec<Listed>>, PlatformError> {
        let plan = self.plan.lock();
        let table = self.table.lock();
        let list = |name: &FunctionName| {
            let by_hand = plan.by_hand.get(name);
            let announced = plan.announced.get(name);
            let views = table.destinations(name, scope)?;
            let listed = views.map(|view| Listed {
                endpoint: view.destination.endpoint().clone(),
                latency_ms: view.latency_ms,
                state: view.state,
                in_flight: view.in_flight,
                calls: view.calls,
                failures: view.failures,
                by_hand: by_hand.is_some_and(|endpoints| endpoints.contains_key(view.destination.endpoint())),
                is_final: is_final(announced, by_hand, view.destination.endpoint()),
            });
            Some((name.clone(), listed.collect()))
        };
        match function {
            None => Ok(table.functions().filter_map(list).collect()),
            Some(name) => {
                list(name).map(|one| BTreeMap::from([one])).ok_or_else(|| PlatformError::unknown_function(name))
            }
        }
    }

    /// Brings the table up to date with the plan for these functions.
    fn apply<'a>(&self, plan: &mut Plan, functions: impl Iterator<Item = &'a FunctionName>) {
        let changes: Vec<_> = functions
            .map(|function| (function.clone(), plan.destinations(function, &self.links, &self.meters)))
            .collect();
        let now = self.started.elapsed();
        let mut table = self.table.lock();
        for (function, destinations) in changes {
            match destinations {
                Some(destinations) => table.set_destinations(function, &destinations, now),
                None => table.remove_function(&function),
            }
        }
        drop(table);
        plan.known.retain(|_, destination| !destination.is_gone());
    }

    /// Why there is nobody for a call, in words for its caller.
    fn nobody(&self, function: &FunctionName, scope: Scope, error: PickError) -> PlatformError {
        match (error, &self.controller) {
            (PickError::UnknownFunction, Some(controller)) if !self.in_step.load(Ordering::Acquire) => {
                let message = format!("this broker has not heard from its controller at {controller} yet");
                PlatformError::new(Reason::NotServing, message).retry_after(UNKNOWN_RETRY_AFTER)
            }
            (PickError::UnknownFunction, _) => PlatformError::unknown_function(function),
            (PickError::NoDestination | PickError::NoOther, _) if scope == Scope::Final => {
                let message = format!(
                    "this broker knows no computer for {function}, and a call that another broker has passed on goes \
                     to computers only; `nigh routes --final` lists them"
                );
                PlatformError::new(Reason::NotReady, message).retry_after(UNKNOWN_RETRY_AFTER)
            }
            (PickError::NoDestination | PickError::NoOther, _) => {
                let message =
                    format!("{function} is deployed, but no computer has it ready; `nigh ls` tells of problems");
                PlatformError::new(Reason::NotReady, message).retry_after(UNKNOWN_RETRY_AFTER)
            }
            (PickError::AllSetAside { retry_after, cause: Cause::Dead }, _) => {
                let message = format!("none of those who serve {function} can be connected to");
                PlatformError::new(Reason::Unreachable, message).retry_after(retry_after)
            }
            (PickError::AllSetAside { retry_after, cause: Cause::Refusing }, _) => {
                let message = format!("those who serve {function} take no more calls of it for now");
                PlatformError::new(Reason::QueueFull, message).retry_after(retry_after)
            }
        }
    }
}

impl Plan {
    /// A function's destinations in the order of their endpoints; none where nothing is known of the function.
    fn destinations(
        &mut self,
        function: &FunctionName,
        links: &Links,
        meters: &PerFunction<Meters>,
    ) -> Option<Vec<Member<Destination>>> {
        let (announced, by_hand) = (self.announced.get(function), self.by_hand.get(function));
        if announced.is_none() && by_hand.is_none() {
            meters.forget(function.as_str());
            return None;
        }
        let meters = meters.of(function.as_str());
        // What is set by hand wins over what is announced.
        let serving: BTreeMap<&Endpoint, bool> =
            announced.into_iter().chain(by_hand).flatten().map(|(endpoint, is_final)| (endpoint, *is_final)).collect();
        let known = &mut self.known;
        let mut destination = |endpoint: &Endpoint| {
            known.get(endpoint).and_then(|known| known.upgrade(&meters)).unwrap_or_else(|| {
                let remote = Remote::new(endpoint.clone(), links.tls.clone());
                let destination = Destination::new(remote, &links.limits, meters.clone());
                known.insert(endpoint.clone(), destination.downgrade());
                destination
            })
        };
        let member = |(endpoint, is_final)| Member { destination: destination(endpoint), is_final };
        Some(serving.into_iter().map(member).collect())
    }
}

/// Whether a destination runs calls itself: as set by hand, else as announced.
fn is_final(
    announced: Option<&BTreeMap<Endpoint, bool>>,
    by_hand: Option<&BTreeMap<Endpoint, bool>>,
    endpoint: &Endpoint,
) -> bool {
    by_hand.into_iter().chain(announced).find_map(|endpoints| endpoints.get(endpoint).copied()).unwrap_or(false)
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("announced", &self.announced)
            .field("by_hand", &self.by_hand)
            .finish_non_exhaustive()
    }
}
