//! What is deployed, as the controller tells: modules fetched by digest and verified, versions prepared and switched
//! to, functions removed; and what this computer can run, as it is announced.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use nigh_proto::discovery::WatchEvent;
use nigh_proto::membership::{self, Knowledge, Node, Topics};
use nigh_proto::v1::controller_client::ControllerClient;
use nigh_proto::{Deployment, Digest, Endpoint, FunctionName, PlatformError, Reason, Remote, Role, channel, older, v1};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::computer::Computer;
use crate::computing::Computing;
use crate::error::PrepareError;
use crate::function::Version;

/// Versions prepared at once; more wait. Most only have to be found in the cache; those that are fetched and compiled wait
/// for places of their own.
const PREPARE_AT_ONCE: usize = 64;
/// Wait before a module that could not be fetched is asked for again.
const FETCH_RETRY: Duration = Duration::from_millis(500);
/// Silence in the middle of a module after which it is asked for again.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// Changes that wait to be taken up.
const KNOWLEDGE_QUEUE: usize = 64;
/// The least time between two announcements, so that many functions becoming ready are one piece of news.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(20);

/// Follows the controller until `shutdown`.
pub(crate) async fn follow(computer: Arc<Computer>, controller: Remote, shutdown: CancellationToken) {
    let (sender, mut knowledge) = mpsc::channel(KNOWLEDGE_QUEUE);
    let topics = Topics { functions: true, ..Topics::default() };
    let watching = tokio::spawn(membership::keep_watching(controller.clone(), topics, sender, shutdown.clone()));
    let mut follower = Follower {
        computer,
        controller,
        wanted: HashMap::new(),
        due: VecDeque::new(),
        preparing: JoinSet::new(),
        retries: JoinSet::new(),
    };
    loop {
        tokio::select! {
            learnt = knowledge.recv() => match learnt {
                Some(learnt) => follower.learn(learnt),
                None => break,
            },
            Some(Ok(prepared)) = follower.preparing.join_next() => follower.take(prepared),
            Some(Ok(name)) = follower.retries.join_next() => follower.due.push_back(name),
            () = follower.computer.code_lost() => follower.look_for_lost(),
            () = shutdown.cancelled() => break,
        }
        follower.start_due();
    }
    watching.abort();
}

/// Where a computer announces itself.
#[derive(Debug, Clone)]
pub(crate) enum At {
    /// A controller.
    Current(Remote),
    /// A controller of the older system.
    Older(Endpoint),
}

impl At {
    /// Keeps a node announced there until `shutdown`, then withdraws it.
    pub(crate) async fn keep_announced(self, node: watch::Receiver<Node>, shutdown: CancellationToken) {
        match self {
            Self::Current(controller) => membership::keep_announced(controller, node, shutdown).await,
            Self::Older(controller) => older::keep_announced(controller, node, shutdown).await,
        }
    }
}

/// Announces a computer whenever there is something to be told of it, until `shutdown`; withdraws it when there is no more, and at
/// the end.
pub(crate) async fn announce<C: Computing>(computer: Arc<C>, endpoint: Endpoint, at: At, shutdown: CancellationToken) {
    let mut changes = computer.changes();
    while !shutdown.is_cancelled() {
        let Some(node) = computer.node(endpoint.clone()) else {
            tokio::select! {
                () = changed(&mut changes) => continue,
                () = shutdown.cancelled() => return,
            }
        };
        let over = shutdown.child_token();
        let (sender, node) = watch::channel(node);
        let announcing = at.clone().keep_announced(node, over.clone());
        let updating = async {
            loop {
                changed(&mut changes).await;
                let Some(node) = computer.node(endpoint.clone()) else { break };
                sender.send_if_modified(|announced| std::mem::replace(announced, node.clone()) != node);
                tokio::time::sleep(ANNOUNCE_INTERVAL).await;
            }
            over.cancel();
            // Until it has withdrawn.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = announcing => {}
            () = updating => {}
        }
    }
}

/// Waits for a change; for ever, where there are to be none.
async fn changed(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending().await
    }
}

struct Follower {
    computer: Arc<Computer>,
    controller: Remote,
    /// What the controller wants to run.
    wanted: HashMap<FunctionName, Deployment>,
    /// Functions whose wanted version is to be prepared.
    due: VecDeque<FunctionName>,
    preparing: JoinSet<Prepared>,
    retries: JoinSet<FunctionName>,
}

struct Prepared {
    name: FunctionName,
    version: Digest,
    result: Result<Arc<Version>, Trouble>,
}

/// Why a version is not ready.
enum Trouble {
    /// The module could not be had; it may be later.
    Fetch(PlatformError),
    /// The version cannot run here.
    Prepare(PrepareError),
}

impl Follower {
    fn learn(&mut self, knowledge: Knowledge) {
        match knowledge {
            Knowledge::All(events) => {
                let before = std::mem::take(&mut self.wanted);
                for event in events {
                    self.apply(event);
                }
                for name in before.keys().filter(|name| !self.wanted.contains_key(*name)) {
                    self.computer.remove(name);
                }
                self.computer.set_learning(false);
            }
            Knowledge::Change(event) => self.apply(event),
        }
    }

