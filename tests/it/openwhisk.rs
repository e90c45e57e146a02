//! The door for clients of OpenWhisk: its own JavaScript client and Adobe's command line against it, and by hand what these
//! do not send.

use std::io::{Cursor, Write as _};
use std::sync::Arc;
use std::time::Duration;

use nigh_doors::{ActivationLimits, Callers, System};
use nigh_proto::tls::HttpClients;
use nigh_proto::{Endpoint, Limits};
use nigh_tests::edge::Edge;
use nigh_tests::{guests, processes};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::clients::{Answer, run, run_script, run_script_over_tls, send};

/// `ada:1234` may deploy, `bob:1234` is of a namespace of its own.
const CREDENTIALS: &str = "ada:1234 guest deploy\neve:1234 guest\nbob:1234 acme\n";
const ADA: &str = "Basic YWRhOjEyMzQ=";
const BOB: &str = "Basic Ym9iOjEyMzQ=";
const EVE: &str = "Basic ZXZlOjEyMzQ=";
const ACTIONS: &str = "/api/v1/namespaces/_/actions";
const ACTIVATIONS: &str = "/api/v1/namespaces/_/activations";

async fn edge_with(callers: Callers, activations: ActivationLimits) -> (Edge, Endpoint) {
    let edge = Edge::start_with(1, |config| {
        config.doors = vec![(System::OpenWhisk, 0)];
        config.broker.callers = callers;
        config.broker.activations = activations;
    })
    .await;
    let door = edge.local().doors()[0].1.clone();
    (edge, door)
}

async fn edge() -> (Edge, Endpoint) {
    let (edge, door) = edge_with(Callers::from_text(CREDENTIALS).unwrap(), ActivationLimits::default()).await;
    edge.deploy("echo", guests::echo()).await;
    (edge, door)
}

/// A function that never ends by itself, and is ended after this time.
async fn deploy_endless(edge: &Edge, timeout: Duration) {
    let endless = guests::native("", "(loop $again (br $again)) unreachable");
    edge.try_deploy("endless", endless, Limits { timeout, ..Limits::default() }).await.unwrap();
}

