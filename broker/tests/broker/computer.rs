//! A fake computer: the real server, a handler made for the test, and a runtime of its own so that it can be killed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nigh_proto::ingress::{Handler, Ingress};
use nigh_proto::{CallLimits, Digest, Headers, Load, ServerLimits, Timing};
use tokio::runtime::Runtime;

use super::*;

pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Reply, PlatformError>> + Send>>;
type Behaviour = Arc<dyn Fn(Call) -> Answer + Send + Sync>;

pub(crate) struct FakeComputer {
    pub(crate) endpoint: Endpoint,
    behaviour: Behaviour,
    calls: Arc<AtomicUsize>,
    stop: CancellationToken,
    ended: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

struct Counted {
    behaviour: Behaviour,
    calls: Arc<AtomicUsize>,
}

impl Handler for Counted {
    async fn handle(&self, call: Call, _: Instant) -> Result<Reply, PlatformError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        (self.behaviour)(call).await
    }
}

impl FakeComputer {
    pub(crate) async fn start<F>(behaviour: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Reply, PlatformError>> + Send + 'static,
    {
        let endpoint = Endpoint::from(listen().await.local_addr().unwrap());
        let mut computer = Self {
            endpoint,
            behaviour: Arc::new(move |call| Box::pin(behaviour(call))),
            calls: Arc::default(),
            stop: CancellationToken::new(),
            ended: None,
            runtime: None,
        };
        computer.restart().await;
        computer
    }

    /// One that answers with the payload.
    pub(crate) async fn echo() -> Self {
        Self::start(|call| async move { Ok(answer(&call)) }).await
    }

    /// Calls that have arrived, over all its lives.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Ends it as `kill -9` does: its connections break under whatever is under way.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Takes nothing new, lets what is under way end, and then is gone.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        let ended = self.ended.take().unwrap();
        tokio::time::timeout(PATIENCE, ended).await.expect("what was under way ends").unwrap();
        self.kill();
    }

    /// Serves again at the same endpoint.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.stop = CancellationToken::new();
        let handler = Arc::new(Counted { behaviour: self.behaviour.clone(), calls: self.calls.clone() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (address, stop) = (self.endpoint.to_string(), self.stop.clone());
        let (bound, is_bound) = tokio::sync::oneshot::channel();
        let ended = runtime.spawn(async move {
            let deadline = Instant::now() + PATIENCE;
            let listener = loop {
                match TcpListener::bind(&address).await {
                    Ok(listener) => break listener,
                    Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
                }
                tokio::time::sleep(MS).await;
            };
            bound.send(()).unwrap();
            let limits = ServerLimits::default();
            let functions = Ingress::service_within(handler, CallLimits::default(), &limits, stop.clone());
            channel::serve(channel::server().add_service(functions), listener, stop).await.unwrap();
        });
        is_bound.await.unwrap();
        self.ended = Some(ended);
        self.runtime = Some(runtime);
    }
}

impl Drop for FakeComputer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An endpoint at which nobody is.
pub(crate) async fn nobody() -> Endpoint {
    Endpoint::from(listen().await.local_addr().unwrap())
}

pub(crate) fn reply(call: &Call, outcome: Outcome) -> Reply {
    Reply {
        outcome,
        computer: "computer-1".parse().unwrap(),
        responder: None,
        version: Some(Digest::of(b"version")),
        call: call.id.clone(),
        hops: call.hops,
        load: Load { workers: 4, ..Load::default() },
        timing: Timing { run: 100 * Duration::from_nanos(1000), ..Timing::default() },
        steps: Vec::new(),
        states: Vec::new(),
    }
}

/// The call's payload and headers, sent back.
pub(crate) fn answer(call: &Call) -> Reply {
    let headers = call.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    reply(call, Outcome::Answer { payload: call.payload.clone(), headers: Headers::new(headers).unwrap() })
}
