//! Devices spread evenly over those that can serve them: whoever comes gets the server with the least load, and each period
//! in which something has changed all are assigned anew, the largest groups first. A group is all contexts of one client
//! for one application: they share a server, since the client cannot tell them apart.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::location::Constraint;
use crate::server::Server;

/// Contexts that share a server, in the order in which groups of one size are assigned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) application: String,
    pub(crate) client: IpAddr,
    /// Where it is to be, as text.
    location: String,
}

/// How many contexts a group has, and its server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Members {
    count: usize,
    server: Option<Server>,
}

/// Who has which server.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    groups: BTreeMap<Group, Members>,
    /// Groups or servers are others than at the last assignment of all.
    is_changed: bool,
}

impl Group {
    pub(crate) fn new(application: &str, client: IpAddr, location: Option<&Constraint>) -> Self {
        // Of the same constraint the text is the same.
        let location = location.and_then(|location| serde_json::to_string(location).ok()).unwrap_or_default();
        Self { application: application.to_owned(), client, location }
    }

    /// Where it is to be.
    pub(crate) fn constraint(&self) -> Option<Constraint> {
        serde_json::from_str(&self.location).ok()
    }
}

impl Balance {
    /// A context comes; the server that it gets, if anybody can serve it.
    pub(crate) fn join(&mut self, group: Group, servers: &[Server]) -> Option<Server> {
        self.is_changed = true;
        let has = self.groups.get(&group).and_then(|members| members.server.clone());
        let server = has.filter(|server| servers.contains(server)).or_else(|| least(&self.loads(), servers));
        let members = self.groups.entry(group).or_default();
        members.count += 1;
        members.server.clone_from(&server);
        server
    }

    /// A context that was there before a restart, with the server that its device knows.
    pub(crate) fn restore(&mut self, group: Group, server: Option<Server>) {
        self.is_changed = true;
        let members = self.groups.entry(group).or_default();
        members.count += 1;
        members.server = server.or(members.server.take());
    }

    /// A context goes.
    pub(crate) fn leave(&mut self, group: &Group) {
        self.is_changed = true;
        if let Some(members) = self.groups.get_mut(group) {
            members.count -= 1;
            if members.count == 0 {
                self.groups.remove(group);
            }
        }
    }

    /// The server of a group.
    pub(crate) fn server(&self, group: &Group) -> Option<&Server> {
        self.groups.get(group)?.server.as_ref()
    }

    /// Gives another server to groups whose own serves them no longer, where there is one.
    pub(crate) fn mend(&mut self, servers_of: impl Fn(&Group) -> Vec<Server>) {
        let mut loads = self.loads();
        for (group, members) in &mut self.groups {
            let servers = servers_of(group);
            if members.server.as_ref().is_some_and(|server| servers.contains(server)) {
                continue;
            }
            members.server = least(&loads, &servers);
            if let Some(server) = &members.server {
                *loads.entry(server.clone()).or_default() += members.count;
            }
        }
        // Somebody new may take a share.
        self.is_changed = true;
    }

    /// Assigns all groups anew, if anything has changed since the last time.
    pub(crate) fn assign_anew(&mut self, servers_of: impl Fn(&Group) -> Vec<Server>) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let mut in_order: Vec<(&Group, &mut Members)> = self.groups.iter_mut().collect();
        // Stable: groups of one size stay in the order of application and client.
        in_order.sort_by_key(|(_, members)| std::cmp::Reverse(members.count));
        let mut loads: BTreeMap<Server, usize> = BTreeMap::new();
        for (group, members) in in_order {
            let servers = servers_of(group);
            let least_load = servers.iter().map(|server| loads.get(server).copied().unwrap_or_default()).min();
            let is_least = |server: &Server| {
                servers.contains(server)
                    && loads.get(server).copied().unwrap_or_default() == least_load.unwrap_or_default()
            };
            // Among equals the one that it has, so that nobody moves for nothing.
            if !members.server.as_ref().is_some_and(is_least) {
                members.server = least(&loads, &servers);
            }
            if let Some(server) = &members.server {
                *loads.entry(server.clone()).or_default() += members.count;
            }
        }
    }

    /// Each group with a server: client, application, server.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (IpAddr, &str, &Server)> {
        self.groups
            .iter()
            .filter_map(|(group, members)| Some((group.client, group.application.as_str(), members.server.as_ref()?)))
    }

    fn loads(&self) -> BTreeMap<Server, usize> {
        let mut loads = BTreeMap::new();
        for members in self.groups.values() {
            if let Some(server) = &members.server {
                *loads.entry(server.clone()).or_default() += members.count;
            }
        }
        loads
    }
}

