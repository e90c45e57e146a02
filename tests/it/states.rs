//! States of applications through a real edge: read and written by functions wherever these run, kept through kills, and the
//! same for clients of the older system.

mod keyvalue;
mod older;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use nigh_client::{Admin, Caller, CallerLimits, DeployRequest, StateContent};
use nigh_flow::Definition;
use nigh_proto::{Call, Endpoint, Limits, Outcome, Placement, PlatformError, Reason, Remote, Reply, Role, StateId};
use nigh_tests::edge::{Edge, answer};
use nigh_tests::guests;
use nigh_tests::processes::Processes;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

pub(crate) async fn deploy(admin: &Admin, name: &str, module: Bytes, states: &[&str], places: &[&str]) {
    let request = DeployRequest {
        name: name.parse().unwrap(),
        limits: Limits { state_bytes: 100, ..Limits::default() },
        directories: Vec::new(),
        hosts: Vec::new(),
        placement: Placement::new(places.iter().map(|place| place.parse().unwrap())).unwrap(),
        states: states.iter().map(|state| state.parse().unwrap()).collect(),
    };
    let deployed = admin.deploy(request, module, |_| {}).await.unwrap().deployment;
    admin.await_ready(&deployed.name, deployed.version, LONG, |_| {}).await.unwrap();
}

fn call(name: &str, payload: &str) -> Call {
    Call::new(name.parse().unwrap(), payload.to_owned(), LONG)
}

fn id(state: &str) -> StateId {
    StateId { application: "default".parse().unwrap(), state: state.parse().unwrap() }
}

fn error_kind(reply: Result<Reply, PlatformError>) -> String {
    match reply.unwrap().outcome {
        Outcome::Error { kind, .. } => kind,
        other => panic!("{other:?} is no error"),
    }
}

fn at(endpoint: &Endpoint) -> Caller {
    Caller::new(endpoint.clone(), CallerLimits::default())
}

