//! Requests that http functions send: to the hosts allowed at deploy alone, few at once, within the call's time, with
//! bodies within the payload limit.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::Scheme;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

use super::body::Bounded;
use crate::function::Version;
use crate::host::Streams;

/// Requests of one instance at once.
const OF_INSTANCE_MAX: usize = 16;
/// Requests of all instances of a computer at once.
const OF_COMPUTER_MAX: usize = 1024;
/// Writes of a guest to a body that wait to be sent.
const BODY_WRITES_MAX: usize = 8;
/// Bytes of one such write.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// The computer's share in sending requests.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing(Arc<Semaphore>);

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(OF_COMPUTER_MAX)))
    }
}

/// Sends the requests of one instance.
pub(super) struct Sender {
    version: Arc<Version>,
    streams: Streams,
    own: Arc<Semaphore>,
    all: Outgoing,
    /// When the call ends at the latest.
    pub(super) until: Instant,
}

/// Held until a request's answer has ended.
type Places = (OwnedSemaphorePermit, OwnedSemaphorePermit);
type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io), Error>> + Send>;

impl Sender {
    pub(super) fn new(version: Arc<Version>, streams: Streams, all: &Outgoing) -> Self {
        let own = Arc::new(Semaphore::new(OF_INSTANCE_MAX));
        Self { version, streams, own, all: all.clone(), until: Instant::now() }
    }

    /// Why a request may not be sent, if so; the guest's author finds it in the log too.
    fn admit(&self, request: &http::Request<WasiBody>) -> Result<Places, Error> {
        let uri = request.uri();
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
            return Err(Error::HttpRequestUriInvalid);
        };
        if authority.as_str().contains('@') {
            return Err(Error::HttpRequestUriInvalid);
        }
        let standard = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(standard);
        if !self.version.deployment.hosts.iter().any(|allowed| allowed.covers(host, port, standard)) {
            let wanted = if port == standard { host.to_owned() } else { format!("{host}:{port}") };
            self.streams.note(&format!(
                "[a request to {wanted} was refused: {} may not send requests there; deploy it with --allow-host {wanted}]",
                self.version.deployment.name
            ));
            return Err(Error::HttpRequestDenied);
        }
        let place = |places: &Arc<Semaphore>| places.clone().try_acquire_owned();
        let (Ok(own), Ok(all)) = (place(&self.own), place(&self.all.0)) else {
            self.streams.note(&format!(
                "[a request to {host} was refused: {OF_INSTANCE_MAX} are under way from this call, or {OF_COMPUTER_MAX} from \
                 this computer; wait for answers before sending more]"
            ));
            return Err(Error::ConnectionLimitReached);
        };
        Ok((own, all))
    }

    /// What the guest asks for, and no more than the call has left.
    fn bounded(&self, options: Option<RequestOptions>) -> RequestOptions {
        let left = self.until.saturating_duration_since(Instant::now());
        let within = |wanted: Option<Duration>| Some(wanted.map_or(left, |wanted| wanted.min(left)));
        let wanted = options.unwrap_or_default();
        RequestOptions {
            connect_timeout: within(wanted.connect_timeout),
            first_byte_timeout: within(wanted.first_byte_timeout),
            between_bytes_timeout: within(wanted.between_bytes_timeout),
        }
    }
}

impl WasiHttpHooks for Sender {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Sent {
        let places = match self.admit(&request) {
            Ok(places) => places,
            Err(error) => return Box::new(ready(Err(error))),
        };
        let bytes_max = self.version.deployment.limits.payload_bytes;
        let options = self.bounded(options);
        let request =
            request.map(|body| Bounded::new(body, bytes_max, || Error::HttpRequestBodySize(None), ()).boxed_unsync());
        Box::new(async move {
            let (response, io) = default_send_request(request, Some(options)).await?;
            let bound = |body| Bounded::new(Box::pin(body), bytes_max, || Error::HttpResponseBodySize(None), places);
            Ok((response.map(|body| bound(body).boxed_unsync()), Box::new(io) as Io))
        })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_WRITES_MAX
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        WRITE_BYTES_MAX
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("until", &self.until).finish_non_exhaustive()
    }
}
