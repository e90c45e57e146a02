//! What is known and decided at one moment: applications, associations, contexts, and for each context what its device is to
//! be told. No I/O: whoever holds it does what follows.

mod deciding;
mod telling;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use self::deciding::servers_of;
use crate::application::{Application, NAME_CHARS_MAX, OLDER_PROVIDER};
use crate::config::Config;
use crate::context::{ApplicationInfo, Context, ContextId, Dialect};
use crate::decide::associations::Associations;
use crate::decide::balanced::Balance;
use crate::decide::file::Rows;
use crate::error::Refusal;
use crate::known::Known;
use crate::location::Constraint;
use crate::notify::News;

/// Notifications of one device that are under way at once, so that one that does not answer keeps few others waiting.
const TURNS_PER_DEVICE_MAX: usize = 16;

/// Everything that a decision rests on, and what was decided.
#[derive(Debug)]
pub(crate) struct State {
    config: Arc<Config>,
    pub(crate) known: Known,
    pub(crate) associations: Associations,
    rows: Rows,
    balance: Balance,
    contexts: BTreeMap<ContextId, Standing>,
    of_device: HashMap<IpAddr, usize>,
    turns: u64,
    /// Counts what may have been decided otherwise since.
    pub(crate) revision: u64,
    /// Some devices have more to hear than is told at once.
    has_waiting: bool,
}

/// A context and how its device stands.
#[derive(Debug)]
struct Standing {
    context: Context,
    /// The store has it; until then nobody knows of it.
    is_kept: bool,
    /// Its application is gone, and it goes once its device has heard.
    is_leaving: bool,
    /// What is being told.
    turn: Option<(Turn, News)>,
    /// What was told in vain, so that it is not told again.
    in_vain: Option<News>,
    /// Where the application may run, as the device knows.
    locations: Vec<Constraint>,
}

/// The right to tell a device something; over when there is something newer to tell.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    number: u64,
    over: CancellationToken,
}

/// What is to be done after something has changed.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Devices to be told.
    pub(crate) tell: Vec<(ContextId, Turn)>,
    /// Contexts that are gone, to be forgotten by the store.
    pub(crate) gone: Vec<ContextId>,
}

/// What a device changes about its context.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Amendment {
    /// Where it wants to be told, if it says so.
    pub(crate) callback: Option<String>,
    /// Where the instances are to be, if it says so.
    pub(crate) locations: Vec<Option<Constraint>>,
}

impl Turn {
    pub(crate) fn over(&self) -> WaitForCancellationFuture<'_> {
        self.over.cancelled()
    }
}

impl State {
    pub(crate) fn new(config: Arc<Config>, rows: Rows, associations: Associations) -> Self {
        Self {
            known: Known::new(config.give),
            config,
            associations,
            rows,
            balance: Balance::default(),
            contexts: BTreeMap::new(),
            of_device: HashMap::new(),
            turns: 0,
            revision: 0,
            has_waiting: false,
        }
    }

    /// All applications that there are.
    pub(crate) fn applications(&self) -> Vec<Application> {
        let of_functions = self.known.applications().filter(|(name, _)| name.as_str().len() <= NAME_CHARS_MAX);
        let of_functions = of_functions.map(|(name, deployment)| Application {
            locations: self.locations_of(name.as_str()),
            ..Application::of_function(name.as_str(), deployment, &self.config.provider)
        });
        let added = self.associations.applications().filter(|name| self.known.offers(name).is_empty());
        of_functions.chain(added.map(Application::added)).collect()
    }

    /// The application that a device names, if it is here.
    pub(crate) fn application(&self, named: &ApplicationInfo) -> Option<Application> {
        let name = named.app_name.as_str();
        let deployment = self.known.applications().find(|(known, _)| known.as_str() == name);
        let application = match deployment {
            Some((_, deployment)) => Application::of_function(name, deployment, &self.config.provider),
            None if self.associations.has_application(name) => Application::added(name),
            None => return None,
        };
        // Clients in the field make providers up.
        let is_provider = |provider: &str| named.app_provider.is_empty() || named.app_provider == provider;
        let is_it = !self.config.strict || is_provider(&application.provider) || is_provider(OLDER_PROVIDER);
        is_it.then_some(application)
    }

    /// Where an application may run, as far as is known.
    pub(crate) fn locations_of(&self, application: &str) -> Vec<Constraint> {
        let mut locations = Vec::new();
        for offer in self.known.offers(application) {
            let Some(location) = self.config.locations.get(&offer.node) else { continue };
            let location = Constraint::of(location);
            if !locations.contains(&location) {
                locations.push(location);
            }
        }
        locations
    }

    /// Takes a new context in, which nobody hears of until it is [kept](Self::kept).
    ///
    /// # Errors
    /// [`Refusal`] where there is no room, no such application, or nobody who serves it.
    pub(crate) fn admit(&mut self, mut context: Context) -> Result<Context, Refusal> {
        let (limit, of_one) = (self.config.contexts_max, self.config.contexts_per_device_max);
        if self.contexts.len() >= limit {
            return Err(Refusal::TooMany { limit, whose: "contexts are there" });
        }
        if self.of_device.get(&context.device).is_some_and(|has| *has >= of_one) {
            return Err(Refusal::TooMany { limit: of_one, whose: "contexts are of this device" });
        }
        let name = context.wish.application.app_name.clone();
        match self.application(&context.wish.application) {
            Some(application) => complete(&mut context.wish.application, &application),
            None if self.config.elsewhere.is_some() => complete_from_itself(&mut context.wish.application),
            None => return Err(Refusal::UnknownApplication(name)),
        }
        context.is_deployed = self.known.is_deployed(&name);
        self.join(&context);
        context.told = self.decided(&context);
        let waits = context.wish.auto_instantiation == Some(true);
        if !waits && context.told.iter().any(Option::is_none) {
            self.leave(&context);
            return Err(Refusal::NoServer(name));
        }
        self.insert(context.clone(), false);
        Ok(context)
    }

