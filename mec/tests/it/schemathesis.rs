//! The official description, turned into some hundreds of requests by `schemathesis`, all of whose checks the answers pass.

use super::*;

/// The official file.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/etsi-mec/gs016-UEAppInterfaceApi-2.2.1.yaml");
/// Cases of each operation, at most.
const CASES: &str = "10";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_made_from_the_official_file_find_nothing_wrong() {
    let world = World::start_with(|config| {
        config.strict = true;
        // It makes names up, of applications and of hosts to be notified at.
        config.elsewhere = Some("http://127.0.0.1:9/function/{name}".into());
        config.contexts_per_device_max = 10_000;
    })
    .await;
    let url = format!("http://{}/dev_app/v1", world.role.devices);
    let folder = TempDir::new().unwrap();
    let mut command = tokio::process::Command::new(clients().join("python/bin/schemathesis"));
    command.current_dir(folder.path()).args(["run", FILE, "--url", &url, "--checks", "all"]);
    command.args(["--seed", "20220428", "--max-examples", CASES, "--request-timeout", "10", "--no-color"]);
    let output = command.kill_on_drop(true).output().await;
    let output = output.unwrap_or_else(|error| panic!("schemathesis: {error}; run scripts/mec-clients"));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    let created = world.config.telemetry.metrics().unwrap();
    assert!(created.contains("nigh_mec_http_responses_total{code=\"201\"}"), "contexts were created: {created}");
    println!("{}", told.lines().rev().take(12).collect::<Vec<_>>().join("\n"));
}
