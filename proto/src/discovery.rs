//! Who is alive and what they offer, as announced and as watched.

use std::sync::Arc;

use crate::name::{Digest, Endpoint, FunctionName, NodeName};
use crate::placement::Labels;
use crate::status::{PlatformError, Reason};
use crate::{Deployment, PROTOCOL, v1};

/// A computer, as it announces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computer {
    /// Its name, unique among computers and brokers.
    pub name: NodeName,
    /// Where it takes calls.
    pub endpoint: Endpoint,
    /// The versions that it can run at once.
    pub ready: Vec<(FunctionName, Digest)>,
    /// The versions that it cannot run, and why.
    pub problems: Vec<ComputerProblem>,
    /// Calls that it can run at once.
    pub workers: u32,
    /// Names of the directories that its operator offers to functions.
    pub directories: Vec<String>,
    /// Functions that it brings itself, without a deployment.
    pub own_functions: Vec<FunctionName>,
    /// It speaks the [older system's protocol](crate::older) only.
    pub older: bool,
    /// What its operator says of it.
    pub labels: Labels,
}

/// Why a computer cannot run a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputerProblem {
    /// The function.
    pub function: FunctionName,
    /// The version.
    pub version: Digest,
    /// What is wrong and what to do.
    pub message: String,
}

/// A broker, as it announces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its name, unique among computers and brokers.
    pub name: NodeName,
    /// Where it takes calls over gRPC.
    pub endpoint: Endpoint,
    /// Where its forwarding table is read and edited.
    pub table_endpoint: Option<Endpoint>,
    /// Where it takes calls over HTTP.
    pub http_endpoint: Option<Endpoint>,
    /// It speaks the [older system's protocol](crate::older) only.
    pub older: bool,
}

/// Who is how far from whom, where every computer has one home broker and only that one calls it.
#[derive(Debug, Clone, PartialEq)]
pub struct Hierarchy {
    /// The hosts of computers and brokers.
    pub addresses: Vec<String>,
    /// From each to each of them, row by row.
    pub distances: Vec<f64>,
    /// What a home is chosen by: `min-max` or `min-avg`.
    pub objective: String,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// A function was deployed or has a new version.
    Function(Deployment),
    /// A function is gone.
    FunctionRemoved(FunctionName),
    /// A computer is alive, or offers something else.
    Computer(Computer),
    /// A computer withdrew or its lease ran out.
    ComputerRemoved(NodeName),
    /// A broker is alive.
    Broker(Broker),
    /// A broker withdrew or its lease ran out.
    BrokerRemoved(NodeName),
    /// Computers are to be known by this hierarchy.
    Hierarchy(Arc<Hierarchy>),
    /// Everything known when the stream began has been told.
    Synced,
}

/// Refuses a peer of another protocol.
///
/// # Errors
/// [`Reason::Protocol`].
pub fn check_protocol(theirs: u32) -> Result<(), PlatformError> {
    if theirs == PROTOCOL {
        return Ok(());
    }
    let message =
        format!("the peer speaks protocol {theirs}, this side {PROTOCOL}; run the same release of nigh on both");
    Err(PlatformError::new(Reason::Protocol, message))
}

impl Computer {
    /// Functions ready on one computer, at most.
    pub const READY_MAX: usize = 65_536;

    /// Checks a message as it arrives.
    ///
    /// # Errors
    /// [`Reason::Malformed`] or [`Reason::TooLarge`].
    pub fn from_wire(wire: v1::ComputerInfo) -> Result<Self, PlatformError> {
        if wire.ready.len() + wire.problems.len() + wire.own_functions.len() > Self::READY_MAX {
            return Err(PlatformError::new(
                Reason::TooLarge,
                format!("a computer with over {} functions", Self::READY_MAX),
            ));
        }
        let ready = |wire: v1::FunctionVersion| Ok((wire.function.parse()?, wire.version.parse()?));
        let problem = |wire: v1::FunctionProblem| {
            Ok(ComputerProblem {
                function: wire.function.parse()?,
                version: wire.version.parse()?,
                message: wire.message,
            })
        };
        Ok(Self {
            name: wire.name.parse()?,
            endpoint: wire.endpoint.parse()?,
            ready: wire.ready.into_iter().map(ready).collect::<Result<_, PlatformError>>()?,
            problems: wire.problems.into_iter().map(problem).collect::<Result<_, PlatformError>>()?,
            workers: wire.workers,
            directories: wire.directories,
            own_functions: wire
                .own_functions
                .iter()
                .map(|name| Ok(name.parse()?))
                .collect::<Result<_, PlatformError>>()?,
            older: wire.older,
            labels: Labels::from_wire(wire.labels)?,
        })
    }

