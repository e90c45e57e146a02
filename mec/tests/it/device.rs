//! A device: asks over HTTP, from an address of its own if need be, and takes notifications, well or badly.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::task::AbortOnDropHandle;

use super::until;

/// What a request came to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    /// Null where there is none.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A request with JSON, or without a body.
pub(crate) async fn request(to: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Answer {
    from("127.0.0.1".parse().unwrap(), to, method, path, body).await
}

/// The same from this address.
pub(crate) async fn from(own: IpAddr, to: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
    // Some clients say so whether there is a body or not.
    request = request.header("content-type", "application/json");
    let body = body.map(ToString::to_string).unwrap_or_default();
    send(own, to, request.body(Full::new(Bytes::from(body))).unwrap()).await
}

pub(crate) async fn send(own: IpAddr, to: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(own, 0)).unwrap();
    let stream = socket.connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// How a device takes notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Well,
    Refusing,
    Hanging,
    Redirecting,
}

/// Where a device takes notifications.
pub(crate) struct Receiver {
    at: SocketAddr,
    state: Arc<State>,
    _server: AbortOnDropHandle<()>,
}

struct State {
    manner: Mutex<Manner>,
    /// Each with its path.
    taken: Mutex<Vec<(String, Value)>>,
}

impl Receiver {
    pub(crate) async fn start(manner: Manner) -> Self {
        Self::start_at("127.0.0.1".parse().unwrap(), manner).await
    }

    pub(crate) async fn start_at(own: IpAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind(SocketAddr::new(own, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let state = Arc::new(State { manner: Mutex::new(manner), taken: Mutex::default() });
        let serving = state.clone();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| take(&state, request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { at, state, _server: AbortOnDropHandle::new(server) }
    }

    pub(crate) fn callback(&self) -> String {
        format!("http://{}/callback", self.at)
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.state.manner.lock() = manner;
    }

    /// What has come so far.
    pub(crate) fn taken(&self) -> Vec<Value> {
        self.state.taken.lock().iter().map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.state.taken.lock().iter().map(|(path, _)| path.clone()).collect()
    }

    /// Waits for so many notifications; the last.
    pub(crate) async fn until(&self, count: usize) -> Value {
        until("a notification has come", async || self.taken().len() >= count).await;
        self.taken()[count - 1].clone()
    }
}

async fn take(state: &State, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    assert_eq!(
        (request.method().as_str(), &request.headers()["content-type"]),
        ("POST", &"application/json".parse().unwrap())
    );
    let body = request.into_body().collect().await.unwrap().to_bytes();
    state.taken.lock().push((path, serde_json::from_slice(&body).unwrap()));
    let manner = *state.manner.lock();
    let mut response = Response::new(Full::default());
    *response.status_mut() = match manner {
        Manner::Well => StatusCode::NO_CONTENT,
        Manner::Refusing => StatusCode::INTERNAL_SERVER_ERROR,
        Manner::Hanging => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            StatusCode::NO_CONTENT
        }
        Manner::Redirecting => {
            response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
            StatusCode::TEMPORARY_REDIRECT
        }
    };
    Ok(response)
}
