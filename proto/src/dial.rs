//! Making a TCP connection where packets may get lost: several tries beside each other, the first that is answered counts.
//! The system repeats a lost first packet after a second only, and then ever more seldom, so that one try alone would long
//! not notice that a link is back.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tower::Service;

use crate::name::Endpoint;

/// Silence after which there is another try beside those that wait.
pub(crate) const DIAL_AGAIN: Duration = Duration::from_millis(250);
/// Tries beside each other, at most.
const TRIES_MAX: usize = 4;

/// Connects, without a limit of time of its own.
///
/// # Errors
/// What the system says to the first try that it does not leave waiting.
pub async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let mut tries = FuturesUnordered::new();
    loop {
        if tries.len() < TRIES_MAX {
            tries.push(TcpStream::connect(endpoint.as_str()));
        }
        tokio::select! {
            Some(connected) = tries.next() => {
                let stream = connected?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            () = tokio::time::sleep(DIAL_AGAIN) => {}
        }
    }
}

/// Dials one endpoint, whatever is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Dialer(pub(crate) Endpoint);

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let endpoint = self.0.clone();
        Box::pin(async move { dial(&endpoint).await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn whoever_is_there_is_connected_to_and_a_refusal_is_told_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::from(listener.local_addr().unwrap());
        assert!(dial(&endpoint).await.unwrap().nodelay().unwrap());
        drop(listener);
        assert_eq!(dial(&endpoint).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