    /// Whether it runs what is deployed, rather than only functions that it brings itself.
    pub fn takes_deployments(&self) -> bool {
        self.own_functions.is_empty() && !self.older
    }

    /// The functions that it serves: those it has ready that are still deployed, and those it brings itself.
    pub fn serves(&self, is_deployed: impl Fn(&FunctionName) -> bool) -> impl Iterator<Item = &FunctionName> {
        let ready = self.ready.iter().map(|(function, _)| function).filter(move |function| is_deployed(function));
        ready.chain(&self.own_functions)
    }

    /// The computer as its message.
    pub fn to_wire(&self) -> v1::ComputerInfo {
        let ready = |(function, version): &(FunctionName, Digest)| v1::FunctionVersion {
            function: function.as_str().to_owned(),
            version: version.to_string(),
        };
        let problem = |problem: &ComputerProblem| v1::FunctionProblem {
            function: problem.function.as_str().to_owned(),
            version: problem.version.to_string(),
            message: problem.message.clone(),
        };
        v1::ComputerInfo {
            name: self.name.as_str().to_owned(),
            endpoint: self.endpoint.as_str().to_owned(),
            ready: self.ready.iter().map(ready).collect(),
            problems: self.problems.iter().map(problem).collect(),
            workers: self.workers,
            directories: self.directories.clone(),
            own_functions: self.own_functions.iter().map(ToString::to_string).collect(),
            older: self.older,
            labels: self.labels.to_wire(),
        }
    }
}

impl Broker {
    /// Checks a message as it arrives.
    ///
    /// # Errors
    /// [`Reason::Malformed`].
    pub fn from_wire(wire: v1::BrokerInfo) -> Result<Self, PlatformError> {
        let optional = |text: String| if text.is_empty() { Ok(None) } else { text.parse().map(Some) };
        Ok(Self {
            name: wire.name.parse()?,
            endpoint: wire.endpoint.parse()?,
            table_endpoint: optional(wire.table_endpoint)?,
            http_endpoint: optional(wire.http_endpoint)?,
            older: wire.older,
        })
    }

    /// The broker as its message.
    pub fn to_wire(&self) -> v1::BrokerInfo {
        let optional = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(ToString::to_string).unwrap_or_default();
        v1::BrokerInfo {
            name: self.name.as_str().to_owned(),
            endpoint: self.endpoint.as_str().to_owned(),
            table_endpoint: optional(&self.table_endpoint),
            http_endpoint: optional(&self.http_endpoint),
            older: self.older,
        }
    }
}

impl Hierarchy {
    /// Checks a message as it arrives.
    ///
    /// # Errors
    /// [`Reason::Malformed`] where there is not one distance from each address to each.
    pub fn from_wire(wire: v1::Hierarchy) -> Result<Self, PlatformError> {
        let v1::Hierarchy { addresses, distances, objective } = wire;
        if addresses.len().checked_mul(addresses.len()) != Some(distances.len()) {
            let message = format!("a hierarchy of {} addresses with {} distances", addresses.len(), distances.len());
            return Err(PlatformError::malformed(message));
        }
        Ok(Self { addresses, distances, objective })
    }

    /// The hierarchy as its message.
    pub fn to_wire(&self) -> v1::Hierarchy {
        let Self { addresses, distances, objective } = self.clone();
        v1::Hierarchy { addresses, distances, objective }
    }
}

