//! Deploying, listing, removing, and waiting until a version is ready, against a controller that does as it is told.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use nigh_client::{Admin, DeployRequest, Readiness, ReadyError};
use nigh_proto::deployment::Wanted;
use nigh_proto::discovery::WatchEvent;
use nigh_proto::v1::controller_server::{Controller, ControllerServer};
use nigh_proto::v1::deploy_request::Part;
use nigh_proto::{
    Computer, ComputerProblem, Deployment, Digest, DirectoryGrant, Kind, Limits, PlatformError, Reason, v1,
};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tonic::{Request, Response, Status, Streaming};

use super::*;

/// Takes every upload but those named `refused`, which it refuses at their head.
struct Scripted {
    deployed: Mutex<Vec<v1::Deployment>>,
    events: broadcast::Sender<WatchEvent>,
    known: Mutex<Vec<WatchEvent>>,
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Controller for Scripted {
    async fn deploy(
        &self,
        request: Request<Streaming<v1::DeployRequest>>,
    ) -> Result<Response<v1::DeployResponse>, Status> {
        let mut parts = request.into_inner();
        let Some(Part::Head(head)) = parts.message().await?.and_then(|part| part.part) else { panic!("a head first") };
        if head.name == "refused" {
            return Err(PlatformError::new(Reason::OutOfBudget, "no room; `nigh rm` something").into());
        }
        let Wanted { name, limits, directories, hosts, placement, states } = Deployment::check_head(head)?;
        let mut module = Vec::new();
        while let Some(part) = parts.message().await? {
            let Some(Part::Module(bytes)) = part.part else { panic!("parts after the head") };
            assert!(!bytes.is_empty() && bytes.len() <= 1 << 20);
            module.extend_from_slice(&bytes);
        }
        let digest = Digest::of(&module);
        let deployment = Deployment::new(name, digest, module.len() as u64, Kind::Native, limits, directories)
            .allowing(hosts)
            .placed(placement)
            .depending_on(states);
        self.deployed.lock().push(deployment.to_wire());
        Ok(Response::new(v1::DeployResponse { deployment: Some(deployment.to_wire()), changed: true }))
    }

    async fn remove(&self, request: Request<v1::RemoveRequest>) -> Result<Response<v1::RemoveResponse>, Status> {
        let name = request.into_inner().name;
        let mut deployed = self.deployed.lock();
        let at = deployed.iter().position(|function| function.name == name);
        deployed.remove(at.ok_or_else(|| PlatformError::unknown_function(name))?);
        Ok(Response::new(v1::RemoveResponse {}))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let functions = self.deployed.lock().clone();
        Ok(Response::new(v1::ListResponse { functions, ..Default::default() }))
    }

    type FetchModuleStream = Events<v1::ModuleChunk>;

    async fn fetch_module(
        &self,
        _: Request<v1::FetchModuleRequest>,
    ) -> Result<Response<Self::FetchModuleStream>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn announce(&self, _: Request<v1::AnnounceRequest>) -> Result<Response<v1::AnnounceResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn attend(&self, _: Request<Streaming<v1::AttendRequest>>) -> Result<Response<v1::AttendResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn withdraw(&self, _: Request<v1::WithdrawRequest>) -> Result<Response<v1::WithdrawResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    type WatchStream = Events<v1::WatchEvent>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let live = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        let known: Vec<_> = self.known.lock().iter().cloned().chain([WatchEvent::Synced]).collect();
        let events = tokio_stream::iter(known).chain(live.map(Result::unwrap));
        Ok(Response::new(Box::pin(events.map(|event| Ok(event.to_wire())))))
    }
}

async fn scripted(known: Vec<WatchEvent>) -> (Arc<Scripted>, Admin) {
    let (events, _) = broadcast::channel(64);
    let script = Arc::new(Scripted { deployed: Mutex::default(), events, known: Mutex::new(known) });
    let service = ControllerServer::from_arc(script.clone());
    let endpoint = serve(channel::server().add_service(service)).await;
    (script, Admin::new(endpoint))
}

fn request(name: &str) -> DeployRequest {
    let directories = vec![DirectoryGrant { name: "data".into(), guest_path: "/data".into(), writable: true }];
    let limits = Limits { memory_bytes: 3 << 20, reuse: 7, ..Limits::default() };
    DeployRequest {
        limits,
        directories,
        hosts: vec!["api.example:81".parse().unwrap()],
        ..DeployRequest::new(name.parse().unwrap())
    }
}

#[tokio::test]
async fn a_module_arrives_whole_and_progress_is_told() {
    let (script, admin) = scripted(Vec::new()).await;
    let module = Bytes::from(vec![7; 3_000_000]);
    let mut told = Vec::new();
    let deployed = soon(admin.deploy(request("echo"), module.clone(), |bytes| told.push(bytes))).await.unwrap();
    assert!(deployed.changed);
    assert_eq!(deployed.deployment.module, Digest::of(&module));
    let asked = request("echo");
    assert_eq!(deployed.deployment.limits, asked.limits);
    assert_eq!(deployed.deployment.directories, asked.directories);
    assert!(told.is_sorted() && told.first() == Some(&0) && told.last() == Some(&3_000_000), "{told:?}");
    assert_eq!(admin.list().await.unwrap().functions, std::slice::from_ref(&deployed.deployment));
    admin.remove(&deployed.deployment.name).await.unwrap();
    assert_eq!(admin.remove(&deployed.deployment.name).await.unwrap_err().reason, Reason::UnknownFunction);
    assert!(script.deployed.lock().is_empty());
}

