//! Telling a peer that speaks without TLS at a door that takes nothing else, in the words of its own protocol.

use std::convert::Infallible;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;

use crate::status::{PlatformError, Reason};

/// The first byte of a TLS connection: the type of the record that begins a handshake.
pub(super) const TLS_HANDSHAKE: u8 = 0x16;
/// Time for a refused peer to be told why.
const TELLING: Duration = Duration::from_millis(500);
/// Bytes that it may go on sending meanwhile.
const LINGER_BYTES_MAX: usize = 64 << 10;

const ADVICE: &str = "this port takes TLS only";

/// Answers what a plain peer asks with a refusal, in gRPC or else in HTTP, and leaves it.
pub(super) async fn refuse(stream: TcpStream) {
    let refuse = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(refusal(&request)));
    let server = auto::Builder::new(TokioExecutor::new());
    // That it does not listen, or speaks something else, is its own loss.
    let _ = tokio::time::timeout(TELLING, server.serve_connection(TokioIo::new(stream), refuse)).await;
}

fn refusal<T>(request: &Request<T>) -> Response<Body> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|form| form.as_bytes().starts_with(b"application/grpc")) {
        let message = format!("{ADVICE}; give this side a certificate: --tls-dir DIR, or [tls] in its file");
        return Status::from(PlatformError::new(Reason::Unauthenticated, message)).into_http();
    }
    let mut response = Response::new(Body::new(format!("{ADVICE}; use https://\n")));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Closes so that what was written last is read: a socket closed with bytes unread resets the connection, and the peer
/// may then never see the alert that stands before.
pub(super) async fn linger(mut stream: TcpStream) {
    let drained = async {
        let _ = stream.shutdown().await;
        let (mut scrap, mut total) = ([0; 4096], 0);
        while total < LINGER_BYTES_MAX {
            match stream.read(&mut scrap).await {
                Ok(0) | Err(_) => break,
                Ok(bytes) => total += bytes,
            }
        }
    };
    let _ = tokio::time::timeout(TELLING, drained).await;
}
