//! Actions of OpenWhisk as functions of a computer, against a server that does as its script says.

use nigh_proto::Reason;
use nigh_runtime::{Config, RemoteApi, RemoteSettings};

use super::server::{Asked, Server, Told, tell};
use super::{announced, computer, http, kind_and_message, payload, with, within};
use crate::role::{FakeController, start};
use crate::set_up::*;

fn openwhisk(server: &Server, functions: &[&str]) -> RemoteSettings {
    let root = server.url("").parse().unwrap();
    let api = RemoteApi::OpenWhisk { root, namespace: "_".into(), payload_only: false };
    RemoteSettings { api, credentials: Some("ada:1234".parse().unwrap()), ..http("http://x/{function}", functions) }
}

/// Answers as OpenWhisk does, with 450 actions, and one whose activation takes a while.
fn whisk(asked: Asked) -> Told {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    if asked.header("authorization") != "Basic YWRhOjEyMzQ=" {
        return tell(401, &[], r#"{"error":"who are you?"}"#);
    }
    match path.strip_prefix("/api/v1/namespaces").unwrap() {
        "" => tell(200, &[], r#"["guest"]"#),
        "/_/actions" => {
            let skip: usize = query.rsplit_once("skip=").unwrap().1.parse().unwrap();
            let names = (skip..450.min(skip + 200)).map(|n| format!(r#"{{"namespace":"guest/p","name":"a{n}"}}"#));
            tell(200, &[], format!("[{}]", names.collect::<Vec<_>>().join(",")))
        }
        "/_/actions/slow" => tell(202, &[], r#"{"activationId":"0123abc"}"#),
        "/_/activations/0123abc" => {
            let record = r#"{"response":{"success":true,"status":"success","result":{"late":[1]}}}"#;
            tell(200, &[], record)
        }
        "/_/actions/lost" => tell(202, &[], r#"{"activationId":"../../admin"}"#),
        "/_/actions/never" => tell(202, &[], r#"{"activationId":"999"}"#),
        "/_/actions/fails" => tell(502, &[], r#"{"error":{"code":7}}"#),
        "/_/actions/before" => tell(502, &[], "<html>Bad Gateway</html>"),
        "/_/actions/breaks" => tell(500, &[], r#"{"error":"whisk"}"#),
        "/_/actions/busy" => tell(429, &[], r#"{"error":"Too many requests"}"#),
        "/_/actions/p/a7" => tell(200, &[], asked.body),
        _ => tell(404, &[], r#"{"error":"The requested resource does not exist."}"#),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_of_openwhisk_are_listed_page_by_page_and_called() {
    let server = Server::start(whisk).await;
    let (controller, at) = FakeController::start().await;
    let computer = computer(Config { controller: Some(at.into()), ..with(openwhisk(&server, &[])) }).await;
    until("they are announced", || announced(&controller).len() == 450).await;
    assert_eq!(payload(computer.invoke(call("p.a7", r#"{"a":1}"#)).await), r#"{"a":1}"#);
    assert_eq!(payload(computer.invoke(call("p.a7", "text")).await), r#"{"payload":"text"}"#);
    let asked = server.asked("/api/v1/namespaces/_/actions/p/a7").remove(0);
    assert!(asked.path.contains("?blocking=true&result=true&timeout="), "{}", asked.path);
    let large = computer.invoke(call("p.a7", vec![b'x'; (1 << 20) + 1])).await.unwrap_err();
    assert_eq!(large.reason, Reason::TooLarge);
    // One that is gone is looked for at once.
    let looked = server.asked("/api/v1/namespaces/_/actions?").len();
    assert_eq!(computer.invoke(call("p.a8", "{}")).await.unwrap_err().reason, Reason::UnknownFunction);
    until("it looks again", || server.asked("/api/v1/namespaces/_/actions?").len() > looked).await;
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn activations_are_followed_and_failures_of_openwhisk_are_told_apart() {
    let server = Server::start(whisk).await;
    let names = ["slow", "lost", "never", "fails", "breaks", "before", "busy", "other"];
    let computer = computer(with(openwhisk(&server, &names))).await;
    assert_eq!(payload(computer.invoke(call("slow", "{}")).await), r#"{"late":[1]}"#);
    // Where the machine is busy, the connection's own time-out may come first.
    let mut never = computer.invoke(within(500, call("never", "{}"))).await.unwrap_err();
    while !never.message.contains("activation 999") {
        assert_eq!(never.reason, Reason::Late, "{never}");
        never = computer.invoke(within(1000, call("never", "{}"))).await.unwrap_err();
    }
    assert_eq!(never.reason, Reason::Late, "{never}");
    assert!(server.asked("/api/v1/namespaces/_/activations/999").len() >= 2, "asked more than once");
    let (kind, message) = kind_and_message(computer.invoke(call("fails", "{}")).await);
    assert_eq!((kind.as_str(), message.as_str()), ("failed", r#"{"code":7}"#));
    for (name, reason) in [
        ("lost", Reason::Disconnected),
        ("breaks", Reason::Disconnected),
        ("before", Reason::Disconnected),
        ("busy", Reason::TooBusy),
        ("other", Reason::UnknownFunction),
    ] {
        assert_eq!(computer.invoke(call(name, "{}")).await.unwrap_err().reason, reason, "{name}");
    }
    assert!(server.asked("/admin").is_empty());
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_result_only_the_text_is_answered_where_that_is_wanted() {
    let server = Server::start(whisk).await;
    let mut settings = openwhisk(&server, &["p.a7"]);
    let RemoteApi::OpenWhisk { payload_only, .. } = &mut settings.api else { panic!() };
    *payload_only = true;
    let computer = computer(with(settings)).await;
    assert_eq!(payload(computer.invoke(call("p.a7", "text")).await), "text");
    assert_eq!(kind_and_message(computer.invoke(call("p.a7", r#"{"other":1}"#)).await).0, "malformed-answer");
    computer.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_refused_are_told_of_and_not_repeated() {
    let server = Server::start(whisk).await;
    let settings = RemoteSettings { credentials: Some("eve:s3cret".parse().unwrap()), ..openwhisk(&server, &[]) };
    let config = with(settings);
    let telemetry = config.telemetry.clone();
    let computer = start(config).await;
    until("it says why", || telemetry.readiness().is_err_and(|why| why.contains("refuses the credentials"))).await;
    assert!(!telemetry.readiness().unwrap_err().contains("s3cret"));
    computer.shutdown.cancel();
}
