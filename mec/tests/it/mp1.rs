//! Mp1 (GS MEC 011): a platform of the test's own, and mocks that `prism` makes of the official files, in front of both of
//! which stands what routes requests as a platform does.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nigh_mec::PlatformConfig;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use super::schema::{SERVICES, SUPPORT, Schemas};
use super::*;

const INSTANCE: &str = "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f";

/// What answers requests to the platform.
enum Behind {
    /// A platform that knows so many services more.
    Script { refuses: bool, services: usize, forgotten: bool },
    /// Mocks of support and of services.
    Mocks(SocketAddr, SocketAddr),
}

/// What was asked of the platform: method, path, body, and the status of the answer.
type Asked = (String, String, Value, u16);

struct Platform {
    at: SocketAddr,
    behind: Arc<Mutex<Behind>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    _server: AbortOnDropHandle<()>,
}

impl Platform {
    async fn start(behind: Behind) -> Self {
        let listener = listen().await;
        let at = listener.local_addr().unwrap();
        let (behind, asked) = (Arc::new(Mutex::new(behind)), Arc::new(Mutex::default()));
        let serving = (behind.clone(), asked.clone());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (behind, asked) = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(&behind, &asked, request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { at, behind, asked, _server: AbortOnDropHandle::new(server) }
    }

    async fn scripted() -> Self {
        Self::start(Behind::Script { refuses: false, services: 0, forgotten: false }).await
    }

    fn config(&self) -> PlatformConfig {
        let mut config = PlatformConfig::new(format!("http://{}", self.at).parse().unwrap(), INSTANCE.to_owned());
        config.check_every = Duration::from_millis(100);
        config
    }

    /// What was asked with this method at paths that end so.
    fn asked(&self, method: &str, ending: &str) -> Vec<Value> {
        let asked = self.asked.lock();
        let found =
            asked.iter().filter(|(how, path, _, status)| how == method && path.ends_with(ending) && *status < 400);
        found.map(|(_, _, body, _)| body.clone()).collect()
    }

    async fn until(&self, method: &str, ending: &str, count: usize) -> Vec<Value> {
        until("the platform was asked", async || self.asked(method, ending).len() >= count).await;
        self.asked(method, ending)
    }
}

async fn answer(
    behind: &Mutex<Behind>,
    asked: &Mutex<Vec<Asked>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let document = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mocks = match &*behind.lock() {
        Behind::Script { .. } => None,
        Behind::Mocks(support, services) => Some((*support, *services)),
    };
    let response = match mocks {
        None => scripted(&mut behind.lock(), &method, &path, &document),
        Some((support, services)) => {
            let (to, path) = match path.strip_prefix("/mec_app_support/v1") {
                Some(path) => (support, path),
                None => (services, path.strip_prefix("/mec_service_mgmt/v1").unwrap()),
            };
            passed_on(to, &method, path, body).await
        }
    };
    asked.lock().push((method, path, document, response.status().as_u16()));
    Ok(response)
}

fn scripted(behind: &mut Behind, method: &str, path: &str, document: &Value) -> Response<Full<Bytes>> {
    let Behind::Script { refuses, services, forgotten } = behind else { unreachable!("a script was asked for") };
    let told = |status, body: Value| {
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        response
    };
    if *refuses {
        return told(StatusCode::SERVICE_UNAVAILABLE, json!({"detail": "later"}));
    }
    match (method, path.rsplit('/').next().unwrap()) {
        ("POST", "services") => {
            *services += 1;
            *forgotten = false;
            let mut service = document.clone();
            service["serInstanceId"] = json!(format!("service-{services}"));
            told(StatusCode::CREATED, service)
        }
        ("POST", "subscriptions") => {
            let mut response = told(StatusCode::CREATED, document.clone());
            let location = HeaderValue::from_static("/mec_app_support/v1/subscriptions/sub-1");
            response.headers_mut().insert("location", location);
            response
        }
        ("GET", _) if *forgotten => told(StatusCode::NOT_FOUND, json!({})),
        ("GET" | "PUT", _) => told(StatusCode::OK, document.clone()),
        ("POST" | "DELETE", _) => told(StatusCode::NO_CONTENT, Value::Null),
        _ => told(StatusCode::METHOD_NOT_ALLOWED, Value::Null),
    }
}

async fn passed_on(to: SocketAddr, method: &str, path: &str, body: Bytes) -> Response<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let (mut parts, body) = response.into_parts();
    parts.headers.remove("transfer-encoding");
    Response::from_parts(parts, Full::new(body.collect().await.unwrap().to_bytes()))
}

