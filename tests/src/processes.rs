//! An edge of real processes: each role the program itself, on ports that the system picks, to be killed and started again.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_client::{Admin, Caller, CallerLimits, DeployRequest};
use nigh_proto::{Call, Deployment, Endpoint, Limits};
use tempfile::TempDir;

use crate::edge::answer;

/// Time for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the program under test is: cargo builds it beside the tests.
///
/// # Panics
/// Where a test is no program in a folder.
pub fn program() -> PathBuf {
    // The library of a package does not know its binaries; they stand beside the folder of the test that runs.
    let test = std::env::current_exe().expect("a test is a program");
    test.ancestors().nth(2).expect("target/debug/deps/test").join("nigh-under-test")
}

/// The program under test.
pub fn nigh() -> Command {
    let mut command = Command::new(program());
    command.env_remove("NIGH_CONTROLLER").env_remove("NIGH_BROKER").env_remove("NIGH_TLS_DIR").env("NIGH_LOG", "warn");
    command
}

/// One role as a process. Killed when dropped.
#[derive(Debug)]
pub struct Role {
    /// Where it takes calls or requests; the same after each start.
    pub endpoint: Endpoint,
    /// Where else it listens, by the names that it gave at its start.
    pub at: BTreeMap<String, Endpoint>,
    arguments: Vec<String>,
    /// Bytes of address space that it may have.
    address_space: Option<u64>,
    child: Child,
}

#[expect(clippy::missing_panics_doc, reason = "helpers of tests panic where a test has failed")]
impl Role {
    /// Starts a role with these arguments on a port that the system picks, and waits until it says where it listens.
    pub fn start(role: &str, key: &str, arguments: &[&str]) -> Self {
        Self::start_within(role, key, arguments, None)
    }

    fn start_within(role: &str, key: &str, arguments: &[&str], address_space: Option<u64>) -> Self {
        let arguments: Vec<String> = [role, "--json"].iter().chain(arguments).map(ToString::to_string).collect();
        let (child, started) = spawn(&arguments, "127.0.0.1:0", address_space);
        let endpoint = started[key].as_str().and_then(|endpoint| endpoint.parse().ok());
        let endpoint = endpoint.unwrap_or_else(|| panic!("{role} says where it listens: {started}"));
        let at = started.as_object().into_iter().flatten();
        let at = at.filter_map(|(door, at)| Some((door.clone(), at.as_str()?.parse().ok()?))).collect();
        Self { endpoint, at, arguments, address_space, child }
    }

    /// Ends it without a word, as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    /// Sends it a signal, by the name that `kill` knows.
    pub fn signal(&self, name: &str) {
        let arguments = [format!("-{name}"), self.child.id().to_string()];
        assert!(Command::new("kill").args(arguments).status().expect("kill runs").success());
    }

