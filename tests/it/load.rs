//! `nigh load` and `nigh report` as processes, against a real edge.

use std::path::Path;
use std::process::{Command, Output};

use nigh_tests::edge::Edge;
use nigh_tests::{guests, processes};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Commands that run at once.
const AT_ONCE: usize = 4;

/// The program on this edge, within a folder.
fn nigh(edge: &Edge, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = processes::nigh();
    command
        .current_dir(folder)
        .args(arguments)
        .env("NIGH_BROKER", edge.broker().as_str())
        .env("NIGH_CONTROLLER", edge.controller().as_str());
    command
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

async fn json(command: Command) -> Value {
    let ran = run(command).await;
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_measured_written_and_compared() {
    let edge = Edge::start(2).await;
    edge.deploy("echo", guests::echo()).await;
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let load =
        ["load", "echo", "--rate", "200", "--gaps", "poisson", "--duration", "1s", "--warm-up", "500ms", "--json"];
    let first = json(nigh(&edge, at, &[&load[..], &["--out", "one"]].concat())).await;
    let due = first["calls"]["due"].as_u64().unwrap();
    // 200 are expected, give or take five times their standard deviation; the same seed makes the same.
    assert!((130..270).contains(&due), "{due}");
    assert_eq!(first["calls"]["answered"], due);
    assert!(first["calls"]["warm_up"].as_u64().unwrap() > 50);
    let shares: f64 = first["computers"].as_array().unwrap().iter().map(|one| one["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let parts: f64 = first["parts"].as_array().unwrap().iter().map(|part| part["mean"].as_f64().unwrap()).sum();
    let mean = first["latency"]["mean"].as_f64().unwrap();
    assert!((parts / mean - 1.0).abs() < 0.05, "the parts make {parts} of {mean}");
    let again = json(nigh(&edge, at, &[&load[..], &["--out", "two"]].concat())).await;
    assert_eq!(again["calls"]["due"], due, "the same seed makes the same calls");
    let page = std::fs::read_to_string(at.join("one/report.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("<script") && !page.contains("src=") && !page.contains("NaN"));

    // The calls of the warm-up have lines too, as whoever reads them may want to leave out another part.
    let lines = std::fs::read_to_string(at.join("one/calls.txt")).unwrap();
    assert!(lines.lines().count() as u64 > due);
    assert!(lines.lines().all(|line| line.split(' ').count() == 6 && line.ends_with(" echo 2")), "{lines}");

    let told = json(nigh(&edge, at, &["report", "one", "two", "--html", "both.html", "--json"])).await;
    let figures: Vec<_> = told["rows"].as_array().unwrap().iter().map(|row| row["figure"].as_str().unwrap()).collect();
    assert!(figures.contains(&"latency, p99") && figures.contains(&"answers"), "{figures:?}");
    assert!(std::fs::read_to_string(at.join("both.html")).unwrap().contains("<svg"));

    let taken = run(nigh(&edge, at, &[&load[..], &["--out", "one"]].concat())).await;
    assert!(!taken.status.success() && text(&taken.stderr).contains("--overwrite"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_http_and_to_several_brokers_tell_the_same() {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    let folder = TempDir::new().unwrap();
    let (http, broker) = (edge.http().to_string(), edge.broker().to_string());
    let twice = format!("{broker},{broker}");
    for whom in [["--http", &http], ["--to", &twice]] {
        let load = ["load", "echo", "--in-flight", "4", "--count", "100", "--size", "10..2000", "--json"];
        let told = json(nigh(&edge, folder.path(), &[&load[..], &whom].concat())).await;
        assert_eq!(told["calls"]["answered"], 100, "{told}");
        assert_eq!(told["calls"]["request_bytes"], told["calls"]["answer_bytes"]);
        assert_eq!(told["computers"][0]["calls"], 100);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_told_with_what_to_do() {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("odd.txt"), "0 echo 127.0.0.1:1 1\nsoon echo 127.0.0.1:1 1\n").unwrap();
    for (arguments, part) in [
        (&["load", "echo", "--count", "1"][..], "say how often"),
        (&["load", "--replay", "odd.txt"], "line 2"),
        (&["load", "--replay", "missing.txt"], "cannot read the timetable"),
        (&["load", "echo", "--replay", "odd.txt"], "names its functions itself"),
        (&["load", "echo", "--rate", "9", "--pictures", "missing"], "cannot read missing"),
        (&["load", "nobody", "--rate", "50", "--count", "2"], "no call was answered (unknown-function)"),
        (&["load", "echo", "--rate", "9", "--persistence", "2"], "from 0 to 1"),
        (&["load", "echo", "--gaps", "ipp"], "--sleep"),
        (
            &["load", "echo", "--gaps", "random", "--rate", "1"],
            "possible values: constant, uniform, poisson, ipp, bursts",
        ),
        (&["report", "missing"], "nigh load --out"),
    ] {
        let ran = run(nigh(&edge, folder.path(), arguments)).await;
        assert!(!ran.status.success(), "{arguments:?}");
        let told = text(&ran.stderr);
        assert!(told.contains(part), "{arguments:?}: {told}");
    }
    edge.stop().await;
}

/// The commands of the tables in docs/LOAD.md that map the older clients' options, in order.
fn commands() -> Vec<String> {
    let page = std::fs::read_to_string(guests::root().join("docs/LOAD.md")).unwrap();
    let (_, tables) = page.split_once("## Coming from").unwrap();
    let rows = tables.lines().filter(|line| line.starts_with("| `--"));
    rows.flat_map(|row| row.split('`').filter(|span| span.starts_with("nigh load"))).map(str::to_owned).collect()
}

/// A MEC system that sends devices to this edge; where it is, and what ends it.
async fn start_mec(edge: &Edge, folder: &Path) -> (String, CancellationToken) {
    let devices = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = devices.local_addr().unwrap().to_string();
    let mut config = nigh_mec::Config::new(nigh_store::Place::Embedded { file: folder.join("mec.redb") });
    config.controller = Some(edge.controller().into());
    config.mx2 = true;
    let (telemetry, stop) = (config.telemetry.clone(), CancellationToken::new());
    let stopped = stop.clone();
    let listeners = nigh_mec::Listeners { devices, older: None };
    tokio::spawn(async move { nigh_mec::run(listeners, config, stopped).await.unwrap() });
    edge.until("the MEC system has heard the controller", async || telemetry.readiness().is_ok()).await;
    (at, stop)
}

/// Stands for a camera.
const VIDEO: &str = "colours.mkv";

/// A video of one second, where there is something to make it with.
#[expect(clippy::print_stderr, reason = "a notice that something is left out")]
fn make_video(folder: &Path) -> bool {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=1", "-c:v", "mjpeg"]);
    match ffmpeg.arg(folder.join(VIDEO)).status() {
        Ok(made) => made.success(),
        Err(_) => {
            eprintln!("left out: --video, for want of ffmpeg; scripts/setup installs it");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_option_of_the_older_clients_has_a_command_that_runs() {
    let edge = Edge::start(1).await;
    edge.deploy("echo", guests::echo()).await;
    edge.deploy("face-detect", guests::echo()).await;
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    std::fs::create_dir(at.join("photos")).unwrap();
    for name in ["a.jpg", "b.jpg"] {
        std::fs::write(at.join("photos").join(name), "stands for a picture").unwrap();
    }
    let states = "'dependencies': {'s0': ['echo'], 's1': null}, 'state-sizes': {'s0': 1000, 's1': 2000}";
    let chain = format!("{{'functions': ['echo', 'face-detect', 'echo'], {states}}}");
    let names = "'functionNames': ['echo', 'echo', 'face-detect', 'echo']";
    let dag = format!("{{'successors': [[1, 2], [3], [3]], {names}, {states}}}");
    for (name, flow) in [("chain.json", chain), ("dag.json", dag)] {
        std::fs::write(at.join(name), flow.replace('\'', "\"")).unwrap();
    }
    let computer = edge.local().computers()[0].1.clone();
    let has_video = make_video(at);
    let (mec, stop_mec) = start_mec(&edge, at).await;
    let draw = "load timetable echo --rate 100 --clients 2 --duration 200ms --out day.txt";
    let drawn = run(nigh(&edge, at, &draw.split(' ').collect::<Vec<_>>())).await;
    assert!(drawn.status.success(), "{}", text(&drawn.stderr));

    let commands = commands();
    assert!(commands.len() > 40, "{} commands", commands.len());
    // One that goes on with the run of another has to come after it.
    let (after, before): (Vec<_>, Vec<_>) = commands.into_iter().partition(|command| command.contains("--append"));
    for command in before.chunks(AT_ONCE).chain(after.chunks(AT_ONCE)) {
        let started: Vec<_> = command
            .iter()
            // These need what a plain edge does not have.
            .filter(|command| !command.contains("--tls-dir") && (has_video || !command.contains("--video")))
            .map(|command| {
                let line = command.replace("127.0.0.1:6473", edge.broker().as_str()).replace("/dev/video0", VIDEO);
                let line = line.replace("127.0.0.1:6500", &mec).replace("127.0.0.1:6600", "127.0.0.1:0");
                let line = line.replace("127.0.0.1:10000", computer.as_str());
                let arguments: Vec<&str> = line.split(' ').skip(1).collect();
                (command.clone(), tokio::spawn(run(nigh(&edge, at, &arguments))))
            })
            .collect();
        for (command, ran) in started {
            let ran = ran.await.unwrap();
            assert!(ran.status.success(), "{command}: {}", text(&ran.stderr));
            assert!(!ran.stdout.is_empty() || command.contains("--out"), "{command} says nothing");
        }
    }
    assert!(at.join("ipp-run/loss.txt").exists());
    assert_eq!(std::fs::read_dir(at.join("kept")).unwrap().count(), 2);
    stop_mec.cancel();
    edge.stop().await;
}
