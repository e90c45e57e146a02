//! Device applications' interfaces between real sockets: a fake controller on one side, devices and older programs on the other.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by panicking")]

mod controller;
mod dev_app;
mod device;
mod drive;
mod handover;
mod lcm;
mod limits;
mod mp1;
mod mx2;
mod notifications;
mod restart;
mod schema;
mod schemathesis;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nigh_mec::{Config, DeciderConfig, Error, Listeners};
use nigh_proto::Endpoint;
use nigh_store::Place;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use controller::{FakeController, broker, broker_gone, computer, computer_gone, deployed, undeployed};
use device::{Answer, request};

/// For what should happen at once but may be held up by a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The role, which runs in this process.
struct Role {
    devices: SocketAddr,
    older: Endpoint,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Role {
    async fn start(config: Config) -> Self {
        let (devices, older) = (listen().await, listen().await);
        let (devices_at, older_at) = (devices.local_addr().unwrap(), older.local_addr().unwrap().into());
        let shutdown = CancellationToken::new();
        let listeners = Listeners { devices, older: Some(older) };
        let task = tokio::spawn(nigh_mec::run(listeners, config, shutdown.clone()));
        Self { devices: devices_at, older: older_at, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn get(&self, path: &str) -> Answer {
        request(self.devices, "GET", path, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        request(self.devices, "POST", path, Some(body)).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        request(self.devices, "PUT", path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> Answer {
        request(self.devices, "DELETE", path, None).await
    }

    /// Creates a context; its path and itself.
    async fn create(&self, body: &Value) -> (String, Value) {
        let created = self.post("/dev_app/v1/app_contexts", body).await;
        assert_eq!(created.status, 201, "{created:?}");
        let location: http::Uri = created.header("location").parse().unwrap();
        (location.path().to_owned(), created.body)
    }

    /// The names of the applications listed.
    async fn listed(&self) -> Vec<String> {
        let list = self.get("/dev_app/v1/app_list").await.body;
        let names = list["appList"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["appInfo"]["appName"].as_str().unwrap().to_owned());
        names.collect()
    }
}

/// A role and a controller that knows `echo` on two computers behind two brokers.
struct World {
    role: Role,
    controller: FakeController,
    config: Config,
    folder: TempDir,
}

impl World {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let known = vec![
            deployed("echo"),
            computer("computer-1", "10.9.0.1:10000", &["echo"]),
            broker("broker-1", "10.9.0.1:6473", "10.9.0.1:8080"),
            broker("broker-2", "10.9.0.2:6473", "10.9.0.2:8080"),
        ];
        Self::start_knowing(known, change).await
    }

    async fn start_knowing(known: Vec<nigh_proto::discovery::WatchEvent>, change: impl FnOnce(&mut Config)) -> Self {
        let controller = FakeController::start(known).await;
        let folder = TempDir::new().unwrap();
        let mut config = Config::new(Place::Embedded { file: folder.path().join("mec.redb") });
        config.controller = Some(controller.endpoint.clone().into());
        config.callbacks.pause = Duration::from_millis(20);
        change(&mut config);
        let role = Role::start(config.clone()).await;
        let world = Self { role, controller, config, folder };
        let ready = world.config.telemetry.clone();
        until("it has heard the controller", async || ready.readiness().is_ok()).await;
        world
    }

    /// The same after a restart.
    async fn restart(&mut self) {
        let stopped = std::mem::replace(&mut self.role.task, tokio::spawn(async { Ok(()) }));
        self.role.shutdown.cancel();
        stopped.await.unwrap().unwrap();
        self.config.telemetry = nigh_telemetry::Telemetry::new();
        self.role = Role::start(self.config.clone()).await;
        let ready = self.config.telemetry.clone();
        until("it has heard the controller", async || ready.readiness().is_ok()).await;
    }
}

/// An `AppContext` as the standard's file wants it.
fn app_context(name: &str, callback: Option<&str>) -> Value {
    let mut context = json!({
        "associateDevAppId": "device-1",
        "appInfo": {
            "appName": name,
            "appProvider": "Nigh",
            "appDVersion": "1",
            "appSoftVersion": "1",
            "appDescription": "what it does",
            "userAppInstanceInfo": [{}],
        },
    });
    if let Some(callback) = callback {
        context["callbackReference"] = json!(callback);
    }
    context
}

fn reference(context: &Value) -> &str {
    context["appInfo"]["userAppInstanceInfo"][0]["referenceURI"].as_str().unwrap()
}

/// What `scripts/mec-clients` has made.
fn clients() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("../mec-clients")
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Waits until something is so, and tells how long that took.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn it_stops_when_it_is_told_to_and_what_cannot_work_is_refused_at_its_start() {
    let world = World::start().await;
    world.role.stop().await;
    let folder = TempDir::new().unwrap();
    let mut config = Config::new(Place::Embedded { file: folder.path().join("mec.redb") });
    config.decider = DeciderConfig::File { path: folder.path().join("none") };
    let listeners = Listeners { devices: listen().await, older: None };
    let refused = nigh_mec::run(listeners, config, CancellationToken::new()).await;
    assert!(matches!(refused, Err(Error::Associations(_))), "{refused:?}");
}