    /// Bytes of memory that it holds.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process lives");
        let kib =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.map_or(0, |kib: u64| kib << 10)
    }

    /// Asks it to stop and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the role does not stop");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it again where it was.
    pub async fn start_again(&mut self) {
        let began = Instant::now();
        while std::net::TcpListener::bind(self.endpoint.as_str()).is_err() {
            assert!(began.elapsed() < PATIENCE, "the port does not become free");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.child = spawn(&self.arguments, self.endpoint.as_str(), self.address_space).0;
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(arguments: &[String], listen: &str, address_space: Option<u64>) -> (Child, serde_json::Value) {
    let mut command = nigh();
    if let Some(bytes) = address_space {
        command = within(bytes, &command);
    }
    // Else it would follow from the port that the system picked, where something else may listen.
    command
        .args(arguments)
        .args(["--listen", listen, "--listen-metrics", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the role speaks");
    let started = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{command:?} said {line:?}: {error}"));
    (child, started)
}

/// The same command in a process that can have no more address space.
fn within(bytes: u64, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("ulimit -v {}; exec \"$0\" \"$@\"", bytes / 1024)]).arg(command.get_program());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// A controller, a broker and computers.
#[derive(Debug)]
pub struct Processes {
    /// The controller.
    pub controller: Role,
    /// The broker.
    pub broker: Role,
    /// The computers.
    pub computers: Vec<Role>,
    _data: TempDir,
}

#[expect(clippy::missing_panics_doc, reason = "helpers of tests panic where a test has failed")]
impl Processes {
    /// An edge with so many computers, ready for deployments.
    pub async fn start(computers: usize) -> Self {
        Self::start_as(computers, None, "").await
    }

    /// The same, where each computer may have so many bytes of address space.
    pub async fn start_within(computers: usize, address_space: Option<u64>) -> Self {
        Self::start_as(computers, address_space, "").await
    }

    /// The same with these settings (TOML) in each computer's file.
    pub async fn start_with(computers: usize, settings: &str) -> Self {
        Self::start_as(computers, None, settings).await
    }

    async fn start_as(computers: usize, address_space: Option<u64>, settings: &str) -> Self {
        let data = TempDir::new().expect("a folder for the test");
        let folder = |name: &str| path(&data.path().join(name));
        let file = folder("computer.toml");
        std::fs::write(&file, settings).expect("the folder is the test's own");
        let controller = Role::start("controller", "endpoint", &["--data-dir", &folder("controller")]);
        let at = controller.endpoint.to_string();
        let broker_folder = folder("broker");
        let broker_arguments = [
            "--controller",
            &at,
            "--name",
            "broker",
            "--data-dir",
            &broker_folder,
            "--listen-table",
            "127.0.0.1:0",
            "--listen-http",
            "127.0.0.1:0",
        ];
        let broker = Role::start("broker", "calls", &broker_arguments);
        let computers = (0..computers)
            .map(|n| {
                let name = format!("computer-{n}");
                let memory = if address_space.is_some() { "512MiB" } else { "2GiB" };
                let data_dir = folder(&name);
                let own = ["--config", &file, "--name", &name, "--data-dir", &data_dir, "--memory", memory];
                Role::start_within("computer", "endpoint", &[&["--controller", &at], &own[..]].concat(), address_space)
            })
            .collect();
        let edge = Self { controller, broker, computers, _data: data };
        edge.until("all are announced", async || {
            edge.admin()
                .list()
                .await
                .is_ok_and(|listing| listing.computers.len() == edge.computers.len() && listing.brokers.len() == 1)
        })
        .await;
        edge
    }

    /// Deploys with default limits and waits until every computer is ready and the broker routes to it.
    pub async fn deploy(&self, name: &str, module: Bytes) {
        self.try_deploy(name, module, Limits::default()).await.expect("a good module deploys");
        self.until_ready(name).await;
    }

    /// Deploys and waits until every computer is ready.
    pub async fn try_deploy(&self, name: &str, module: Bytes, limits: Limits) -> anyhow::Result<()> {
        let deployed = self.upload(name, module, limits).await?;
        self.admin().await_ready(&deployed.name, deployed.version, PATIENCE, |_| {}).await?;
        Ok(())
    }

    /// Deploys and does not wait for the computers.
    pub async fn upload(&self, name: &str, module: Bytes, limits: Limits) -> anyhow::Result<Deployment> {
        let request = DeployRequest { limits, ..DeployRequest::new(name.parse()?) };
        Ok(self.admin().deploy(request, module, |_| {}).await?.deployment)
    }

    /// Waits until all computers are announced with the function and the broker routes to it.
    pub async fn until_ready(&self, name: &str) {
        self.until("all computers have it ready", async || {
            self.admin().list().await.is_ok_and(|listing| {
                let has_it = |computer: &nigh_proto::Computer| {
                    computer.ready.iter().any(|(function, _)| function.as_str() == name)
                };
                listing.computers.len() == self.computers.len() && listing.computers.iter().all(has_it)
            })
        })
        .await;
        self.until("the broker routes to it", async || {
            let mut probe = Call::new(name.parse().expect("a name"), Bytes::new(), PATIENCE);
            probe.dry_run = true;
            self.caller().invoke(probe).await.is_ok()
        })
        .await;
    }

    /// Calls a function that must answer with text.
    pub async fn answer(&self, name: &str, payload: &str) -> String {
        let call = Call::new(name.parse().expect("a name"), payload.to_owned(), PATIENCE);
        answer(self.caller().invoke(call).await.expect("the platform does its part"))
    }

    /// Asks the controller.
    pub fn admin(&self) -> Admin {
        Admin::new(self.controller.endpoint.clone())
    }

    /// Asks the broker.
    pub fn caller(&self) -> Caller {
        Caller::new(self.broker.endpoint.clone(), CallerLimits::default())
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !is_so().await {
            assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn path(path: &Path) -> String {
    path.to_str().expect("temporary folders have plain names").to_owned()
}
