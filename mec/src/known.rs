//! What the controller tells: which applications there are, and who can serve each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::Knowledge;
use nigh_proto::{Broker, Computer, Deployment, Endpoint, FunctionName, NodeName};

use crate::config::Give;
use crate::mp1::Calls;
use crate::server::Server;

/// Somebody that a device may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) server: Server,
    pub(crate) node: NodeName,
}

/// What is known of the edge.
#[derive(Debug)]
pub(crate) struct Known {
    give: Give,
    functions: BTreeMap<FunctionName, Deployment>,
    computers: HashMap<NodeName, Computer>,
    brokers: BTreeMap<NodeName, Broker>,
    /// By application, in the order of their servers; only of those that somebody serves.
    offers: BTreeMap<FunctionName, Arc<[Offer]>>,
    /// Brokers' doors for HTTP, also of those that are away: an association may name them.
    http: HashMap<Server, Endpoint>,
    /// The controller has been heard.
    in_step: bool,
}

/// Doors remembered, at most.
const DOORS_MAX: usize = 10_000;

impl Known {
    pub(crate) fn new(give: Give) -> Self {
        Self {
            give,
            functions: BTreeMap::new(),
            computers: HashMap::new(),
            brokers: BTreeMap::new(),
            offers: BTreeMap::new(),
            http: HashMap::new(),
            in_step: false,
        }
    }

    /// Takes in what the controller tells.
    pub(crate) fn learn(&mut self, news: impl IntoIterator<Item = Knowledge>) {
        for knowledge in news {
            match knowledge {
                Knowledge::All(events) => {
                    let http = std::mem::take(&mut self.http);
                    *self = Self { in_step: true, http, ..Self::new(self.give) };
                    events.into_iter().for_each(|event| self.change(event));
                }
                Knowledge::Change(event) => self.change(event),
            }
        }
        self.offers = self.offered();
    }

    fn change(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Function(deployment) => {
                self.functions.insert(deployment.name.clone(), deployment);
            }
            WatchEvent::FunctionRemoved(name) => {
                self.functions.remove(&name);
            }
            WatchEvent::Computer(computer) => {
                self.computers.insert(computer.name.clone(), computer);
            }
            WatchEvent::ComputerRemoved(name) => {
                self.computers.remove(&name);
            }
            WatchEvent::Broker(broker) => {
                if self.http.len() >= DOORS_MAX {
                    self.http.clear();
                }
                if let Some(door) = &broker.http_endpoint {
                    self.http.insert(Server::from(&broker.endpoint), door.clone());
                }
                self.brokers.insert(broker.name.clone(), broker);
            }
            WatchEvent::BrokerRemoved(name) => {
                self.brokers.remove(&name);
            }
            WatchEvent::Hierarchy(_) | WatchEvent::Synced => {}
        }
    }

    fn offered(&self) -> BTreeMap<FunctionName, Arc<[Offer]>> {
        let mut by_computers: BTreeMap<FunctionName, Vec<Offer>> = BTreeMap::new();
        for computer in self.computers.values() {
            let server = Server::from(&computer.endpoint);
            for function in computer.serves(|function| self.functions.contains_key(function)) {
                let offer = Offer { server: server.clone(), node: computer.name.clone() };
                by_computers.entry(function.clone()).or_default().push(offer);
            }
        }
        let brokers: Arc<[Offer]> = self.brokers.values().map(offer_of).collect();
        let in_order = |mut offers: Vec<Offer>| -> Arc<[Offer]> {
            offers.sort_by(|one, other| one.server.cmp(&other.server));
            offers.dedup_by(|one, other| one.server == other.server);
            offers.into()
        };
        let offered = by_computers.into_iter().map(|(function, offers)| match self.give {
            // Every broker reaches every computer.
            Give::Brokers => (function, brokers.clone()),
            Give::Computers => (function, in_order(offers)),
        });
        offered.filter(|(_, offers)| !offers.is_empty()).collect()
    }

    /// The applications that somebody serves; the deployment of those that were deployed.
    pub(crate) fn applications(&self) -> impl Iterator<Item = (&FunctionName, Option<&Deployment>)> {
        self.offers.keys().map(|name| (name, self.functions.get(name)))
    }

    /// Who can serve an application.
    pub(crate) fn offers(&self, application: &str) -> &[Offer] {
        self.offers.get(application).map_or(&[], |offers| offers)
    }

    /// Whether an application was deployed.
    pub(crate) fn is_deployed(&self, application: &str) -> bool {
        self.functions.contains_key(application)
    }

    /// Whether the controller has said what there is.
    pub(crate) fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Where functions are called.
    pub(crate) fn calls(&self, is_secured: bool) -> Calls {
        let brokers = || self.brokers.values();
        Calls {
            http: brokers().filter_map(|broker| broker.http_endpoint.clone()).collect(),
            grpc: brokers().map(|broker| Server::from(&broker.endpoint)).collect(),
            is_secured,
        }
    }

    /// A broker's door for HTTP.
    pub(crate) fn http_of(&self, server: &Server) -> Option<&Endpoint> {
        self.http.get(server)
    }
}

