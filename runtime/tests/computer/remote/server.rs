//! A server on a real socket that does as its script says.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a server was asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(super) type Told = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// A server that does as its script says.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Mutex<Vec<Asked>>,
    pub(super) stop: CancellationToken,
}

impl Server {
    pub(super) async fn start(script: impl Fn(Asked) -> Told + Send + Sync + 'static) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_at(listener, script)
    }

    pub(super) fn start_at(listener: TcpListener, script: impl Fn(Asked) -> Told + Send + Sync + 'static) -> Arc<Self> {
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Self { address, asked: Mutex::default(), stop: CancellationToken::new() });
        let (serving, script) = (server.clone(), Arc::new(script));
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    // Also those that exist end.
                    () = serving.stop.cancelled() => return,
                };
                let (serving, script) = (serving.clone(), script.clone());
                connections.spawn(async move {
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let (serving, script) = (serving.clone(), script.clone());
                        async move {
                            let (parts, body) = request.into_parts();
                            let path = parts.uri.path_and_query().unwrap().to_string();
                            let body = body.collect().await.unwrap().to_bytes();
                            let asked = Asked { method: parts.method.to_string(), path, headers: parts.headers, body };
                            serving.asked.lock().push(asked.clone());
                            Ok::<_, Infallible>(script(asked).await)
                        }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked below a path.
    pub(super) fn asked(&self, path: &str) -> Vec<Asked> {
        self.asked.lock().iter().filter(|asked| asked.path.starts_with(path)).cloned().collect()
    }
}

pub(super) fn tell(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Told {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    let answer = answer.body(Full::new(body.into())).unwrap();
    Box::pin(async move { answer })
}

pub(super) fn tell_after(wait: Duration, status: u16, body: impl Into<Bytes>) -> Told {
    let told = tell(status, &[], body);
    Box::pin(async move {
        tokio::time::sleep(wait).await;
        told.await
    })
}
