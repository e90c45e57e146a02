//! HTTP requests to servers that are no part of an edge. All of them go out here: over plain connections or TLS, redirects not
//! followed, answers bounded in bytes and time; where a stranger chose the server, only to where it may be ([`Reach`]).

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::exchange::Gathered;
use crate::status::innermost;
use crate::tls::connection::Connection;
use crate::tls::https::HttpsConnector;

pub use ipnet::IpNet;

pub use crate::reach::{NotFollowed, Reach};

/// How long a connection is kept that nobody uses; shorter than servers do, so that few close under a request.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// Bytes of an answer's head, at most.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of an answer, at most.
const HEADERS_MAX: usize = 100;

/// Sends requests. Clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    pooled: legacy::Client<HttpsConnector, Full<Bytes>>,
    connector: HttpsConnector,
}

/// What is taken of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimits {
    /// Time from the first try to connect to the answer's last byte.
    pub timeout: Duration,
    /// Bytes of its body.
    pub bytes_max: usize,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// The request was certainly not sent.
    Unconnected(String),
    /// The connection broke, what came over it was no HTTP, or came too late; the request may have had its effect.
    Broken(String),
    /// The answer's body has more bytes than this.
    TooLarge(usize),
}

impl HttpClient {
    /// Makes connections so, and keeps as many to each server while they are not used.
    pub fn new(connector: HttpsConnector, kept_max: usize) -> Self {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(kept_max)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX);
        Self { pooled: builder.build(connector.clone()), connector }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn send(&self, request: Request<Bytes>, limits: AnswerLimits) -> Result<Response<Bytes>, Unanswered> {
        let AnswerLimits { timeout, bytes_max } = limits;
        let answering = async { read(self.begin(request).await?, bytes_max).await };
        tokio::time::timeout(timeout, answering)
            .await
            .unwrap_or_else(|_| Err(Unanswered::Broken(format!("no answer within {timeout:?}"))))
    }

    /// Sends a request and reads the answer's head, for whoever has a deadline of its own.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn begin(&self, request: Request<Bytes>) -> Result<Response<Incoming>, Unanswered> {
        self.pooled.request(request.map(Full::new)).await.map_err(|error| {
            let is_unsent = |error: &hyper::Error| error.is_canceled();
            let unsent = error.source().and_then(|cause| cause.downcast_ref()).is_some_and(is_unsent);
            let why = innermost(&error);
            if error.is_connect() || unsent { Unanswered::Unconnected(why) } else { Unanswered::Broken(why) }
        })
    }

    /// Whether a connection can be made to the server of this URL.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(&self, url: Uri) -> Result<(), Unanswered> {
        let connected = self.connector.clone().connect(url).await;
        connected.map(drop).map_err(|error| Unanswered::Unconnected(innermost(&error)))
    }
}

/// Sends one request over a connection of its own, where HTTP/1.1 is spoken, and reads the answer's head. Its body may still be written
/// meanwhile, and comes through, as the answer's does, as long as what is returned beside the answer is polled.
///
/// # Errors
/// Why there is no answer.
pub async fn send_alone<B>(
    connection: Connection,
    request: Request<B>,
) -> hyper::Result<(Response<Incoming>, impl Future<Output = hyper::Result<()>> + Send)>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let (mut sender, driver) = http.handshake(TokioIo::new(connection)).await?;
    let mut driver = Box::pin(driver);
    let (mut head, body) = request.into_parts();
    // Only who passes requests on is told scheme and host.
    head.uri = head.uri.into_parts().path_and_query.unwrap_or(PathAndQuery::from_static("/")).into();
    let answering = sender.send_request(Request::from_parts(head, body));
    tokio::pin!(answering);
    let mut is_over = false;
    let answer = tokio::select! {
        answer = &mut answering => answer?,
        ended = &mut driver => {
            ended?;
            is_over = true;
            answering.await?
        }
    };
    Ok((answer, async move { if is_over { Ok(()) } else { driver.await } }))
}

