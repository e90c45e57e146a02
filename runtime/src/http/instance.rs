//! The life of a component's instance: made ahead or for a call, kept for the next one where the function was deployed so, and
//! worn after its last.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nigh_proto::exchange::RequestHead;
use nigh_proto::{Headers, Outcome};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{Error, WasiHttpView as _};

use super::answer::error_words;
use super::body::{Bounded, Flow};
use super::guest::Guest;
use super::renewal::{self, Renew};
use super::{Http, Incoming};
use crate::crew::Crew;
use crate::function::{Code, Version};
use crate::host::files::Share;
use crate::host::{Service, wait};
use crate::instance::{Ended, KEPT_MEMORY_BYTES_MAX, Life};
use crate::outcome::{self, Failure};
use crate::reset::{Image, Known, Ran};

/// A running copy of a component.
pub(crate) struct Instance {
    store: Store<Guest>,
    proxy: Proxy,
    renew: Option<Renew>,
    life: Life,
    calls: u32,
    /// Where these ran.
    ran: Ran,
    /// Handles that it has had at once, at most.
    handles: u32,
    /// What is known of its memory.
    known: Known,
    /// How long it took to make it as new, or to take down the one before and make this one ahead; nothing where its call had
    /// it made.
    pub(super) reset: Duration,
}

/// Runs a call in an instance made for it. Its making is under the call's limits too.
pub(crate) async fn run_fresh(
    http: &Http,
    version: &Arc<Version>,
    crew: &Crew,
    incoming: Incoming,
    service: Service,
) -> Ended<Box<Instance>> {
    let files = match version.files.take(&version.deployment, || crew.evict()).await {
        Ok(share) => share,
        Err(error) => return Ended::refused(error, service),
    };
    let mut store = Instance::store(http, version, crew, files);
    store.data_mut().begin(service);
    let limits = store.data().base.waiting_limits();
    let made = {
        let instantiating = pin!(async {
            loop {
                match http.instantiate(&mut store).await {
                    Err(failure) if outcome::is_want_of_room(&failure) && crew.evict() => {}
                    made => return made,
                }
            }
        });
        wait::within(limits, instantiating).await.0
    };
    match made {
        Ok((proxy, renew)) => {
            let mut made = Instance::new(store, proxy, renew);
            made.life = Life::Busy;
            made.run(incoming).await
        }
        Err(failure) => {
            let outcome = outcome::of_failure(&failure, &store.data().base);
            let service = store.data_mut().base.end();
            Ended { outcome, service, entered: None, reset: Duration::ZERO, instance: None }
        }
    }
}

impl Instance {
    /// What an instance is made in.
    pub(super) fn store(http: &Http, version: &Arc<Version>, crew: &Crew, files: Share) -> Store<Guest> {
        let mut store = Store::new(http.pre.engine(), Guest::new(version.clone(), &crew.outgoing, files));
        store.limiter(|guest| guest);
        store.epoch_deadline_callback(|mut context| context.data_mut().on_tick());
        store.set_epoch_deadline(1);
        store
    }

    /// One just made.
    pub(super) fn new(store: Store<Guest>, proxy: Proxy, renew: Option<Renew>) -> Box<Self> {
        let (life, ran, known, reset) = (Life::Idle, Ran::Nowhere, Known::default(), Duration::ZERO);
        Box::new(Self { store, proxy, renew, life, calls: 0, ran, handles: 0, known, reset })
    }

    /// Whether its host holds anything for it.
    pub(super) fn holds_resources(&self) -> bool {
        !self.store.data().table.is_empty()
    }

    /// What its memory holds, where it was just made.
    pub(super) fn into_image(self) -> Option<Image> {
        renewal::image_of(self.store)
    }

    /// Makes a worn instance of this version as new in place, and so idle; says whether it is.
    pub(crate) fn reset(&mut self, version: &Version) -> bool {
        debug_assert_eq!(self.life, Life::Worn, "an idle instance needs no reset, a spent one gets none");
        let began = Instant::now();
        let Code::Http(Http { image, .. }) = &version.code else { return false };
        let (Some(renew), Some(Some(image))) = (&self.renew, image.get()) else { return false };
        let Some(held) = self.store.data_mut().forget() else { return false };
        self.handles = self.handles.max(held);
        let restore = |memory: &mut [u8]| image.restore(memory, &mut self.known, self.ran);
        if !renewal::renew(&mut self.store, renew, self.handles, restore) {
            return false;
        }
        self.calls = 0;
        self.ran = Ran::Nowhere;
        self.life = Life::Idle;
        self.reset = began.elapsed();
        true
    }

    /// What it is at.
    pub(crate) fn life(&self) -> Life {
        self.life
    }