fn offer_of(broker: &Broker) -> Offer {
    Offer { server: Server::from(&broker.endpoint), node: broker.name.clone() }
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Digest, Labels};

    use super::*;

    fn computer(port: u16, own: &[&str]) -> WatchEvent {
        WatchEvent::Computer(Computer {
            name: format!("computer-{port}").parse().unwrap(),
            endpoint: format!("10.0.0.7:{port}").parse().unwrap(),
            ready: vec![("echo".parse().unwrap(), Digest::of(b"1"))],
            problems: Vec::new(),
            workers: 1,
            directories: Vec::new(),
            own_functions: own.iter().map(|name| name.parse().unwrap()).collect(),
            older: false,
            labels: Labels::default(),
        })
    }

    fn broker(port: u16) -> WatchEvent {
        WatchEvent::Broker(Broker {
            name: format!("broker-{port}").parse().unwrap(),
            endpoint: format!("10.0.0.2:{port}").parse().unwrap(),
            table_endpoint: None,
            http_endpoint: Some("10.0.0.2:8080".parse().unwrap()),
            older: false,
        })
    }

    fn deployed() -> WatchEvent {
        let deployment = Deployment::new(
            "echo".parse().unwrap(),
            Digest::of(b"m"),
            1,
            nigh_proto::Kind::Native,
            nigh_proto::Limits::default(),
            Vec::new(),
        );
        WatchEvent::Function(deployment)
    }

    fn servers(known: &Known, application: &str) -> Vec<String> {
        known.offers(application).iter().map(|offer| offer.server.to_string()).collect()
    }

    #[test]
    fn an_application_is_there_while_somebody_serves_it() {
        let mut known = Known::new(Give::Computers);
        assert!(!known.is_in_step());
        known.learn([Knowledge::All(vec![computer(2, &["clambda0"]), computer(1, &[])])]);
        assert!(known.is_in_step() && servers(&known, "echo").is_empty(), "it is not deployed");
        assert_eq!(servers(&known, "clambda0"), ["10.0.0.7:2"]);
        known.learn([Knowledge::Change(deployed())]);
        assert_eq!(servers(&known, "echo"), ["10.0.0.7:1", "10.0.0.7:2"]);
        known.learn([Knowledge::Change(WatchEvent::ComputerRemoved("computer-1".parse().unwrap()))]);
        assert_eq!(servers(&known, "echo"), ["10.0.0.7:2"]);
        known.learn([Knowledge::Change(WatchEvent::ComputerRemoved("computer-2".parse().unwrap()))]);
        assert!(known.applications().next().is_none() && known.is_deployed("echo"));
    }

    #[test]
    fn brokers_serve_whatever_some_computer_does() {
        let mut known = Known::new(Give::Brokers);
        known.learn([Knowledge::All(vec![deployed(), broker(2), broker(1)])]);
        assert!(servers(&known, "echo").is_empty(), "no computer has it");
        known.learn([Knowledge::Change(computer(1, &[]))]);
        assert_eq!(servers(&known, "echo"), ["10.0.0.2:1", "10.0.0.2:2"]);
        assert_eq!(known.http_of(&"10.0.0.2:1".parse().unwrap()).unwrap().as_str(), "10.0.0.2:8080");
        known.learn([Knowledge::All(vec![deployed()])]);
        assert!(known.offers("echo").is_empty());
    }
}