    fn apply(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Function(deployment) => {
                let name = deployment.name.clone();
                if !deployment.placement.allows(self.computer.labels()) {
                    // It may have been another version's.
                    self.wanted.remove(&name);
                    self.computer.remove(&name);
                    return;
                }
                self.computer.functions().expect(&name);
                self.wanted.insert(name.clone(), deployment);
                self.due.push_back(name);
            }
            WatchEvent::FunctionRemoved(name) => {
                self.wanted.remove(&name);
                self.computer.remove(&name);
            }
            WatchEvent::Computer(_)
            | WatchEvent::ComputerRemoved(_)
            | WatchEvent::Broker(_)
            | WatchEvent::BrokerRemoved(_)
            | WatchEvent::Hierarchy(_)
            | WatchEvent::Synced => {}
        }
    }

    /// Has everything prepared anew that should be ready and is not.
    fn look_for_lost(&mut self) {
        let is_lost = |name: &FunctionName| {
            self.computer
                .functions()
                .get(name)
                .is_some_and(|known| known.deployment.is_none() && known.problem.is_none())
        };
        let lost: Vec<_> =
            self.wanted.keys().filter(|name| is_lost(name) && !self.due.contains(name)).cloned().collect();
        self.due.extend(lost);
    }

    fn start_due(&mut self) {
        while self.preparing.len() < PREPARE_AT_ONCE {
            let Some(name) = self.due.pop_front() else { break };
            let Some(deployment) = self.wanted.get(&name) else { continue };
            let known = self.computer.functions().get(&name);
            let used = known.and_then(|known| known.deployment).map(|used| used.version);
            if used == Some(deployment.version) {
                self.computer.functions().clear_problem(&name);
                continue;
            }
            let prepared = prepare(self.computer.clone(), self.controller.clone(), deployment.clone());
            self.preparing.spawn(prepared);
        }
    }

    fn take(&mut self, prepared: Prepared) {
        let Prepared { name, version, result } = prepared;
        // What has been replaced or removed in the meantime is of no use any more.
        if self.wanted.get(&name).is_none_or(|wanted| wanted.version != version) {
            return;
        }
        match result {
            Ok(prepared) => self.computer.switch(prepared),
            Err(Trouble::Prepare(error)) => {
                tracing::warn!(function = %name, version = %version.short(), %error, "cannot run this version");
                self.computer.functions().note_problem(&name, version, error.to_string());
            }
            Err(Trouble::Fetch(error)) => {
                tracing::warn!(function = %name, %error, "cannot fetch the module, will try again");
                self.retries.spawn(async move {
                    tokio::time::sleep(FETCH_RETRY).await;
                    name
                });
            }
        }
    }
}

async fn prepare(computer: Arc<Computer>, controller: Remote, deployment: Deployment) -> Prepared {
    let (name, version) = (deployment.name.clone(), deployment.version);
    let result = prepare_version(&computer, &controller, deployment).await;
    Prepared { name, version, result }
}

async fn prepare_version(
    computer: &Computer,
    controller: &Remote,
    deployment: Deployment,
) -> Result<Arc<Version>, Trouble> {
    computer.check(&deployment)?;
    let module = async { fetch(controller, &deployment).await.map_err(Trouble::Fetch) };
    match computer.modules().obtain(deployment.module, module).await {
        Ok(compiled) => Ok(computer.prepare(Arc::new(deployment), &compiled)?),
        // Damaged on the way; the next try may bring it whole.
        Err(Trouble::Prepare(error @ PrepareError::OtherModule { .. })) => {
            Err(Trouble::Fetch(PlatformError::new(Reason::Protocol, error.to_string())))
        }
        Err(trouble) => Err(trouble),
    }
}

impl From<PrepareError> for Trouble {
    fn from(error: PrepareError) -> Self {
        Self::Prepare(error)
    }
}

/// A module by its digest, from whichever controller has it.
async fn fetch(controller: &Remote, deployment: &Deployment) -> Result<Bytes, PlatformError> {
    let mut failed = None;
    for controller in controller.each() {
        match fetch_from(controller, deployment).await {
            Ok(module) => return Ok(module),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| PlatformError::new(Reason::Unreachable, "there is no controller to ask")))
}

/// A module by its digest. Its bytes are checked against the digest before they are used.
async fn fetch_from(controller: Remote, deployment: &Deployment) -> Result<Bytes, PlatformError> {
    let mut client = ControllerClient::new(channel::connect_lazy(controller.expecting(&[Role::Controller])));
    let request = v1::FetchModuleRequest { digest: deployment.module.to_string() };
    let mut chunks = within(client.fetch_module(request)).await??.into_inner();
    let expected = usize::try_from(deployment.module_bytes).unwrap_or(usize::MAX);
    let mut module = BytesMut::new();
    while let Some(chunk) = within(chunks.next()).await? {
        module.extend_from_slice(&chunk?.data);
        if module.len() > expected {
            break;
        }
    }
    if module.len() != expected {
        let message = format!("the module has not the {expected} bytes that were announced");
        return Err(PlatformError::new(Reason::Protocol, message));
    }
    Ok(module.freeze())
}

async fn within<T>(answer: impl Future<Output = T>) -> Result<T, PlatformError> {
    let late = |_| PlatformError::new(Reason::Late, "the controller does not answer");
    tokio::time::timeout(CHUNK_TIMEOUT, answer).await.map_err(late)
}
