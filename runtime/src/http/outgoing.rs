//! Requests that http functions send: to the hosts allowed at deploy alone and, where those are names, only to where these may lead;
//! few at once, within the call's time, with bodies within the payload limit.

use std::future::ready;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use nigh_proto::http_client::{IpNet, NotFollowed, Reach, send_alone};
use nigh_proto::tls::https::{HttpsConnector, Trust, is_of_tls};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

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
pub(crate) struct Outgoing {
    places: Arc<Semaphore>,
    connector: HttpsConnector,
}

impl Outgoing {
    /// Names may lead into these networks too.
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        let connector = HttpsConnector::new(Some(Trust::public())).by_http1().reaching(Reach::Listed { networks });
        Self { places: Arc::new(Semaphore::new(OF_COMPUTER_MAX)), connector }
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
        let (Ok(own), Ok(all)) = (place(&self.own), place(&self.all.places)) else {
            self.streams.note(&format!(
                "[a request to {host} was refused: {OF_INSTANCE_MAX} are under way from this call, or {OF_COMPUTER_MAX} from \
                 this computer; wait for answers before sending more]"
            ));
            return Err(Error::ConnectionLimitReached);
        };
        Ok((own, all))
    }

    /// What the guest asks for, and no more than the call has left.
    fn bounded(&self, options: Option<RequestOptions>) -> Times {
        let left = self.until.saturating_duration_since(Instant::now());
        let within = |wanted: Option<Duration>| wanted.map_or(left, |wanted| wanted.min(left));
        let wanted = options.unwrap_or_default();
        Times {
            connect: within(wanted.connect_timeout),
            first_byte: within(wanted.first_byte_timeout),
            between_bytes: within(wanted.between_bytes_timeout),
        }
    }
}

/// Time for each part of a request.
#[derive(Debug, Clone, Copy)]
struct Times {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

/// Why there is no connection, as a guest is told of it; its author finds in the log where a name must not lead.
fn unconnected(error: io::Error, streams: &Streams) -> Error {
    match NotFollowed::of(&error) {
        Some(NotFollowed::Prohibited { host, address }) => {
            streams.note(&format!(
                "[a request to {host} was refused: that name leads to {address}, and names lead to the public internet only, local ones \
                 into private networks too; where it is meant, allow and ask for the address itself, or have the computer's operator add \
                 its network to outgoing_networks]"
            ));
            Error::DestinationIpProhibited
        }
        Some(NotFollowed::Nowhere { why, .. }) => Error::DnsError { rcode: Some(why.to_string()), info_code: None },
        None if error.kind() == io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        None if is_of_tls(&error) => Error::Tls(error),
        None => Error::Connect(error),
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
        let times = self.bounded(options);
        let (connector, streams) = (self.all.connector.clone(), self.streams.clone());
        let request =
            request.map(|body| Bounded::new(body, bytes_max, || Error::HttpRequestBodySize(None), ()).boxed_unsync());
        Box::new(async move {
            let connected = connector.connect_within(times.connect, request.uri().clone()).await;
            let connection = connected.map_err(|error| unconnected(error, &streams))?;
            let answering = tokio::time::timeout(times.first_byte, send_alone(connection, request));
            let (response, io) = answering.await.map_err(|_| Error::ConnectionReadTimeout)??;
            let bound = |body| {
                let body = Paced::new(body, times.between_bytes);
                Bounded::new(body, bytes_max, || Error::HttpResponseBodySize(None), places).boxed_unsync()
            };
            Ok((response.map(bound), Box::new(async { Ok(io.await?) }) as Io))
        })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_WRITES_MAX
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        WRITE_BYTES_MAX
    }
}

/// A body whose parts follow each other within a time.
struct Paced<B> {
    body: B,
    between: Duration,
    late: Pin<Box<Sleep>>,
}

impl<B> Paced<B> {
    fn new(body: B, between: Duration) -> Self {
        Self { body, between, late: Box::pin(tokio::time::sleep(between)) }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B>
where
    Error: From<B::Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { body, between, late } = self.get_mut();
        let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else {
            ready!(late.as_mut().poll(context));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        late.as_mut().reset(tokio::time::Instant::now() + *between);
        Poll::Ready(frame.map(|frame| Ok(frame?)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("until", &self.until).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn parts_of_an_answer_follow_each_other_within_their_time_or_not_at_all() {
        let within = Duration::from_millis(100);
        let parts = tokio_stream::iter(["a", "b", "c"]).throttle(within / 2);
        let parts = parts.map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
        let slow = parts.chain(tokio_stream::pending::<Result<Frame<Bytes>, Error>>());
        let mut slow = Paced::new(StreamBody::new(Box::pin(slow)), within);
        for part in ["a", "b", "c"] {
            assert_eq!(slow.frame().await.unwrap().unwrap().into_data().unwrap(), part);
        }
        let began = tokio::time::Instant::now();
        assert!(matches!(slow.frame().await.unwrap(), Err(Error::ConnectionReadTimeout)));
        assert_eq!(began.elapsed(), within);
    }
}
