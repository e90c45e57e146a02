//! Flows through a real edge: driven by the broker and step by step, joined, failed, forecast.

use std::time::Duration;

use nigh_flow::Definition;
use nigh_proto::{Acceptance, Call, Flow, Outcome, PlatformError, Reason, Reply};
use nigh_tests::edge::Edge;
use nigh_tests::guests;

fn of(text: &str) -> Flow {
    Definition::from_toml(text).unwrap().flow
}

fn call(flow: &Flow, payload: &str) -> Call {
    let mut call = Call::new("whole".parse().unwrap(), payload.to_owned(), Duration::from_secs(20));
    call.flow = Some(flow.clone());
    call
}

fn answer(reply: &Reply) -> &[u8] {
    match &reply.outcome {
        Outcome::Answer { payload, .. } => payload,
        other => panic!("{other:?} is no answer"),
    }
}

async fn edge_with(computers: usize, functions: &[&str]) -> Edge {
    let edge = Edge::start(computers).await;
    for function in functions {
        edge.deploy(function, guests::built(function)).await;
    }
    edge
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_stays_on_one_computer_and_tells_of_each_step() {
    let edge = edge_with(2, &["echo", "shout", "sha256"]).await;
    let reply = edge.caller.invoke(call(&of("chain = ['echo', 'shout', 'echo', 'sha256']"), "abc")).await.unwrap();
    let digest = "b5d4045c3f466fa91fe2cc6abe79232a1a57cdf104f7a26e716e0a1e2789df78";
    assert_eq!(String::from_utf8_lossy(answer(&reply)).trim(), digest, "SHA-256 of ABC");
    let steps: Vec<_> = reply.steps.iter().map(|ran| ran.step.as_ref().unwrap().as_str()).collect();
    assert_eq!(steps, ["echo", "shout", "echo-2", "sha256"]);
    assert!(reply.steps.iter().all(|ran| ran.computer == reply.steps[0].computer), "{:?}", reply.steps);
    assert!(reply.steps.iter().all(|ran| !ran.timing.run.is_zero()), "{:?}", reply.steps);
    assert_eq!(reply.hops, 1, "one call to one computer ran all of it");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_join_whichever_computers_ran_them() {
    let edge = edge_with(2, &["echo", "shout"]).await;
    let flow = of("[[steps]]\nname='echo'\n[[steps]]\nname='loud'\nfunction='shout'\nafter=[]\n\
                   [[steps]]\nname='join'\nfunction='echo'\nafter=['echo','loud']");
    for _ in 0..50 {
        let reply = edge.caller.invoke(call(&flow, "abc")).await.unwrap();
        assert_eq!(answer(&reply), b"abcABC");
        assert_eq!(reply.steps.len(), 3);
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_fails_the_flow_with_the_way_to_it() {
    let edge = edge_with(1, &["echo", "shout"]).await;
    let failed = edge.caller.invoke(call(&of("chain = ['echo', 'shout', 'echo']"), "123")).await.unwrap();
    let Outcome::Error { kind, message } = &failed.outcome else { panic!("{failed:?}") };
    assert_eq!(kind, "exit");
    assert!(message.starts_with("echo → shout: "), "{message}");

    let unknown = edge.caller.invoke(call(&of("chain = ['echo', 'nobody']"), "x")).await.unwrap_err();
    let PlatformError { reason, message, .. } = &unknown;
    assert_eq!(*reason, Reason::UnknownFunction);
    assert!(message.starts_with("echo → nobody: "), "{message}");
    assert_eq!(edge.answer("echo", "still here").await, "still here");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_forecasts_the_whole_and_runs_nothing() {
    let edge = edge_with(1, &["echo", "shout"]).await;
    let flow = of("chain = ['echo', 'shout']");
    let asked = Call { dry_run: true, ..call(&flow, "abc") };
    let Outcome::Estimate(unknown) = edge.caller.invoke(asked.clone()).await.unwrap().outcome else { panic!() };
    assert_eq!(unknown.samples, 0, "nothing has run yet, so nothing is known");
    for _ in 0..3 {
        edge.caller.invoke(call(&flow, "abc")).await.unwrap();
    }
    let Outcome::Estimate(known) = edge.caller.invoke(asked).await.unwrap().outcome else { panic!() };
    assert!(known.samples >= 3 && !known.run.is_zero(), "{known:?}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computer_takes_functions_but_no_flows() {
    let edge = edge_with(1, &["echo"]).await;
    let computer = edge.listing().await.computers[0].endpoint.clone();
    let direct = nigh_client::Caller::new(computer, nigh_client::CallerLimits::default());
    let refused = direct.invoke(call(&of("chain = ['echo']"), "x")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Malformed);
    assert!(refused.message.contains("broker"), "{refused}");

    let then = vec!["echo".parse().unwrap(), "nobody".parse().unwrap(), "echo".parse().unwrap()];
    let asked = Call { then, ..Call::new("echo".parse().unwrap(), "x", Duration::from_secs(20)) };
    let reply = direct.invoke(asked).await.unwrap();
    assert_eq!((answer(&reply), reply.steps.len()), (&b"x"[..], 2), "it goes on as far as it can");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_may_be_run_later_as_a_whole() {
    let edge = edge_with(1, &["echo", "shout"]).await;
    let queue = nigh_client::CallQueue::new(edge.broker(), &nigh_client::CallerLimits::default());
    let timeout = Duration::from_secs(20);
    let call = call(&of("chain = ['echo', 'shout']"), "abc");
    let accepted = queue.accept(&Acceptance { call, timeout, callback: None }).await.unwrap();
    let reply = queue.result(&accepted.id, timeout).await.unwrap().expect("it ends in time").unwrap();
    assert_eq!((answer(&reply), reply.steps.len()), (&b"ABC"[..], 2));
    edge.stop().await;
}
