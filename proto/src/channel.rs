//! Channels and servers with the platform's settings: no waiting for more bytes, dead peers noticed, messages bounded.

use std::future::Future as _;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Channel, Server};

use crate::name::Endpoint;

/// Time to make a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Silence after which a peer is asked whether it is still there.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Time that a peer has to answer that.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes under way on one stream before the receiver has to confirm, so that a payload of this size needs no round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for a whole connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Calls under way on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 4096;
/// Time from closing a listener until those connected are told to leave.
pub const CLOSED_BEFORE_LEAVING: Duration = Duration::from_millis(50);
/// Room in a message beside the payload: headers, names, ids.
const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;

/// A channel that connects when first used, and again whenever the connection is lost.
pub fn connect_lazy(endpoint: &Endpoint) -> Channel {
    let uri = format!("http://{endpoint}")
        .parse::<tonic::transport::Endpoint>()
        .expect("an endpoint's form is a valid authority");
    uri.tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_lazy()
}

/// A server to add services to. Its listener must have `TCP_NODELAY` set: see [`incoming`].
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
}

/// A listener's connections, each with `TCP_NODELAY`.
pub fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Serves until `stop`, and then until the calls under way have ended.
///
/// The listener closes [`CLOSED_BEFORE_LEAVING`] before those connected are told to leave. Told so they connect anew, and
/// a listener about to close would take those connections and break them with calls already sent.
///
/// # Errors
/// Where the transport fails for good.
pub async fn serve(
    services: Router,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let mut open = Some(incoming(listener));
    let mut stopping = Box::pin(stop.clone().cancelled_owned());
    let connections = futures_util::stream::poll_fn(move |context| match &mut open {
        Some(_) if pin!(&mut stopping).poll(context).is_ready() => {
            open = None;
            Poll::Pending
        }
        Some(incoming) => incoming.poll_next_unpin(context),
        // Not the end: it comes with the signal below.
        None => Poll::Pending,
    });
    let leave = async move {
        stop.cancelled().await;
        tokio::time::sleep(CLOSED_BEFORE_LEAVING).await;
    };
    services.serve_with_incoming_shutdown(connections, leave).await
}

/// The most that a message with such a payload may take, for `max_decoding_message_size` and its twin.
pub const fn message_bytes_max(payload_bytes_max: usize) -> usize {
    payload_bytes_max.saturating_add(MESSAGE_OVERHEAD_BYTES)
}
