//! Computers whose functions run elsewhere, as real processes: in OpenWhisk, for which another edge's door for its clients stands
//! here, and behind URLs.

use std::time::Duration;

use nigh_doors::{Callers, System};
use nigh_proto::tls::HttpClients;
use nigh_proto::{Call, Outcome, Reason, Reply};
use nigh_tests::edge::{Edge, answer};
use nigh_tests::guests;
use nigh_tests::processes::Role;

use super::clients::send;

const CREDENTIALS: &str = "ada:1234 guest\n";

/// A file in a folder of its own.
fn file(text: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, text).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

async fn edge_with_door(system: System) -> Edge {
    Edge::start_with(1, |config| {
        config.doors = vec![(system, 0)];
        config.broker.callers = Callers::from_text(CREDENTIALS).unwrap();
    })
    .await
}

/// The same over TLS, for whoever shows credentials.
async fn secured_edge_with_door(system: System) -> Edge {
    let authority = std::sync::Arc::new(nigh::ca::Authority::new().unwrap());
    Edge::start_with(1, |config| {
        config.authority = Some(authority);
        config.doors = vec![(system, 0)];
        config.broker.callers = Callers::from_text(CREDENTIALS).unwrap();
        config.broker.http_clients = HttpClients::Anybody;
    })
    .await
}

/// A computer of this edge whose functions are at a URL.
fn computer(edge: &Edge, backend: &str, url: &str, further: &[&str]) -> Role {
    let controller = edge.controller().to_string();
    let arguments = ["--controller", &controller, "--name", "far", "--backend", backend, "--url", url];
    Role::start("computer", "endpoint", &[&arguments[..], further].concat())
}

