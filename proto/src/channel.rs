//! Channels and servers with the platform's settings: no waiting for more bytes, dead peers noticed, messages bounded.

pub mod http;

use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, server};
use tower::layer::util::{Identity as NoLayer, Stack};

use crate::access::Rules;
use crate::connections::ServerLimits;
use crate::dial::Dialer;
use crate::exchange::PART_BYTES_MAX;
use crate::identity::Role;
use crate::intake::Intake;
use crate::name::{Endpoint, Endpoints};
use crate::tls::accept::Incoming;
use crate::tls::connect::Connector;
use crate::tls::{Admission, HttpClients, Tls};

/// Time to make a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Silence after which a peer is asked whether it is still there.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Time that a peer has to answer that.
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The same where it costs little to connect anew and much to be out of step: between a node and its controller.
const KEEP_IN_STEP_INTERVAL: Duration = Duration::from_millis(500);
const KEEP_IN_STEP_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes under way on one stream before the receiver has to confirm, so that a payload of this size needs no round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for a whole connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Time from closing a listener until those connected are told to leave.
pub(crate) const CLOSED_BEFORE_LEAVING: Duration = Duration::from_millis(50);
/// Room in a message beside the payload: headers, names, ids.
const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;

/// What every request passes before it meets a service.
type Layers = Stack<Intake, Stack<Rules, NoLayer>>;
/// A server to add services to.
pub type Server = server::Server<Layers>;
/// A server and its services.
pub type Services = server::Router<Layers>;

/// Whom to connect to, and how. An [`Endpoint`] alone is one to connect to plainly.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What to prove oneself with; without it the connection is plain.
    pub tls: Option<Tls>,
    roles: &'static [Role],
    keeps_in_step: bool,
    /// Others that know the same, to be asked where this one cannot be.
    others: Vec<Endpoint>,
}

impl Remote {
    /// Several that know the same.
    pub fn any_of(endpoints: &Endpoints, tls: Option<Tls>) -> Self {
        let others = endpoints.iter().skip(1).cloned().collect();
        Self { others, ..Self::new(endpoints.first().clone(), tls) }
    }

    /// This one and all others that know the same, each on its own, in the order in which they are asked.
    pub fn each(&self) -> Vec<Self> {
        let alone = |endpoint: &Endpoint| Self { endpoint: endpoint.clone(), others: Vec::new(), ..self.clone() };
        std::iter::once(&self.endpoint).chain(&self.others).map(alone).collect()
    }

    /// One to connect to over TLS, if there is any.
    pub fn new(endpoint: Endpoint, tls: Option<Tls>) -> Self {
        Self { endpoint, tls, roles: &[], keeps_in_step: false, others: Vec::new() }
    }

    /// The same, which over TLS must prove to be one of these.
    #[must_use]
    pub fn expecting(self, roles: &'static [Role]) -> Self {
        Self { roles, ..self }
    }

    /// The same, whose silence is noticed within [`KEEP_IN_STEP_INTERVAL`] and [`KEEP_IN_STEP_TIMEOUT`].
    #[must_use]
    pub(crate) fn kept_in_step(self) -> Self {
        Self { keeps_in_step: true, ..self }
    }
}

impl From<Endpoint> for Remote {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint, None)
    }
}

impl From<&Endpoint> for Remote {
    fn from(endpoint: &Endpoint) -> Self {
        endpoint.clone().into()
    }
}

/// A channel that connects when first used, and again whenever the connection is lost.
pub fn connect_lazy(remote: impl Into<Remote>) -> Channel {
    let Remote { endpoint, tls, roles, keeps_in_step, others: _ } = remote.into();
    let (interval, timeout) = match keeps_in_step {
        true => (KEEP_IN_STEP_INTERVAL, KEEP_IN_STEP_TIMEOUT),
        false => (KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT),
    };
    let uri = |scheme| format!("{scheme}://{endpoint}");
    let settings = uri("http")
        .parse::<tonic::transport::Endpoint>()
        .expect("an endpoint's form is a valid authority")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(timeout)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let Some(tls) = tls else { return settings.connect_with_connector_lazy(Dialer(endpoint)) };
    // Requests say https, while the connector is asked for the bare address: TLS is its own doing.
    let origin = uri("https").parse().expect("an endpoint's form is a valid authority");
    settings.origin(origin).connect_with_connector_lazy(Connector::new(endpoint, tls, roles))
}

/// A server to add services to. Its connections must come from [`incoming`], which tells whose they are.
pub fn server() -> Server {
    server_within(&ServerLimits::default())
}

/// The same within these limits; its door has limits of its own.
pub fn server_within(limits: &ServerLimits) -> Server {
    server::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.requests_per_connection_max)
        .layer(Rules::default())
        .layer(Intake::new(limits))
}

/// A listener, and how connections are let in there. A [`TcpListener`] alone is a plain one.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    tls: Option<Tls>,
    limits: ServerLimits,
}

impl Door {
    /// One that takes TLS only, if there is any.
    pub fn new(listener: TcpListener, tls: Option<Tls>) -> Self {
        Self { listener, tls, limits: ServerLimits::default() }
    }

    /// The same within these limits.
    #[must_use]
    pub fn within(self, limits: &ServerLimits) -> Self {
        Self { limits: limits.clone(), ..self }
    }

    /// Its limits.
    pub fn limits(&self) -> &ServerLimits {
        &self.limits
    }

    /// Where it is.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self::new(listener, None)
    }
}

/// A door's connections for gRPC, each with `TCP_NODELAY`.
pub fn incoming(door: impl Into<Door>) -> Incoming {
    let Door { listener, tls, limits } = door.into();
    Incoming::new(listener, tls, Admission::Grpc, &limits)
}

/// A door's connections for HTTP/1.1 and HTTP/2, each with `TCP_NODELAY`.
pub(crate) fn incoming_http(door: impl Into<Door>, clients: HttpClients) -> Incoming {
    let Door { listener, tls, limits } = door.into();
    Incoming::new(listener, tls, Admission::Http(clients), &limits)
}

/// Serves until `stop`, and then until the calls under way have ended.
///
/// The listener closes [`CLOSED_BEFORE_LEAVING`] before those connected are told to leave. Told so they connect anew, and
/// a listener about to close would take those connections and break them with calls already sent.
///
/// # Errors
/// Where the transport fails for good.
pub async fn serve(
    services: Services,
    door: impl Into<Door>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let mut incoming = incoming(door);
    let mut stopping = Some(Box::pin(stop.clone().cancelled_owned()));
    let connections = futures_util::stream::poll_fn(move |context| {
        if stopping.as_mut().is_some_and(|stopping| pin!(stopping).poll(context).is_ready()) {
            stopping = None;
            incoming.close();
        }
        incoming.poll_next_unpin(context)
    });
    // Not the end when nobody comes any more: that is the signal below.
    let connections = connections.chain(futures_util::stream::pending());
    let leave = async move {
        stop.cancelled().await;
        tokio::time::sleep(CLOSED_BEFORE_LEAVING).await;
    };
    services.serve_with_incoming_shutdown(connections, leave).await
}

/// The most that a message with such a payload may take, for `max_decoding_message_size` and its twin; never less than a
/// part of an http function's body.
pub const fn message_bytes_max(payload_bytes_max: usize) -> usize {
    let largest = if payload_bytes_max > PART_BYTES_MAX { payload_bytes_max } else { PART_BYTES_MAX };
    largest.saturating_add(MESSAGE_OVERHEAD_BYTES)
}
