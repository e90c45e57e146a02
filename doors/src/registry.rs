//! What is deployed: asked of the controller when somebody wants to know, and changed there.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use nigh_client::{Admin, DeployRequest, Documents, Listing, LogLevel, LogQuery};
use nigh_proto::{Call, CallId, Deployment, Document, DocumentKey, FunctionName, NodeName, PlatformError, Reason};

use crate::backend::Backend;

/// Time for computers to have what was deployed ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// Time for the broker to hear of it.
const HEARD_MAX: Duration = Duration::from_secs(5);
/// How often the broker is asked whether it has.
const HEARD_EVERY: Duration = Duration::from_millis(5);
/// Time for a computer to tell what one call logged, and lines of it.
const LOGS_MAX: Duration = Duration::from_secs(2);
const LOG_LINES_MAX: usize = 10_000;

/// The controller, as doors see it.
#[derive(Debug, Clone)]
pub(crate) struct Registry(Option<Admin>);

/// A line that a call has logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) time: SystemTime,
    pub(crate) is_error: bool,
    pub(crate) text: String,
}

impl Registry {
    pub(crate) fn new(controller: Option<Admin>) -> Self {
        Self(controller)
    }

    fn admin(&self) -> Result<&Admin, PlatformError> {
        let message = "there is no controller here that knows what is deployed; functions can be called, not listed";
        self.0.as_ref().ok_or_else(|| PlatformError::new(Reason::NotServing, message))
    }

    /// Everything that is deployed, and who is alive.
    pub(crate) async fn listing(&self) -> Result<Listing, PlatformError> {
        self.admin()?.list().await
    }

    /// Everything that is deployed, by name.
    pub(crate) async fn list(&self) -> Result<Vec<Deployment>, PlatformError> {
        self.listing().await.map(|listing| listing.functions)
    }

    /// What is deployed under a name.
    pub(crate) async fn find(&self, function: &FunctionName) -> Result<Option<Deployment>, PlatformError> {
        Ok(self.list().await?.into_iter().find(|deployment| deployment.name == *function))
    }

    /// Deploys, and waits until calls of it are taken.
    pub(crate) async fn deploy<B: Backend>(
        &self,
        request: DeployRequest,
        module: Bytes,
        backend: &B,
    ) -> Result<Deployment, PlatformError> {
        let admin = self.admin()?;
        let deployment = admin.deploy(request, module, |_| {}).await?.deployment;
        let ready = admin.await_ready(&deployment.name, deployment.version, READY_MAX, |_| {}).await;
        ready.map_err(|error| PlatformError::new(Reason::NotReady, error.to_string()))?;
        until_heard(&deployment.name, backend).await;
        Ok(deployment)
    }

    /// Removes a function.
    pub(crate) async fn remove(&self, function: &FunctionName) -> Result<(), PlatformError> {
        self.admin()?.remove(function).await
    }

    /// What doors keep of functions, unless it is what this mark stands for; nothing is kept where there is no controller.
    pub(crate) async fn documents(&self, known: Option<&str>) -> Result<Option<Documents>, PlatformError> {
        match &self.0 {
            Some(admin) => admin.documents(known).await,
            None => Ok(Some(Documents { mark: "".into(), all: Vec::new() })),
        }
    }

    /// Keeps something of a function; false where there is another by now than its writer has seen.
    pub(crate) async fn put_document(&self, document: &Document) -> Result<bool, PlatformError> {
        Ok(self.admin()?.put_document(document).await?.is_some())
    }

    /// Keeps something no longer.
    pub(crate) async fn remove_document(&self, key: &DocumentKey) -> Result<(), PlatformError> {
        self.admin()?.remove_document(key).await
    }

    /// The module of a deployment.
    pub(crate) async fn module(&self, deployment: &Deployment) -> Result<Bytes, PlatformError> {
        self.admin()?.module(deployment).await
    }

    /// What a call logged at the computer that ran it, as far as that is still known.
    pub(crate) async fn logs(&self, call: &CallId, computer: &NodeName) -> Result<Vec<Logged>, PlatformError> {
        within(LOGS_MAX, async {
            let admin = self.admin()?;
            let computers = admin.list().await?.computers;
            let Some(there) = computers.into_iter().find(|known| known.name == *computer) else {
                return Ok(Vec::new());
            };
            let query = LogQuery { call: Some(call.to_string()), ..LogQuery::default() };
            let mut lines = admin.inspect(there.endpoint).logs(query).await?;
            let mut logged = Vec::new();
            while let Some(line) = lines.next().await {
                let line = line?;
                let is_error = matches!(line.level, LogLevel::Panic | LogLevel::Error | LogLevel::Warn);
                logged.push(Logged { time: line.time, is_error, text: line.text });
                if logged.len() == LOG_LINES_MAX {
                    break;
                }
            }
            Ok(logged)
        })
        .await
    }
}

/// Waits until the broker takes calls of a function that computers have ready: whoever has deployed calls next.
async fn until_heard<B: Backend>(function: &FunctionName, backend: &B) {
    let until = Instant::now() + HEARD_MAX;
    while Instant::now() < until {
        let mut trial = Call::new(function.clone(), Bytes::new(), HEARD_MAX);
        trial.dry_run = true;
        let Ok(place) = backend.admit(trial.priority) else { return };
        if backend.handle_in(place, trial, Instant::now()).await.is_ok() {
            return;
        }
        tokio::time::sleep(HEARD_EVERY).await;
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, PlatformError>>) -> Result<T, PlatformError> {
    let late = || PlatformError::new(Reason::Late, format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}
