//! The edge over links that are cut, lose packets and are slow. Needs root, and is left out, with a word, where it is not.

mod handover;
mod links;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nigh_client::{Admin, Caller, CallerLimits, DeployRequest};
use nigh_proto::{Call, Endpoint, PlatformError};
use nigh_tests::guests;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use links::{Network, Running};

/// Time for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is promised within a second, on a machine that may be busy with other tests.
const SOON: Duration = Duration::from_secs(15);

const CONTROLLER: &str = "control";
const BROKER: &str = "gate";
const COMPUTERS: [&str; 2] = ["one", "two"];
const CLIENT: &str = "desk";

/// One network at a time: what is measured are times.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An edge on five hosts, with `echo` deployed.
struct Edge {
    admin: Admin,
    broker: Endpoint,
    _roles: Vec<Running>,
    _data: TempDir,
}

impl Edge {
    async fn start(network: &Network) -> Self {
        let data = tempfile::tempdir().unwrap();
        let folder = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
        let at = |host, port: u16| format!("{}:{port}", network.address(host));
        let (controller, broker) = (at(CONTROLLER, 6475), at(BROKER, 6473));
        let common = ["--insecure-plaintext", "--listen-metrics", "none"];
        let role = |host, arguments: &[&str]| network.start(host, &[arguments, &common].concat());
        let store = folder(CONTROLLER);
        let mut roles = vec![
            role(CONTROLLER, &["controller", "--listen", &controller, "--data-dir", &store]),
            role(
                BROKER,
                &[
                    "broker",
                    "--listen",
                    &broker,
                    "--controller",
                    &controller,
                    "--name",
                    BROKER,
                    "--listen-http",
                    "none",
                ],
            ),
        ];
        for host in COMPUTERS {
            let (listen, data_dir) = (at(host, 10_000), folder(host));
            let own = ["computer", "--listen", &listen, "--controller", &controller, "--name", host];
            roles.push(role(host, &[&own[..], &["--data-dir", &data_dir, "--memory", "512MiB"]].concat()));
        }
        let admin = Admin::new(controller.parse::<Endpoint>().unwrap());
        let edge = Self { admin, broker: broker.parse().unwrap(), _roles: roles, _data: data };
        edge.until("all are announced", PATIENCE, async || edge.computers().await.len() == 2).await;
        edge.deploy("echo").await;
        edge
    }

    /// Deploys the echo under a name, and waits until the broker calls it.
    async fn deploy(&self, name: &str) {
        self.try_deploy(name).await.unwrap();
        self.until("it can be called", PATIENCE, async || self.call(name).await.is_ok()).await;
    }

    async fn try_deploy(&self, name: &str) -> Result<(), String> {
        let name = name.parse().unwrap();
        let request = DeployRequest::new(name);
        self.admin.deploy(request, guests::echo(), |_| {}).await.map(drop).map_err(|error| error.to_string())
    }

    async fn call(&self, name: &str) -> Result<String, PlatformError> {
        let caller = Caller::new(self.broker.clone(), CallerLimits::default());
        let call = Call::new(name.parse().unwrap(), "x", Duration::from_secs(2));
        caller.invoke(call).await.map(|reply| reply.computer.to_string())
    }

    /// The computers that the controller takes for alive.
    async fn computers(&self) -> Vec<String> {
        let listing = self.admin.list().await;
        listing
            .map_or_else(|_| Vec::new(), |listing| listing.computers.iter().map(|one| one.name.to_string()).collect())
    }

