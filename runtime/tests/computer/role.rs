//! A computer as a role, over real sockets: calls, logs, status, what it learns from a controller, how it stops.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use nigh_proto::discovery::WatchEvent;
use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_controller_server::{EdgeController, EdgeControllerServer};
use nigh_proto::v1::computer_client::ComputerClient;
use nigh_proto::v1::controller_server::{Controller, ControllerServer};
use nigh_proto::v1::functions_client::FunctionsClient;
use nigh_proto::{Call, Deployment, Endpoint, Outcome, PlatformError, Reason, Reply, channel, v1};
use nigh_runtime::Config;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::guests;
use crate::set_up::*;

/// A controller that knows one edge by heart.
pub(crate) struct FakeController {
    modules: Mutex<HashMap<String, bytes::Bytes>>,
    functions: Mutex<Vec<Deployment>>,
    events: broadcast::Sender<v1::WatchEvent>,
    pub(crate) announced: Mutex<Option<v1::ComputerInfo>>,
    pub(crate) withdrawn: Mutex<bool>,
}

impl FakeController {
    pub(crate) async fn start() -> (Arc<Self>, Endpoint) {
        let fake = Arc::new(Self {
            modules: Mutex::default(),
            functions: Mutex::default(),
            events: broadcast::Sender::new(64),
            announced: Mutex::default(),
            withdrawn: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().into();
        let service = ControllerServer::from_arc(fake.clone());
        tokio::spawn(channel::server().add_service(service).serve_with_incoming(channel::incoming(listener)));
        (fake, endpoint)
    }

    fn deploy(&self, name: &str, guest: &str) -> Deployment {
        let (deployment, module) = deployment(name, guest, limits(), Vec::new());
        self.modules.lock().insert(deployment.module.to_string(), module);
        self.functions.lock().retain(|known| known.name != deployment.name);
        self.functions.lock().push(deployment.clone());
        let _ = self.events.send(WatchEvent::Function(deployment.clone()).to_wire());
        deployment
    }

    fn announces(&self, wanted: &Deployment) -> bool {
        let announced = self.announced.lock();
        announced
            .as_ref()
            .is_some_and(|info| info.ready.iter().any(|ready| ready.version == wanted.version.to_string()))
    }
}

type Outgoing<T> = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Controller for FakeController {
    async fn deploy(&self, _: Request<Streaming<v1::DeployRequest>>) -> Result<Response<v1::DeployResponse>, Status> {
        Err(Status::unimplemented("not asked for by computers"))
    }

    async fn remove(&self, _: Request<v1::RemoveRequest>) -> Result<Response<v1::RemoveResponse>, Status> {
        Err(Status::unimplemented("not asked for by computers"))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        Err(Status::unimplemented("not asked for by computers"))
    }

    type FetchModuleStream = Outgoing<v1::ModuleChunk>;

    async fn fetch_module(
        &self,
        request: Request<v1::FetchModuleRequest>,
    ) -> Result<Response<Self::FetchModuleStream>, Status> {
        let module = self.modules.lock().get(&request.into_inner().digest).cloned();
        let module = module.ok_or_else(|| Status::not_found("no such module"))?;
        let chunks: Vec<_> =
            module.chunks(100).map(|data| Ok(v1::ModuleChunk { data: data.to_vec().into() })).collect();
        Ok(Response::new(Box::pin(futures_util::stream::iter(chunks))))
    }

    async fn announce(&self, request: Request<v1::AnnounceRequest>) -> Result<Response<v1::AnnounceResponse>, Status> {
        let Some(v1::announce_request::Node::Computer(info)) = request.into_inner().node else {
            return Err(Status::invalid_argument("a computer is expected"));
        };
        *self.announced.lock() = Some(info);
        Ok(Response::new(v1::AnnounceResponse { lease_ms: 1000, beat_ms: 0 }))
    }

    async fn attend(&self, _: Request<Streaming<v1::AttendRequest>>) -> Result<Response<v1::AttendResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn withdraw(&self, _: Request<v1::WithdrawRequest>) -> Result<Response<v1::WithdrawResponse>, Status> {
        *self.withdrawn.lock() = true;
        Ok(Response::new(v1::WithdrawResponse {}))
    }

    type WatchStream = Outgoing<v1::WatchEvent>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes =
            BroadcastStream::new(self.events.subscribe()).map(|event| event.map_err(|_| Status::aborted("lagged")));
        let known = self.functions.lock().clone();
        let known = known.into_iter().map(|function| Ok(WatchEvent::Function(function).to_wire()));
        let known: Vec<_> = known.chain([Ok(WatchEvent::Synced.to_wire())]).collect();
        Ok(Response::new(Box::pin(futures_util::stream::iter(known).chain(changes))))
    }
}

pub(crate) struct Running {
    pub(crate) endpoint: Endpoint,
    pub(crate) shutdown: CancellationToken,
    pub(crate) ended: JoinHandle<Result<(), nigh_runtime::Error>>,
}

pub(crate) async fn start(config: Config) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    let shutdown = CancellationToken::new();
    Running { endpoint, ended: tokio::spawn(nigh_runtime::run(listener, config, shutdown.clone())), shutdown }
}

