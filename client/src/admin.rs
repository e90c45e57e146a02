//! Deploying, removing and listing functions.

use std::time::Duration;

use bytes::Bytes;
use nigh_proto::{
    Broker, Computer, ComputerProblem, Deployment, Digest, DirectoryGrant, Endpoint, FunctionName, Limits, NodeName,
    PlatformError,
};

/// What is to be deployed, beside the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployRequest {
    /// The name to call it by.
    pub name: FunctionName,
    /// Its limits on each computer.
    pub limits: Limits,
    /// The directories that it may reach.
    pub directories: Vec<DirectoryGrant>,
}

/// What a deployment came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The function as it is deployed now.
    pub deployment: Deployment,
    /// False where the very same version was there already.
    pub changed: bool,
}

/// All that the controller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Functions deployed, by name.
    pub functions: Vec<Deployment>,
    /// Computers alive, by name.
    pub computers: Vec<Computer>,
    /// Brokers alive, by name.
    pub brokers: Vec<Broker>,
}

/// How far the computers alive are with one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Those that can run it.
    pub ready: Vec<NodeName>,
    /// Those that cannot, and why.
    pub problems: Vec<(NodeName, String)>,
    /// Those that are still at it.
    pub preparing: Vec<NodeName>,
}

/// Why a version did not become ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadyError {
    /// No computer can run it.
    #[error("no computer can run it")]
    Failed(Readiness),
}

/// Deploys, removes and lists functions at one controller. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Admin {}

impl Admin {
    /// For this controller; connects with the first request and again whenever the connection is lost.
    pub fn new(_controller: Endpoint) -> Self {
        let _ = std::any::type_name::<ComputerProblem>();
        unimplemented!()
    }

    /// Uploads a module and deploys it under a name; `progress` is told the bytes sent so far.
    ///
    /// # Errors
    /// [`PlatformError`]: refused, with what to do, or the controller cannot be reached.
    pub async fn deploy(
        &self,
        _request: DeployRequest,
        _module: Bytes,
        _progress: impl FnMut(u64),
    ) -> Result<Deployed, PlatformError> {
        unimplemented!()
    }

    /// Removes a function.
    ///
    /// # Errors
    /// `UnknownFunction` where there is none of this name.
    pub async fn remove(&self, _name: &FunctionName) -> Result<(), PlatformError> {
        unimplemented!()
    }

    /// Lists what is deployed and who is alive.
    ///
    /// # Errors
    /// [`PlatformError`] where the controller cannot be reached.
    pub async fn list(&self) -> Result<Listing, PlatformError> {
        unimplemented!()
    }

    /// Waits until every computer alive has this version ready or says why it cannot; `on_change` is told of each step.
    ///
    /// # Errors
    /// [`ReadyError`]: no computer can run it, or not within `timeout`.
    pub async fn await_ready(
        &self,
        _name: &FunctionName,
        _version: Digest,
        _timeout: Duration,
        _on_change: impl FnMut(&Readiness),
    ) -> Result<Readiness, ReadyError> {
        unimplemented!()
    }
}