/// The same as `ada`, with JSON.
async fn ask(door: &Endpoint, method: &str, path: &str, body: &str) -> Answer {
    let headers: &[_] = match body {
        "" => &[("authorization", ADA)],
        _ => &[("authorization", ADA), ("content-type", "application/json; charset=utf-8")],
    };
    send(door, method, path, headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn openwhisks_own_client_works_unchanged() {
    let (edge, door) = edge().await;
    edge.deploy("math.echo", guests::echo()).await;
    edge.deploy("trap", guests::native("", "unreachable")).await;
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("module.wasm");
    std::fs::write(&module, guests::echo_with("(func (export \"other\"))")).unwrap();
    let module = module.to_str().unwrap();
    run_script("openwhisk.mjs", &[&format!("http://{door}"), "ada:1234", module]).await;

    // The same in a process of its own in front of the broker.
    let (controller, broker) = (edge.controller().to_string(), edge.broker().to_string());
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, CREDENTIALS).unwrap();
    let arguments = ["openwhisk", "--credentials", credentials.to_str().unwrap()];
    let arguments = [&arguments[..], &["--controller", &controller, "--broker", &broker]].concat();
    let proxy = processes::Role::start("proxy", "endpoint", &arguments);
    run_script("openwhisk.mjs", &[&format!("http://{}", proxy.endpoint), "ada:1234", module]).await;
    edge.stop().await;
}

/// A zip archive as a build makes it, with one module.
fn archive(module: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [("package.json", b"{}".as_slice()), ("build/action.wasm", module)] {
        writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_actions_and_packages_is_kept_through_openwhisks_own_client() {
    let (edge, door) = edge().await;
    edge.deploy("math.echo", guests::echo()).await;
    edge.deploy("trap", guests::native("", "unreachable")).await;
    let folder = tempfile::tempdir().unwrap();
    let (module, zipped) = (folder.path().join("module.wasm"), folder.path().join("module.zip"));
    let echo = guests::echo_with("(func (export \"other\"))");
    std::fs::write(&zipped, archive(&echo)).unwrap();
    std::fs::write(&module, echo).unwrap();
    let arguments = [&format!("http://{door}"), "ada:1234", module.to_str().unwrap(), zipped.to_str().unwrap()];
    run_script("openwhisk_kept.mjs", &arguments).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_door_keeps_holds_at_another_and_outlasts_both() {
    let (edge, door) = edge().await;
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, CREDENTIALS).unwrap();
    let (controller, broker) = (edge.controller().to_string(), edge.broker().to_string());
    let arguments = ["openwhisk", "--credentials", credentials.to_str().unwrap()];
    let arguments = [&arguments[..], &["--controller", &controller, "--broker", &broker]].concat();
    let proxy = processes::Role::start("proxy", "endpoint", &arguments);
    let path = format!("{ACTIONS}/echo");
    let result = format!("{path}?blocking=true&result=true");
    let put = json!({ "parameters": [{ "key": "a", "value": 1 }] }).to_string();
    assert_eq!(ask(&proxy.endpoint, "PUT", &format!("{path}?overwrite=true"), &put).await.status, 200);
    assert_eq!(ask(&proxy.endpoint, "POST", &result, "").await.body, r#"{"a":1}"#);
    edge.until("the other door knows", async || ask(&door, "POST", &result, "").await.body == r#"{"a":1}"#).await;
    // Whoever may not deploy changes nothing, and sees nothing of another namespace.
    let eve = [("authorization", EVE), ("content-type", "application/json")];
    for (method, path) in [("PUT", format!("{path}?overwrite=true")), ("PUT", "/api/v1/namespaces/_/packages/p".into())]
    {
        assert_eq!(send(&door, method, &path, &eve, put.clone()).await.status, 403);
    }
    let package = json!({ "publish": true, "parameters": [{ "key": "b", "value": 2 }] }).to_string();
    edge.deploy("math.echo", guests::echo()).await;
    let math = "/api/v1/namespaces/guest/actions/math/echo?blocking=true&result=true";
    assert_eq!(send(&door, "POST", math, &[("authorization", BOB)], "").await.status, 403);
    assert_eq!(ask(&door, "PUT", "/api/v1/namespaces/_/packages/math", &package).await.status, 200);
    let published = send(&door, "POST", math, &[("authorization", BOB)], "").await;
    assert_eq!((published.status, published.body.as_str()), (200, r#"{"b":2}"#));
    let bobs = send(&door, "GET", ACTIVATIONS, &[("authorization", BOB)], "").await.json();
    assert_eq!((&bobs[0]["namespace"], &bobs[0]["name"]), (&json!("acme"), &json!("echo")));
    let other = "/api/v1/namespaces/guest/actions/math/echo";
    assert_eq!(send(&door, "DELETE", other, &[("authorization", BOB)], "").await.status, 403);
    // What is kept goes with its function, however that is removed.
    edge.admin.remove(&"echo".parse().unwrap()).await.unwrap();
    edge.deploy("echo", guests::echo()).await;
    edge.until("it is forgotten", async || ask(&door, "POST", &result, "").await.body == "{}").await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_openwhisks_own_client_believes_the_authority_it_is_given_and_no_other() {
    let edge = Edge::start_with(1, |config| {
        config.authority = Some(Arc::new(nigh::ca::Authority::new().unwrap()));
        config.doors = vec![(System::OpenWhisk, 0)];
        config.broker.callers = Callers::from_text(CREDENTIALS).unwrap();
        config.broker.http_clients = HttpClients::Anybody;
    })
    .await;
    edge.deploy("echo", guests::echo()).await;
    let host = format!("https://{}", edge.local().doors()[0].1);
    let authority = edge.authority().certificate();
    run_script_over_tls("openwhisk_tls.mjs", &[&host, "ada:1234", "trusted"], Some(authority)).await;
    run_script_over_tls("openwhisk_tls.mjs", &[&host, "ada:1234", "doubted"], None).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_who_their_credentials_say() {
    let (edge, door) = edge().await;
    edge.deploy("acme..own", guests::echo()).await;
    let unknown = send(&door, "GET", ACTIONS, &[], "").await;
    assert_eq!(unknown.status, 401);
    assert!(unknown.headers["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    assert_eq!(unknown.json()["code"], unknown.headers["x-request-id"].to_str().unwrap());

    let bobs = send(&door, "GET", ACTIONS, &[("authorization", BOB)], "").await.json();
    let names: Vec<_> = bobs.as_array().unwrap().iter().map(|action| &action["name"]).collect();
    assert_eq!(names, ["own"]);
    for (path, status) in [
        ("/api/v1/namespaces/acme/actions/own?blocking=true", 200),
        ("/api/v1/namespaces/_/actions/echo?blocking=true", 404),
        ("/api/v1/namespaces/guest/actions/echo?blocking=true", 403),
        ("/api/v1/namespaces/whisk.system/actions/echo", 403),
    ] {
        assert_eq!(send(&door, "POST", path, &[("authorization", BOB)], "").await.status, status, "{path}");
    }
    // Neither is another's function reached by a name that looks like it, nor another's activation by its id.
    let path = format!("{ACTIONS}/acme..own?blocking=true");
    assert_eq!(ask(&door, "POST", &path, "").await.status, 404);
    let bobs = send(&door, "GET", ACTIVATIONS, &[("authorization", BOB)], "").await.json();
    let path = format!("{ACTIVATIONS}/{}", bobs[0]["activationId"].as_str().unwrap());
    assert_eq!(send(&door, "GET", &path, &[("authorization", BOB)], "").await.status, 200);
    assert_eq!(ask(&door, "GET", &path, "").await.status, 404);

    let put = json!({ "exec": { "kind": "wasm:default", "code": "AGFzbQEAAAA=" } }).to_string();
    for (method, path) in [("PUT", format!("{ACTIONS}/new")), ("DELETE", format!("{ACTIONS}/echo"))] {
        let headers = [("authorization", EVE), ("content-type", "application/json")];
        let refused = send(&door, method, &path, &headers, put.clone()).await;
        assert_eq!(refused.status, 403, "{}", refused.body);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_wrong_has_its_status() {
    let (edge, door) = edge().await;
    let echo = format!("{ACTIONS}/echo");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat((1 << 20) - 7));
    for (method, path, body, status) in [
        ("POST", format!("{echo}?blocking=maybe"), "", 400),
        ("POST", format!("{echo}?blocking=true&timeout=60001"), "", 400),
        ("POST", echo.clone(), "[1]", 400),
        ("POST", echo.clone(), "{", 400),
        ("POST", echo.clone(), large.as_str(), 413),
        ("POST", format!("{ACTIONS}/%2e%2e%2fecho"), "", 400),
        ("POST", format!("{ACTIONS}/Echo"), "", 404),
        ("PATCH", echo.clone(), "", 405),
        ("POST", ACTIONS.into(), "", 405),
        ("GET", format!("{ACTIONS}?limit=201"), "", 400),
        ("GET", format!("{ACTIONS}?limit=-1"), "", 400),
        ("GET", format!("{ACTIVATIONS}/abc"), "", 400),
        ("GET", format!("{ACTIVATIONS}/{}", "0".repeat(32)), "", 404),
        ("GET", format!("{ACTIVATIONS}?count=true&docs=true"), "", 400),
        ("GET", "/api/v1/namespaces/_/packages/none".into(), "", 404),
        ("PUT", "/api/v1/namespaces/_/packages/New".into(), "{}", 400),
        ("PUT", "/api/v1/namespaces/_/packages/new".into(), "[", 400),
        ("POST", "/api/v1/namespaces/_/packages/new".into(), "{}", 405),
        ("DELETE", "/api/v1/namespaces/_/packages/new".into(), "", 404),
        ("PUT", format!("{ACTIONS}/new"), "{\"exec\":{\"kind\":\"sequence\",\"components\":[]}}", 400),
        ("GET", "/api/v1/web/guest/default/echo.json".into(), "", 404),
        ("GET", "/elsewhere".into(), "", 404),
        ("PUT", format!("{ACTIONS}/Upper"), "{}", 400),
        ("PUT", format!("{ACTIONS}/new"), "{", 400),
        ("PUT", format!("{ACTIONS}/new"), "{\"exec\":{\"kind\":\"wasm\",\"code\":\"AGFzbQEAAAA=\"}}", 400),
    ] {
        let told = ask(&door, method, &path, body).await;
        assert_eq!(told.status, status, "{method} {path}: {}", told.body);
        assert!(told.json()["error"].is_string() && told.json()["code"].is_string(), "{}", told.body);
    }
    let text = [("authorization", ADA), ("content-type", "text/plain")];
    assert_eq!(send(&door, "POST", &echo, &text, "hello").await.status, 415);
    let whole = &large[..large.len() - 3];
    let largest = format!("{whole}\"}}");
    assert_eq!(largest.len(), 1 << 20);
    // The function is given it, which is more than its memory holds.
    assert_eq!(ask(&door, "POST", &format!("{echo}?blocking=true"), &largest).await.status, 502);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_no_longer_finds_the_activation_later() {
    let (edge, door) = edge().await;
    deploy_endless(&edge, Duration::from_secs(2)).await;
    let path = format!("{ACTIONS}/endless?blocking=true&result=true&timeout=100");
    let waited = ask(&door, "POST", &path, "").await;
    assert_eq!(waited.status, 202, "{}", waited.body);
    let id = waited.json()["activationId"].as_str().unwrap().to_owned();
    assert_eq!(waited.headers["x-openwhisk-activation-id"], id.as_str());
    // Neither does one end whose caller goes away.
    let mut gone = TcpStream::connect(door.as_str()).await.unwrap();
    let request = format!("POST {ACTIONS}/endless?blocking=true HTTP/1.1\r\nhost: x\r\nauthorization: {ADA}\r\n\r\n");
    gone.write_all(request.as_bytes()).await.unwrap();
    edge.until("it runs", async || {
        let status = nigh_client::Inspect::new(edge.local().computers()[0].1.clone()).status().await;
        status.unwrap().load.running == 2
    })
    .await;
    drop(gone);
    edge.until("both have ended", async || {
        ask(&door, "GET", &format!("{ACTIVATIONS}?count=true"), "").await.json()["activations"] == 2
    })
    .await;
    let record = ask(&door, "GET", &format!("{ACTIVATIONS}/{id}"), "").await.json();
    assert_eq!(record["response"]["status"], "action developer error");
    assert!(record["response"]["result"]["error"].as_str().unwrap().starts_with("time-limit: "), "{record}");
    assert!(record["duration"].as_u64().unwrap() >= 2000, "{record}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_are_told_to_come_again() {
    let limits = ActivationLimits { under_way_max: 2, ..ActivationLimits::default() };
    let (edge, door) = edge_with(Callers::everybody(), limits).await;
    deploy_endless(&edge, Duration::from_secs(2)).await;
    let path = format!("{ACTIONS}/endless");
    let statuses = [ask(&door, "POST", &path, "").await, ask(&door, "POST", &path, "").await].map(|told| told.status);
    assert_eq!(statuses, [202, 202]);
    let refused = ask(&door, "POST", &path, "").await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    let limits = ask(&door, "GET", "/api/v1/namespaces/_/limits", "").await.json();
    assert_eq!(limits["concurrentInvocations"], 2);
    edge.until("there is room again", async || ask(&door, "POST", &path, "").await.status == 202).await;
    // Those under way are waited for.
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_every_form_are_results() {
    let (edge, door) = edge().await;
    edge.deploy("array", guests::constant("[1,2]")).await;
    edge.deploy("text", guests::constant("ä line")).await;
    edge.deploy("bytes", guests::constant("\\ff\\ff")).await;
    for (name, query, expected) in [
        ("array", "blocking=true", json!([1, 2])),
        ("text", "blocking=true&result=true", json!({ "payload": "ä line" })),
        ("bytes", "blocking=True&result=True", json!({ "payload_base64": "//8AAAAA" })),
    ] {
        let told = ask(&door, "POST", &format!("{ACTIONS}/{name}?{query}"), "").await;
        assert_eq!((told.status, told.json()), (200, expected), "{name}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_read_as_odd_clients_write_them() {
    let (edge, door) = edge().await;
    // A whole address in the first line, as for proxies; and slashes at the end.
    for target in
        [format!("https://elsewhere.example{ACTIONS}/?limit=0"), format!("{ACTIONS}/?"), format!("{ACTIONS}?")]
    {
        let mut connection = TcpStream::connect(door.as_str()).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: {ADA}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"name\":\"echo\""), "{target}: {answer}");
    }
    assert_eq!(ask(&door, "GET", "/api/v1/namespaces/", "").await.json(), json!(["guest"]));
    assert_eq!(send(&door, "GET", "/ping", &[], "").await.body, "pong");
    assert_eq!(send(&door, "GET", "/api/v1", &[], "").await.json()["api_version"], "1.0.0");
    let options = send(&door, "OPTIONS", ACTIONS, &[("origin", "https://page.example")], "").await;
    assert_eq!((options.status, &options.headers["access-control-allow-origin"]), (200, &"*".parse().unwrap()));
    let mine = send(&door, "GET", "/api/v1/namespaces", &[("authorization", ADA), ("x-request-id", "mine")], "").await;
    assert_eq!(mine.headers["x-request-id"], "mine");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_everybody_may_come_no_page_of_a_browser_may() {
    let (edge, door) = edge_with(Callers::everybody(), ActivationLimits::default()).await;
    edge.deploy("echo", guests::echo()).await;
    assert_eq!(send(&door, "GET", ACTIONS, &[], "").await.status, 200);
    let path = format!("{ACTIONS}/echo?blocking=true");
    let page = send(&door, "POST", &path, &[("origin", "https://page.example")], "").await;
    assert_eq!(page.status, 403);
    assert!(!page.headers.contains_key("access-control-allow-origin"));
    edge.stop().await;
}

/// Adobe's command line. It takes seconds to start, so it is asked for little.
#[tokio::test(flavor = "multi_thread")]
async fn adobes_command_line_works_unchanged() {
    let (edge, door) = edge().await;
    let home = tempfile::tempdir().unwrap();
    let aio = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("node");
        command.arg(guests::root().join("tests/clients/aio.cjs")).args(arguments).env("HOME", home.path());
        command.env("AIO_RUNTIME_APIHOST", format!("http://{door}")).env("AIO_RUNTIME_AUTH", "ada:1234");
        command.env("AIO_RUNTIME_NAMESPACE", "guest").env("AIO_RUNTIME_APIVERSION", "v1");
        run(&mut command).await
    };
    let list: Value = serde_json::from_str(&aio(&["runtime", "action", "list", "--json"]).await).unwrap();
    assert_eq!(list[0]["name"], "echo");
    let result = aio(&["runtime", "action", "invoke", "echo", "-r", "-p", "name", "Zoë"]).await;
    assert_eq!(serde_json::from_str::<Value>(&result).unwrap(), json!({ "name": "Zoë" }));
    let module = home.path().join("module.wasm");
    std::fs::write(&module, guests::constant("{}")).unwrap();
    let module = module.to_str().unwrap();
    aio(&["runtime", "action", "create", "made/new", module, "--binary", "--kind", "wasm:default"]).await;
    assert_eq!(ask(&door, "POST", &format!("{ACTIONS}/made/new?blocking=true&result=true"), "").await.body, "{}");
    let list: Value = serde_json::from_str(&aio(&["runtime", "activation", "list", "--json"]).await).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["statusCode"]), (&json!("new"), &json!(0)));
    let zipped = home.path().join("module.zip");
    std::fs::write(&zipped, archive(&guests::echo())).unwrap();
    let zipped = zipped.to_str().unwrap();
    aio(&["runtime", "action", "create", "zipped", zipped, "--kind", "wasm:default", "-p", "stored", "1"]).await;
    aio(&["runtime", "action", "create", "both", "--sequence", "zipped,echo"]).await;
    let result = aio(&["runtime", "action", "invoke", "both", "-r", "-p", "name", "Zoë"]).await;
    assert_eq!(serde_json::from_str::<Value>(&result).unwrap(), json!({ "stored": "1", "name": "Zoë" }));
    edge.stop().await;
}
