//! Both sides of a stream against each other: when it is used, when it ends, and what becomes of its calls.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;

use super::callee::{Serving, Session};
use super::{CallStream, PART_BYTES, Pipeline, StreamLimits};
use crate::call::{Call, CallLimits};
use crate::connections::ServerLimits;
use crate::ingress::Handler;
use crate::intake::Intake;
use crate::reply::{Outcome, Reply};
use crate::state::{CarriedState, StatePlace};
use crate::status::{PlatformError, Reason};
use crate::v1;
use crate::v1::functions_client::FunctionsClient;
use crate::v1::functions_server::{Functions, FunctionsServer};
use crate::v1::invoke_frame::Frame;

const PATIENCE: Duration = Duration::from_secs(600);

/// Answers with the payload: `echo` at once, `wait` when told to; `panic` meets a defect.
#[derive(Default)]
struct Callee {
    go_on: Notify,
    waiting: AtomicUsize,
}

impl Handler for Callee {
    async fn handle(&self, call: Call, _: Instant) -> Result<Reply, PlatformError> {
        match call.function.as_str() {
            "panic" => panic!("made up"),
            "wait" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.go_on.notified().await;
            }
            _ => {}
        }
        let outcome = Outcome::Answer { payload: call.payload, headers: call.headers };
        Ok(Reply::new(outcome, "computer-1".parse().unwrap(), call.id))
    }
}

/// A server that tells how it was called.
struct Counting {
    callee: Arc<Callee>,
    serving: Serving,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    streams: AtomicUsize,
}

impl Seen {
    fn counts(&self) -> (usize, usize) {
        (self.requests.load(Ordering::SeqCst), self.streams.load(Ordering::SeqCst))
    }
}

#[tonic::async_trait]
impl Functions for Counting {
    async fn invoke(&self, request: Request<v1::InvokeRequest>) -> Result<Response<v1::InvokeResponse>, Status> {
        self.seen.requests.fetch_add(1, Ordering::SeqCst);
        let now = Instant::now();
        let call = Call::from_wire(request.into_inner(), None, &self.serving.calls, now)?;
        Ok(Response::new(self.callee.handle(call, now).await?.into_wire()))
    }

    type InvokeStreamStream = Session<Callee>;

    async fn invoke_stream(
        &self,
        frames: Request<Streaming<v1::InvokeFrame>>,
    ) -> Result<Response<Session<Callee>>, Status> {
        self.seen.streams.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(Session::new(self.callee.clone(), self.serving.clone(), frames)))
    }

    type ExchangeStream = tokio_stream::Empty<Result<v1::ExchangeResponse, Status>>;

    async fn exchange(
        &self,
        _: Request<Streaming<v1::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        Err(Status::unimplemented("calls alone"))
    }
}

/// Both sides of one connection.
struct Edge {
    callee: Arc<Callee>,
    seen: Arc<Seen>,
    stop: CancellationToken,
    client: FunctionsClient<Channel>,
    served: JoinHandle<()>,
}

async fn edge() -> Edge {
    edge_within(ServerLimits::default()).await
}