    /// Waits until something is so, and returns how long that took.
    async fn until(&self, what: &str, limit: Duration, so: impl AsyncFn() -> bool) -> Duration {
        let began = Instant::now();
        while !so().await {
            assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }
}

/// Calls that go on, a few at a time, until they are stopped; each is safe to retry and has time to be.
struct Load {
    answers: Rc<RefCell<Vec<String>>>,
    stop: Rc<Cell<bool>>,
    callers: Vec<JoinHandle<Vec<PlatformError>>>,
}

impl Load {
    fn start(edge: &Edge) -> Self {
        let (answers, stop) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
        let callers = (0..4).map(|_| {
            let caller = Caller::new(edge.broker.clone(), CallerLimits::default());
            let (answers, stop) = (answers.clone(), stop.clone());
            tokio::task::spawn_local(async move {
                let mut failed = Vec::new();
                while !stop.get() {
                    let mut call = Call::new("echo".parse().unwrap(), "x", PATIENCE);
                    call.retry_safe = true;
                    match caller.invoke(call).await {
                        Ok(reply) => answers.borrow_mut().push(reply.computer.to_string()),
                        Err(error) => failed.push(error),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                failed
            })
        });
        let callers = callers.collect();
        Self { answers, stop, callers }
    }

    /// Waits until so many more calls have been answered, all of them by one computer if it is named.
    async fn answers(&self, more: usize, by: Option<&str>) {
        let (from, began) = (self.answers.borrow().len(), Instant::now());
        loop {
            let counted = self.answers.borrow()[from..].iter().filter(|one| by.is_none_or(|by| *one == by)).count();
            if counted >= more {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "calls do not go on: {counted} of {more} by {by:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) -> Vec<PlatformError> {
        self.stop.set(true);
        let mut failed = Vec::new();
        for caller in self.callers {
            failed.extend(caller.await.unwrap());
        }
        failed
    }
}

/// Runs a test at the client's host of a network with an edge, if there can be one.
fn on_a_network(test: impl AsyncFnOnce(&Network, &Edge) + Send) {
    let _alone = alone();
    let Some(network) = Network::of(&[CONTROLLER, BROKER, COMPUTERS[0], COMPUTERS[1], CLIENT]) else { return };
    network.at(CLIENT, || async {
        let edge = Edge::start(&network).await;
        tokio::task::LocalSet::new().run_until(test(&network, &edge)).await;
    });
}

#[test]
fn a_computer_that_falls_silent_is_withdrawn_and_no_call_is_lost() {
    on_a_network(async |network, edge| {
        let load = Load::start(edge);
        load.answers(100, None).await;
        [CONTROLLER, BROKER, "two", CLIENT].iter().for_each(|other| network.cut("one", other));
        let withdrawn = edge.until("it is withdrawn", SOON, async || edge.computers().await == ["two"]).await;
        load.answers(100, Some("two")).await;
        network.heal();
        let back = edge.until("it is back", SOON, async || edge.computers().await.len() == 2).await;
        let called =
            edge.until("it is called", SOON, async || edge.call("echo").await.is_ok_and(|by| by == "one")).await;
        println!(
            "silent computer: withdrawn after {withdrawn:?}; back {back:?} after healing, called {called:?} later"
        );
        assert_eq!(load.end().await, []);
    });
}

#[test]
fn a_broker_cut_off_from_its_controller_goes_on_and_is_in_step_again_once_the_link_is_back() {
    on_a_network(async |network, edge| {
        let load = Load::start(edge);
        load.answers(50, None).await;
        network.cut(CONTROLLER, BROKER);
        edge.try_deploy("later").await.unwrap();
        // Long enough for every limit of silence to run out on both sides.
        tokio::time::sleep(Duration::from_secs(4)).await;
        load.answers(50, None).await;
        assert!(edge.call("later").await.is_err(), "the broker cannot have heard of it");
        network.heal();
        let in_step = edge.until("the broker knows it", SOON, async || edge.call("later").await.is_ok()).await;
        println!("broker cut off from its controller: in step {in_step:?} after healing");
        assert_eq!(load.end().await, []);
    });
}

#[test]
fn a_controller_cut_off_from_everybody_stops_no_call_and_knows_all_again_once_it_is_back() {
    on_a_network(async |network, edge| {
        let load = Load::start(edge);
        load.answers(50, None).await;
        [BROKER, "one", "two"].iter().for_each(|other| network.cut(CONTROLLER, other));
        edge.until("all are withdrawn there", SOON, async || edge.admin.list().await.unwrap().computers.is_empty())
            .await;
        load.answers(50, None).await;
        network.heal();
        let known = edge.until("all are known", SOON, async || edge.computers().await.len() == 2).await;
        load.answers(200, None).await;
        println!("controller cut off from everybody: knows all {known:?} after healing");
        assert_eq!(load.end().await, []);
    });
}

#[test]
fn a_broker_cut_off_from_one_computer_calls_the_other_and_both_once_the_link_is_back() {
    on_a_network(async |network, edge| {
        let load = Load::start(edge);
        load.answers(100, None).await;
        network.cut(BROKER, "one");
        load.answers(200, Some("two")).await;
        // Long enough for the next turn to be tried to be far away.
        tokio::time::sleep(Duration::from_secs(6)).await;
        network.heal();
        let healed = Instant::now();
        // By anybody: which calls it gets is the policy's business.
        load.answers(1, Some("one")).await;
        println!("broker cut off from a computer: called {:?} after healing", healed.elapsed());
        assert_eq!(load.end().await, []);
    });
}

#[test]
fn on_bad_links_calls_go_on_and_nobody_flaps() {
    on_a_network(async |network, edge| {
        COMPUTERS.iter().for_each(|computer| {
            network.lose(BROKER, computer, 3);
            network.lose(CONTROLLER, computer, 3);
            network.delay(computer, 20);
        });
        let load = Load::start(edge);
        let (began, mut missing) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(8) {
            missing += u32::from(edge.computers().await.len() < 2);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        load.answers(50, None).await;
        println!("bad links: somebody was missing {missing} times of 80");
        assert!(missing < 20, "nodes come and go: {missing} of 80");
        assert_eq!(load.end().await, []);
    });
}