impl WatchEvent {
    /// Checks a message as it arrives; an event of a kind that this side does not know is no event.
    ///
    /// # Errors
    /// [`Reason::Malformed`].
    pub fn from_wire(wire: v1::WatchEvent) -> Result<Option<Self>, PlatformError> {
        use v1::watch_event::Event;
        let Some(event) = wire.event else { return Ok(None) };
        Ok(Some(match event {
            Event::Function(function) => Self::Function(Deployment::from_wire(function)?),
            Event::FunctionRemoved(name) => Self::FunctionRemoved(name.parse()?),
            Event::Computer(computer) => Self::Computer(Computer::from_wire(computer)?),
            Event::ComputerRemoved(name) => Self::ComputerRemoved(name.parse()?),
            Event::Broker(broker) => Self::Broker(Broker::from_wire(broker)?),
            Event::BrokerRemoved(name) => Self::BrokerRemoved(name.parse()?),
            Event::Synced(v1::Synced {}) => Self::Synced,
            Event::Hierarchy(hierarchy) => Self::Hierarchy(Arc::new(Hierarchy::from_wire(hierarchy)?)),
        }))
    }

    /// The event as its message.
    pub fn to_wire(&self) -> v1::WatchEvent {
        use v1::watch_event::Event;
        let event = match self {
            Self::Function(function) => Event::Function(function.to_wire()),
            Self::FunctionRemoved(name) => Event::FunctionRemoved(name.to_string()),
            Self::Computer(computer) => Event::Computer(computer.to_wire()),
            Self::ComputerRemoved(name) => Event::ComputerRemoved(name.to_string()),
            Self::Broker(broker) => Event::Broker(broker.to_wire()),
            Self::BrokerRemoved(name) => Event::BrokerRemoved(name.to_string()),
            Self::Synced => Event::Synced(v1::Synced {}),
            Self::Hierarchy(hierarchy) => Event::Hierarchy(hierarchy.to_wire()),
        };
        v1::WatchEvent { event: Some(event) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_wire() {
        let computer = Computer {
            name: "computer-1".parse().unwrap(),
            endpoint: "127.0.0.1:10000".parse().unwrap(),
            ready: vec![("echo".parse().unwrap(), Digest::of(b"1"))],
            problems: vec![ComputerProblem {
                function: "bad".parse().unwrap(),
                version: Digest::of(b"2"),
                message: "no".into(),
            }],
            workers: 4,
            directories: vec!["data".into()],
            own_functions: vec!["clambda0".parse().unwrap()],
            older: true,
            labels: Labels::new(["zone=shop".parse().unwrap()]).unwrap(),
        };
        let broker = Broker {
            name: "broker-1".parse().unwrap(),
            endpoint: "127.0.0.1:6473".parse().unwrap(),
            table_endpoint: None,
            http_endpoint: Some("127.0.0.1:8080".parse().unwrap()),
            older: false,
        };
        let hierarchy = Hierarchy { addresses: vec!["a".into()], distances: vec![0.0], objective: "min-max".into() };
        for event in [
            WatchEvent::Computer(computer),
            WatchEvent::ComputerRemoved("computer-1".parse().unwrap()),
            WatchEvent::Broker(broker),
            WatchEvent::Hierarchy(Arc::new(hierarchy)),
            WatchEvent::FunctionRemoved("echo".parse().unwrap()),
            WatchEvent::Synced,
        ] {
            assert_eq!(WatchEvent::from_wire(event.to_wire()).unwrap(), Some(event));
        }
        assert_eq!(WatchEvent::from_wire(v1::WatchEvent { event: None }).unwrap(), None);
    }

    #[test]
    fn another_protocol_is_refused_with_advice() {
        assert!(check_protocol(PROTOCOL).is_ok());
        let error = check_protocol(PROTOCOL + 1).unwrap_err();
        assert_eq!(error.reason, Reason::Protocol);
        assert!(error.message.contains("same release"), "{error}");
    }
}
