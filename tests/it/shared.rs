//! A whole edge on one NATS: several controllers, brokers and computers as real processes, and the server itself; whatever is killed,
//! every call that was accepted has an outcome in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_client::{Admin, CallQueue, CallerLimits, DeployRequest};
use nigh_store::Place;
use nigh_tests::guests;
use nigh_tests::processes::Role;
use tempfile::TempDir;

use crate::PATIENCE;
use crate::asynchronous::{account_for, caller, seconds};
use crate::nats_server::NatsServer;

/// Controllers, brokers and computers of which each kind has as many.
const EACH: usize = 2;
/// Callers at once.
const CALLERS: u64 = 4;

/// The processes, and what they share.
struct Shared {
    nats: NatsServer,
    controllers: Vec<Role>,
    brokers: Vec<Role>,
    computers: Vec<Role>,
    _data: TempDir,
}

impl Shared {
    /// Starts all; nothing where the machine has no server of NATS.
    fn start() -> Option<Self> {
        let nats = NatsServer::start()?;
        let Place::Nats { servers, .. } = nats.place() else { panic!("it is NATS") };
        let store = format!("nats://{}", servers[0]);
        let data = TempDir::new().expect("a folder for the test");
        let path = |name: &str| data.path().join(name).to_str().expect("a plain name").to_owned();
        let file = |name: &str, settings: &str| {
            std::fs::write(path(name), settings).expect("the folder is the test's own");
            path(name)
        };
        let settings = file("controller.toml", "modules_bytes_max = \"64MiB\"\n");
        let controller = || Role::start("controller", "endpoint", &["--config", &settings, "--store", &store]);
        let controllers: Vec<Role> = (0..EACH).map(|_| controller()).collect();
        let known: Vec<_> = controllers.iter().map(|controller| controller.endpoint.as_str()).collect();
        let known = known.join(",");
        let settings = file("broker.toml", "[asynchronous]\nbytes_max = \"64MiB\"\npayloads_bytes_max = \"64MiB\"\n");
        let anywhere = ["--listen-table", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"];
        let broker = |n| {
            let name = format!("broker-{n}");
            let own = ["--config", &settings, "--name", &name, "--controller", &known, "--store", &store];
            Role::start("broker", "calls", &[&own[..], &anywhere].concat())
        };
        let computer = |n| {
            let (name, folder) = (format!("computer-{n}"), path(&format!("computer-{n}")));
            let own = ["--name", &name, "--controller", &known, "--data-dir", &folder, "--memory", "1GiB"];
            Role::start("computer", "endpoint", &own)
        };
        let (brokers, computers) = ((0..EACH).map(broker).collect(), (0..EACH).map(computer).collect());
        Some(Self { nats, controllers, brokers, computers, _data: data })
    }

    fn queues(&self) -> Vec<CallQueue> {
        self.brokers.iter().map(|broker| CallQueue::new(broker.endpoint.clone(), &CallerLimits::default())).collect()
    }

    /// Deploys at one controller.
    async fn deploy(&self, name: &str, module: Bytes) {
        let request = DeployRequest::new(name.parse().expect("a name"));
        let admin = Admin::new(self.controllers[0].endpoint.clone());
        admin.deploy(request, module, |_| {}).await.expect("a good module deploys");
        self.until_ready(name).await;
    }

    /// Waits until each controller knows of every computer that it has the function ready.
    async fn until_ready(&self, name: &str) {
        let began = Instant::now();
        for controller in &self.controllers {
            let admin = Admin::new(controller.endpoint.clone());
            loop {
                let listed = admin.list().await.map(|listing| listing.computers);
                let has_it = |computer: &nigh_proto::Computer| computer.ready.iter().any(|(at, _)| at.as_str() == name);
                if listed.as_ref().is_ok_and(|listed| listed.len() == EACH && listed.iter().all(has_it)) {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{name} is not ready everywhere: {listed:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Kills one of the processes and starts it again after a while.
    async fn kill_one(&mut self) {
        let pause = Duration::from_millis(rand::random_range(0..400));
        let which = rand::random_range(0..EACH);
        let victim = match rand::random_range(0..9u32) {
            0..4 => &mut self.brokers[which],
            4..6 => &mut self.computers[which],
            6..8 => &mut self.controllers[which],
            _ => {
                self.nats.kill();
                tokio::time::sleep(pause).await;
                return self.nats.start_again();
            }
        };
        victim.kill();
        tokio::time::sleep(pause).await;
        victim.start_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_accepted_by_an_edge_on_nats_comes_to_an_outcome_whatever_is_killed() {
    let Some(mut edge) = Shared::start() else { return };
    edge.deploy("echo", guests::echo()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS).map(|number| caller(edge.queues(), number, stop.clone())).collect();
    let (began, mut kills) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds()) {
        tokio::time::sleep(Duration::from_millis(rand::random_range(100..1000))).await;
        edge.kill_one().await;
        kills += 1;
    }
    stop.store(true, Ordering::Relaxed);
    account_for(&edge.queues()[0], callers, kills, || edge.until_ready("echo")).await;
}