/// The server with the least load; of several, the first.
fn least(loads: &BTreeMap<Server, usize>, servers: &[Server]) -> Option<Server> {
    servers.iter().min_by_key(|server| loads.get(*server).copied().unwrap_or_default()).cloned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn servers(names: &[&str]) -> Vec<Server> {
        names.iter().map(|name| format!("{name}:1").parse().unwrap()).collect()
    }

    fn group(application: &str, client: u32) -> Group {
        Group::new(application, IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + client)), None)
    }

    /// Contexts by server, after all were assigned anew.
    fn counts(clients: u32, applications: &[&str], servers_of: impl Fn(&Group) -> Vec<Server>) -> Vec<(String, usize)> {
        let mut balance = Balance::default();
        for application in applications {
            for client in 0..clients {
                balance.join(group(application, client), &[]);
            }
        }
        balance.assign_anew(servers_of);
        balance.loads().into_iter().map(|(server, load)| (server.to_string(), load)).collect()
    }

    /// The acceptance table of the older system's balanced controller.
    #[test]
    fn loads_are_spread_as_the_older_system_spreads_them() {
        let one = servers(&["a"]);
        let two = servers(&["a", "b"]);
        let by = |all: &'static [(&'static str, &'static [&'static str])]| {
            move |group: &Group| {
                let found = all.iter().find(|(application, _)| *application == group.application);
                found.map(|(_, names)| servers(names)).unwrap_or_default()
            }
        };
        assert_eq!(counts(0, &["lambda0"], |_| one.clone()), []);
        assert_eq!(counts(1, &["lambda0"], |_| one.clone()), [("a:1".into(), 1)]);
        assert_eq!(counts(5, &["lambda0"], |_| one.clone()), [("a:1".into(), 5)]);
        assert_eq!(counts(5, &["lambda0", "unserved"], by(&[("lambda0", &["a"])])), [("a:1".into(), 5)]);
        let split: BTreeSet<usize> = counts(5, &["lambda0"], |_| two.clone()).into_iter().map(|(_, n)| n).collect();
        assert_eq!(split, BTreeSet::from([2, 3]));
        let hundred = by(&[("lambda0", &["a"]), ("lambda1", &["b"]), ("lambda2", &["a", "b", "c"])]);
        let spread = counts(100, &["lambda0", "lambda1", "lambda2"], hundred);
        assert_eq!(spread, [("a:1".into(), 100), ("b:1".into(), 100), ("c:1".into(), 100)]);
    }

    #[test]
    fn whoever_comes_gets_the_idlest_and_all_of_a_group_the_same() {
        let mut balance = Balance::default();
        let two = servers(&["a", "b"]);
        let first = balance.join(group("echo", 1), &two);
        assert_eq!(first, balance.join(group("echo", 1), &two), "a client has one server for an application");
        assert_ne!(first, balance.join(group("echo", 2), &two));
        assert_eq!(balance.join(group("echo", 3), &[]), None);
    }

    #[test]
    fn who_loses_a_server_gets_another_at_once_and_the_others_keep_theirs() {
        let mut balance = Balance::default();
        let two = servers(&["a", "b"]);
        for client in 0..4 {
            balance.join(group("echo", client), &two);
        }
        let before: Vec<_> = balance.rows().map(|(client, _, server)| (client, server.clone())).collect();
        balance.mend(|_| servers(&["b"]));
        for (client, server) in before {
            let now = balance.server(&Group::new("echo", client, None)).unwrap();
            assert_eq!(now.as_str(), "b:1", "{server}");
        }
        balance.mend(|_| Vec::new());
        assert_eq!(balance.rows().count(), 0);
    }

    #[test]
    fn nobody_moves_for_nothing_and_a_newcomer_gets_its_share() {
        let mut balance = Balance::default();
        let two = servers(&["a", "b"]);
        for client in 0..6 {
            balance.join(group("echo", client), &two);
        }
        balance.assign_anew(|_| two.clone());
        let before: Vec<_> = balance.rows().map(|(client, _, server)| (client, server.clone())).collect();
        balance.mend(|_| two.clone());
        balance.assign_anew(|_| two.clone());
        assert!(balance.rows().map(|(client, _, server)| (client, server.clone())).eq(before));
        let three = servers(&["a", "b", "c"]);
        balance.mend(|_| three.clone());
        balance.assign_anew(|_| three.clone());
        assert_eq!(balance.loads().into_values().collect::<Vec<_>>(), [2, 2, 2]);
    }

    proptest! {
        #[test]
        fn loads_of_single_contexts_differ_by_one_at_most(clients in 0u32..60, names in 1usize..6) {
            let names: Vec<String> = (0..names).map(|at| format!("s{at}:1")).collect();
            let all: Vec<Server> = names.iter().map(|name| name.parse().unwrap()).collect();
            let counted = counts(clients, &["echo"], |_| all.clone());
            let most = counted.iter().map(|(_, n)| *n).max().unwrap_or_default();
            let fewest = if counted.len() < names.len() { 0 } else { counted.iter().map(|(_, n)| *n).min().unwrap_or_default() };
            prop_assert!(most - fewest <= 1, "{counted:?}");
        }

        #[test]
        fn counts_never_get_lost(steps in prop::collection::vec((any::<bool>(), 0u32..5), 0..80)) {
            let (mut balance, mut model) = (Balance::default(), BTreeMap::new());
            for (comes, client) in steps {
                if comes {
                    balance.join(group("echo", client), &servers(&["a", "b"]));
                    *model.entry(client).or_insert(0usize) += 1;
                } else if model.get(&client).is_some_and(|count| *count > 0) {
                    balance.leave(&group("echo", client));
                    *model.entry(client).or_default() -= 1;
                }
            }
            prop_assert_eq!(balance.loads().values().sum::<usize>(), model.values().sum::<usize>());
        }
    }
}
