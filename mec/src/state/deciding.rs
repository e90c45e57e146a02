//! Which server a device gets, and how it is told: associations of single clients first, then the rule that the operator has
//! chosen, then elsewhere.

use std::collections::BTreeMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::State;
use crate::config::{Config, DeciderConfig, Reference};
use crate::context::{Context, Told};
use crate::decide::balanced::Group;
use crate::known::Known;
use crate::location::Constraint;
use crate::server::Server;

impl State {
    /// For each instance of a context, where its device is to call it.
    pub(super) fn decided(&self, context: &Context) -> Vec<Option<Told>> {
        context.wish.locations.iter().map(|location| self.decide(context, location.as_ref())).collect()
    }

    fn decide(&self, context: &Context, location: Option<&Constraint>) -> Option<Told> {
        let (name, client) = (context.wish.application.app_name.as_str(), context.device);
        let elsewhere = self.elsewhere(name);
        if elsewhere.is_some() && self.application(&context.wish.application).is_none() {
            return elsewhere;
        }
        let by_rule = || match &self.config.decider {
            DeciderConfig::Balanced { .. } => self.balance.server(&Group::new(name, client, location)),
            DeciderConfig::File { .. } => self.rows.server(client, name),
            DeciderConfig::Associations => None,
        };
        let server = self.associations.server(client, name).or_else(by_rule);
        server.map(|server| Told { uri: self.reference(server, name), server: server.clone() }).or(elsewhere)
    }

    fn elsewhere(&self, name: &str) -> Option<Told> {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        let server: Server = self.config.elsewhere.as_ref()?.replace("{name}", &name).parse().ok()?;
        Some(Told { uri: server.as_str().to_owned(), server })
    }

    /// The URI by which a device calls an application at a server.
    fn reference(&self, server: &Server, application: &str) -> String {
        if server.is_uri() {
            return server.as_str().to_owned();
        }
        let is_secured = self.config.tls.is_some();
        match (self.config.reference, self.known.http_of(server)) {
            (Reference::Http, Some(door)) => {
                format!("{}://{door}/function/{application}", if is_secured { "https" } else { "http" })
            }
            _ => format!("{}://{server}", if is_secured { "grpcs" } else { "grpc" }),
        }
    }

    pub(super) fn groups(&self, context: &Context) -> Vec<Group> {
        if !matches!(self.config.decider, DeciderConfig::Balanced { .. }) {
            return Vec::new();
        }
        let name = &context.wish.application.app_name;
        context.wish.locations.iter().map(|location| Group::new(name, context.device, location.as_ref())).collect()
    }

    pub(super) fn join(&mut self, context: &Context) {
        for group in self.groups(context) {
            let servers = servers_of(&self.known, &self.config, &group);
            self.balance.join(group, &servers);
        }
    }

    pub(super) fn leave(&mut self, context: &Context) {
        for group in self.groups(context) {
            self.balance.leave(&group);
        }
    }

    /// The table of who gets what: associations, then what the balanced decider has decided.
    pub(crate) fn table(&self) -> Vec<(String, String, String)> {
        let own =
            |(client, name, server): (&str, &str, &Server)| (client.to_owned(), name.to_owned(), server.to_string());
        let decided =
            self.balance.rows().map(|(client, name, server)| (client.to_string(), name.to_owned(), server.to_string()));
        let mut table: BTreeMap<(String, String), String> = BTreeMap::new();
        for (client, name, server) in decided.chain(self.associations.rows().map(own)) {
            table.insert((client, name), server);
        }
        table.into_iter().map(|((client, name), server)| (client, name, server)).collect()
    }
}

/// Who can serve a group: those at a place that meets what was asked for, where anybody's place is known.
pub(super) fn servers_of(known: &Known, config: &Config, group: &Group) -> Vec<Server> {
    let constraint = group.constraint().filter(|_| !config.locations.is_empty());
    let is_met = |node: &nigh_proto::NodeName| match &constraint {
        Some(constraint) => config.locations.get(node).is_some_and(|location| constraint.is_met_at(location)),
        None => true,
    };
    let offers = known.offers(&group.application).iter().filter(|offer| is_met(&offer.node));
    offers.map(|offer| offer.server.clone()).collect()
}
