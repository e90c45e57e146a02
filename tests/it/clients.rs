//! Other systems' clients, as tests run them, and requests by hand.

use std::path::PathBuf;
use std::process::Stdio;

use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use nigh_proto::Endpoint;
use nigh_tests::guests;
use serde_json::Value;
use tokio::net::TcpStream;

/// An answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }
}

/// Sends a request on a connection of its own.
pub(crate) async fn send(
    door: &Endpoint,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<String>,
) -> Answer {
    let connection = TcpStream::connect(door.as_str()).await.unwrap();
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await.unwrap();
    tokio::spawn(driver);
    let mut request = Request::builder().method(method).uri(path).header("host", door.as_str());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::<bytes::Bytes>::from(body.into())).unwrap()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() }
}

/// Programs of other systems, where `scripts/door-clients` has put them.
pub(crate) fn installed() -> PathBuf {
    let folder = guests::root().join("target/door-clients");
    assert!(folder.join("ready").exists(), "{} is not there; run scripts/door-clients", folder.display());
    folder
}

/// Runs a client's script, of Node.js or Python, to its end.
pub(crate) async fn run_script(name: &str, arguments: &[&str]) {
    run(&mut script(name, arguments)).await;
}

fn script(name: &str, arguments: &[&str]) -> tokio::process::Command {
    let script = guests::root().join("tests/clients").join(name);
    let program = if name.ends_with(".py") { installed().join("python/bin/python") } else { "node".into() };
    let mut command = tokio::process::Command::new(program);
    command.arg(script).args(arguments);
    command
}

/// The same over TLS, for a client that believes this authority's certificate (PEM), if any.
pub(crate) async fn run_script_over_tls(name: &str, arguments: &[&str], authority: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    let mut command = script(name, arguments);
    if let Some(authority) = authority {
        std::fs::write(&file, authority).unwrap();
        command.env("NODE_EXTRA_CA_CERTS", &file).env("AWS_CA_BUNDLE", &file);
    }
    run(&mut command).await;
}

/// Runs a client to its end; what it says.
pub(crate) async fn run(command: &mut tokio::process::Command) -> String {
    let command = command.env("NIGH_DOOR_CLIENTS", installed().join("js")).stdin(Stdio::null());
    // What the machine is set to, for AWS and for certificates, is not what is tested.
    command.env("AWS_EC2_METADATA_DISABLED", "true").env_remove("AWS_PROFILE");
    for name in ["AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let is_set = command.as_std().get_envs().any(|(set, _)| set == name);
        if !is_set {
            command.env_remove(name);
        }
    }
    let output = command.output().await.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{out}{err}");
    out.into_owned()
}
