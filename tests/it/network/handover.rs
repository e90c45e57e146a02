//! Devices of ETSI MEC on a network: one that moves, and one whose broker dies, hear where to call now, and call there.
#![expect(clippy::print_stdout, reason = "what was measured is told")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nigh_client::{Admin, DeployRequest};
use nigh_proto::Endpoint;
use nigh_tests::guests;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use super::links::{Network, Running};
use super::{PATIENCE, SOON, alone};

const CONTROLLER: &str = "control";
const COMPUTER: &str = "one";
const BROKERS: [&str; 2] = ["here", "there"];
const MEC: &str = "mec";
const DEVICE: &str = "phone";
/// Where the device is once it has moved.
const MOVED: &str = "10.77.0.200";

/// What a device asks for.
fn context(callback: &str) -> Value {
    json!({
        "associateDevAppId": "phone",
        "callbackReference": callback,
        "appInfo": {"appName": "echo", "appProvider": "Nigh", "appDVersion": "1", "userAppInstanceInfo": [{}]},
    })
}

/// A request from this address: status, `Location`, and body.
async fn request(from: &str, to: SocketAddr, head: &str, body: &str) -> std::io::Result<(u16, String, String)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0))?;
    let mut stream = socket.connect(to).await?;
    let length = body.len();
    let asked = format!(
        "{head} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(asked.as_bytes()).await?;
    let mut told = String::new();
    stream.read_to_string(&mut told).await?;
    let (head, body) = told.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default();
    Ok((status, location.to_owned(), body.to_owned()))
}

/// Takes one notification there.
async fn notified(listener: &TcpListener) -> Value {
    let (mut stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let (mut told, mut part) = (Vec::new(), [0; 4096]);
    let document = loop {
        let read = stream.read(&mut part).await.unwrap();
        assert!(read > 0, "the notification broke off");
        told.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&told);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(document) = serde_json::from_str(body)
        {
            break document;
        }
    };
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    document
}

/// Whether a call at an address that a device was told is answered.
async fn is_answered(reference: &str) -> bool {
    let Some((host, path)) = reference.strip_prefix("http://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let called = request("0.0.0.0", host.parse().unwrap(), &format!("POST /{path}"), "ping").await;
    called.is_ok_and(|(status, _, body)| status == 200 && body.contains("ping"))
}

/// Arguments of a role that joins this controller.
fn joined<'a>(controller: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--controller", controller]].concat()
}

struct Edge {
    brokers: Vec<Running>,
    _roles: Vec<Running>,
    _data: TempDir,
}

impl Edge {
    /// A controller, a computer, two brokers, and two that tell devices: by a file at port 6500, evenly at 6501.
    async fn start(network: &Network) -> Self {
        let data = tempfile::tempdir().unwrap();
        let folder = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
        let at = |host, port: u16| format!("{}:{port}", network.address(host));
        let controller = at(CONTROLLER, 6475);
        let common = ["--insecure-plaintext", "--listen-metrics", "none"];
        let role = |host, arguments: &[&str]| network.start(host, &[arguments, &common].concat());
        let rows = folder("rows");
        let line = |device: &str, broker| format!("{device} echo {}\n", at(broker, 6473));
        std::fs::write(&rows, line(&network.address(DEVICE), BROKERS[0]) + &line(MOVED, BROKERS[1])).unwrap();
        let mut roles = vec![
            role(CONTROLLER, &["controller", "--listen", &controller, "--data-dir", &folder("control")]),
            role(
                COMPUTER,
                &joined(
                    &controller,
                    &[
                        "computer",
                        "--listen",
                        &at(COMPUTER, 10_000),
                        "--data-dir",
                        &folder("one"),
                        "--memory",
                        "512MiB",
                    ],
                ),
            ),
        ];
        let brokers = BROKERS.map(|host| {
            let (listen, http) = (at(host, 6473), at(host, 8080));
            role(host, &joined(&controller, &["broker", "--name", host, "--listen", &listen, "--listen-http", &http]))
        });
        let (by_file, evenly) = (at(MEC, 6500), at(MEC, 6501));
        let by_file_data = folder("file");
        let decided =
            ["mec", "--listen", &by_file, "--data-dir", &by_file_data, "--decide", "file", "--associations", &rows];
        roles.push(role(MEC, &joined(&controller, &decided)));
        roles.push(role(MEC, &joined(&controller, &["mec", "--listen", &evenly, "--data-dir", &folder("evenly")])));
        let admin = Admin::new(controller.parse::<Endpoint>().unwrap());
        let began = Instant::now();
        while deploy(&admin).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "nothing can be deployed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { brokers: brokers.into(), _roles: roles, _data: data }
    }
}

