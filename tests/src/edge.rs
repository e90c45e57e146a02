//! An edge in one process, on ports that the system picks, with what tests ask of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh::ca::Authority;
use nigh::local::{Edge as Local, EdgeConfig};
use nigh_client::{Admin, Caller, CallerLimits, DeployRequest, Listing};
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::{
    Call, Deployment, Endpoint, Identity, Limits, Outcome, PlatformError, Remote, Reply, Role, Tls, channel, v1,
};
use nigh_runtime::CompilerProgram;
use tempfile::TempDir;

use crate::processes;

/// Time for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A module larger than this takes long to compile.
const LARGE_MODULE_BYTES: usize = 4 << 20;
/// Time for that.
const LARGE_PATIENCE: Duration = Duration::from_secs(900);

/// A controller, a broker and computers, with clients of both.
pub struct Edge {
    local: Local,
    /// Asks the broker.
    pub caller: Caller,
    /// Asks the controller.
    pub admin: Admin,
    /// Who issues certificates, where the edge is over TLS.
    authority: Option<Arc<Authority>>,
    _data: TempDir,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge").field("broker", &self.broker()).finish_non_exhaustive()
    }
}

#[expect(clippy::missing_panics_doc, reason = "helpers of tests panic where a test has failed")]
impl Edge {
    /// An edge with so many computers, ready for deployments.
    pub async fn start(computers: usize) -> Self {
        Self::start_with(computers, |_| {}).await
    }

    /// The same with everything over TLS; its `caller` and `admin` are an operator's.
    pub async fn start_secured(computers: usize) -> Self {
        let authority = Arc::new(Authority::new().expect("an authority"));
        Self::start_with(computers, |config| config.authority = Some(authority)).await
    }

    /// What somebody of this role proves itself with, in an edge over TLS.
    pub fn certificate(&self, role: Role, name: &str) -> Tls {
        certificate(self.authority(), role, name)
    }

