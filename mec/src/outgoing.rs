//! Requests that go out: each over a connection of its own to an address that was chosen before, so that no name is looked
//! up twice, no redirect is followed, and what comes back is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Bytes of an answer, at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends a request and reads the whole answer, within this time.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn send(
    to: SocketAddr,
    request: Request<Full<Bytes>>,
    timeout: Duration,
) -> Result<Response<Bytes>, String> {
    match tokio::time::timeout(timeout, exchange(to, request)).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

async fn exchange(to: SocketAddr, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(to).await.map_err(|error| told(&error))?;
    stream.set_nodelay(true).map_err(|error| told(&error))?;
    if let Some(authority) = request.uri().authority() {
        let host = authority.as_str().parse().map_err(|_| "its host cannot be told".to_owned())?;
        request.headers_mut().insert(header::HOST, host);
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse().map_err(|_| "its path cannot be told".to_owned())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
    let exchanged = async {
        let response = sender.send_request(request).await.map_err(|error| told(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| told(&error))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchanged = std::pin::pin!(exchanged);
    tokio::select! {
        biased;
        answered = &mut exchanged => answered,
        // It has given its answer over when it ends well.
        ended = &mut connection => match ended {
            Ok(()) => exchanged.await,
            Err(error) => Err(told(&error)),
        }
    }
}