async fn deploy(admin: &Admin) -> Result<(), String> {
    let request = DeployRequest::new("echo".parse().unwrap());
    admin.deploy(request, guests::echo(), |_| {}).await.map(drop).map_err(|error| error.to_string())
}

/// A context at this port, once it can be had: where it is, and where it says to call.
async fn created(from: &str, to: SocketAddr, callback: &str) -> (String, String) {
    let began = Instant::now();
    loop {
        let asked = request(from, to, "POST /dev_app/v1/app_contexts", &context(callback).to_string()).await;
        if let Ok((201, location, body)) = asked {
            let body: Value = serde_json::from_str(&body).unwrap();
            let reference = body["appInfo"]["userAppInstanceInfo"][0]["referenceURI"].as_str().unwrap();
            if is_answered(reference).await {
                return (location, reference.to_owned());
            }
        }
        assert!(began.elapsed() < PATIENCE, "no context can be had");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How long it takes from an event until the device has been told and was answered where it was told to call.
async fn handed_over(what: &str, began: Instant, listener: &TcpListener, location: &str, expected: &str) {
    let told = loop {
        let told = notified(listener).await;
        // Another context may have been had before this one.
        if told["contextId"].as_str().is_some_and(|context| location.ends_with(context)) {
            break told;
        }
    };
    assert_eq!(told["referenceURI"], expected, "{told}");
    assert!(is_answered(expected).await, "{expected} does not answer");
    println!("{what}: told and answered at its new broker {:?} after", began.elapsed());
    assert!(began.elapsed() < SOON);
}

#[test]
fn a_device_that_moves_or_whose_broker_dies_is_handed_over_within_a_second() {
    let _alone = alone();
    let Some(network) = Network::of(&[CONTROLLER, COMPUTER, BROKERS[0], BROKERS[1], MEC, DEVICE]) else { return };
    network.also_at(DEVICE, MOVED);
    network.at(DEVICE, || async {
        let mut edge = Edge::start(&network).await;
        let device = network.address(DEVICE);
        let at = |port: u16| -> SocketAddr { format!("{}:{port}", network.address(MEC)).parse().unwrap() };
        let called = |host| format!("http://{}:8080/function/echo", network.address(host));

        let (before, after) = (
            TcpListener::bind((device.as_str(), 6600)).await.unwrap(),
            TcpListener::bind((MOVED, 6600)).await.unwrap(),
        );
        let callback = |address: &str| format!("http://{address}:6600/notified");
        let (location, reference) = created(&device, at(6500), &callback(&device)).await;
        assert_eq!(reference, called(BROKERS[0]));
        let path = location.split_once("/dev_app").unwrap().1.to_owned();
        let began = Instant::now();
        let update = context(&callback(MOVED)).to_string();
        let (status, ..) = request(MOVED, at(6500), &format!("PUT /dev_app{path}"), &update).await.unwrap();
        assert_eq!(status, 204);
        handed_over("a device moved", began, &after, &location, &called(BROKERS[1])).await;

        let (location, reference) = created(&device, at(6501), &callback(&device)).await;
        let (dying, other) = if reference == called(BROKERS[0]) { (0, 1) } else { (1, 0) };
        let began = Instant::now();
        drop(edge.brokers.remove(dying));
        handed_over("a broker was killed", began, &before, &location, &called(BROKERS[other])).await;
    });
}