async fn content(admin: &Admin, state: &str) -> Option<String> {
    let found = admin.state(&id(state)).await.unwrap();
    found.map(|StateContent { content, .. }| String::from_utf8(content.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_read_and_write_states_wherever_they_run() {
    let edge = Edge::start(2).await;
    deploy(&edge.admin, "obey", guests::built("misbehaving"), &["a", "b"], &[]).await;
    let computers: Vec<_> = edge.local().computers().iter().map(|(_, endpoint)| at(endpoint)).collect();
    // At once, at both: each call sees what the one before has left, wherever that ran.
    let calls =
        (0..24).map(|n| computers[n % 2].invoke(call("obey", if n % 3 == 0 { "tally b a" } else { "tally a b" })));
    let mut seen = BTreeSet::new();
    for reply in futures_util::future::join_all(calls).await {
        let answer = answer(reply.unwrap());
        let counts: Vec<u32> = answer.split(' ').map(|count| count.parse().unwrap()).collect();
        assert_eq!(counts[0], counts[1], "both states are of one call");
        assert!(seen.insert(counts[0]), "{} twice", counts[0]);
    }
    assert_eq!(seen.last(), Some(&24));
    assert_eq!(
        (content(&edge.admin, "a").await, content(&edge.admin, "b").await),
        (Some("24".into()), Some("24".into()))
    );

    // What fails has written nothing, at whichever computer.
    for (n, payload) in ["tally-and-fail a", "tally-and-panic a b"].into_iter().enumerate() {
        let kind = error_kind(computers[n].invoke(call("obey", payload)).await);
        assert!(kind == "failed" || kind == "panic", "{kind}");
    }
    assert_eq!(answer(computers[1].invoke(call("obey", "get a")).await.unwrap()), "24");
    assert_eq!(error_kind(computers[0].invoke(call("obey", "get c")).await), "undeclared-state");
    assert_eq!(error_kind(computers[0].invoke(call("obey", "put c x")).await), "undeclared-state");
    assert_eq!(error_kind(computers[0].invoke(call("obey", "fill a 101")).await), "state-too-large");
    assert_eq!(answer(computers[0].invoke(call("obey", "fill a 100")).await.unwrap()), "put");
    assert_eq!(answer(computers[1].invoke(call("obey", "get a")).await.unwrap()).len(), 100);
    assert_eq!(answer(computers[0].invoke(call("obey", "delete a")).await.unwrap()), "deleted");
    assert_eq!(answer(computers[1].invoke(call("obey", "get a")).await.unwrap()), "nothing");

    // Another application has states of its own.
    let mut shop = call("obey", "tally b");
    shop.application = Some("shop".parse().unwrap());
    assert_eq!(answer(edge.caller.invoke(shop).await.unwrap()), "1");
    assert_eq!(edge.answer("obey", "tally b").await, "25");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_look_after_states_and_flows_share_them() {
    let edge = Edge::start(2).await;
    let guest = guests::built("misbehaving");
    deploy(&edge.admin, "one", guest.clone(), &["visits"], &[]).await;
    deploy(&edge.admin, "two", guest, &["visits"], &[]).await;
    assert_eq!(edge.admin.state(&id("visits")).await.unwrap(), None);
    assert_eq!(edge.admin.put_state(&id("visits"), "7".into(), Some(0)).await.unwrap(), 1);
    let conflict = edge.admin.put_state(&id("visits"), "8".into(), Some(0)).await.unwrap_err();
    assert_eq!(conflict.reason, Reason::StateConflict, "{conflict}");
    assert_eq!(edge.answer("one", "tally visits").await, "8");
    assert_eq!(edge.answer("two", "tally visits").await, "9");
    let mut flow = call("whole", "tally visits");
    flow.flow = Some(
        Definition::from_toml("[[steps]]\nfunction = 'one'\n[[steps]]\nfunction = 'two'\nafter = []\n").unwrap().flow,
    );
    let reply = edge.caller.invoke(flow).await.unwrap();
    let parts = answer(reply);
    assert!(parts == "1011" || parts == "1110", "side by side, and yet one after the other: {parts}");
    let (states, silent) = edge.admin.states(None).await.unwrap();
    assert!(silent.is_empty());
    assert_eq!(states.len(), 1);
    assert_eq!((states[0].id.clone(), states[0].bytes, states[0].is_held), (id("visits"), 2, true));
    assert!(edge.admin.remove_state(&id("visits")).await.unwrap());
    assert!(!edge.admin.remove_state(&id("visits")).await.unwrap());
    assert_eq!(edge.answer("one", "tally visits").await, "1");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_computers_hand_states_over_and_operators_alone_look_at_them() {
    let edge = Edge::start_secured(2).await;
    deploy(&edge.admin, "obey", guests::built("misbehaving"), &["visits"], &[]).await;
    let with = |role, name, endpoint: &Endpoint| Remote::new(endpoint.clone(), Some(edge.certificate(role, name)));
    for n in 0..4 {
        let endpoint = &edge.local().computers()[n % 2].1;
        let caller = Caller::new(with(Role::Client, "ada", endpoint), CallerLimits::default());
        assert_eq!(answer(caller.invoke(call("obey", "tally visits")).await.unwrap()), (n + 1).to_string());
    }
    assert_eq!(content(&edge.admin, "visits").await.as_deref(), Some("4"));
    let client = Admin::new(with(Role::Client, "ada", &edge.controller()));
    let refused = client.state(&id("visits")).await.unwrap_err();
    assert!(refused.message.contains("may not read states"), "{refused}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_named_over_http_too() {
    let edge = Edge::start(1).await;
    deploy(&edge.admin, "obey", guests::built("misbehaving"), &["visits"], &[]).await;
    let tallied = async |application: &str| {
        let headers = format!("nigh-application: {application}\r\ncontent-length: 12\r\n");
        ask(&edge.http(), "POST /function/obey", &headers, "tally visits").await
    };
    assert_eq!(tallied("shop").await, (200, "1".into()));
    assert_eq!(edge.answer("obey", "tally visits").await, "1");
    assert_eq!(tallied("shop").await, (200, "2".into()));
    assert_eq!(tallied("No Such").await.0, 400);
    edge.stop().await;
}

/// Status and body of an answer over HTTP.
async fn ask(door: &Endpoint, what: &str, headers: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(door.as_str()).await.unwrap();
    let request = format!("{what} HTTP/1.0\r\nhost: x\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn get(door: &Endpoint, path: &str) -> (u16, String) {
    ask(door, &format!("GET {path}"), "", "").await
}

/// Computers are killed while a state moves between them: what was answered is there, once.
#[tokio::test(flavor = "multi_thread")]
async fn no_answered_update_is_lost_when_computers_are_killed() {
    let mut edge = Processes::start(2).await;
    deploy(&edge.admin(), "obey", guests::built("misbehaving"), &["visits"], &[]).await;
    edge.until_ready("obey").await;
    let (mut told, mut unknown) = (0, 0);
    for round in 0..3 {
        let callers: Vec<_> = edge.computers.iter().map(|computer| at(&computer.endpoint)).collect();
        let calls = tokio::spawn(async move {
            let (mut told, mut unknown) = (0, 0);
            for n in 0..16 {
                let mut call = call("obey", "tally visits");
                call.deadline = std::time::Instant::now() + Duration::from_secs(2);
                match callers[n % 2].invoke(call).await {
                    Ok(Reply { outcome: Outcome::Answer { .. }, .. }) => told += 1,
                    Err(error) if error.reason.certainly_not_started() => {}
                    Ok(_) | Err(_) => unknown += 1,
                }
            }
            (told, unknown)
        });
        // Somewhere within a move.
        tokio::time::sleep(Duration::from_millis(30 + 37 * round)).await;
        let computer = &mut edge.computers[round as usize % 2];
        computer.kill();
        computer.start_again().await;
        let counted = calls.await.unwrap();
        told += counted.0;
        unknown += counted.1;
        edge.until_ready("obey").await;
    }
    let caller = edge.caller();
    edge.until("the state is at hand again", async || caller.invoke(call("obey", "get visits")).await.is_ok()).await;
    let found: u32 = answer(caller.invoke(call("obey", "get visits")).await.unwrap()).parse().unwrap();
    assert!((told..=told + unknown).contains(&found), "{found} of {told}, and perhaps {unknown} more");
    assert!(told > 0);
    let (states, _) = edge.admin().states(None).await.unwrap();
    assert_eq!(states.iter().filter(|state| state.is_held).count(), 1, "{states:?}");
}