async fn edge_within(limits: ServerLimits) -> Edge {
    let (here, there) = tokio::io::duplex(1 << 20);
    let (callee, seen, stop) = (Arc::new(Callee::default()), Arc::new(Seen::default()), CancellationToken::new());
    let serving = Serving::new(CallLimits::default(), &limits, stop.clone());
    let counting = Counting { callee: callee.clone(), serving, seen: seen.clone() };
    let server = Server::builder()
        .layer(Intake::new(&limits))
        .add_service(FunctionsServer::new(counting).max_decoding_message_size(usize::MAX));
    let incoming = tokio_stream::once(Ok::<_, io::Error>(there)).chain(tokio_stream::pending());
    let served = server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let served = tokio::spawn(async move { served.await.unwrap() });
    let mut here = Some(TokioIo::new(here));
    let connect = service_fn(move |_| {
        std::future::ready(here.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = Endpoint::from_static("http://edge").connect_with_connector(connect).await.unwrap();
    let client = FunctionsClient::new(channel).max_decoding_message_size(usize::MAX);
    Edge { callee, seen, stop, client, served }
}

impl Edge {
    async fn stream(&self) -> CallStream {
        let limits = StreamLimits { calls_max: 64, answer_bytes_max: 1 << 24, answers_bytes_max: 1 << 26 };
        CallStream::open(self.client.clone(), &limits).await.unwrap()
    }

    async fn waits_for(&self, calls: usize) {
        while self.callee.waiting.load(Ordering::SeqCst) < calls {
            tokio::task::yield_now().await;
        }
    }
}

fn call(function: &str, payload: impl Into<Bytes>) -> Call {
    Call::new(function.parse().unwrap(), payload, PATIENCE)
}

fn payload(response: v1::InvokeResponse) -> Bytes {
    match response.outcome {
        Some(v1::invoke_response::Outcome::Answer(answer)) => answer.payload,
        other => panic!("{other:?}"),
    }
}

fn reason(refused: Result<v1::InvokeResponse, Status>) -> Reason {
    PlatformError::from(refused.unwrap_err()).reason
}

#[tokio::test(start_paused = true)]
async fn a_lone_call_is_a_request_small_ones_after_it_share_a_stream_and_large_ones_go_by_themselves() {
    let edge = edge().await;
    let pipeline = Pipeline::new(edge.client.clone(), 1 << 24);
    assert_eq!(payload(pipeline.invoke(&call("echo", "1")).await.unwrap()), "1");
    tokio::time::sleep(PATIENCE / 100).await;
    assert_eq!(edge.seen.counts(), (1, 0));
    // While the stream is being opened, nobody waits for it.
    assert_eq!(payload(pipeline.invoke(&call("echo", "2")).await.unwrap()), "2");
    while edge.seen.counts().1 < 1 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let requests = edge.seen.counts().0;
    for at in 0..100u8 {
        assert_eq!(payload(pipeline.invoke(&call("echo", vec![at])).await.unwrap()), vec![at]);
    }
    assert_eq!(edge.seen.counts(), (requests, 1));
    let large = Bytes::from(vec![7; PART_BYTES + 1]);
    assert_eq!(payload(pipeline.invoke(&call("echo", large.clone())).await.unwrap()), large);
    assert_eq!(edge.seen.counts(), (requests + 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_loses_no_call_and_is_not_held_up_by_a_stream() {
    let edge = edge().await;
    let stream = edge.stream().await;
    let under_way = call("wait", "x");
    let under_way = stream.invoke(&under_way);
    tokio::pin!(under_way);
    tokio::select! {
        _ = &mut under_way => panic!("an answer from nowhere"),
        () = edge.waits_for(1) => {}
    }
    edge.stop.cancel();
    let late = call("echo", "y");
    // What was on its way when the server was told to stop is taken.
    assert_eq!(payload(stream.invoke(&late).await.unwrap()), "y");
    while !stream.is_over() {
        tokio::task::yield_now().await;
    }
    assert_eq!(reason(stream.invoke(&late).await), Reason::Unreachable, "certainly not run");
    edge.callee.go_on.notify_one();
    assert_eq!(payload(under_way.await.unwrap()), "x");
    edge.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_calls_ends_with_its_server_at_once() {
    let edge = edge().await;
    let stream = edge.stream().await;
    assert_eq!(payload(stream.invoke(&call("echo", "x")).await.unwrap()), "x");
    let began = tokio::time::Instant::now();
    edge.stop.cancel();
    edge.served.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert!(stream.is_over());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_heed_a_stop_is_refused_and_left() {
    let edge = edge().await;
    let (frames, receiver) = tokio::sync::mpsc::channel(4);
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = edge.client.clone().invoke_stream(receiver).await.unwrap().into_inner();
    let open = |id| {
        let request = Some(call("wait", "x").to_wire());
        let open = v1::OpenCall { request, timeout_us: 600_000_000, more: false };
        v1::InvokeFrame { id, frame: Some(Frame::Open(open)) }
    };
    frames.send(open(1)).await.unwrap();
    edge.waits_for(1).await;
    edge.stop.cancel();
    assert!(matches!(answers.message().await.unwrap().unwrap().frame, Some(Frame::Leave(_))));
    tokio::time::sleep(Duration::from_secs(2)).await;
    frames.send(open(2)).await.unwrap();
    let Some(v1::InvokeFrame { id: 2, frame: Some(Frame::Failure(failure)) }) = answers.message().await.unwrap() else {
        panic!("an answer from nowhere")
    };
    assert_eq!(PlatformError::of_failure(failure).reason, Reason::NotServing);
    edge.callee.go_on.notify_one();
    assert!(matches!(answers.message().await.unwrap().unwrap().frame, Some(Frame::Reply(_))));
    let end = PlatformError::from(answers.message().await.unwrap_err());
    assert_eq!(end.reason, Reason::NotServing);
    edge.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_uses_ends_and_another_is_opened_when_there_are_calls_again() {
    let edge = edge().await;
    let pipeline = Pipeline::new(edge.client.clone(), 1 << 24);
    for round in 1..=3 {
        while edge.seen.counts().1 < round {
            pipeline.invoke(&call("echo", "x")).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let requests = edge.seen.counts().0;
        pipeline.invoke(&call("echo", "x")).await.unwrap();
        assert_eq!(edge.seen.counts(), (requests, round));
        tokio::time::sleep(3 * ServerLimits::default().idle_max).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_never_comes_whole_is_given_up() {
    let edge = edge().await;
    let (frames, receiver) = tokio::sync::mpsc::channel(4);
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = edge.client.clone().invoke_stream(receiver).await.unwrap().into_inner();
    let open = v1::OpenCall { request: Some(call("echo", "half").to_wire()), timeout_us: 0, more: true };
    frames.send(v1::InvokeFrame { id: 9, frame: Some(Frame::Open(open)) }).await.unwrap();
    let began = tokio::time::Instant::now();
    let Some(v1::InvokeFrame { id: 9, frame: Some(Frame::Failure(failure)) }) = answers.message().await.unwrap() else {
        panic!("an answer from nowhere")
    };
    assert_eq!(PlatformError::of_failure(failure).reason, Reason::Late);
    let limits = ServerLimits::default();
    assert!(began.elapsed() <= limits.intake_timeout + limits.idle_max, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_defect_that_one_call_meets_ends_no_other() {
    let edge = edge().await;
    let stream = edge.stream().await;
    let (met, beside) = (call("panic", ""), call("wait", "beside"));
    let beside = stream.invoke(&beside);
    tokio::pin!(beside);
    tokio::select! {
        _ = &mut beside => panic!("an answer from nowhere"),
        () = edge.waits_for(1) => {}
    }
    assert_eq!(reason(stream.invoke(&met).await), Reason::Internal);
    edge.callee.go_on.notify_one();
    assert_eq!(payload(beside.await.unwrap()), "beside");
}

#[tokio::test(start_paused = true)]
async fn what_all_streams_hold_is_bounded_and_given_back() {
    let edge = edge_within(ServerLimits { intake_bytes_max: 100_000, ..ServerLimits::default() }).await;
    let streams = [edge.stream().await, edge.stream().await];
    let (held, second) = (call("wait", vec![7; 60_000]), call("echo", vec![7; 60_000]));
    let waiting = streams[0].invoke(&held);
    tokio::pin!(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("an answer from nowhere"),
        () = edge.waits_for(1) => {}
    }
    assert_eq!(reason(streams[1].invoke(&second).await), Reason::OutOfBudget);
    let in_parts = call("echo", vec![7; 2 * PART_BYTES]);
    assert_eq!(reason(streams[1].invoke(&in_parts).await), Reason::OutOfBudget);
    edge.callee.go_on.notify_one();
    waiting.await.unwrap();
    assert_eq!(payload(streams[1].invoke(&second).await.unwrap()).len(), 60_000);
}

#[tokio::test(start_paused = true)]
async fn states_that_travel_with_calls_count_as_payloads_do() {
    let edge = edge_within(ServerLimits { intake_bytes_max: 100_000, ..ServerLimits::default() }).await;
    let stream = edge.stream().await;
    let place = StatePlace::Content(Bytes::from(vec![7; 60_000]));
    let states = vec![CarriedState { name: "cart".parse().unwrap(), place, needed_by: Vec::new() }];
    let (held, second) = (Call { states: states.clone(), ..call("wait", "x") }, Call { states, ..call("echo", "y") });
    let waiting = stream.invoke(&held);
    tokio::pin!(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("an answer from nowhere"),
        () = edge.waits_for(1) => {}
    }
    assert_eq!(reason(stream.invoke(&second).await), Reason::OutOfBudget);
    edge.callee.go_on.notify_one();
    waiting.await.unwrap();
    assert_eq!(payload(stream.invoke(&second).await.unwrap()), "y");
}

/// A frame that some caller sends, in or out of place.
fn any_frame() -> impl Strategy<Value = v1::InvokeFrame> {
    let bytes = prop_oneof![Just(0), 1..100usize, Just(PART_BYTES + 1)].prop_map(|bytes| vec![7u8; bytes]);
    let function = prop_oneof![4 => Just("echo"), 1 => Just("panic"), 1 => Just("no such/name"), 1 => Just("wait")];
    let open = (function, bytes.clone(), any::<bool>(), any::<bool>(), prop_oneof![Just(0), Just(1), Just(60_000_000)])
        .prop_map(|(function, payload, more, has_request, timeout_us)| {
            let request =
                v1::InvokeRequest { function: function.into(), payload: payload.into(), ..Default::default() };
            Frame::Open(v1::OpenCall { request: has_request.then_some(request), timeout_us, more })
        });
    let part = (bytes, any::<bool>()).prop_map(|(data, more)| Frame::Part(v1::PayloadPart { data: data.into(), more }));
    let frame = prop_oneof![
        6 => open.prop_map(Some),
        4 => part.prop_map(Some),
        2 => Just(Some(Frame::Cancel(v1::CancelCall {}))),
        1 => Just(Some(Frame::Reply(v1::InvokeResponse::default()))),
        1 => Just(Some(Frame::Leave(v1::LeaveStream {}))),
        1 => Just(None),
    ];
    (0..5u64, frame).prop_map(|(id, frame)| v1::InvokeFrame { id, frame })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes before it on its stream, a call is answered; and what was opened ends at most once.
    #[test]
    fn no_frames_do_harm(frames in prop::collection::vec(any_frame(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let edge = edge().await;
            let opened = frames.iter().filter(|frame| matches!(frame.frame, Some(Frame::Open(_)))).count();
            let out_of_place = frames.len() - opened;
            let request = call("echo", "still there").to_wire();
            let open = v1::OpenCall { request: Some(request), timeout_us: 0, more: false };
            let last = v1::InvokeFrame { id: 99, frame: Some(Frame::Open(open)) };
            let sent = tokio_stream::iter(frames).chain(tokio_stream::once(last));
            let mut answers = edge.client.clone().invoke_stream(sent).await.unwrap().into_inner();
            let (mut ended, mut answered) = (0, None);
            while let Some(v1::InvokeFrame { id, frame }) = answers.message().await.unwrap() {
                match frame {
                    Some(Frame::Part(part)) => assert!(part.more && part.data.len() <= PART_BYTES),
                    Some(Frame::Reply(reply)) if id == 99 => answered = Some(payload(reply)),
                    Some(Frame::Reply(_) | Frame::Failure(_)) => ended += 1,
                    // The stream outlives its callers' interest where they leave payloads half sent.
                    Some(Frame::Leave(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(answered.as_deref(), Some(b"still there".as_slice()));
            assert!(ended <= opened + out_of_place, "{ended}");
        });
    }
}
