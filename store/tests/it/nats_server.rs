//! A NATS server of the test's own: on a port that the system picked, with a folder of its own, to be killed and started again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nigh_store::Place;
use tempfile::TempDir;

use crate::PATIENCE;

/// A running server. Killed when dropped.
pub(crate) struct NatsServer {
    port: u16,
    folder: TempDir,
    child: Child,
}

impl NatsServer {
    /// Starts one; nothing, with a notice, where the machine has none.
    #[expect(clippy::print_stderr, reason = "a notice that something is left out")]
    pub(crate) fn start() -> Option<Self> {
        let folder = TempDir::new().expect("a folder for the test");
        // Another process may take the port in between; then the next one is tried.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
            let Some(mut child) = spawn(port, &folder) else {
                eprintln!(
                    "NOT TESTED: there is no nats-server here; scripts/setup installs it where the system is Debian"
                );
                return None;
            };
            if wait(port, &mut child) {
                return Some(Self { port, folder, child });
            }
        }
        panic!("nats-server does not start");
    }

    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        Place::Nats { servers: vec![format!("127.0.0.1:{}", self.port)], tls: None }
    }

    /// Ends it without a word, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    /// Starts it again where it was, with what it had.
    pub(crate) fn start_again(&mut self) {
        let began = Instant::now();
        loop {
            self.child = spawn(self.port, &self.folder).expect("it was here before");
            if wait(self.port, &mut self.child) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "nats-server does not start again");
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, folder: &TempDir) -> Option<Child> {
    let log = folder.path().join("log");
    // Where Debian puts it is not in everybody's path.
    ["nats-server", "/usr/sbin/nats-server"].into_iter().find_map(|program| {
        let mut command = Command::new(program);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(folder.path()).arg("-l").arg(&log);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
    })
}

/// Waits until it takes connections; false where it ended.
fn wait(port: u16, child: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if child.try_wait().expect("the process is ours").is_some() {
            return false;
        }
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