async fn registered(platform: &Platform) -> World {
    let config = platform.config();
    let world = World::start_with(|settings| settings.platform = Some(config)).await;
    platform.until("POST", "/services", 2).await;
    until("functions are registered as active", async || {
        let told = [platform.asked("POST", "/services"), platform.asked("PUT", "")].concat();
        told.iter().any(|service| service["serName"] == "nigh-functions" && service["state"] == "ACTIVE")
    })
    .await;
    world
}

fn callback_of(platform: &Platform) -> (SocketAddr, String) {
    let callback = platform.asked("POST", "/subscriptions").pop().unwrap()["callbackReference"].clone();
    let callback: http::Uri = callback.as_str().unwrap().parse().unwrap();
    (callback.authority().unwrap().as_str().parse().unwrap(), callback.path().to_owned())
}

fn termination() -> Value {
    json!({
        "notificationType": "AppTerminationNotification",
        "operationAction": "TERMINATING",
        "maxGracefulTimeout": 10,
        "_links": {"subscription": {"href": "/subscriptions/sub-1"}},
    })
}

#[tokio::test]
async fn it_registers_with_what_the_files_want_and_keeps_that_up_to_date() {
    let platform = Platform::scripted().await;
    let world = registered(&platform).await;
    let (support, services) = (Schemas::of(SUPPORT), Schemas::of(SERVICES));
    support.check("AppReadyConfirmation", &platform.asked("POST", "/confirm_ready")[0]);
    support.check("AppTerminationNotificationSubscription", &platform.asked("POST", "/subscriptions")[0]);
    for service in platform.asked("POST", "/services") {
        services.check("ServiceInfo", &service);
    }
    let devices = &platform.asked("POST", "/services")[0];
    let uri = format!("http://{}/dev_app/v1", world.role.devices);
    assert_eq!(devices["transportInfo"]["endpoint"]["uris"], json!([uri]));
    world.controller.change(broker_gone("broker-1"));
    let only = json!(["http://10.9.0.2:8080/function/"]);
    until("one broker is left", async || {
        platform.asked("PUT", "/service-2").last().is_some_and(|told| told["transportInfo"]["endpoint"]["uris"] == only)
    })
    .await;
    world.controller.change(broker_gone("broker-2"));
    until("functions cannot be called", async || {
        platform.asked("PUT", "/service-2").last().is_some_and(|told| told["state"] == "INACTIVE")
    })
    .await;
    let told = platform.asked("PUT", "/service-2").pop().unwrap();
    services.check("ServiceInfo", &told);
    assert!(world.config.telemetry.metrics().unwrap().contains("nigh_mec_registered 1"));
    world.role.stop().await;
    assert_eq!((platform.asked("DELETE", "").len(), platform.asked("POST", "/confirm_termination").len()), (3, 0));
}

#[tokio::test]
async fn it_ends_in_order_when_the_platform_says_so() {
    let platform = Platform::scripted().await;
    let world = registered(&platform).await;
    let (at, path) = callback_of(&platform);
    assert_eq!(at, world.role.devices);
    let post = async |path: &str, body: &Value| device::request(at, "POST", path, Some(body)).await.status;
    assert_eq!(post(&format!("/mp1/{}", "0".repeat(32)), &termination()).await, 404, "that is not the path");
    assert_eq!(post(&path, &json!({"operationAction": "PAUSING"})).await, 400);
    assert_eq!(post(&path, &termination()).await, 204);
    world.role.task.await.unwrap().unwrap();
    assert_eq!(platform.asked("DELETE", "").len(), 3);
    let confirmed = platform.asked("POST", "/confirm_termination");
    assert_eq!(confirmed, [json!({"operationAction": "TERMINATING"})]);
    Schemas::of(SUPPORT).check("AppTerminationConfirmation", &confirmed[0]);
}