#[tokio::test]
async fn a_refusal_comes_before_the_upload_is_over() {
    let (_, admin) = scripted(Vec::new()).await;
    let module = Bytes::from(vec![7; 60 << 20]);
    let mut sent = 0;
    let error = soon(admin.deploy(request("refused"), module.clone(), |bytes| sent = bytes)).await.unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (Reason::OutOfBudget, "no room; `nigh rm` something"));
    assert!(sent < module.len() as u64);
}

#[tokio::test]
async fn a_controller_that_is_away_is_named_with_what_to_do() {
    let endpoint = nobody().await;
    let admin = Admin::new(endpoint.clone());
    let name = "echo".parse().unwrap();
    for error in [
        soon(admin.list()).await.unwrap_err(),
        soon(admin.remove(&name)).await.unwrap_err(),
        soon(admin.deploy(request("echo"), Bytes::from_static(b"x"), |_| {})).await.unwrap_err(),
    ] {
        assert_eq!(error.reason, Reason::Unreachable, "{error}");
        assert!(error.message.contains(endpoint.as_str()) && error.message.contains("`nigh up`"), "{error}");
    }
    let timeout = Duration::from_millis(100);
    let error = soon(admin.await_ready(&name, Digest::of(b"1"), timeout, |_| {})).await.unwrap_err();
    assert_eq!(error, ReadyError::Unreachable { controller: endpoint, timeout });
}

fn deployment(module: &[u8]) -> Deployment {
    let (name, bytes) = ("echo".parse().unwrap(), module.len() as u64);
    Deployment::new(name, Digest::of(module), bytes, Kind::Native, Limits::default(), Vec::new())
}

/// A computer that has a version ready or a problem with it, or is still at it.
fn computer(name: &str, version: Result<Option<&Deployment>, &Deployment>) -> WatchEvent {
    let ready = version.ok().flatten().map(|function| (function.name.clone(), function.version));
    let problem = version.err().map(|function| ComputerProblem {
        function: function.name.clone(),
        version: function.version,
        message: "no such directory here".into(),
    });
    WatchEvent::Computer(Computer {
        name: name.parse().unwrap(),
        endpoint: "127.0.0.1:10000".parse().unwrap(),
        ready: ready.into_iter().collect(),
        problems: problem.into_iter().collect(),
        workers: 1,
        directories: Vec::new(),
        own_functions: Vec::new(),
        older: false,
        labels: nigh_proto::Labels::default(),
    })
}

/// Waits for a version while the events happen one by one, each once the one before has been noticed.
async fn await_ready(
    known: Vec<WatchEvent>,
    then: Vec<WatchEvent>,
    timeout: Duration,
) -> (Result<Readiness, ReadyError>, Vec<Readiness>) {
    let (script, admin) = scripted(known).await;
    let function = deployment(b"1");
    let (mut steps, mut then) = (Vec::new(), then.into_iter());
    let outcome = admin.await_ready(&function.name, function.version, timeout, |readiness| {
        steps.push(readiness.clone());
        if let Some(event) = then.next() {
            script.events.send(event).unwrap();
        }
    });
    (soon(outcome).await, steps)
}

fn names(names: &[&str]) -> Vec<nigh_proto::NodeName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_version_is_ready_once_every_computer_has_it_or_says_why_not() {
    let (old, new) = (deployment(b"0"), deployment(b"1"));
    let known = vec![
        WatchEvent::Function(new.clone()),
        computer("a", Ok(Some(&old))),
        computer("b", Ok(None)),
        computer("c", Ok(None)),
    ];
    let then = vec![
        computer("a", Ok(Some(&new))),
        computer("b", Err(&new)),
        WatchEvent::ComputerRemoved("c".parse().unwrap()),
    ];
    let (outcome, steps) = await_ready(known, then, PATIENCE).await;
    let readiness = outcome.unwrap();
    assert_eq!(readiness.ready, names(&["a"]));
    assert_eq!(readiness.problems, [("b".parse().unwrap(), "no such directory here".to_owned())]);
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[0].preparing, names(&["a", "b", "c"]));
    assert_eq!(steps[2].preparing, names(&["c"]));
}

#[tokio::test]
async fn a_version_that_no_computer_can_run_is_an_error_with_the_problems() {
    let new = deployment(b"1");
    let known = vec![WatchEvent::Function(new.clone()), computer("a", Err(&new))];
    let (outcome, _) = await_ready(known, Vec::new(), PATIENCE).await;
    let error = outcome.unwrap_err();
    assert!(matches!(&error, ReadyError::Failed(readiness) if readiness.problems.len() == 1), "{error:?}");
    assert!(error.to_string().contains("a: no such directory here"), "{error}");
}

#[tokio::test]
async fn a_version_that_is_replaced_removed_or_late_is_told_apart() {
    let (new, newer) = (deployment(b"1"), deployment(b"2"));
    let known = || vec![WatchEvent::Function(new.clone()), computer("a", Ok(None))];
    let (outcome, _) = await_ready(known(), vec![WatchEvent::Function(newer.clone())], PATIENCE).await;
    assert_eq!(outcome, Err(ReadyError::Replaced { by: newer.version }));
    let removed = WatchEvent::FunctionRemoved("echo".parse().unwrap());
    assert_eq!(await_ready(known(), vec![removed], PATIENCE).await.0, Err(ReadyError::Removed));
    assert_eq!(await_ready(Vec::new(), Vec::new(), PATIENCE).await.0, Err(ReadyError::Removed));
    let timeout = Duration::from_millis(300);
    let readiness = Readiness { preparing: names(&["a"]), ..Readiness::default() };
    assert_eq!(await_ready(known(), Vec::new(), timeout).await.0, Err(ReadyError::Late { readiness, timeout }));
    let nobody = vec![WatchEvent::Function(new.clone())];
    assert_eq!(await_ready(nobody, Vec::new(), timeout).await.0, Err(ReadyError::NoComputer));
}
