//! Computers whose hardware is modelled, as real processes beside others: what they answer through a broker, to either system,
//! and what is seen of them.

use std::time::Duration;

use nigh_proto::older::rpc;
use nigh_proto::older::rpc::edge_server_client::EdgeServerClient;
use nigh_proto::{Call, Outcome, Reply, channel};
use nigh_tests::guests;
use nigh_tests::processes::{Processes, Role, nigh};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
/// What a Raspberry Pi takes for a call with 1000 bytes that has a core of its own.
const TAKES: Duration = Duration::from_micros(10_040);

fn lambda(bytes: usize) -> Call {
    Call::new("clambda0".parse().unwrap(), vec![b'x'; bytes], LONG)
}

async fn invoke(edge: &Processes, call: Call) -> Reply {
    edge.caller().invoke(call).await.unwrap()
}

async fn until_it_routes_to_lambdas(edge: &Processes) {
    edge.until("the broker routes to what is modelled", async || {
        let probe = Call { dry_run: true, ..lambda(0) };
        edge.caller().invoke(probe).await.is_ok()
    })
    .await;
}

/// What a command of the program prints; it has to succeed.
async fn printed(arguments: &[&str]) -> String {
    let mut command = nigh();
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modelled_edge_answers_both_systems_and_shows_how_busy_it_is() {
    let edge = Processes::start_with(2, "backend = \"modelled\"\nhardware = \"raspberry\"\n").await;
    until_it_routes_to_lambdas(&edge).await;
    let reply = invoke(&edge, lambda(1000)).await;
    assert!(matches!(&reply.outcome, Outcome::Answer { payload, .. } if payload.len() == 1000), "{reply:?}");
    assert_eq!((reply.timing.queue, reply.timing.run), (Duration::ZERO, TAKES));
    assert_eq!((reply.hops, reply.version, reply.load.workers), (1, None, 4));
    let Outcome::Estimate(estimate) = invoke(&edge, Call { dry_run: true, ..lambda(1000) }).await.outcome else {
        panic!("no estimate")
    };
    assert_eq!((estimate.queue, estimate.run, estimate.modelled), (Duration::ZERO, TAKES, true));

    let mut older = EdgeServerClient::new(channel::connect_lazy(&edge.broker.endpoint));
    let request = rpc::LambdaRequest { name: "glambda0".into(), input: "x".repeat(999), ..Default::default() };
    let answer = older.run_lambda(request).await.unwrap().into_inner();
    assert_eq!((answer.retcode.as_str(), answer.output.len(), answer.ptime, answer.hops), ("OK", 999, 10, 2));
    assert!(edge.computers.iter().any(|computer| computer.endpoint.as_str() == answer.responder), "{answer:?}");

    // Nearly a minute of work for one of the four cores of one of them.
    let caller = edge.caller();
    let busy = tokio::spawn(async move {
        caller.invoke(Call { deadline: std::time::Instant::now() + 3 * LONG, ..lambda(5_000_000) }).await
    });
    utilisation_is_printed(&edge).await;
    busy.abort();
}

async fn utilisation_is_printed(edge: &Processes) {
    let controller = edge.controller.endpoint.as_str();
    let shares = |told: &str| -> Vec<(String, f32)> {
        let column = |line: &str| {
            let columns: Vec<&str> = line.split(' ').collect();
            assert!(columns.len() == 3 && columns[0].parse::<f64>().is_ok(), "{told}");
            (columns[1].to_owned(), columns[2].parse().unwrap())
        };
        told.lines().map(column).collect()
    };
    let of_all = shares(&printed(&["utilisation", "--controller", controller, "--samples", "4"]).await);
    assert_eq!(of_all.len(), 16, "four of two processors of two computers: {of_all:?}");
    let is_quarter = |(name, share): &(String, f32)| name.ends_with("/arm") && *share == 0.25;
    assert!(of_all.iter().any(is_quarter), "one of four cores: {of_all:?}");
    assert!(of_all.iter().all(|(name, _)| name.starts_with("computer-")), "{of_all:?}");

    let one = edge.computers[0].endpoint.as_str();
    let of_one = shares(&printed(&["utilisation", one, "--samples", "1"]).await);
    assert_eq!(of_one.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["arm", "bm2837"]);
    let json = printed(&["utilisation", one, "--samples", "1", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["load"]["workers"], &json["computer"]), (&6.into(), &one.into()));

    let top = printed(&["top", "--controller", controller, "--once", "--interval", "100ms"]).await;
    assert_eq!(top.lines().filter(|line| line.contains("modelled")).count(), 2, "{top}");
    assert!(top.lines().any(|line| line.starts_with("clambda0")), "{top}");
}

#[tokio::test(flavor = "multi_thread")]
async fn modelled_computers_and_others_share_an_edge() {
    let edge = Processes::start(1).await;
    let at = edge.controller.endpoint.to_string();
    let hardware = "type=raspberry,num-cpu-containers=1,num-cpu-workers=1,num-gpu-containers=0,num-gpu-workers=1";
    let own = ["--controller", &at, "--name", "modelled", "--backend", "modelled", "--hardware", hardware];
    let modelled = Role::start("computer", "endpoint", &own);
    until_it_routes_to_lambdas(&edge).await;
    // Ready where modules run; the modelled one has no part in it.
    edge.try_deploy("echo", guests::echo(), nigh_proto::Limits::default()).await.unwrap();
    assert_eq!(edge.answer("echo", "hello").await, "hello");
    assert_eq!(invoke(&edge, lambda(1000)).await.computer.as_str(), "modelled");
    drop(modelled);
}