    /// The version that it is an instance of.
    pub(crate) fn version(&self) -> &Arc<Version> {
        self.store.data().base.version()
    }

    /// Bytes of all its memories.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.store.data().memory_bytes()
    }

    /// Runs another call in an idle instance.
    pub(crate) fn run_again(
        mut self: Box<Self>,
        incoming: Incoming,
        service: Service,
    ) -> impl Future<Output = Ended<Box<Self>>> {
        debug_assert_eq!(self.life, Life::Idle, "a busy or spent instance is never kept");
        self.life = Life::Busy;
        self.store.data_mut().begin(service);
        self.store.set_epoch_deadline(1);
        self.run(incoming)
    }

    async fn run(mut self: Box<Self>, incoming: Incoming) -> Ended<Box<Self>> {
        let entered = Instant::now();
        let limits = self.store.data().base.waiting_limits();
        let (result, ran) = wait::within(limits, pin!(self.enter(incoming))).await;
        self.ran = self.ran.and(ran);
        let is_sound = result.is_ok();
        let result = result.map(|outcome| match self.store.data_mut().settle_buckets() {
            Ok(()) => outcome,
            Err(refusal) => outcome::error("state-too-large", refusal.to_string()),
        });
        let outcome = result.or_else(|failure| outcome::of_failure(&failure, &self.store.data().base));
        let service = self.store.data_mut().base.end();
        self.calls += 1;
        self.life = if is_sound { self.life_after_call() } else { Life::Spent };
        Ended { outcome, service, entered: Some(entered), reset: self.reset, instance: Some(self) }
    }

    async fn enter(&mut self, incoming: Incoming) -> Result<Outcome, Failure> {
        let Incoming { head, body, answer } = incoming;
        // What the guest has said: nothing yet, an answer, or that it has none and why.
        let said: Arc<OnceLock<Result<Arc<Flow>, ErrorCode>>> = Arc::default();
        let saying = said.clone();
        let payload_bytes_max = self.version().deployment.limits.payload_bytes;
        let mut view = self.store.data_mut().http();
        let body = Bounded::new(
            http_body_util::StreamBody::new(frames(body)),
            payload_bytes_max,
            || Error::HttpRequestBodySize(None),
            (),
        );
        let request = view.new_incoming_request(Scheme::Http, request(head, body)?)?;
        let out = view.new_response_outparam_from_callback(move |given| {
            let response = given.map(|response| response.map(|body| Arc::new(Flow::new(body))));
            let _ = saying.set(response.as_ref().map(|response| response.body().clone()).map_err(Clone::clone));
            if let Ok(response) = response {
                // Fails only where the caller is gone.
                let _ = answer.send(response);
            }
        })?;
        self.proxy.wasi_http_incoming_handler().call_handle(&mut self.store, request, out).await?;
        Ok(match said.get() {
            Some(Ok(body)) => {
                body.seal();
                Outcome::Answer { payload: bytes::Bytes::new(), headers: Headers::default() }
            }
            Some(Err(code)) => {
                outcome::error("http-error", format!("the function could not answer: {}", error_words(code)))
            }
            None => {
                outcome::error("no-answer", "the function returned without an answer; `nigh logs` shows what it said")
            }
        })
    }

    /// What it is at after a call that came to its own outcome.
    fn life_after_call(&self) -> Life {
        let guest = self.store.data();
        let version = guest.base.version();
        let is_good_to_keep = !guest.base.is_out_of_memory && guest.memory_bytes() <= KEPT_MEMORY_BYTES_MAX as u64;
        if is_good_to_keep && self.calls < version.deployment.limits.reuse {
            Life::Idle
        } else if is_good_to_keep
            && matches!(&version.code, Code::Http(http) if http.can_renew() || http.ahead.is_due())
        {
            Life::Worn
        } else {
            Life::Spent
        }
    }
}

/// The request as the guest sees it.
fn request<B>(head: RequestHead, body: B) -> Result<http::Request<B>, Failure> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    uri.authority = Some(head.authority.parse()?);
    uri.path_and_query = Some(head.path);
    let mut request = http::Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = http::Uri::from_parts(uri)?;
    *request.headers_mut() = head.headers;
    Ok(request)
}

/// A body as HTTP libraries know it; one that breaks off looks to the guest like a connection that ended.
fn frames(
    body: nigh_proto::exchange::Body,
) -> impl futures_util::Stream<Item = Result<http_body::Frame<bytes::Bytes>, Error>> + Unpin {
    use futures_util::StreamExt as _;
    body.map(|part| part.map(http_body::Frame::data).map_err(|_| Error::ConnectionTerminated))
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("life", &self.life).field("calls", &self.calls).finish_non_exhaustive()
    }
}