/// Reads the rest of an answer, up to so many bytes of its body.
///
/// # Errors
/// Why it is not whole.
pub async fn read(answer: Response<Incoming>, bytes_max: usize) -> Result<Response<Bytes>, Unanswered> {
    let (head, mut body) = answer.into_parts();
    let mut gathered = Gathered::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Unanswered::Broken(innermost(&error)))?;
        if let Ok(data) = frame.into_data() {
            if gathered.len() + data.len() > bytes_max {
                return Err(Unanswered::TooLarge(bytes_max));
            }
            gathered.push(data);
        }
    }
    Ok(Response::from_parts(head, gathered.into_bytes()))
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconnected(why) | Self::Broken(why) => f.write_str(why),
            Self::TooLarge(bytes_max) => write!(f, "an answer of over {bytes_max} bytes"),
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("connector", &self.connector).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::StreamExt as _;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    /// A server that answers each connection with this.
    async fn server(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                // Nobody is hung up on who is told that more is to come.
                tokio::spawn(async move { stream.read(&mut [0; 1]).await });
            }
        });
        port
    }

    async fn get(reach: Reach, url: String, limits: AnswerLimits) -> Result<Response<Bytes>, Unanswered> {
        let client = HttpClient::new(HttpsConnector::new(None).reaching(reach), 0);
        client.send(Request::get(url).body(Bytes::new()).unwrap(), limits).await
    }

    const LIMITS: AnswerLimits = AnswerLimits { timeout: Duration::from_secs(10), bytes_max: 4 };

    #[tokio::test]
    async fn an_answer_is_taken_up_to_its_limits() {
        let to = |port: u16| format!("http://localhost:{port}/");
        let port = server("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfour").await;
        assert_eq!(get(Reach::Anywhere, to(port), LIMITS).await.unwrap().body(), "four");
        let port = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfives").await;
        assert_eq!(get(Reach::Anywhere, to(port), LIMITS).await.unwrap_err(), Unanswered::TooLarge(4));
        let port = server("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfo").await;
        let short = AnswerLimits { timeout: Duration::from_millis(50), ..LIMITS };
        let late = get(Reach::Anywhere, to(port), short).await.unwrap_err();
        assert_eq!(late, Unanswered::Broken("no answer within 50ms".to_owned()));
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer() {
        let port = server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(get(Reach::Anywhere, format!("http://127.0.0.1:{port}/"), LIMITS).await.unwrap().status(), 302);
    }

    #[tokio::test]
    async fn a_request_of_its_own_is_written_while_its_answer_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://localhost:{}/a?b=c", listener.local_addr().unwrap().port()).parse().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, mut read) = (listener.accept().await.unwrap().0, Vec::new());
            while !read.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut read).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            while !read.ends_with(b"0\r\n\r\n") {
                stream.read_buf(&mut read).await.unwrap();
            }
            stream.write_all(b"5\r\nwhole\r\n0\r\n\r\n").await.unwrap();
            String::from_utf8(read).unwrap()
        });
        let (parts, body) = tokio::sync::mpsc::channel(1);
        let body = StreamBody::new(ReceiverStream::new(body).map(|part: Bytes| Ok::<_, Infallible>(Frame::data(part))));
        let connection = HttpsConnector::new(None).connect(url.clone()).await.unwrap();
        let (answer, rest) = send_alone(connection, Request::put(url).body(body).unwrap()).await.unwrap();
        let writing = async move {
            for part in ["one", "two"] {
                parts.send(Bytes::from(part)).await.unwrap();
            }
        };
        let (answer, rest, ()) = tokio::join!(answer.into_body().collect(), rest, writing);
        rest.unwrap();
        assert_eq!(answer.unwrap().to_bytes(), "whole");
        let told = serving.await.unwrap();
        assert!(told.starts_with("PUT /a?b=c HTTP/1.1\r\n"), "{told}");
        assert!(told.contains("one") && told.contains("two"), "{told}");
    }

    #[tokio::test]
    async fn a_request_goes_only_to_where_it_may() {
        let port = server("HTTP/1.1 204 No Content\r\n\r\n").await;
        let url = format!("http://localhost:{port}/");
        let refused = get(Reach::Public { networks: Vec::new() }, url.clone(), LIMITS).await.unwrap_err();
        assert!(
            matches!(&refused, Unanswered::Unconnected(why) if why.contains("localhost leads to no address")),
            "{refused}"
        );
        let networks = vec!["127.0.0.0/8".parse().unwrap()];
        assert_eq!(get(Reach::Public { networks }, url, LIMITS).await.unwrap().status(), 204);
        let at = Reach::At(format!("127.0.0.1:{port}").parse().unwrap());
        assert_eq!(get(at, "http://nobody.invalid/".to_owned(), LIMITS).await.unwrap().status(), 204);
        assert!(matches!(
            get(Reach::Anywhere, "http://127.0.0.1:1/".to_owned(), LIMITS).await,
            Err(Unanswered::Unconnected(_))
        ));
    }
}
