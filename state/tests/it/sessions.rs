//! What one call sees and leaves of its states.

use std::sync::Arc;
use std::time::Duration;

use nigh_proto::{CarriedState, FunctionName, Reason, StateName, StatePlace};
use nigh_state::{Access, Config, Keeper, Refusal, RemotePeers, Session, StateError};

fn keeper(config: Config) -> Arc<Keeper> {
    Keeper::new(config, "computer-1".parse().unwrap(), None, Arc::new(RemotePeers::new(None)))
}

fn states(names: &[&str]) -> Vec<StateName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

async fn open_with(
    keeper: &Arc<Keeper>,
    declared: &[&str],
    carried: &[CarriedState],
    ms: u64,
) -> Result<Session, StateError> {
    let function: FunctionName = "shop".parse().unwrap();
    let access = Access {
        function: &function,
        application: None,
        declared: &states(declared),
        carried,
        bytes_max: 8,
        until: tokio::time::Instant::now() + Duration::from_millis(ms),
        term: Duration::from_secs(1),
    };
    Session::open(keeper, access).await
}

async fn open(keeper: &Arc<Keeper>, declared: &[&str]) -> Session {
    open_with(keeper, declared, &[], 5000).await.unwrap()
}

fn text<'a>(session: &'a Session, name: &str) -> Option<&'a [u8]> {
    session.get(name).unwrap().map(|content| &content[..])
}

#[tokio::test]
async fn what_a_call_writes_is_there_once_it_has_answered_and_not_otherwise() {
    let keeper = keeper(Config::default());
    let mut session = open(&keeper, &["cart", "total"]).await;
    assert_eq!(text(&session, "cart"), None);
    session.put("cart", "apple".into()).unwrap();
    session.put("total", "3".into()).unwrap();
    assert_eq!(text(&session, "cart"), Some(&b"apple"[..]), "a call reads what it has written");
    session.commit().await.unwrap();
    let mut session = open(&keeper, &["cart"]).await;
    assert_eq!(text(&session, "cart"), Some(&b"apple"[..]));
    session.put("cart", "pear".into()).unwrap();
    drop(session);
    let mut session = open(&keeper, &["cart"]).await;
    assert_eq!(text(&session, "cart"), Some(&b"apple"[..]), "one that is dropped has written nothing");
    session.delete("cart").unwrap();
    assert_eq!(text(&session, "cart"), None);
    session.commit().await.unwrap();
    assert_eq!(text(&open(&keeper, &["cart"]).await, "cart"), None);
    let infos = keeper.list(None).await.unwrap();
    assert_eq!(infos.iter().map(|info| info.id.to_string()).collect::<Vec<_>>(), ["default/total"]);
}

#[tokio::test]
async fn a_call_touches_what_its_function_depends_on_alone_and_no_more_than_it_may_write() {
    let keeper = keeper(Config::default());
    let mut session = open(&keeper, &["cart"]).await;
    assert_eq!(session.get("other"), Err(Refusal::Undeclared("other".into())));
    assert_eq!(session.delete("other"), Err(Refusal::Undeclared("other".into())));
    let refused = session.put("cart", vec![0; 9].into()).unwrap_err();
    assert_eq!(refused, Refusal::TooLarge { state: "cart".into(), bytes: 9, limit: 8 });
    assert_eq!(text(&session, "cart"), None);
}

#[tokio::test]
async fn calls_on_one_state_are_one_after_the_other() {
    let keeper = keeper(Config { waiting_max: 1, ..Config::default() });
    let first = open(&keeper, &["a", "b"]).await;
    let late = open_with(&keeper, &["b"], &[], 20).await.unwrap_err();
    assert!(matches!(late, StateError::Late(_)), "{late}");
    let second = tokio::spawn({
        let keeper = keeper.clone();
        async move { open(&keeper, &["b", "a"]).await }
    });
    // On this one thread, it waits as soon as it has run.
    tokio::task::yield_now().await;
    let crowded = open_with(&keeper, &["a"], &[], 20).await.unwrap_err();
    assert_eq!(nigh_proto::PlatformError::from(crowded).reason, Reason::QueueFull);
    drop(first);
    second.await.unwrap();
}

#[tokio::test]
async fn what_travels_with_a_call_is_read_and_comes_back_changed() {
    let keeper = keeper(Config::default());
    let carried = |name: &str, by: &str| CarriedState {
        name: name.parse().unwrap(),
        place: StatePlace::Content("old".into()),
        needed_by: vec![by.parse().unwrap()],
    };
    let mut session = open_with(&keeper, &["s0"], &[carried("s0", "shop"), carried("s1", "bank")], 1000).await.unwrap();
    assert_eq!(text(&session, "s0"), Some(&b"old"[..]));
    assert!(session.get("s1").is_err(), "another function depends on that one");
    session.put("s0", "new".into()).unwrap();
    let back = session.commit().await.unwrap();
    assert_eq!(back, [CarriedState { place: StatePlace::Content("new".into()), ..carried("s0", "shop") }]);
    assert!(keeper.list(None).await.unwrap().is_empty(), "it is the caller's");
}

#[tokio::test]
async fn no_caller_has_a_computer_connect_to_anywhere() {
    let keeper = keeper(Config { older_hosts: vec!["10.1.1.1".into()], ..Config::default() });
    keeper.set_endpoint("127.0.0.1:9".parse().unwrap());
    let at = |location: &str| CarriedState {
        name: "s0".parse().unwrap(),
        place: StatePlace::At(location.parse().unwrap()),
        needed_by: vec!["shop".parse().unwrap()],
    };
    let refused = open_with(&keeper, &[], &[at("10.1.1.2:80")], 1000).await.unwrap_err();
    assert!(matches!(refused, StateError::Foreign(_)), "{refused}");
    let missing = open_with(&keeper, &[], &[at("127.0.0.1:9")], 1000).await.unwrap_err();
    assert!(missing.to_string().contains("no such state here"), "{missing}");
}

#[tokio::test]
async fn a_full_store_says_so_and_nothing_is_written() {
    let keeper = keeper(Config { bytes_max: 40, ..Config::default() });
    let mut session = open(&keeper, &["a", "b"]).await;
    session.put("a", "12345678".into()).unwrap();
    session.put("b", "12345678".into()).unwrap();
    let error = session.commit().await.unwrap_err();
    assert!(matches!(error, StateError::Unsaved(_)), "{error}");
    assert_eq!(nigh_proto::PlatformError::from(error).reason, Reason::StateUnsaved);
    let session = open(&keeper, &["a", "b"]).await;
    assert_eq!((text(&session, "a"), text(&session, "b")), (None, None));
}
