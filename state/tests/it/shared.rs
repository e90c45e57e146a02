//! States in a store that all computers share: nothing moves, and calls are one after the other all the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nigh_proto::{FunctionName, StateName};
use nigh_state::{Access, Config, Keeper, RemotePeers, Session, StateError};

use crate::PATIENCE;
use crate::nats_server::NatsServer;

fn keeper(server: &NatsServer, number: usize) -> Arc<Keeper> {
    let config = Config { place: Some(server.place()), ..Config::default() };
    let name = format!("computer-{number}").parse().unwrap();
    Keeper::new(config, name, None, Arc::new(RemotePeers::new(None)))
}

async fn open(keeper: &Arc<Keeper>, names: &[&str]) -> Result<Session, StateError> {
    let function: FunctionName = "tally".parse().unwrap();
    let declared: Vec<StateName> = names.iter().map(|name| name.parse().unwrap()).collect();
    let access = Access {
        function: &function,
        application: None,
        declared: &declared,
        carried: &[],
        bytes_max: 100,
        until: tokio::time::Instant::now() + PATIENCE,
        term: Duration::from_secs(1),
    };
    Session::open(keeper, access).await
}

async fn add(keeper: Arc<Keeper>, names: &[&str]) -> u64 {
    let began = Instant::now();
    let mut session = loop {
        match open(&keeper, names).await {
            // Nothing is written yet, and a server that a busy machine keeps from answering may be asked again.
            Err(StateError::Unreadable(_)) if began.elapsed() < PATIENCE => {}
            opened => break opened.unwrap(),
        }
    };
    let mut counts = BTreeSet::new();
    for name in names {
        let count = session.get(name).unwrap().map_or(0, |count| std::str::from_utf8(count).unwrap().parse().unwrap());
        session.put(name, (count + 1).to_string().into()).unwrap();
        counts.insert(count + 1);
    }
    session.commit().await.unwrap();
    assert_eq!(counts.len(), 1, "both are of one call");
    counts.into_iter().next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn computers_that_share_a_store_share_its_states() {
    let Some(mut server) = NatsServer::start() else { return };
    let keepers = [keeper(&server, 0), keeper(&server, 1)];
    let calls = (0..12).map(|n| {
        let names: &[&str] = if n % 3 == 0 { &["b", "a"] } else { &["a", "b"] };
        tokio::spawn(add(keepers[n % 2].clone(), names))
    });
    let mut seen = BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        assert!(seen.insert(call.await.unwrap()), "an update was lost");
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    // What is given up has written nothing, and gives its lease back.
    let mut session = open(&keepers[0], &["a"]).await.unwrap();
    session.put("a", "0".into()).unwrap();
    drop(session);
    assert_eq!(add(keepers[1].clone(), &["a", "b"]).await, 13);
    server.kill();
    server.start_again();
    assert_eq!(add(keepers[0].clone(), &["a", "b"]).await, 14);
    let infos = keepers[1].list(None).await.unwrap();
    assert!(infos.len() == 2 && infos.iter().all(|info| info.is_shared && info.is_held), "{infos:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_slept_through_its_lease_writes_nothing() {
    let Some(server) = NatsServer::start() else { return };
    let keepers = [keeper(&server, 0), keeper(&server, 1)];
    let mut sleeper = open(&keepers[0], &["a"]).await.unwrap();
    sleeper.put("a", "100".into()).unwrap();
    // Its lease ends some seconds after its call may have run.
    assert_eq!(add(keepers[1].clone(), &["a"]).await, 1);
    let error = sleeper.commit().await.unwrap_err();
    assert!(matches!(error, StateError::Conflict(_)), "{error}");
    assert_eq!(add(keepers[0].clone(), &["a"]).await, 2);
}