#[tokio::test]
async fn a_platform_that_is_away_or_forgets_is_asked_again() {
    let platform = Platform::start(Behind::Script { refuses: true, services: 0, forgotten: false }).await;
    let config = platform.config();
    let world = World::start_with(|settings| settings.platform = Some(config)).await;
    world.role.create(&app_context("echo", None)).await;
    until("it was refused", async || !platform.asked.lock().is_empty()).await;
    *platform.behind.lock() = Behind::Script { refuses: false, services: 0, forgotten: false };
    platform.until("POST", "/services", 2).await;
    *platform.behind.lock() = Behind::Script { refuses: false, services: 2, forgotten: true };
    platform.until("POST", "/services", 4).await;
    platform.until("POST", "/subscriptions", 2).await;
    world.role.stop().await;
}

/// What `prism` needs changed in the official file: the body of a new service is there "exactly one of" two that are the
/// same, which nothing is. The description of the service itself is in the same file.
fn satisfiable(services: &str) -> String {
    let impossible = "              oneOf:\n              - type: object\n              - type: object\n";
    assert_eq!(services.matches(impossible).count(), 1, "another file than the one that this was written for");
    services.replace(impossible, "              $ref: '#/components/schemas/ServiceInfo'\n")
}

/// A mock of an official file by `prism`, which refuses what is not as the file says. Ends when dropped.
struct Mock {
    at: SocketAddr,
    _process: tokio::process::Child,
}

impl Mock {
    async fn start(folder: &std::path::Path, name: &str, description: &str) -> Self {
        let file = folder.join(name);
        std::fs::write(&file, description).unwrap();
        let at = listen().await.local_addr().unwrap();
        let program = clients().join("js/node_modules/@stoplight/prism-cli/dist/index.js");
        let mut command = tokio::process::Command::new("node");
        command
            .arg(program)
            .args(["mock", "--errors", "--host", "127.0.0.1", "--port", &at.port().to_string()])
            .arg(file);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).kill_on_drop(true);
        let process = command.spawn().unwrap_or_else(|error| panic!("node: {error}; run scripts/mec-clients"));
        let mock = Self { at, _process: process };
        until("the mock serves", async || tokio::net::TcpStream::connect(at).await.is_ok()).await;
        mock
    }
}

/// Against mocks that take only what the official files say: everything that it asks is as they say.
#[tokio::test]
async fn what_it_asks_of_a_platform_is_taken_by_mocks_of_the_official_files() {
    let folder = TempDir::new().unwrap();
    let services = satisfiable(SERVICES);
    let (support, services) = tokio::join!(
        Mock::start(folder.path(), "support.yaml", SUPPORT),
        Mock::start(folder.path(), "services.yaml", &services),
    );
    let platform = Platform::start(Behind::Mocks(support.at, services.at)).await;
    let config = platform.config();
    let world = World::start_with(|settings| settings.platform = Some(config)).await;
    platform.until("POST", "/services", 2).await;
    platform.until("GET", "", 2).await;
    world.controller.change(broker_gone("broker-1"));
    platform.until("PUT", "", 1).await;
    let (at, path) = callback_of(&platform);
    assert_eq!(device::request(at, "POST", &path, Some(&termination())).await.status, 204);
    world.role.task.await.unwrap().unwrap();
    assert_eq!(platform.asked("POST", "/confirm_termination").len(), 1);
    let refused: Vec<Asked> = platform.asked.lock().iter().filter(|(.., status)| *status >= 400).cloned().collect();
    assert_eq!(refused, [], "nothing was refused");
    // And the mocks do refuse what is not as the files say.
    for wrong in [json!({"serName": "x"}), json!({"serName": "x", "version": "1", "state": "UP", "serializer": "JSON"})]
    {
        let path = format!("/mec_service_mgmt/v1/applications/{INSTANCE}/services");
        assert!(device::request(platform.at, "POST", &path, Some(&wrong)).await.status >= 400);
    }
}