impl Running {
    pub(crate) fn channel(&self) -> Channel {
        channel::connect_lazy(&self.endpoint)
    }

    pub(crate) async fn invoke(&self, call: Call) -> Result<Reply, PlatformError> {
        let mut client = FunctionsClient::new(self.channel());
        Reply::from_wire(client.invoke(call.to_request(std::time::Instant::now())).await?.into_inner())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_learns_runs_updates_and_forgets() {
    let (controller, at) = FakeController::start().await;
    let first = controller.deploy("f", &guests::says("one"));
    controller.deploy("broken", &guests::echo().replace("(param i32 i32 i32)", "(param i64)"));
    let computer = start(Config { controller: Some(at.into()), ..config() }).await;
    until("the first version is announced", || controller.announces(&first)).await;
    let reply = computer.invoke(call("f", "")).await.unwrap();
    assert_eq!(reply.version, Some(first.version));
    until("the broken one is announced as such", || {
        let announced = controller.announced.lock();
        announced.as_ref().is_some_and(|info| info.problems.iter().any(|problem| problem.function == "broken"))
    })
    .await;
    assert_eq!(computer.invoke(call("broken", "")).await.unwrap_err().reason, Reason::NotReady);

    let second = controller.deploy("f", &guests::says("two"));
    until("the second version is announced", || controller.announces(&second)).await;
    let reply = computer.invoke(call("f", "")).await.unwrap();
    let Outcome::Answer { payload, .. } = reply.outcome else { panic!("{:?}", reply.outcome) };
    assert_eq!(&payload[..], b"two");

    controller.functions.lock().retain(|known| known.name != second.name);
    controller.events.send(WatchEvent::FunctionRemoved(second.name.clone()).to_wire()).unwrap();
    until("it is not announced any more", || !controller.announces(&second)).await;
    assert_eq!(computer.invoke(call("f", "")).await.unwrap_err().reason, Reason::UnknownFunction);

    computer.shutdown.cancel();
    computer.ended.await.unwrap().unwrap();
    assert!(*controller.withdrawn.lock());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_not_what_its_digest_says_is_never_run() {
    let (controller, at) = FakeController::start().await;
    let wanted = controller.deploy("f", &guests::says("good"));
    let (_, evil) = deployment("f", &guests::says("evil"), limits(), Vec::new());
    let good = controller.modules.lock().insert(wanted.module.to_string(), evil).unwrap();
    let computer = start(Config { controller: Some(at.into()), ..config() }).await;
    until("it is announced", || controller.announced.lock().is_some()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!controller.announces(&wanted));
    assert_eq!(computer.invoke(call("f", "")).await.unwrap_err().reason, Reason::NotReady);
    controller.modules.lock().insert(wanted.module.to_string(), good);
    until("the true module is found", || controller.announces(&wanted)).await;
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_finish_while_the_computer_drains() {
    let (controller, at) = FakeController::start().await;
    let wanted = controller.deploy("sleeps", &guests::sleeps());
    let computer = Arc::new(start(Config { controller: Some(at.into()), ..config() }).await);
    until("it is ready", || controller.announces(&wanted)).await;
    let slow = {
        let computer = computer.clone();
        tokio::spawn(async move { computer.invoke(call("sleeps", 1_500_000_000u64.to_le_bytes())).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    computer.shutdown.cancel();
    until("it withdraws", || *controller.withdrawn.lock()).await;
    assert!(computer.invoke(call("sleeps", [0; 8])).await.is_ok(), "brokers are given time to learn of it");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let late = computer.invoke(call("sleeps", [0; 8])).await.unwrap_err();
    assert_eq!(late.reason, Reason::NotServing);
    assert!(slow.await.unwrap().is_ok(), "a call under way is cut off");
    until("it ends", || computer.ended.is_finished()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_outlast_the_drain_are_stopped() {
    let (controller, at) = FakeController::start().await;
    let wanted = controller.deploy("loops", &guests::loops());
    let drain = Duration::from_millis(100);
    let computer = Arc::new(start(Config { controller: Some(at.into()), drain, ..config() }).await);
    until("it is ready", || controller.announces(&wanted)).await;
    let endless = {
        let computer = computer.clone();
        tokio::spawn(async move { computer.invoke(call("loops", "")).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    computer.shutdown.cancel();
    let error = endless.await.unwrap().unwrap_err();
    assert_eq!(error.reason, Reason::Disconnected);
    until("it ends", || computer.ended.is_finished()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_logged_are_kept_cut_and_followed() {
    let (controller, at) = FakeController::start().await;
    let (deployment, module) =
        deployment("chatters", &guests::chatters(), nigh_proto::Limits { log_bytes: 1000, ..limits() }, Vec::new());
    controller.modules.lock().insert(deployment.module.to_string(), module);
    controller.functions.lock().push(deployment.clone());
    let other = controller.deploy("gives-up", &guests::gives_up());
    let computer = start(Config { controller: Some(at.into()), ..config() }).await;
    until("both are ready", || controller.announces(&deployment) && controller.announces(&other)).await;
    computer.invoke(call("chatters", "")).await.unwrap();

    let mut client = ComputerClient::new(computer.channel());
    let request = |follow| v1::LogsRequest { function: "chatters".into(), follow, ..Default::default() };
    let kept: Vec<_> = client.logs(request(false)).await.unwrap().into_inner().collect().await;
    let kept: Vec<v1::LogLine> = kept.into_iter().map(Result::unwrap).collect();
    assert!(kept.len() < 40 && kept[0].text == "abcdefghijklmnopqrstuvwxyz", "{kept:?}");
    assert!(kept.last().unwrap().text.contains("1000 bytes"), "{kept:?}");

    let mut all = client.logs(v1::LogsRequest { follow: true, ..Default::default() }).await.unwrap().into_inner();
    for line in &kept {
        assert_eq!(all.next().await.unwrap().unwrap(), *line);
    }
    let made = call("gives-up", "");
    computer.invoke(made.clone()).await.unwrap();
    let line = all.next().await.unwrap().unwrap();
    assert_eq!((line.text.as_str(), line.level), ("nobody told me what to do", 2));
    assert_eq!((line.call_id.as_str(), line.lost), (made.id.as_str(), 0));

    // Filters: by call, by level, by time.
    let mut lines = async |request: v1::LogsRequest| -> Vec<String> {
        let lines: Vec<_> = client.logs(request).await.unwrap().into_inner().collect().await;
        lines.into_iter().map(|line| line.unwrap().text).collect()
    };
    let of_call = v1::LogsRequest { call_id: made.id.as_str()[..8].to_owned(), ..Default::default() };
    assert_eq!(lines(of_call).await, ["nobody told me what to do"]);
    let warnings = lines(v1::LogsRequest { level_max: Some(2), ..Default::default() }).await;
    assert!(warnings.len() == 2 && warnings[0].contains("1000 bytes"), "{warnings:?}");
    assert!(lines(v1::LogsRequest { since_us: line.time_us + 1, ..Default::default() }).await.is_empty());
    let endless = v1::LogsRequest { call_id: "x".repeat(65), ..Default::default() };
    assert_eq!(client.logs(endless).await.unwrap_err().code(), tonic::Code::InvalidArgument);

    let status = client.status(v1::StatusRequest {}).await.unwrap().into_inner();
    let chatters = status.functions.iter().find(|function| function.function == "chatters").unwrap();
    assert_eq!((chatters.calls, chatters.function_errors), (1, 0));
    let gives_up = status.functions.iter().find(|function| function.function == "gives-up").unwrap();
    assert_eq!((gives_up.calls, gives_up.function_errors), (1, 1));
    assert!(status.resident_bytes > 1 << 20 && gives_up.p99_us >= gives_up.p50_us);
    assert_eq!(gives_up.latency.iter().map(|bucket| bucket.calls).sum::<u64>(), 1);

    let mut samples = client.stream_utilisation(v1::UtilisationRequest {}).await.unwrap().into_inner();
    assert_eq!(samples.next().await.unwrap().unwrap().load.unwrap().workers, 4);
    // A reader that stays does not keep the computer from stopping.
    computer.shutdown.cancel();
    computer.ended.await.unwrap().unwrap();
    assert!(all.next().await.is_none());
}

/// Many calls on one stream, big payloads in parts.
#[tokio::test(flavor = "multi_thread")]
async fn big_payloads_go_in_parts_on_a_stream() {
    let (controller, at) = FakeController::start().await;
    let wanted = controller.deploy("echo", &guests::echo());
    let computer = start(Config { controller: Some(at.into()), ..config() }).await;
    until("it is ready", || controller.announces(&wanted)).await;
    let payload: bytes::Bytes = (0..1_000_000u32).map(|n| n.to_le_bytes()[1]).collect::<Vec<_>>().into();
    let (frames, receiver) = tokio::sync::mpsc::channel(4);
    let mut replies = FunctionsClient::new(computer.channel())
        .invoke_stream(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    let request = call("echo", "").to_wire();
    let open = v1::OpenCall { request: Some(request), timeout_us: 10_000_000, more: true };
    let frame = |frame| v1::InvokeFrame { id: 7, frame: Some(frame) };
    frames.send(frame(v1::invoke_frame::Frame::Open(open))).await.unwrap();
    for part in nigh_proto::parts(payload.clone()) {
        frames.send(frame(v1::invoke_frame::Frame::Part(part))).await.unwrap();
    }
    let mut echoed = Vec::new();
    while let Some(reply) = replies.next().await {
        match reply.unwrap().frame.unwrap() {
            v1::invoke_frame::Frame::Part(part) => echoed.extend_from_slice(&part.data),
            v1::invoke_frame::Frame::Reply(reply) => {
                let Outcome::Answer { payload, .. } = Reply::from_wire(reply).unwrap().outcome else { panic!() };
                echoed.extend_from_slice(&payload);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(echoed == payload);
    computer.shutdown.cancel();
}

/// A controller of the older system, which remembers what it is told.
#[derive(Clone, Default)]
struct OlderController(Arc<Mutex<(Vec<rpc::ComputerInfo>, Vec<String>)>>);

#[tonic::async_trait]
impl EdgeController for OlderController {
    async fn announce_computer(&self, request: Request<rpc::ComputerInfo>) -> Result<Response<rpc::Void>, Status> {
        self.0.lock().0.push(request.into_inner());
        Ok(Response::new(rpc::Void {}))
    }

    async fn announce_router(&self, _: Request<rpc::RouterInfo>) -> Result<Response<rpc::Void>, Status> {
        Err(Status::internal("a computer is no router"))
    }

    async fn remove_computer(&self, request: Request<rpc::ComputerInfo>) -> Result<Response<rpc::Void>, Status> {
        self.0.lock().1.push(request.into_inner().edge_server_endpoint);
        Ok(Response::new(rpc::Void {}))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_is_known_to_an_older_controller_as_long_as_it_runs() {
    let told = OlderController::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let older = listener.local_addr().unwrap().into();
    let service = channel::server().add_service(EdgeControllerServer::new(told.clone()));
    tokio::spawn(service.serve_with_incoming(channel::incoming(listener)));
    let (controller, at) = FakeController::start().await;
    controller.deploy("f", &guests::echo());
    let computer = start(Config { controller: Some(at.into()), older_controller: Some(older), ..config() }).await;
    let endpoint = computer.endpoint.to_string();
    until("it is announced with its function", || {
        let is_it = |info: &rpc::ComputerInfo| {
            let offers = info.containers.iter().any(|container| container.lambda == "f" && container.num_workers > 0);
            info.edge_server_endpoint == endpoint && offers
        };
        told.0.lock().0.iter().any(is_it)
    })
    .await;
    computer.shutdown.cancel();
    computer.ended.await.unwrap().unwrap();
    assert_eq!(told.0.lock().1, [endpoint]);
}
