//! A server of MQTT of the test's own: on a port that the system picked, with a folder of its own, to be stopped and started again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nigh_proto::Endpoint;
use tempfile::TempDir;

use super::{MS, PATIENCE};

/// A running server. Killed when dropped.
pub(crate) struct Mosquitto {
    port: u16,
    folder: TempDir,
    child: Child,
}

impl Mosquitto {
    /// Starts one; nothing, with a notice, where the machine has none.
    #[expect(clippy::print_stderr, reason = "a notice that something is left out")]
    pub(crate) fn start() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        // Another process may take the port in between; then the next one is tried.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap().port();
            let Some(mut child) = spawn(port, &folder) else {
                eprintln!(
                    "NOT TESTED: there is no mosquitto here; scripts/setup installs it where the system is Debian"
                );
                return None;
            };
            if wait(port, &mut child) {
                return Some(Self { port, folder, child });
            }
        }
        panic!("mosquitto does not start");
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        format!("127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// Stops it as its operator would, so that it writes down what it has.
    pub(crate) fn stop(&mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        self.child.wait().unwrap();
    }

    /// Starts it again where it was, with what it had.
    pub(crate) fn start_again(&mut self) {
        let began = Instant::now();
        loop {
            self.child = spawn(self.port, &self.folder).unwrap();
            if wait(self.port, &mut self.child) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "mosquitto does not start again");
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, folder: &TempDir) -> Option<Child> {
    let path = folder.path();
    // Where it runs as root it would become a user who may not write there.
    let settings = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\nuser root\n",
        path.display()
    );
    std::fs::write(path.join("mosquitto.conf"), settings).unwrap();
    // Where Debian puts it is not in everybody's path.
    ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
        let mut command = Command::new(program);
        command.arg("-c").arg(path.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().ok()
    })
}

/// Waits until it takes connections; false where it ended.
fn wait(port: u16, child: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(10 * MS);
    }
    false
}
