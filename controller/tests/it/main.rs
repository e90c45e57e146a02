//! The controller over real sockets, as its peers on the wire see it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod deploy;
mod documents;
#[path = "../../../store/tests/it/nats_server.rs"]
mod nats_server;
mod nodes;
mod older;
mod stores;

use std::time::Duration;

use bytes::Bytes;
use nigh_controller::{Config, Error};
use nigh_proto::v1::controller_client::ControllerClient;
use nigh_proto::v1::deploy_request::Part;
use nigh_proto::{Endpoint, PlatformError, Reason, channel, v1};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Longer than anything here takes, so that a hang fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// A controller under test, with a folder of its own.
struct Controller {
    folder: TempDir,
    endpoint: Endpoint,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Controller {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    async fn start_in(folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_at(listener, folder, change)
    }

    fn start_at(listener: TcpListener, folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(folder.path().join("store"));
        change(&mut config);
        let endpoint = listener.local_addr().unwrap().into();
        let shutdown = CancellationToken::new();
        let running = Box::pin(nigh_controller::run(listener, config, shutdown.clone()));
        #[expect(clippy::print_stderr, reason = "whoever calls one that never came up only hears that nobody listens")]
        let told = |error: &Error| eprintln!("the controller ended: {error}");
        let task = tokio::spawn(async move { running.await.inspect_err(told) });
        Self { folder, endpoint, shutdown, task }
    }

    fn client(&self) -> ControllerClient<Channel> {
        ControllerClient::new(channel::connect_lazy(&self.endpoint))
    }

    async fn functions(&self) -> Vec<v1::Deployment> {
        self.client().list(v1::ListRequest {}).await.unwrap().into_inner().functions
    }

    /// Stops it and returns its folder, for the next one.
    async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the controller drains").unwrap().unwrap();
        self.folder
    }
}

/// A module of the native kind, followed by a custom section of this many bytes.
fn module(memory_pages: u32, padding: u32) -> Bytes {
    let mut module = wat::parse_str(format!(
        r#"(module (memory (export "memory") {memory_pages})
            (func (export "nigh_alloc_v1") (param i32) (result i32) i32.const 0)
            (func (export "nigh_handle_v1") (param i32 i32) (result i32) i32.const 0))"#
    ))
    .unwrap();
    // Section 0, its length in LEB128 (five bytes do for every u32), an empty name, and the rest.
    let length = padding + 1;
    module.push(0);
    module.extend((0..5).map(|at| u8::try_from((length >> (7 * at)) & 0x7f).unwrap() | if at < 4 { 0x80 } else { 0 }));
    module.push(0);
    module.extend((0..padding).map(|at| u8::try_from(at % 251).unwrap()));
    module.into()
}

fn head(name: &str) -> v1::DeployRequest {
    let head = v1::DeployHead { name: name.into(), ..Default::default() };
    v1::DeployRequest { part: Some(Part::Head(head)) }
}

fn part(bytes: impl Into<Bytes>) -> v1::DeployRequest {
    v1::DeployRequest { part: Some(Part::Module(bytes.into())) }
}

async fn upload(
    client: &mut ControllerClient<Channel>,
    parts: Vec<v1::DeployRequest>,
) -> Result<v1::DeployResponse, PlatformError> {
    let answer = tokio::time::timeout(4 * PATIENCE, client.deploy(tokio_stream::iter(parts))).await.expect("an answer");
    Ok(answer?.into_inner())
}

async fn deploy(
    client: &mut ControllerClient<Channel>,
    name: &str,
    module: &Bytes,
) -> Result<v1::DeployResponse, PlatformError> {
    let mut parts = vec![head(name)];
    parts.extend(module.chunks(100_000).map(|chunk| part(chunk.to_vec())));
    upload(client, parts).await
}

async fn fetch(client: &mut ControllerClient<Channel>, digest: &str) -> Result<Vec<u8>, PlatformError> {
    let request = v1::FetchModuleRequest { digest: digest.into() };
    let mut chunks = client.fetch_module(request).await?.into_inner();
    let mut module = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        module.extend_from_slice(&chunk.data);
    }
    Ok(module)
}

fn reason<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> Reason {
    PlatformError::from(answer.unwrap_err()).reason
}