    /// Who issues certificates in an edge over TLS.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("the edge is over TLS")
    }

    /// The edge itself.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// An edge with so many computers and changes to its configuration.
    pub async fn start_with(computers: usize, change: impl FnOnce(&mut EdgeConfig)) -> Self {
        let data = TempDir::new().expect("a folder for the test");
        let mut config = EdgeConfig::ephemeral(data.path());
        config.computers = computers;
        config.computer.compiler =
            Some(CompilerProgram { path: processes::program(), arguments: vec!["compile".into()] });
        change(&mut config);
        let authority = config.authority.clone();
        let tls = authority.as_ref().map(|authority| certificate(authority, Role::Operator, "tester"));
        let local = Local::start(config).await.expect("an edge starts");
        let caller = Caller::new(Remote::new(local.broker().clone(), tls.clone()), CallerLimits::default());
        let admin = Admin::new(Remote::new(local.controller().clone(), tls));
        let edge = Self { local, caller, admin, authority, _data: data };
        edge.until("all computers are announced", async || edge.listing().await.computers.len() == computers).await;
        edge
    }

    /// Stops every role and waits until it has stopped.
    pub async fn stop(self) {
        self.local.shutdown().await.expect("an edge stops cleanly");
    }

    /// Where the broker takes calls over gRPC.
    pub fn broker(&self) -> Endpoint {
        self.local.broker().clone()
    }

    /// Where the broker takes calls over HTTP.
    pub fn http(&self) -> Endpoint {
        self.local.http().clone()
    }

    /// Where the controller is.
    pub fn controller(&self) -> Endpoint {
        self.local.controller().clone()
    }

    /// Who serves metrics and health, and where.
    pub fn metrics(&self) -> &[(String, Endpoint)] {
        self.local.metrics()
    }

    /// What the controller lists.
    pub async fn listing(&self) -> Listing {
        self.admin.list().await.expect("the controller lists")
    }

    /// Deploys with default limits and waits until calls are taken.
    pub async fn deploy(&self, name: &str, module: Bytes) -> Deployment {
        self.try_deploy(name, module, Limits::default()).await.expect("a good module deploys")
    }

    /// Deploys and, where that succeeds, waits until every computer is ready and calls are taken.
    pub async fn try_deploy(&self, name: &str, module: Bytes, limits: Limits) -> Result<Deployment, PlatformError> {
        self.deploy_allowing(name, module, limits, &[]).await
    }

    /// The same with hosts that the function may send requests to.
    pub async fn deploy_allowing(
        &self,
        name: &str,
        module: Bytes,
        limits: Limits,
        hosts: &[String],
    ) -> Result<Deployment, PlatformError> {
        let hosts = hosts.iter().map(|host| host.parse()).collect::<Result<_, _>>()?;
        let request = DeployRequest { limits, hosts, ..DeployRequest::new(name.parse()?) };
        // A language's whole engine takes a while to compile.
        let patience = if module.len() > LARGE_MODULE_BYTES { LARGE_PATIENCE } else { 4 * PATIENCE };
        let deployed = self.admin.deploy(request, module, |_| {}).await?;
        let deployment = deployed.deployment;
        let ready = self.admin.await_ready(&deployment.name, deployment.version, patience, |_| {}).await;
        ready.expect("what deploys becomes ready");
        self.until("the broker routes to it", async || {
            let mut probe = Call::new(deployment.name.clone(), Bytes::new(), PATIENCE);
            probe.dry_run = true;
            self.caller.invoke(probe).await.is_ok()
        })
        .await;
        Ok(deployment)
    }

    /// Calls a function.
    pub async fn call(&self, name: &str, payload: impl Into<Bytes>) -> Result<Reply, PlatformError> {
        let mut call = Call::new(name.parse().expect("the test's name is well formed"), payload, PATIENCE);
        call.retry_safe = true;
        self.caller.invoke(call).await
    }

    /// Calls a function that must answer with text.
    pub async fn answer(&self, name: &str, payload: impl Into<Bytes>) -> String {
        answer(self.call(name, payload).await.expect("the platform does its part"))
    }

    /// A request as no well-behaved client would send it.
    pub async fn raw_call(&self, name: &str, timeout: Option<Duration>) -> Result<(), PlatformError> {
        let mut request = tonic::Request::new(v1::InvokeRequest { function: name.to_owned(), ..Default::default() });
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let mut client = FunctionsClient::new(channel::connect_lazy(self.broker()));
        client.invoke(request).await.map(drop).map_err(PlatformError::from)
    }

    /// What a call of a protocol that does not exist comes to.
    pub async fn call_of_another_protocol(&self) -> PlatformError {
        let mut client = tonic::client::Grpc::new(channel::connect_lazy(self.broker()));
        client.ready().await.expect("the broker takes connections");
        let codec = tonic_prost::ProstCodec::<v1::InvokeRequest, v1::InvokeResponse>::default();
        let path = "/nigh.v2.Functions/Invoke".parse().expect("a path");
        client
            .unary(tonic::Request::new(v1::InvokeRequest::default()), path, codec)
            .await
            .expect_err("nobody speaks it")
            .into()
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !is_so().await {
            assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What somebody of this role, on this machine, proves itself with.
///
/// # Panics
/// Where the authority cannot issue it.
pub fn certificate(authority: &Authority, role: Role, name: &str) -> Tls {
    let identity = Identity { role, name: name.parse().expect("the test's name is well formed") };
    let pem = authority.issue(&identity, &["localhost".to_owned()], 1).expect("it is issued");
    Tls::new(&pem).expect("what is issued is good")
}

/// The text of an answer.
///
/// # Panics
/// Where the outcome is something else.
pub fn answer(reply: Reply) -> String {
    match reply.outcome {
        Outcome::Answer { payload, .. } => String::from_utf8(payload.to_vec()).expect("text"),
        other => panic!("expected an answer, got {other:?}"),
    }
}