async fn until_called(edge: &Edge, name: &str, payload: &'static str) -> Reply {
    edge.until("it is routed to", async || {
        let probe = Call::new(name.parse().unwrap(), "", Duration::from_secs(5));
        edge.caller.invoke(Call { dry_run: true, ..probe }).await.is_ok()
    })
    .await;
    edge.call(name, payload).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_go_out_to_openwhisk_and_come_back_by_its_door() {
    let edge = edge_with_door(System::OpenWhisk).await;
    edge.deploy("math.echo", guests::echo()).await;
    edge.deploy("trap", guests::native("", "unreachable")).await;
    let (_folder, auth) = file(b"ada:1234\n");
    let url = format!("http://{}", edge.local().doors()[0].1);
    let functions = ["--auth-file", &auth, "--function", "far=math/echo", "--function", "far-trap=/guest/trap"];
    let far = computer(&edge, "openwhisk", &url, &functions);
    let reply = until_called(&edge, "far", r#"{"a":[1,"ä"]}"#).await;
    assert_eq!((reply.computer.as_str(), reply.version), ("far", None));
    assert!(reply.timing.run > Duration::ZERO && reply.load.workers == 64, "{reply:?}");
    assert_eq!(answer(reply), r#"{"a":[1,"ä"]}"#);
    assert_eq!(edge.answer("far", "no object").await, r#"{"payload":"no object"}"#);
    let Outcome::Error { kind, message } = edge.call("far-trap", "").await.unwrap().outcome else { panic!() };
    assert!(kind == "failed" && message.contains("trap"), "{kind}: {message}");
    // Both edges' functions beside each other: what is deployed runs where it did.
    let own = edge.call("math.echo", "own").await.unwrap();
    assert!(own.computer.as_str() != "far" && own.version.is_some());
    let dry = Call { dry_run: true, ..Call::new("far".parse().unwrap(), "{}", Duration::from_secs(5)) };
    let Outcome::Estimate(estimate) = edge.caller.invoke(dry).await.unwrap().outcome else { panic!() };
    assert!(estimate.samples == 2 && estimate.run > Duration::ZERO && !estimate.modelled, "{estimate:?}");
    drop(far);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_actions_of_a_host_over_tls_are_offered_as_they_come_and_go() {
    let there = secured_edge_with_door(System::OpenWhisk).await;
    there.deploy("echo", guests::echo()).await;
    let here = Edge::start(1).await;
    let (_auth, auth) = file(b"ada:1234\n");
    let (_ca, ca) = file(there.authority().certificate().as_bytes());
    let url = format!("https://{}", there.local().doors()[0].1);
    let common = ["--auth-file", &auth, "--refresh", "100ms"];
    // The system's own authorities do not vouch for it.
    let doubting = computer(&here, "openwhisk", &url, &common);
    let trusting = ["--name", "trusting", "--remote-ca", &ca];
    let controller = here.controller().to_string();
    let arguments = ["--controller", &controller, "--backend", "openwhisk", "--url", &url];
    let far = Role::start("computer", "endpoint", &[&arguments[..], &common, &trusting].concat());
    let reply = until_called(&here, "echo", "{}").await;
    assert_eq!((reply.computer.as_str(), answer(reply.clone()).as_str()), ("trusting", "{}"));
    there.deploy("later", guests::echo()).await;
    assert_eq!(answer(until_called(&here, "later", r#"{"b":2}"#).await), r#"{"b":2}"#);
    there.admin.remove(&"echo".parse().unwrap()).await.unwrap();
    here.until("what is gone there is gone here", async || {
        let computers = here.listing().await.computers;
        // Beside this edge's own computer there is the one that trusts its host.
        let far: Vec<_> = computers.iter().filter(|computer| !computer.own_functions.is_empty()).collect();
        computers.len() == 2 && far.len() == 1 && far[0].own_functions == ["later".parse().unwrap()]
    })
    .await;
    drop((doubting, far));
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_an_openfaas_gateway_over_tls_are_offered_as_it_lists_them() {
    let there = secured_edge_with_door(System::OpenFaas).await;
    there.deploy("echo", guests::echo()).await;
    there.deploy("trap", guests::native("", "unreachable")).await;
    let here = Edge::start(1).await;
    let (_folder, auth) = file(b"ada:1234\n");
    let (_ca, ca) = file(there.authority().certificate().as_bytes());
    let url = format!("https://{}/function/{{function}}", there.local().doors()[0].1);
    let far = computer(&here, "http", &url, &["--auth-file", &auth, "--remote-ca", &ca]);
    let reply = until_called(&here, "echo", "hello").await;
    assert_eq!((reply.computer.as_str(), answer(reply.clone()).as_str()), ("far", "hello"));
    let Outcome::Error { kind, message } = here.call("trap", "").await.unwrap().outcome else { panic!() };
    assert!(kind.starts_with("http-5") && message.contains("trap"), "{kind}: {message}");
    drop(far);
    here.stop().await;
    there.stop().await;
}

/// Two edges, each of which has functions run by the other: what neither has itself goes back and forth no more than so often.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_two_edges_send_each_other_ends_at_the_hop_limit() {
    for (system, backend) in [(System::OpenWhisk, "openwhisk"), (System::OpenFaas, "http")] {
        let (one, other) = (edge_with_door(system).await, edge_with_door(system).await);
        one.deploy("of-one", guests::echo()).await;
        other.deploy("of-other", guests::echo()).await;
        let (_folder, auth) = file(b"ada:1234\n");
        let url = |edge: &Edge| match system {
            System::OpenWhisk => format!("http://{}", edge.local().doors()[0].1),
            _ => format!("http://{}/function/{{function}}", edge.local().doors()[0].1),
        };
        // Each lists the other, and is told of what is deployed there alone: nothing is announced round and round.
        let listing = ["--auth-file", &auth, "--refresh", "50ms"];
        let lists = [computer(&one, backend, &url(&other), &listing), computer(&other, backend, &url(&one), &listing)];
        assert_eq!(answer(until_called(&one, "of-other", "{}").await), "{}");
        assert_eq!(answer(until_called(&other, "of-one", "{}").await), "{}");
        for (edge, own) in [(&one, "of-other"), (&other, "of-one")] {
            let far = edge.listing().await.computers.into_iter().find(|computer| computer.name.as_str() == "far");
            assert_eq!(far.unwrap().own_functions, [own.parse().unwrap()]);
        }
        drop(lists);
        // Each says that the other has it.
        let named = ["--auth-file", &auth, "--function", "ping"];
        let named = [computer(&one, backend, &url(&other), &named), computer(&other, backend, &url(&one), &named)];
        for edge in [&one, &other] {
            edge.until("it is routed to", async || {
                let probe = Call::new("ping".parse().unwrap(), "", Duration::from_secs(5));
                edge.caller.invoke(Call { dry_run: true, ..probe }).await.is_ok()
            })
            .await;
        }
        let refused = one.call("ping", "{}").await.unwrap_err();
        assert_eq!(refused.reason, Reason::LoopDetected, "{backend}: {refused}");
        assert!(refused.message.contains("508") && refused.message.contains("circle"), "{refused}");
        drop(named);
        one.stop().await;
        other.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_refuse_what_was_passed_on_too_often() {
    let edge = Edge::start_with(1, |config| {
        config.doors = System::ALL.map(|system| (system, 0)).into();
        config.broker.callers = Callers::everybody();
    })
    .await;
    edge.deploy("echo", guests::echo()).await;
    edge.deploy("web", guests::built("rust")).await;
    let doors = edge.local().doors();
    let at = |system| doors.iter().find(|(of, _)| *of == system).unwrap().1.clone();
    let openwhisk = "/api/v1/namespaces/_/actions/echo?blocking=true&result=true";
    let lambda = "/2015-03-31/functions/echo/invocations";
    for (door, path, status, word) in [
        (at(System::OpenWhisk), openwhisk, 508, "passed on 9 times"),
        (at(System::Lambda), lambda, 400, "passed on 9 times"),
        (at(System::OpenFaas), "/function/echo", 508, "loop-detected"),
        (at(System::OpenFaas), "/function/web/hello", 508, "loop-detected"),
        (edge.http(), "/function/echo", 508, "loop-detected"),
    ] {
        let passed = |list| [("content-type", "application/json"), ("cdn-loop", list)];
        let told = send(&door, "POST", path, &passed("cloudflare; loops=1, nigh;hops=9"), "{}").await;
        assert!(told.status == status && told.body.contains(word), "{path}: {} {}", told.status, told.body);
        let told = send(&door, "POST", path, &passed("cloudflare; loops=9, nigh;hops=7"), "{}").await;
        assert_eq!(told.status, 200, "{path}: {}", told.body);
    }
    edge.stop().await;
}