    /// Takes in a context that was kept before.
    pub(crate) fn restore(&mut self, context: Context) {
        let told = context.told.iter().map(|told| told.as_ref().map(|told| told.server.clone()));
        for (group, server) in self.groups(&context).into_iter().zip(told) {
            self.balance.restore(group, server);
        }
        self.insert(context, true);
    }

    fn insert(&mut self, context: Context, is_kept: bool) {
        *self.of_device.entry(context.device).or_default() += 1;
        let locations = self.locations_of(&context.wish.application.app_name);
        let standing = Standing { is_kept, is_leaving: false, turn: None, in_vain: None, locations, context };
        self.contexts.insert(standing.context.id, standing);
    }

    /// The store has a context; from now on others know of it.
    pub(crate) fn kept(&mut self, id: ContextId) {
        if let Some(standing) = self.contexts.get_mut(&id) {
            standing.is_kept = true;
        }
    }

    /// A context, as it is to be kept.
    pub(crate) fn context(&self, id: ContextId) -> Option<&Context> {
        self.contexts.get(&id).map(|standing| &standing.context)
    }

    /// All contexts.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = &Context> {
        self.contexts.values().filter(|standing| standing.is_kept).map(|standing| &standing.context)
    }

    /// How many contexts there are, and of how many the device could not be told.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.contexts.len(), self.contexts.values().filter(|standing| standing.in_vain.is_some()).count())
    }

    /// A context that its device may still use, in this dialect.
    fn usable(&self, id: ContextId, dialect: Dialect) -> Option<&Standing> {
        let standing = self.contexts.get(&id)?;
        let is_usable = standing.is_kept && !standing.is_leaving && standing.context.dialect == dialect;
        is_usable.then_some(standing)
    }

    /// What a device application calls itself in a context of its own.
    pub(crate) fn device_application(&self, id: ContextId, dialect: Dialect) -> Option<&str> {
        self.usable(id, dialect).map(|standing| standing.context.wish.device_application.as_str())
    }

    /// Changes a context, whose device is there now.
    ///
    /// # Errors
    /// [`Refusal::UnknownContext`].
    pub(crate) fn amend(
        &mut self,
        id: ContextId,
        dialect: Dialect,
        device: crate::callback::Device,
        amendment: Amendment,
    ) -> Result<(), Refusal> {
        let mut context = self.usable(id, dialect).ok_or(Refusal::UnknownContext)?.context.clone();
        self.leave(&context);
        self.count_out(context.device);
        (context.device, context.is_direct) = (device.address, device.is_direct);
        context.wish.callback = amendment.callback.or(context.wish.callback);
        for (location, new) in context.wish.locations.iter_mut().zip(amendment.locations) {
            *location = new.or(location.take());
        }
        self.join(&context);
        *self.of_device.entry(context.device).or_default() += 1;
        if let Some(standing) = self.contexts.get_mut(&id) {
            standing.context = context;
            // It may be told again, at once, and where it is now.
            standing.in_vain = None;
            if let Some((turn, _)) = standing.turn.take() {
                turn.over.cancel();
            }
        }
        Ok(())
    }

    /// Removes a context that its device may still use.
    ///
    /// # Errors
    /// [`Refusal::UnknownContext`].
    pub(crate) fn delete(&mut self, id: ContextId, dialect: Dialect) -> Result<(), Refusal> {
        self.usable(id, dialect).ok_or(Refusal::UnknownContext)?;
        self.remove(id);
        Ok(())
    }

    /// Removes a context.
    pub(crate) fn remove(&mut self, id: ContextId) {
        let Some(standing) = self.contexts.remove(&id) else { return };
        if let Some((turn, _)) = &standing.turn {
            turn.over.cancel();
        }
        self.leave(&standing.context);
        self.count_out(standing.context.device);
    }

    fn count_out(&mut self, device: IpAddr) {
        if let Some(has) = self.of_device.get_mut(&device) {
            *has -= 1;
            if *has == 0 {
                self.of_device.remove(&device);
            }
        }
    }

    /// What is known of the edge has changed.
    pub(crate) fn edge_changed(&mut self) {
        self.revision += 1;
        let (known, config) = (&self.known, &self.config);
        self.balance.mend(|group| servers_of(known, config, group));
    }

    /// Another file of associations.
    pub(crate) fn take_rows(&mut self, rows: Rows) {
        self.revision += 1;
        self.rows = rows;
    }

    /// The period of the balanced decider is over.
    pub(crate) fn period_over(&mut self) {
        self.revision += 1;
        let (known, config) = (&self.known, &self.config);
        self.balance.assign_anew(|group| servers_of(known, config, group));
    }
}

/// What a device left out of its application is filled in.
fn complete(named: &mut ApplicationInfo, application: &Application) {
    named.app_d_id.get_or_insert_with(|| application.descriptor_id());
    named.app_d_version.get_or_insert_with(|| application.version.clone());
}

fn complete_from_itself(named: &mut ApplicationInfo) {
    let version = named.app_soft_version.clone().unwrap_or_default();
    named.app_d_version.get_or_insert(version);
}
