//! Doors for clients of other systems: whoever has clients, command lines or libraries for [OpenWhisk](openwhisk), for
//! [AWS Lambda](lambda) or for a gateway of [OpenFaaS](openfaas) calls functions with them as they are. A door stands in a broker, or in
//! a process of its own in front of one ([`RemoteBroker`]); either way its calls are calls like all others, under the same limits and counts.
//!
//! A request comes in through the [gate](nigh_proto::ingress::gate), is its [caller](callers)'s by its credentials, means a
//! function by its [namespace], and is answered in the words of the system that its sender takes this for.

mod answer;
mod backend;
mod believed;
mod callers;
mod lambda;
mod namespace;
mod openfaas;
mod openwhisk;
mod query;
mod registry;
mod remote;
mod shape;

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use nigh_client::Admin;
use nigh_proto::channel::{self, Door};
use nigh_proto::ingress::gate::Gate;
use nigh_proto::ingress::http::HttpDoor;
use nigh_proto::tls::HttpClients;
use nigh_proto::tls::connection::Peer;
use nigh_proto::{CallLimits, Remote};
use tokio_util::sync::CancellationToken;

pub use crate::backend::Backend;
pub use crate::callers::{Callers, CredentialsError};
pub use crate::namespace::NamespaceError;
pub use crate::openwhisk::ActivationLimits;
pub use crate::remote::RemoteBroker;

use crate::answer::Answer;
use crate::lambda::Lambda;
use crate::openfaas::Openfaas;
use crate::openwhisk::Openwhisk;
use crate::registry::Registry;

/// What doors are told beside where they are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Over TLS, whether callers have to show a certificate.
    pub clients: HttpClients,
    /// What is accepted of one call.
    pub limits: CallLimits,
    /// Who may come in, where the clients of the other system show credentials.
    pub callers: Callers,
    /// Who knows what is deployed; without it functions can be called, not listed.
    pub controller: Option<Remote>,
    /// What is kept of activations.
    pub activations: ActivationLimits,
}

/// Whose clients a door is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// The REST API of OpenWhisk.
    OpenWhisk,
    /// Invoke of AWS Lambda.
    Lambda,
    /// The paths of a gateway of OpenFaaS.
    OpenFaas,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OpenWhisk, Self::Lambda, Self::OpenFaas];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenWhisk => "openwhisk",
            Self::Lambda => "lambda",
            Self::OpenFaas => "openfaas",
        }
    }
}

impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for System {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|system| system.as_str() == given);
        known.ok_or_else(|| {
            let words: Vec<_> = Self::ALL.into_iter().map(Self::as_str).collect();
            format!("{:?} is none of {}", given.chars().take(64).collect::<String>(), words.join(", "))
        })
    }
}

/// Serves a system's clients until `stop`, and then until what is under way has ended.
pub async fn serve<B: Backend>(
    system: System,
    door: Door,
    settings: Settings,
    backend: Arc<B>,
    stop: CancellationToken,
) {
    let Settings { clients, limits, callers, controller, activations } = settings;
    let stall_max = door.limits().stall_max;
    let gate = Gate::new(clients, limits, door.limits());
    let registry = Registry::new(controller.map(Admin::new));
    let room = Arc::new(match system {
        System::OpenWhisk => {
            Room::OpenWhisk(Openwhisk::new(backend.clone(), gate, callers, registry, activations).into())
        }
        System::Lambda => Room::Lambda(Lambda::new(backend.clone(), gate, callers, registry)),
        System::OpenFaas => {
            let http = HttpDoor::new(backend.clone(), gate.clone(), stall_max, stop.clone());
            Room::OpenFaas(Openfaas::new(http, backend.clone(), gate, callers, registry))
        }
    });
    let answering = room.clone();
    channel::http::serve(door, clients, stop, move |request, peer: Peer| {
        let (room, backend) = (answering.clone(), backend.clone());
        async move {
            // While a request is being answered, the silence of who waits is patience.
            let busy = peer.busy.begin();
            let answer = room.answer(request, &peer).await;
            backend.answered(answer.status());
            answer.map(|body| body.holding(busy))
        }
    })
    .await;
    if let Room::OpenWhisk(room) = &*room {
        room.end().await;
    }
}

/// The room behind a door.
enum Room<B> {
    OpenWhisk(Box<Openwhisk<B>>),
    Lambda(Lambda<B>),
    OpenFaas(Openfaas<B>),
}

impl<B: Backend> Room<B> {
    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        match self {
            Self::OpenWhisk(room) => room.answer(request, peer).await,
            Self::Lambda(room) => room.answer(request, peer).await,
            Self::OpenFaas(room) => room.answer(request, peer).await,
        }
    }
}
