//! TLS as an operator meets it: an authority made and certificates issued by the program, roles as processes that use them
//! and take up new ones, sockets that are not opened without.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nigh_tests::guests;
use nigh_tests::processes::{Role, nigh};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

fn run(home: &Path, arguments: &[&str]) -> Output {
    nigh().current_dir(home).env("XDG_DATA_HOME", home.join("data")).args(arguments).output().unwrap()
}

fn succeed(home: &Path, line: &str) -> String {
    let arguments: Vec<_> = line.split_whitespace().collect();
    let output = run(home, &arguments);
    assert!(output.status.success(), "nigh {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fail(home: &Path, line: &str) -> String {
    let arguments: Vec<_> = line.split_whitespace().collect();
    let output = run(home, &arguments);
    assert_eq!(output.status.code(), Some(1), "nigh {line}");
    String::from_utf8(output.stderr).unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_edge_of_processes_with_certificates_of_its_own_authority() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    succeed(home, "ca init");
    assert!(fail(home, "ca init").contains("--force"), "an authority is not overwritten");
    let told = succeed(home, "ca issue --role controller --name control --host 127.0.0.1");
    assert!(told.contains("nigh controller --tls-dir") && told.contains("scp -r control"), "{told}");
    succeed(home, "ca issue --role broker --name gateway --host 127.0.0.1");
    succeed(home, "ca issue --role computer --name camera-7 --host 127.0.0.1");
    succeed(home, "ca issue --role operator --name ada");
    succeed(home, "ca issue --role client --name shop");
    assert!(fail(home, "ca issue --role computer --name camera-8").contains("--host"));
    let shown = succeed(home, "ca show camera-7");
    assert!(shown.contains("computer camera-7") && shown.contains("127.0.0.1"), "{shown}");

    let folder = |name: &str| home.join(name).to_str().unwrap().to_owned();
    let controller =
        Role::start("controller", "endpoint", &["--data-dir", &folder("store"), "--tls-dir", &folder("control")]);
    let at = controller.endpoint.to_string();
    let doors = ["--listen-table", "127.0.0.1:0", "--listen-http", "none"];
    let broker =
        Role::start("broker", "calls", &[&["--controller", &at, "--tls-dir", &folder("gateway")], &doors[..]].concat());
    let computer = Role::start(
        "computer",
        "endpoint",
        &["--controller", &at, "--tls-dir", &folder("camera-7"), "--data-dir", &folder("cache"), "--memory", "2GiB"],
    );

    std::fs::write(home.join("echo.wasm"), guests::echo()).unwrap();
    let connect = format!("--controller {at} --broker {}", broker.endpoint);
    until("the computer and the broker are announced", || {
        let listed = succeed(home, &format!("ls --json {connect} --tls-dir ada"));
        listed.contains("camera-7") && listed.contains("gateway")
    });
    let refused = fail(home, &format!("deploy echo.wasm {connect} --tls-dir shop"));
    assert!(refused.contains("client shop may not deploy functions") && refused.contains("not-allowed"), "{refused}");
    succeed(home, &format!("deploy echo.wasm {connect} --tls-dir ada"));
    assert_eq!(succeed(home, &format!("invoke echo --data hello {connect} --tls-dir shop")), "hello");
    assert!(succeed(home, &format!("top --once {connect} --tls-dir shop")).contains("camera-7"));
    succeed(home, &format!("logs {connect} --tls-dir ada"));
    let refused = fail(home, &format!("invoke echo --data hello {connect}"));
    assert!(refused.contains("takes TLS only") && refused.contains("unauthenticated"), "{refused}");

    renewed(home, &computer);
    assert_eq!(succeed(home, &format!("invoke echo --data again {connect} --tls-dir shop")), "again");
}

/// New files are taken up by a role that runs, and broken ones change nothing.
fn renewed(home: &Path, computer: &Role) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ca = std::fs::read_to_string(home.join("data/nigh/ca/ca.pem")).unwrap();
    let key = std::fs::read_to_string(home.join("data/nigh/ca/ca-key.pem")).unwrap();
    let authority = nigh::ca::Authority::from_pem(&ca, &key).unwrap();
    let met = || runtime.block_on(super::peers::fingerprint(&computer.endpoint, &authority));
    let before = met();
    succeed(home, "ca issue --role computer --name camera-7 --host 127.0.0.1 --force");
    computer.signal("HUP");
    until("the new certificate is in use", || met() != before);
    let after = met();
    std::fs::write(home.join("camera-7/key.pem"), "broken").unwrap();
    computer.signal("HUP");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(met(), after, "a broken file changes nothing, and the role runs on");
}

#[test]
fn nothing_listens_beyond_the_machine_in_the_clear_unless_told_so() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    for line in [
        "controller --listen 0.0.0.0:0",
        "broker --listen 127.0.0.1:0 --listen-table 127.0.0.1:0 --listen-http 0.0.0.0:0",
        "computer --listen 0.0.0.0:0 --advertise localhost:1",
        "up --listen 0.0.0.0 --advertise localhost --any-ports",
    ] {
        let refused = fail(home, line);
        assert!(refused.contains("0.0.0.0") && refused.contains("--insecure-plaintext"), "{line}: {refused}");
        assert!(refused.contains("nigh ca init"), "{line}: {refused}");
    }
}

#[test]
fn a_whole_edge_in_one_process_issues_its_own_certificates() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    succeed(home, "ca init --dir authority");
    succeed(home, "ca issue --dir authority --role operator --name ada");
    let mut edge = nigh();
    edge.current_dir(home).args(["up", "--any-ports", "--json", "--data-dir", "edge", "--ca", "authority"]);
    let mut edge = Killed(edge.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    let stdout = edge.0.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let controller = told["controller"].as_str().unwrap();
    until("the computer is announced", || {
        succeed(home, &format!("ls --json --controller {controller} --tls-dir ada")).contains("computer-")
    });
    assert!(fail(home, &format!("ls --controller {controller}")).contains("takes TLS only"));
}

/// A process that does not outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
