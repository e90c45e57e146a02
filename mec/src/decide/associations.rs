//! Associations of a client's address and an application with a server, as programs of the older system make them. One
//! without an address is the default for all clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::server::Server;

/// The table, and the applications that were added beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Associations {
    applications: BTreeSet<String>,
    table: BTreeMap<String, BTreeMap<String, Server>>,
}

/// The key of the default within an application's table.
const DEFAULT: &str = "";

impl Associations {
    /// Adds an application.
    pub(crate) fn add_application(&mut self, name: &str) -> bool {
        self.applications.insert(name.to_owned())
    }

    /// Removes an application; its associations stay.
    pub(crate) fn remove_application(&mut self, name: &str) -> bool {
        self.applications.remove(name)
    }

    /// Whether an application was added.
    pub(crate) fn has_application(&self, name: &str) -> bool {
        self.applications.contains(name)
    }

    /// The applications added.
    pub(crate) fn applications(&self) -> impl Iterator<Item = &str> {
        self.applications.iter().map(String::as_str)
    }

    /// Associates; without a client for all that have no association of their own.
    pub(crate) fn associate(&mut self, client: Option<IpAddr>, application: &str, server: Server) -> bool {
        let row = self.table.entry(application.to_owned()).or_default();
        row.insert(key(client), server.clone()) != Some(server)
    }

    /// Takes an association back.
    pub(crate) fn remove(&mut self, client: Option<IpAddr>, application: &str) -> bool {
        let Some(row) = self.table.get_mut(application) else { return false };
        let removed = row.remove(&key(client)).is_some();
        if row.is_empty() {
            self.table.remove(application);
        }
        removed
    }

    /// The server of a client: its own, else the default.
    pub(crate) fn server(&self, client: IpAddr, application: &str) -> Option<&Server> {
        let row = self.table.get(application)?;
        row.get(&key(Some(client))).or_else(|| row.get(DEFAULT))
    }

    /// How many there are, applications included.
    pub(crate) fn len(&self) -> usize {
        self.applications.len() + self.table.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Each: client (empty for the default), application, server.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, &str, &Server)> {
        self.table.iter().flat_map(|(application, row)| {
            row.iter().map(move |(client, server)| (client.as_str(), application.as_str(), server))
        })
    }
}

fn key(client: Option<IpAddr>) -> String {
    client.map(|client| client.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_own_server_goes_before_the_default_and_falls_back_on_it() {
        let (ada, ben) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let server = |name: &str| -> Server { name.parse().unwrap() };
        let mut table = Associations::default();
        assert_eq!(table.server(ada, "echo"), None);
        assert!(table.associate(None, "echo", server("one:1")));
        assert!(!table.associate(None, "echo", server("one:1")), "nothing has changed");
        assert!(table.associate(Some(ada), "echo", server("two:2")));
        assert_eq!(table.server(ada, "echo"), Some(&server("two:2")));
        assert_eq!(table.server(ben, "echo"), Some(&server("one:1")));
        assert_eq!((table.server(ada, "other"), table.len()), (None, 2));
        assert!(table.remove(Some(ada), "echo") && !table.remove(Some(ada), "echo"));
        assert_eq!(table.server(ada, "echo"), Some(&server("one:1")));
        assert!(table.remove(None, "echo") && !table.remove(None, "unknown"));
        assert_eq!(table, Associations::default());
    }

    #[test]
    fn applications_are_added_and_removed_as_often_as_one_likes() {
        let mut table = Associations::default();
        assert!(table.add_application("echo") && !table.add_application("echo") && table.has_application("echo"));
        assert!(table.remove_application("echo") && !table.remove_application("echo"));
        assert_eq!(table.applications().count(), 0);
    }
}
