//! Face detection as it is shipped, in Wasm on a computer, against OpenCV on one thread: same images, same parameters, in
//! the same run, rounds interleaved, decoding left out on both sides.
//!
//! `scripts/bench` sets up OpenCV and names its Python in `NIGH_BENCH_PYTHON`.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::ingress::Handler as _;
use nigh_proto::{Call, Headers, Outcome};
use nigh_runtime::Computer;
use nigh_tests::bench::median;
use nigh_tests::guests;

const ROUNDS: usize = 3;
const CASCADES: [&str; 2] = ["default", "alt2"];
const FUNCTION: &str = "face-detect";

/// Grey PNGs of the repository, and of the larger set where it is there.
fn images() -> Vec<PathBuf> {
    let own = guests::root().join("guest-functions/face-detect/tests/data");
    let more = std::env::var_os("NIGH_FACES")
        .map_or_else(|| guests::root().join("../shared/data/faces"), PathBuf::from)
        .join("gray");
    let mut images: Vec<PathBuf> = [own, more]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .collect();
    images.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    images.dedup_by_key(|path| path.file_name().map(ToOwned::to_owned));
    images
}

async fn computer() -> Arc<Computer> {
    let module = guests::built(FUNCTION);
    let limits = nigh_proto::Limits { timeout: Duration::from_secs(60), ..Default::default() };
    let deployment = nigh_proto::Deployment::new(
        FUNCTION.parse().expect("a name"),
        nigh_proto::Digest::of(&module),
        module.len() as u64,
        nigh_proto::Kind::Native,
        limits,
        Vec::new(),
    );
    let computer = Computer::new(nigh_runtime::Config::new("bench".parse().expect("a name"))).expect("a computer");
    computer.deploy(deployment, module).await.expect("the shipped function deploys");
    computer
}

/// Milliseconds that the function spent in the detector, as it says itself, and the number of faces.
async fn in_wasm(computer: &Computer, image: &[u8], cascade: &str) -> (f64, usize) {
    let mut call = Call::new(FUNCTION.parse().expect("a name"), image.to_vec(), Duration::from_secs(60));
    call.headers = Headers::new(vec![("cascade".into(), cascade.into())]).expect("one header");
    let reply = computer.handle(call, Instant::now()).await.expect("the computer has nothing else to do");
    let Outcome::Answer { payload, headers } = reply.outcome else { panic!("{:?}", reply.outcome) };
    let us: f64 = headers.get("detect-us").and_then(|us| us.parse().ok()).expect("the function tells its time");
    let answer: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
    (us / 1e3, answer["objects"].as_array().expect("a list").len())
}

/// The same of OpenCV: median milliseconds of one image.
fn in_opencv(python: &str, image: &PathBuf, cascade: &str) -> (f64, usize) {
    let script = guests::root().join("guest-functions/face-detect/bench/opencv.py");
    let output = Command::new(python)
        .arg(script)
        .args(["--repeat", "3", "--cascade", cascade])
        .arg(image)
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let figures = &figures["results"][0];
    (
        figures["median_ms"].as_f64().expect("ms"),
        usize::try_from(figures["objects"].as_u64().expect("objects")).expect("few"),
    )
}

fn main() {
    let Ok(python) = std::env::var("NIGH_BENCH_PYTHON") else {
        println!("face_detect: left out, NIGH_BENCH_PYTHON names no Python with OpenCV; run scripts/bench");
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let computer = runtime.block_on(computer());
    println!("| cascade | image | objects | OpenCV ms | Wasm ms | Wasm / OpenCV |\n|---|---|---|---|---|---|");
    for cascade in CASCADES {
        for image in images() {
            let bytes = std::fs::read(&image).expect("an image");
            let (mut wasm, mut opencv) = (Vec::new(), Vec::new());
            let mut objects = (0, 0);
            for _ in 0..ROUNDS {
                let (ms, found) = runtime.block_on(in_wasm(&computer, &bytes, cascade));
                wasm.push(ms);
                let (ms, reference) = in_opencv(&python, &image, cascade);
                opencv.push(ms);
                objects = (found, reference);
            }
            assert_eq!(objects.0, objects.1, "the same objects in {}", image.display());
            let (wasm, opencv) = (median(wasm), median(opencv));
            let name = image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            println!("| {cascade} | {name} | {} | {opencv:.1} | {wasm:.1} | {:.2} |", objects.0, wasm / opencv);
        }
    }
}
